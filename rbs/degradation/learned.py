"""Degradation learned from good and poor images that are not of the same patients.

Thinning simulates a faster scan exactly; it needs no learning. The blur, scatter and filter of
another camera do: a model learns them from the expected counts of good scans and from the counts of
poor ones. It acts on expectations; Poisson counts are drawn afterwards. `rbs.degradation.frames` is
the same for frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.errors import CheckpointError, ScanError
from rbs.restorers.image_domain import ImageKind
from rbs.scans.body import body_mask
from rbs.scans.counts import where_scanned
from rbs.scans.resampling import resample_expectation
from rbs.scans.scan import Array, Spacing
from rbs.utils.checkpoint import RETRAIN, describe, save_modules
from rbs.weights.module_file import ModuleFile, read_module

Terms = dict[str, Tensor]

COARSEST = 1.25
"""Pixels of good scans may be this many times as wide as those of the poor ones."""

UNSEEN = 1e-4
"""Expected counts over the level of a scan below which, in all of a row, it was not scanned."""


_Model = TypeVar("_Model", bound="DegradationModel")


class DegradationModel(nn.Module, ABC):
    """From good images to poor ones of other patients.

    Attributes:
        shows: Kind of its images.
    """

    shows: ClassVar[ImageKind]

    @abstractmethod
    def prepare(self, *args: Any, **measured: Any) -> None:
        """Take what a data module measures of its images, which is not trained."""

    @abstractmethod
    def losses(self, *args: Any, **batch: Any) -> Terms:
        """Terms of the training loss of a batch of a data module, their sum "total"."""


class ScanDegradation(DegradationModel):
    """From expectations of good scans to those of poor ones, view by view, in multiples of a level.

    The level of a scan is the mean of its counts over the body (`level_of`): brighter scans are
    degraded alike.

    Attributes:
        spacing_mm: Row and column spacing of the scans it was trained on, mm.
        noise: Filter of the noise of the poor scans.
    """

    shows = "scans"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.ones(2))
        self.register_buffer("filter", torch.zeros(2))
        self.grid: Tensor
        self.filter: Tensor

    @property
    def spacing_mm(self) -> Spacing:
        """See the class."""
        row, column = self.grid.tolist()
        return row, column

    @property
    def noise(self) -> NoiseFilter:
        """See the class."""
        cutoff, order = self.filter.tolist()
        return NoiseFilter(cutoff, order) if cutoff > 0 else WHITE

    def prepare(
        self, good: Sequence[Array], levels: Sequence[float], spacing_mm: Spacing, noise: NoiseFilter
    ) -> None:
        """Take what is measured, not trained.

        Args:
            good: Expectations of good scans in multiples of their level, (V, H, W) each.
            levels: Levels of the poor scans, counts.
            spacing_mm: Row and column spacing of all scans, mm.
            noise: Filter of the noise of the poor ones.
        """
        self.grid.copy_(torch.tensor(spacing_mm))
        if not noise.white:
            self.filter.copy_(torch.tensor([noise.cutoff_per_mm, noise.order]))

    @abstractmethod
    def losses(self, good: Tensor, poor: Tensor, level: Tensor) -> Terms:
        """Terms of the training loss, their sum "total".

        Args:
            good: Crops of good expectations in multiples of their level, (B, 1, H, W).
            poor: Crops of counts of poor scans of other patients, (B, 1, H, W).
            level: Level of the poor scans, counts, (B,).
        """

    @abstractmethod
    def degrade(self, good: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade whole views (B, 1, H, W).

        Args:
            good: Expectations in multiples of their level.
            generator: Source of randomness.

        Returns:
            Expectations of the same shape, but for a factor of each scan.
        """


def level_of(counts: Array, spacing_mm: Spacing) -> float:
    """Mean counts over the body of a scan (V, H, W)."""
    return float(counts[body_mask(counts, spacing_mm)].mean())


