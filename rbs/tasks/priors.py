"""Semantic priors of a training: whose they are, and of which images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rbs.distillation.prior_cache import PriorCache
from rbs.errors import CheckpointError, RbsError
from rbs.restorers.base import Restorer
from rbs.restorers.image_domain import Domain
from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array, Spacing
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.labels import LABELLED
from rbs.segmentation.prior import SemanticPrior
from rbs.segmentation.segmenter import Segmenter, facts_of
from rbs.tasks.task import Batch, require_rest, spacing_of
from rbs.weights.shipped import teacher_folder

PriorArgument = SemanticPrior | Callable[[Tensor], SemanticPrior]
"""The prior argument of `rbs.distillation.cascade.Cascade`."""


@dataclass(frozen=True)
class PriorConfig:
    """Semantic priors of stage 2: who gives them, and the images they are of.

    Attributes:
        source: "cached" and "frozen": a segmenter's of the whole rapid scan that a crop is of, as
            the stage-1 restorer restores it, read from files or computed at each step in the
            training process. "online": a segmenter's of the current restoration of what is trained
            on. "truth": true masks, which bound from above what the best of segmenters could bring.
            "placebo": true masks of another child, which bring the capacity that masks need, and
            nothing else. Both are masks alone and need no segmenter.
        teacher: The segmenter, file or folder of an adapted SAM.
        embedding_dim: Channels of its embedding: 128 of the small SAM, 256 of Meta's, 64 of
            the `DynUNet` that ships, 48 of one with the class's default filters; 0 uses masks
            alone.
        base_checkpoint: Base weights of that SAM; None for the shipped or downloaded ones.
        cache: Folder of the files.
    """

    source: Literal["cached", "frozen", "online", "truth", "placebo"] = "cached"
    teacher: Path | None = None
    embedding_dim: int = 128
    base_checkpoint: Path | None = None
    cache: Path = Path("runs/priors")

    @property
    def labelled(self) -> bool:
        """True where masks are labels, not a segmenter's."""
        return self.source in ("truth", "placebo")


