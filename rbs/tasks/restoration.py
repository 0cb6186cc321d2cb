"""Training of restorers: stage 1 the first alone, stage 2 the cascade with semantic priors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn

from rbs.data.manifest import manifest_record
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.distillation.balance import GradientBalance
from rbs.distillation.cascade import Cascade, Sees, Trains, load_cascade, save_cascade, second_restorer
from rbs.distillation.objective import cascade_losses
from rbs.distillation.region_head import RegionHead
from rbs.distillation.scm import SCM
from rbs.distillation.skd import SKD
from rbs.distillation.spi import SPI
from rbs.errors import CheckpointError, RbsError
from rbs.losses import Charbonnier, Loss, PoissonDeviance
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import describe_lightning, load_restorer, save_restorer
from rbs.scans.counts import standard_scale
from rbs.segmentation.labels import LABELLED
from rbs.tasks.priors import PriorArgument, PriorConfig, Priors
from rbs.tasks.profiler import TEACHER
from rbs.tasks.task import (
    Batch,
    TrainingTask,
    images_of,
    labels_of,
    require_expectation,
    require_rest,
    require_same_start,
    spacing_of,
)
from rbs.tasks.validation import frame_scores, pooled, scan_scores
from rbs.utils.version import VERSION
from rbs.weights.shipped import file_sha256

DEFAULTS: dict[str, tuple[Callable[[], Loss], Callable[[Tensor, Batch], dict[str, float]]]] = {
    "scans": (PoissonDeviance, scan_scores),
    "frames": (Charbonnier, frame_scores),
}
"""Reconstruction loss and validation scores by the kind of image."""


_CACHED = PriorConfig()


class RestorationTask(TrainingTask):
    """Training of a `Cascade`, validated on whole scans, or on frames where f1 restores frames.

    The constructor reads no file: weights and teacher are loaded when fitting or evaluating begins.
    The teacher stays outside the module tree, so that neither checkpoints nor weight averaging
    carry it.

    Args:
        f1: First restorer, the one that ships.
        f2: Second restorer, stage 2 only. None takes the class, arguments and weights of `f1`.
        stage: 1 trains f1 alone; 2 the cascade, starting from `init_from`.
        trains: Restorers that stage 2 trains: "both" is the recipe `joint`. The recipe `phased`
            first trains "f2" on a frozen f1, then "f1" under the f2 of `cascade_from`, frozen.
        sees: Image that f2 restores (stage 2): "i1", "rapid", the rapid scan beside I1, or
            "standard", all counts of the patient; that f2 is the frozen f1 of stage 1, and trains
            f1.
        spi: Whether the second restorer sees the semantic prior (stage 2).
        skd: Whether the second restorer teaches the first (stage 2).
        scm: Whether both restorations must mean the same to the analyser (stage 2).
        region_head: Whether a head finds the labelled regions in the features of f1.
        skd_share: Gradient of SKD at f1's features, as a part of the reconstruction's
            (`rbs.distillation.balance`).
        scm_share: The same of SCM.
        region_share: The same of the region head.
        analyser: Network whose features SCM compares: the segmenter of the prior, or AlexNet
            trained on ImageNet (`rbs.distillation.analyser`).
        losses: Reconstruction losses; None for the Poisson deviance alone, or Charbonnier's of
            colours.
        prior: Teacher and semantic priors of stage 2.
        lr: Peak learning rate of AdamW.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero over the whole
            training.
        init_from: Weights of f1 to start from, .safetensors or .ckpt; stage 2 needs them. One that
            enlarges may start from one of scale 1, but for the head.
        cascade_from: Weights of f2 and SPI to start from, the cascade.safetensors of another
            stage 2; None starts f2 from the weights of f1.
        output: Folder to which the trained restorer is written, as `restorer.safetensors`; stage 2
            adds `cascade.safetensors` with f2 and SPI. None: the command line puts in the run's own
            folder.
    """

    def __init__(
        self,
        f1: Restorer,
        f2: Restorer | None = None,
        stage: Literal[1, 2] = 1,
        trains: Trains = "both",
        sees: Sees = "i1",
        spi: bool = True,
        skd: bool = True,
        scm: bool = True,
        region_head: bool = False,
        skd_share: float = 0.1,
        scm_share: float = 0.1,
        region_share: float = 0.1,
        analyser: Literal["segmenter", "imagenet"] = "segmenter",
        losses: list[Loss] | None = None,
        prior: PriorConfig = _CACHED,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        init_from: Path | None = None,
        cascade_from: Path | None = None,
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
        self.stage, self.analyser, self.enlarges = stage, analyser, f1.scale != 1
        self.init_from, self.cascade_from, self._own_f2 = init_from, cascade_from, f2 is None
        self.losses = nn.ModuleList(losses or [DEFAULTS[f1.images.shows][0]()])
        shares = {"skd": skd_share, "scm": scm_share, "regions": region_share}
        self.balance = GradientBalance(shares)
        if region_head and self.enlarges:
            fault = "the region head reads features of the rapid scan's pixels, and labels are finer"
            raise RbsError(fault, remedy="set --model.region_head false")
        self.region_head = RegionHead(f1.feature_channels, f1.domain) if region_head else None
        if stage == 1:
            self.cascade = Cascade(f1)
        else:
            _require_fitting(self, trains, sees, spi=spi, teaches=skd or scm)
            embedding_dim = 0 if prior.labelled else prior.embedding_dim
            integration = SPI(embedding_dim, domain=f1.domain) if spi else None
            f2 = second_restorer(f1, integration, sees, f2)
            distillation = SKD(f1.feature_channels, f2.feature_channels, f1.domain) if skd else None
            consistency = SCM() if scm else None
            self.cascade = Cascade(f1, f2, integration, distillation, consistency, sees=sees, trains=trains)
        self.priors = Priors(prior, f1.images, self._profiled)
        # A dict hides modules from the module tree.
        self._outside: dict[Literal["analyser"], nn.Module] = {}
        self._init_sha256: str | None = None
        self._cascade_sha256: str | None = None
        self._scores: dict[int, tuple[str, dict[str, float]]] = {}

    # --- weights and teacher

    def setup(self, stage: str) -> None:
        """Load initial weights, the segmenter and the analyser where they are needed.

        Raises:
            RbsError: Stage 2 lacks the stage-1 weights or the segmenter.
            CheckpointError: One of them does not fit.
        """
        fitting, cascade, prior = stage == "fit", self.cascade, self.priors.config
        scm = fitting and cascade.scm is not None
        if fitting or cascade.spi is not None:
            self._load_stage1(into_f1=fitting)
        if fitting and cascade.f2 is not None:
            self._start_f2(cascade.f2)
        if scm and self.analyser == "imagenet":
            from rbs.distillation.analyser import ImageNetAnalyser

            self._outside["analyser"] = ImageNetAnalyser(cascade.f1.domain)
        masks = (cascade.spi is not None or scm) and not prior.labelled
        if masks or (scm and self.analyser == "segmenter"):
            self.priors.load_segmenter(self._init_sha256, crops=fitting and prior.source == "online")
        if prior.source == "placebo" and self._trainer is not None:
            self.datamodule.placebo = True

    def _start_f2(self, f2: Restorer) -> None:
        f1 = self.cascade.f1
        if self.cascade_from is None:
            if self._own_f2:
                f2.start_from(f1, head=self.cascade.sees != "i1")
            return
        assert self.priors.stage1 is not None  # stage 2 does not begin without
        # Loading puts both restorers into evaluation mode, and f1 is about to be trained.
        loaded, provenance = load_cascade(self.cascade_from, self.priors.stage1)
        assert loaded.f2 is not None
        spi, given = self.cascade.spi, loaded.spi
        if loaded.f2.spec() != f2.spec() or (spi and spi.embedding_dim) != (given and given.embedding_dim):
            fault = f"its second restorer is {loaded.f2.spec()}, but the model's is {f2.spec()}"
            remedy = "make --model.f1, sees, spi and prior those of its training"
            raise CheckpointError(fault, file=self.cascade_from, remedy=remedy)
        if provenance.get("init_from") != self._init_sha256:
            fault = "it was trained on other weights of stage 1"
            remedy = "give those it was trained on as --model.init_from"
            raise CheckpointError(fault, file=self.cascade_from, remedy=remedy)
        source, told = self.priors.config.source, provenance.get("prior")
        if spi is not None and source != told and {source, told} & {"truth", "placebo"}:
            fault = f"its masks were those of prior.source {told}, not {source}"
            raise CheckpointError(fault, file=self.cascade_from, remedy=f"set --model.prior.source {told}")
        f2.load_state_dict(loaded.f2.state_dict())
        if spi is not None and given is not None:
            spi.load_state_dict(given.state_dict())
        self._cascade_sha256 = file_sha256(self.cascade_from)

    def _load_stage1(self, *, into_f1: bool) -> None:
        if self.init_from is None:
            if self.stage == 2:
                remedy = "run `make train-stage1` and give its restorer.safetensors as --model.init_from"
                raise RbsError(
                    "stage 2 starts from the weights of stage 1, but none are named", remedy=remedy
                )
            return
        f1 = self.cascade.f1
        loaded = load_restorer(self.init_from, scale=None)
        given, wanted = loaded.restorer.spec(), f1.spec()
        # One that enlarges may start from one that does not: their heads alone differ.
        enlarged = f1.scale > loaded.restorer.scale
        if enlarged:
            given["init_args"]["scale"] = f1.scale
        if given != wanted:
            fault = f"it holds {loaded.restorer.spec()}, but the model's f1 is {wanted}"
            raise CheckpointError(fault, file=self.init_from, remedy="make --model.f1 the same")
        self._init_sha256 = loaded.sha256
        if into_f1:
            f1.start_from(loaded.restorer, head=not enlarged)
        if self.stage == 2:
            self.priors.stage1 = loaded.restorer.requires_grad_(False)

    # --- training

    def forward(self, x: Tensor, exposure: Tensor) -> Tensor:
        """The first restorer: what runs at the bedside."""
        return self.cascade.f1(x, exposure)

    def on_fit_start(self) -> None:
        """Let the data module attach priors to its samples; those of the cache are computed first.

        Raises:
            RbsError: The training pairs are drawn afresh each time, so that no whole rapid scan
                exists, or a loss or the restorer does not suit the data.
        """
        require_expectation(self.losses, self.datamodule)  # type: ignore[arg-type]
        _require_scale(self.cascade.f1, self.datamodule)
        _require_use_of_facts(self.cascade.f1, self.datamodule)
        self.priors.attach(self.datamodule, self.device)
        self.trainer.strategy.barrier()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on a batch of crops."""
        images = self.cascade.f1.images
        x = images_of(batch, images)
        prior, standard = self._prior(batch, self.priors.of_crops), self._standard(batch)
        out = self.cascade(x, batch["exposure"], prior, standard, self._facts(batch))
        facts = batch["exposure"], spacing_of(batch)
        further = {}
        if self.region_head is not None:
            require_rest(batch)
            labels = labels_of(batch, LABELLED[images.shows])
            further["regions"] = self.region_head(out.f1_features, labels)
        terms = cascade_losses(
            self.cascade,
            out,
            batch["target"],
            batch["target_exposure"],
            losses=list(self.losses),  # type: ignore[arg-type]
            balance=self.balance,
            analyser=lambda restored: self._analyse(restored, *facts),
            displacement=batch.get("displacement"),
            facts=batch,
            further=further,
        )
        logged = {name: term.detach() for name, term in terms.items()}
        logged |= {f"grad/{name}": norm for name, norm in self.balance.norms().items() if norm > 0}
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, batch_size=len(x))
        return self.total(batch, terms)

    def _standard(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """All counts of a batch at standard scale and their exposure, where f2 sees those."""
        if self.cascade.sees != "standard":
            return None
        # Frames have no pairs, and no counts that add up.
        apart = getattr(self.datamodule, "pairs", "expectation") == "expectation"
        if apart or "displacement" in batch or "cut" in batch:
            fault = "a second restorer that sees the standard scan needs all counts of one patient at rest"
            raise RbsError(
                fault, remedy="set --model.sees i1, or train on whole scans with --data.pairs split"
            )
        exposure = batch["exposure"] + batch["target_exposure"]
        return standard_scale(batch["rapid"] + batch["target"], exposure), exposure

    def _facts(self, batch: Batch) -> Tensor | None:
        """Facts of the children, (B, F), where f1 reads them; None where it does not."""
        if not self.cascade.f1.reads_facts:
            return None
        if "facts" not in batch:
            fault = "the restorer reads facts of the child, which the data do not carry"
            raise RbsError(fault, remedy="set --data.facts own")
        facts: Tensor = batch["facts"]
        return facts

    def _prior(self, batch: Batch, of: Callable[[Batch], PriorArgument]) -> PriorArgument | None:
        """The prior argument of the cascade; None where it needs none."""
        scm = self.training and self.cascade.scm is not None
        return of(batch) if self.cascade.spi is not None or scm else None

    def _profiled(self) -> AbstractContextManager[Any]:
        """Count the time spent in here to the teacher (`rbs.tasks.profiler`)."""
        return self.trainer.profiler.profile(TEACHER)  # type: ignore[attr-defined]

    def _analyse(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """Features of SCM's analyser."""
        if self.analyser == "segmenter":
            return self.priors.embed(x, exposure, spacing_mm)
        with self._profiled():
            return self._outside["analyser"].to(x.device)(x)

    # --- evaluation on whole scans

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Restore a whole scan or frame and score it."""
        x = images_of(batch, self.cascade.f1.images)
        prior = self._prior(batch, self.priors.of_scan)
        out = self.cascade(x, batch["exposure"], prior, facts=self._facts(batch))
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
        if self.cascade.f2 is not None and self.cascade.sees != "standard":
            save_cascade(folder / "cascade.safetensors", self.cascade, self._provenance())

    def _provenance(self) -> dict[str, Any]:
        ranges: dict[str, Any] = getattr(self.datamodule, "training_ranges", dict)()
        return ranges | {
            "stage": self.stage,
            "domain": self.cascade.f1.domain,
            "steps": self.global_step,
            "seed": os.environ.get("PL_GLOBAL_SEED"),
            **manifest_record(getattr(self.datamodule, "manifest", None)),
            "degrader": _digest_of(getattr(self.datamodule, "degrader", None)),
            "noise_filter": _filter_record(getattr(self.datamodule, "noise", WHITE)),
            "losses": [loss.spec() for loss in self.losses],  # type: ignore[operator]
            "modules": [name for name in ("spi", "skd", "scm") if getattr(self.cascade, name) is not None],
            "init_from": self._init_sha256,
            "cascade_from": self._cascade_sha256,
            "trains": self.cascade.trains if self.stage == 2 else None,
            "teacher": self.priors.sha256,
            "prior": self.priors.config.source if self.cascade.spi is not None else None,
        }


def _require_scale(f1: Restorer, data: Any) -> None:
    """Refuse targets of other pixels than the restoration has."""
    if f1.scale != (scale := getattr(data, "scale", 1)):
        fault = f"the restorer has scale {f1.scale}, but the data have scale {scale}"
        remedy = "make --model.f1.init_args.scale and --data.scale the same"
        raise RbsError(fault, remedy=remedy)


def _filter_record(noise: NoiseFilter) -> dict[str, float] | None:
    """A filter of the noise of training scans for weights, None for raw counts."""
    return None if noise.white else {name: round(value, 4) for name, value in asdict(noise).items()}


def _require_use_of_facts(f1: Restorer, data: Any) -> None:
    """Refuse facts of children that nothing reads."""
    if getattr(data, "facts", None) is not None and not f1.reads_facts:
        fault = f"--data.facts is {data.facts}, but the restorer reads no facts of children"
        raise RbsError(fault, remedy="set --data.facts null, or train a restorer with --model.f1 that does")


def _digest_of(file: Path | None) -> str | None:
    return None if file is None else file_sha256(file)


def _require_fitting(task: RestorationTask, trains: Trains, sees: Sees, *, spi: bool, teaches: bool) -> None:
    """Refuse combinations in which a part has nothing to train, or nothing to look at."""
    if task.enlarges:
        fault = "stage 2 compares two restorations of one pixel size, and the first restorer enlarges"
        raise RbsError(fault, remedy="train it with --model.stage 1")
    if trains == "f2" and (teaches or task.region_head is not None):
        fault = "SKD, SCM and the region head train the first restorer, which trains: f2 keeps frozen"
        raise RbsError(fault, remedy="set --model.skd, --model.scm and --model.region_head to false")
    if sees == "standard" and not task._own_f2:
        fault = "a second restorer that sees the standard scan is the first one, but another is named"
        raise RbsError(fault, remedy="leave --model.f2 out")
    if sees == "standard" and (trains != "f1" or spi):
        fault = "a second restorer that sees the standard scan would be trained on the noise of its target"
        raise RbsError(fault, remedy="set --model.trains f1 and --model.spi false")
    if trains == "f1" and sees != "standard" and task.cascade_from is None:
        fault = "trains: f1 learns from a second restorer that was trained before, but none is named"
        raise RbsError(
            fault, remedy="give the cascade.safetensors of --model.trains f2 as --model.cascade_from"
        )


def mean_by_patient(scores: Sequence[tuple[str, dict[str, float]]]) -> dict[str, float]:
    """Mean over patients of the means over their scans; some scores may be missing."""
    by_patient: dict[str, dict[str, list[float]]] = {}
    for patient, values in scores:
        for name, value in values.items():
            by_patient.setdefault(name, {}).setdefault(patient, []).append(value)
    return {name: fmean(fmean(v) for v in patients.values()) for name, patients in by_patient.items()}