def good_on_grid(expectation: Array, spacing_mm: Spacing, onto: Spacing) -> Array:
    """The expectation of a good scan (V, H, W) on the pixels of poor scans, its counts kept.

    Args:
        expectation: Expected counts.
        spacing_mm: Its row and column spacing, mm.
        onto: That of the poor scans, mm.

    Raises:
        ScanError: Its own pixels are so coarse that it is no good scan on these.
    """
    if max(given / own for given, own in zip(spacing_mm, onto, strict=True)) > COARSEST:
        given, own = (" x ".join(f"{side:.4g}" for side in sides) for sides in (spacing_mm, onto))
        fault = f"pixels of {given} mm are too coarse to stand for the {own} mm of the poor scans"
        raise ScanError(fault, remedy="give finer good scans, or learn from poor scans of such pixels")
    return resample_expectation(expectation, spacing_mm, onto)


@dataclass(frozen=True)
class LearnedDegrader(ModuleFile[ScanDegradation]):
    """A degradation of scans from a file: a `rbs.degradation.Degrader` of expected scans."""

    @property
    def spacing_mm(self) -> Spacing:
        """Row and column spacing of the scans that it degrades, mm."""
        return self.module.spacing_mm

    @property
    def noise(self) -> NoiseFilter:
        """Filter of the noise of the poor scans, by which counts are drawn."""
        return self.module.noise

    def on_grid(self, expectation: Array, spacing_mm: Spacing) -> Array:
        """The expectation of a scan (V, H, W) on pixels of `spacing_mm`, its counts kept.

        Raises:
            ScanError: As `good_on_grid`.
        """
        return good_on_grid(expectation, spacing_mm, self.spacing_mm)

    def __call__(self, image: Array, rng: np.random.Generator, /) -> Array:
        """Degrade the expectation of a scan.

        Args:
            image: Expected counts, aligned (V, H, W), on pixels of `spacing_mm`.
            rng: Source of all randomness.

        Returns:
            Expected counts of the poor scan, float32 (V, H, W), whose sum is that of `image`; none
            in rows above and below what was scanned.

        Raises:
            ScanError: The image is not expected counts of one or two views.
        """
        image = np.asarray(image, np.float32)
        if image.ndim != 3 or len(image) > 2 or not np.isfinite(image).all() or (image < 0).any():
            fault = f"{self.name} degrades expected counts (1 or 2 views, H, W), not {image.shape}"
            raise ScanError(fault, remedy="give aligned, finite counts of a scan")
        if not image.any():
            raise ScanError("there are no counts to degrade", remedy="give the expectation of a scan")
        level = level_of(image, self.spacing_mm)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        with torch.inference_mode():
            found = self.module.degrade(torch.from_numpy(image / level)[:, None], generator)[:, 0].numpy()
        found = where_scanned(np.maximum(found, 0), image > UNSEEN * level)
        return (found * (image.sum(dtype=np.float64) / found.sum(dtype=np.float64))).astype(np.float32)

    def expose(self, expectation: Array, rng: np.random.Generator) -> Array:
        """Draw the exported counts of a poor scan from its expectation (V, H, W)."""
        return self.noise.expose(expectation, self.spacing_mm, rng)


def save_degrader(path: str | Path, model: DegradationModel, provenance: dict[str, Any]) -> None:
    """Write a model and the record of its making, replacing an older file whole.

    Raises:
        OutputError: The file cannot be written.
    """
    save_modules(path, {"": model}, {**describe(model), "provenance": provenance})


def load_degrader(path: str | Path) -> LearnedDegrader:
    """Read a degrader of scans from a file of `save_degrader`.

    Raises:
        CheckpointError: As `read_degradation`, or it states no pixel size.
    """
    found = read_degradation(path, ScanDegradation)  # type: ignore[type-abstract]
    if not min(found.module.spacing_mm) > 0:
        raise CheckpointError("it states no pixel size", file=Path(path), remedy=RETRAIN)
    return LearnedDegrader(**vars(found))


def read_degradation(path: str | Path, kind: type[_Model]) -> ModuleFile[_Model]:
    """Read a model from a file of `save_degrader`.

    Args:
        path: The file.
        kind: The models of one kind of images.

    Raises:
        CheckpointError: The file is missing, damaged or not that of the card beside it, holds no
            degrader, or one of other images.
    """
    found = read_module(path, DegradationModel, "train one with `make train-degrader`")  # type: ignore[type-abstract]
    if not isinstance(found.module, kind):
        fault = f"it degrades {found.module.shows}, not {kind.shows}"
        remedy = f"give a degrader that was trained on {kind.shows}"
        raise CheckpointError(fault, file=Path(path), remedy=remedy)
    return found  # type: ignore[return-value]