class Priors:
    """The prior of each crop and whole scan of a training.

    No module: the frozen networks that priors come from stay outside the module tree, so that
    neither checkpoints nor weight averaging carry them.

    Args:
        config: Whose they are.
        images: Domain of what is restored.
        timed: Makes the context in which the segmenter's time is counted.

    Attributes:
        stage1: The frozen restorer whose restorations the segmenter sees; set by the task.
        sha256: Of the segmenter's file; None without one.
    """

    def __init__(
        self, config: PriorConfig, images: Domain, timed: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self.config, self.images, self._timed = config, images, timed
        self.stage1: Restorer | None = None
        self.sha256: str | None = None
        self._segmenter: Segmenter | None = None
        self._cache: PriorCache | None = None

    def load_segmenter(self, stage1_sha256: str | None, *, crops: bool) -> None:
        """Load the segmenter.

        Args:
            stage1_sha256: Of the weights of `stage1`, on which stored priors depend, too.
            crops: It is to see crops.

        Raises:
            RbsError: None is named.
            CheckpointError: It does not fit.
        """
        config = self.config
        if config.teacher is None:
            fault = "SPI and SCM need a segmenter, but none is named"
            remedy = (
                "give the folder of `make adapt-sam`, or the file of any segmenter, as --model.prior.teacher,"
                " or switch spi and scm off"
            )
            raise RbsError(fault, remedy=remedy)
        loaded = load_segmenter(teacher_folder(config.teacher), config.base_checkpoint)
        segmenter = loaded.segmenter
        if config.embedding_dim not in (0, segmenter.embedding_dim) and not config.labelled:
            fault = f"its embedding has {segmenter.embedding_dim} channels, not {config.embedding_dim}"
            remedy = f"set --model.prior.embedding_dim {segmenter.embedding_dim}, or 0 to use masks alone"
            raise CheckpointError(fault, file=config.teacher, remedy=remedy)
        if segmenter.images.shows != self.images.shows:
            fault = f"it was trained on {segmenter.images.shows}, but f1 restores {self.images.shows}"
            remedy = "adapt one to these with `make adapt-sam`"
            raise CheckpointError(fault, file=config.teacher, remedy=remedy)
        if crops and not segmenter.reads_crops:
            fault = "it knows regions by where they lie in the body, and online priors show it crops"
            remedy = "set --model.prior.source cached"
            raise CheckpointError(fault, file=config.teacher, remedy=remedy)
        self._segmenter, self.sha256 = segmenter, loaded.sha256
        self._cache = PriorCache(config.cache, f"{loaded.sha256} {stage1_sha256}")

    def attach(self, data: Any, device: torch.device) -> None:
        """Let a data module attach priors to its samples; those of the cache are computed first.

        Raises:
            RbsError: The training pairs are drawn afresh each time, so that no whole rapid scan
                exists.
        """
        if self._cache is None or self.config.source not in ("cached", "frozen"):
            return
        computed = partial(self.of_counts, device=device)
        if self.config.source == "frozen":
            data.attach_priors(computed)
        else:
            data.attach_priors(self._cache.read, fill=computed)

    def of_crops(self, batch: Batch) -> PriorArgument:
        """The prior of a batch of training crops.

        Raises:
            RbsError: It needs labels, which a case does not have or which lie elsewhere.
        """
        if self.config.labelled:
            require_rest(batch)
            return self._labelled(batch)
        if self.config.source == "online":
            return self._online(batch)
        prior: SemanticPrior = batch["prior"]
        return prior

    def of_scan(self, batch: Batch) -> PriorArgument:
        """The prior of one whole scan or frame.

        Raises:
            RbsError: It needs labels, which the case does not have.
        """
        if self.config.labelled:
            return self._labelled(batch)
        if self.config.source == "online":
            return self._online(batch)
        (row, column), rapid = spacing_of(batch)[0].tolist(), batch["rapid"]
        counts, exposure = rapid[0].cpu().numpy(), float(batch["exposure"][0])
        rounded = self.of_counts(counts, exposure, (row, column), device=rapid.device)
        return rounded.decoded().to(rapid.device)

    def of_counts(
        self, counts: Array, exposure: float, spacing_mm: Spacing, *, device: torch.device
    ) -> SemanticPrior:
        """Rounded prior (1, V, ...) of a whole rapid scan as the frozen stage 1 restores it.

        Args:
            counts: Counts (V, H, W), or colours (3, H, W).
            exposure: Their exposure relative to the standard scan.
            spacing_mm: Row and column spacing, mm.
            device: Of the networks. The prior is on the CPU.
        """

        def compute(counts: Array, exposure: float, spacing_mm: Spacing) -> SemanticPrior:
            assert self.stage1 is not None
            x = torch.as_tensor(standard_scale(counts.astype(np.float32), exposure), device=device)[None]
            p, spacing = facts_of(exposure, spacing_mm, device)
            # Priors must not depend on whether they are asked for inside a mixed-precision step.
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                return self._found(self.stage1.to(device)(x, p), p, spacing)

        if self._cache is None or self.config.source == "frozen":
            return compute(counts, exposure, spacing_mm).to("cpu").rounded()
        return self._cache.get_or_compute(counts, exposure, spacing_mm, compute)

    def embed(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """The segmenter's embedding of crops, for SCM; arguments as of `Segmenter.forward`."""
        assert self._segmenter is not None
        with self._timed():
            return self._segmenter.to(x.device).embed(x, exposure, spacing_mm)

    def _found(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> SemanticPrior:
        assert self._segmenter is not None
        with self._timed(), torch.no_grad():
            return self._segmenter.to(x.device).prior(x, exposure, spacing_mm)

    def _online(self, batch: Batch) -> Callable[[Tensor], SemanticPrior]:
        return lambda restored: self._found(restored, batch["exposure"], spacing_of(batch))

    def _labelled(self, batch: Batch) -> SemanticPrior:
        """The prior of a batch whose masks are true ones, its own or another patient's."""
        source = self.config.source
        name = "labels" if source == "truth" else "other_labels"
        if name not in batch:
            patients = "two patients of each split" if source == "placebo" else "every case"
            raise RbsError(
                f"prior.source: {source} needs the true regions of {patients}, but there is no"
                f" {LABELLED[self.images.shows].labelled_by}",
                remedy="train on cases that have them all, or set --model.prior.source cached",
            )
        return SemanticPrior.of_labels(batch[name], self.images)
