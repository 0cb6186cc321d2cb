"""Training of restorers: stage 1 the first alone, stage 2 the cascade with semantic priors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from rbs.data.manifest import manifest_record
from rbs.distillation.cascade import Cascade, save_cascade
from rbs.distillation.objective import cascade_losses
from rbs.distillation.prior_cache import PriorCache, as_stored
from rbs.distillation.scm import SCM
from rbs.distillation.skd import SKD
from rbs.distillation.spi import SPI
from rbs.errors import CheckpointError, RbsError
from rbs.losses import Charbonnier, Loss, PoissonDeviance
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import describe_lightning, load_restorer, save_restorer
from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array, Spacing
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.labels import LABELLED
from rbs.segmentation.prior import SemanticPrior
from rbs.segmentation.segmenter import facts_of
from rbs.tasks.profiler import TEACHER
from rbs.tasks.task import Batch, TrainingTask, images_of, require_expectation, require_same_start, spacing_of
from rbs.tasks.validation import frame_scores, pooled, scan_scores
from rbs.utils.version import VERSION
from rbs.weights.shipped import teacher_folder

DEFAULTS: dict[str, tuple[Callable[[], Loss], Callable[[Tensor, Batch], dict[str, float]]]] = {
    "scans": (PoissonDeviance, scan_scores),
    "frames": (Charbonnier, frame_scores),
}
"""Reconstruction loss and validation scores by the kind of image."""


@dataclass(frozen=True)
class PriorConfig:
    """Semantic priors of stage 2: the segmenter that gives them, and the images it looks at.

    Attributes:
        source: "cached" and "frozen": the whole rapid scan a crop is of, as the stage-1 restorer
            restores it, read from files or computed at each step in the training process.
            "online": the current restoration of what is trained on. "truth": as "cached", with
            true masks in place of the segmenter's, which bounds from above what a better one could
            do.
        teacher: The segmenter, file or folder of an adapted SAM; needed with `spi` or `scm`.
        embedding_dim: Channels of its embedding: 128 of the small SAM, 256 of Meta's, 64 of
            the `DynUNet` that ships, 48 of one with the class's default filters.
        base_checkpoint: Base weights of that SAM; None for the shipped or downloaded ones.
        cache: Folder of the files.
    """

    source: Literal["cached", "frozen", "online", "truth"] = "cached"
    teacher: Path | None = None
    embedding_dim: int = 128
    base_checkpoint: Path | None = None
    cache: Path = Path("runs/priors")


_CACHED = PriorConfig()


class RestorationTask(TrainingTask):
    """Training of a `Cascade`, validated on whole scans, or on frames where f1 restores frames.

    The constructor reads no file: weights and teacher are loaded when fitting or evaluating begins.
    The teacher stays outside the module tree, so that neither checkpoints nor weight averaging
    carry it.

    Args:
        f1: First restorer, the one that ships.
        f2: Second restorer, stage 2 only. None takes the class and arguments of `f1`, starting from
            the identity.
        stage: 1 trains f1 alone; 2 trains all, starting from `init_from`.
        spi: Whether the second restorer sees the semantic prior (stage 2).
        skd: Whether the second restorer teaches the first (stage 2).
        scm: Whether both restorations must mean the same to the teacher (stage 2).
        skd_weight: Factor of the SKD term. Most of the deviance is noise that no restorer can fit:
            good and poor ones differ by about a thousandth, and at 0.1 SKD outweighs that (see
            docs/method.md).
        scm_weight: Factor of the SCM term.
        losses: Reconstruction losses; None for the Poisson deviance alone, or Charbonnier's of
            colours.
        prior: Teacher and semantic priors of stage 2.
        lr: Peak learning rate of AdamW.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero over the whole
            training.
        init_from: Weights of f1 to start from, .safetensors or .ckpt; stage 2 needs them.
        output: Folder to which the trained restorer is written, as `restorer.safetensors`; stage 2
            adds `cascade.safetensors` with f2 and SPI. None: the command line puts in the run's own
            folder.
    """

    def __init__(
        self,
        f1: Restorer,
        f2: Restorer | None = None,
        stage: Literal[1, 2] = 1,
        spi: bool = True,
        skd: bool = True,
        scm: bool = True,
        skd_weight: float = 0.002,
        scm_weight: float = 0.1,
        losses: list[Loss] | None = None,
        prior: PriorConfig = _CACHED,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        init_from: Path | None = None,
        output: Path | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output)
        # Modules are remembered by how to build them: checkpoints then hold plain data, which loads
        # without running code.
        built: dict[str, Any] = {
            "f1": f1.spec(),
            "f2": f2 and f2.spec(),
            "losses": losses and [loss.spec() for loss in losses],
            "prior": asdict(prior),
        }
        self.save_hyperparameters(ignore=list(built))
        self.save_hyperparameters(built)
        self.stage, self.prior, self.init_from = stage, prior, init_from
        self.skd_weight, self.scm_weight = skd_weight, scm_weight
        self.losses = nn.ModuleList(losses or [DEFAULTS[f1.images.shows][0]()])
        if stage == 1:
            self.cascade = Cascade(f1)
        else:
            f2 = f2 or type(f1)(**{**f1.spec()["init_args"], "sigma_px": 0.0})
            self.cascade = Cascade(
                f1,
                f2,
                SPI(prior.embedding_dim, domain=f1.domain) if spi else None,
                SKD(f1.feature_channels, f2.feature_channels, f1.domain) if skd else None,
                SCM() if scm else None,
            )
        # A dict hides modules from the module tree: "teacher", and "stage1", the frozen restorer it
        # looks at.
        self._outside: dict[str, nn.Module] = {}
        self._cache: PriorCache | None = None
        self._init_sha256: str | None = None
        self._teacher_sha256: str | None = None
        self._scores: dict[int, tuple[str, dict[str, float]]] = {}

    # --- weights and teacher

    def setup(self, stage: str) -> None:
        """Load initial weights, and the teacher where it is needed.

        Raises:
            RbsError: Stage 2 lacks the stage-1 weights or the teacher.
            CheckpointError: One of them does not fit.
        """
        if stage == "fit" or self.cascade.spi is not None:
            self._load_stage1(into_f1=stage == "fit")
        scm = self.cascade.scm is not None
        if self.cascade.spi is not None or (stage == "fit" and scm):
            self._load_teacher(crops=stage == "fit" and (self.prior.source == "online" or scm))

    def _load_stage1(self, *, into_f1: bool) -> None:
        if self.init_from is None:
            if self.stage == 2:
                remedy = "run `make train-stage1` and give its restorer.safetensors as --model.init_from"
                raise RbsError(
                    "stage 2 starts from the weights of stage 1, but none are named", remedy=remedy
                )
            return
        loaded = load_restorer(self.init_from)
        if loaded.restorer.spec() != self.cascade.f1.spec():
            fault = f"it holds {loaded.restorer.spec()}, but the model's f1 is {self.cascade.f1.spec()}"
            raise CheckpointError(fault, file=self.init_from, remedy="make --model.f1 the same")
        self._init_sha256 = loaded.sha256
        if into_f1:
            self.cascade.f1.load_state_dict(loaded.restorer.state_dict())
        if self.stage == 2:
            self._outside["stage1"] = loaded.restorer.requires_grad_(False)

    def _load_teacher(self, *, crops: bool) -> None:
        config = self.prior
        if config.teacher is None:
            fault = "SPI and SCM need a teacher, but none is named"
            remedy = (
                "give the folder of `make adapt-sam`, or the file of any segmenter, as --model.prior.teacher,"
                " or switch spi and scm off"
            )
            raise RbsError(fault, remedy=remedy)
        loaded = load_segmenter(teacher_folder(config.teacher), config.base_checkpoint)
        teacher, shows = loaded.segmenter, self.cascade.f1.images.shows
        if teacher.embedding_dim != config.embedding_dim:
            fault = f"its embedding has {teacher.embedding_dim} channels, not {config.embedding_dim}"
            remedy = f"set --model.prior.embedding_dim {teacher.embedding_dim}"
            raise CheckpointError(fault, file=config.teacher, remedy=remedy)
        if teacher.images.shows != shows:
            fault = f"it was trained on {teacher.images.shows}, but f1 restores {shows}"
            remedy = "adapt one to these with `make adapt-sam`"
            raise CheckpointError(fault, file=config.teacher, remedy=remedy)
        if crops and not teacher.reads_crops:
            fault = "it knows regions by where they lie in the body, and online priors and SCM show it crops"
            remedy = "set --model.prior.source cached and --model.scm false"
            raise CheckpointError(fault, file=config.teacher, remedy=remedy)
        self._outside["teacher"], self._teacher_sha256 = teacher, loaded.sha256
        self._cache = PriorCache(config.cache, f"{loaded.sha256} {self._init_sha256}")

    # --- training

    def forward(self, x: Tensor, exposure: Tensor) -> Tensor:
        """The first restorer: what runs at the bedside."""
        return self.cascade.f1(x, exposure)

    def on_fit_start(self) -> None:
        """Let the data module attach priors to its samples; those of the cache are computed first.

        Raises:
            RbsError: The training pairs are drawn afresh each time, so that no whole rapid scan
                exists, or a loss does not suit their targets.
        """
        require_expectation(self.losses, self.datamodule)  # type: ignore[arg-type]
        if self.prior.source == "online" or "teacher" not in self._outside:
            return
        if self.prior.source == "frozen":
            self.datamodule.attach_priors(self._scan_prior)
        else:
            assert self._cache is not None
            self.datamodule.attach_priors(self._cache.read, fill=self._scan_prior)
            self.trainer.strategy.barrier()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on a batch of crops."""
        x = images_of(batch, self.cascade.f1.images)
        out = self.cascade(x, batch["exposure"], self._prior_of_crops(batch))
        facts = batch["exposure"], spacing_of(batch)
        terms = cascade_losses(
            self.cascade,
            out,
            batch["target"],
            batch["target_exposure"],
            losses=list(self.losses),  # type: ignore[arg-type]
            skd_weight=self.skd_weight,
            scm_weight=self.scm_weight,
            analyser=lambda restored: self._analyse(restored, *facts),
            displacement=batch.get("displacement"),
            facts=batch,
        )
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=len(x))
        return self.total(batch, terms)

    # --- semantic priors

    def _on_device(self, name: str) -> nn.Module:
        return self._outside[name].to(self.device)

    def _profiled(self) -> AbstractContextManager[Any]:
        """Count the time spent in here to the teacher (`rbs.tasks.profiler`)."""
        return self.trainer.profiler.profile(TEACHER)  # type: ignore[attr-defined]

    def _analyse(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        with self._profiled():
            return self._on_device("teacher").embed(x, exposure, spacing_mm)  # type: ignore[operator]

    def _teach(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> SemanticPrior:
        with self._profiled(), torch.no_grad():
            return self._on_device("teacher").prior(x, exposure, spacing_mm)  # type: ignore[operator]

    def _online(self, batch: Batch) -> Callable[[Tensor], SemanticPrior]:
        return lambda restored: self._teach(restored, batch["exposure"], spacing_of(batch))

    def _prior_of_crops(self, batch: Batch) -> SemanticPrior | Callable[[Tensor], SemanticPrior] | None:
        """The prior argument of `Cascade` for a batch of crops."""
        if "teacher" not in self._outside:
            return None
        if self.prior.source == "online":
            return self._online(batch)
        return self._with_true_masks(batch["prior"], batch)

    def _prior_of_scan(self, batch: Batch) -> SemanticPrior | Callable[[Tensor], SemanticPrior] | None:
        """The prior argument of `Cascade` for one whole scan or frame."""
        if self.cascade.spi is None:
            return None
        if self.prior.source == "online":
            return self._online(batch)
        row, column = spacing_of(batch)[0].tolist()
        prior = self._scan_prior(batch["rapid"][0].cpu().numpy(), float(batch["exposure"][0]), (row, column))
        return self._with_true_masks(prior.to(self.device), batch)

    def _with_true_masks(self, prior: SemanticPrior, batch: Batch) -> SemanticPrior:
        """The prior of a batch, with true masks where those are asked for."""
        if self.prior.source != "truth":
            return prior
        if "labels" not in batch:
            labelled = LABELLED[self.cascade.f1.images.shows]
            raise RbsError(
                f"prior.source: truth needs the true regions, but a case has no {labelled.labelled_by}",
                remedy="train on cases that have them all, or set --model.prior.source cached",
            )
        return prior.with_masks_of(batch["labels"])

    def _scan_prior(self, counts: Array, exposure: float, spacing_mm: Spacing) -> SemanticPrior:
        """Prior (1, V, ...) of a whole rapid scan as the frozen stage-1 restorer restores it."""

        def compute(counts: Array, exposure: float, spacing_mm: Spacing) -> SemanticPrior:
            x = torch.as_tensor(standard_scale(counts.astype(np.float32), exposure), device=self.device)[None]
            p, spacing = facts_of(exposure, spacing_mm, self.device)
            # Priors must not depend on whether they are asked for inside a mixed-precision step.
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                return self._teach(self._on_device("stage1")(x, p), p, spacing)

        if self._cache is None or self.prior.source == "frozen":
            return as_stored(compute(counts, exposure, spacing_mm))
        return self._cache.get_or_compute(counts, exposure, spacing_mm, compute)

    # --- evaluation on whole scans

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Restore a whole scan or frame and score it."""
        x = images_of(batch, self.cascade.f1.images)
        out = self.cascade(x, batch["exposure"], self._prior_of_scan(batch))
        _, score = DEFAULTS[self.cascade.f1.images.shows]
        scores = score(out.i1, batch)
        if out.i2 is not None:
            scores |= {f"{name}_f2": value for name, value in score(out.i2, batch).items()}
        self._scores[int(batch["case"][0])] = (batch["patient"][0], scores)

    def on_validation_epoch_end(self) -> None:
        """Log the scores, averaged over the visits of a patient first, then over patients."""
        self._log_scores("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As `validation_step`."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """As `on_validation_epoch_end`."""
        self._log_scores("test")

    def _log_scores(self, split: str) -> None:
        parts: list[Any] = [self._scores]
        if self.trainer.world_size > 1:
            parts = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(parts, self._scores)
        # By case: the distributed sampler hands some cases out twice.
        merged = {case: score for part in parts for case, score in part.items()}
        self._scores = {}
        means = pooled(mean_by_patient([merged[case] for case in sorted(merged)]))
        self.log_dict({f"{split}/{name}": value for name, value in means.items()}, sync_dist=True)

    # --- checkpoints and products

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what f1 is, so that the checkpoint restores scans as it is."""
        super().on_save_checkpoint(checkpoint)
        made = {"version": VERSION, "provenance": self._provenance()}
        checkpoint["rbs"] = {**self.cascade.f1.spec(), **made}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a training that started from other weights, teacher or data.

        Raises:
            CheckpointError: It did.
        """
        if self.trainer.state.fn != "fit":
            return
        file = Path(str(self.trainer.ckpt_path))
        _, description = describe_lightning(checkpoint, file)
        require_same_start(file, description.provenance, self._provenance())

    def write(self, folder: Path) -> None:
        """Write the trained restorer, and the cascade where there is one."""
        if not self.trainer.is_global_zero:
            return
        save_restorer(folder / "restorer.safetensors", self.cascade.f1, self._provenance())
        if self.cascade.f2 is not None:
            save_cascade(folder / "cascade.safetensors", self.cascade, self._provenance())

    def _provenance(self) -> dict[str, Any]:
        ranges: dict[str, Any] = getattr(self.datamodule, "training_ranges", dict)()
        return ranges | {
            "stage": self.stage,
            "domain": self.cascade.f1.domain,
            "steps": self.global_step,
            "seed": os.environ.get("PL_GLOBAL_SEED"),
            **manifest_record(getattr(self.datamodule, "manifest", None)),
            "losses": [loss.spec() for loss in self.losses],  # type: ignore[operator]
            "modules": [name for name in ("spi", "skd", "scm") if getattr(self.cascade, name) is not None],
            "init_from": self._init_sha256,
            "teacher": self._teacher_sha256,
            "prior": self.prior.source if self.cascade.spi is not None else None,
        }


def mean_by_patient(scores: Sequence[tuple[str, dict[str, float]]]) -> dict[str, float]:
    """Mean over patients of the means over their scans; some scores may be missing."""
    by_patient: dict[str, dict[str, list[float]]] = {}
    for patient, values in scores:
        for name, value in values.items():
            by_patient.setdefault(name, {}).setdefault(patient, []).append(value)
    return {name: fmean(fmean(v) for v in patients.values()) for name, patients in by_patient.items()}
