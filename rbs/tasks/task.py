"""Base of the training tasks: optimiser, schedule, finite steps, the product of the end."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from rbs.errors import CheckpointError, RbsError
from rbs.losses import Loss
from rbs.restorers.image_domain import Domain
from rbs.scans.counts import standard_scale
from rbs.segmentation.labels import LabelledImages
from rbs.utils.places import without_places

Batch = dict[str, Any]


def images_of(batch: Batch, domain: Domain, what: Literal["rapid", "target"] = "rapid") -> Tensor:
    """Scans of a batch at standard scale, or its frames: (B, C, H, W).

    Args:
        batch: Of a data module.
        domain: What they must be.
        what: Those to be restored, or those they are compared with.

    Raises:
        RbsError: They are not.
    """
    exposure = batch["exposure" if what == "rapid" else "target_exposure"]
    x: Tensor = standard_scale(batch[what], exposure)
    if not domain.fits(x):
        raise RbsError(
            f"the model works on {domain.shows} {domain.shape}, but the data are {tuple(x.shape)}",
            remedy="set its domain to colours for frames, to roots for scans: --model.f1.init_args.domain, or"
            " --model.domain of the teacher",
        )
    return x


def spacing_of(batch: Batch) -> Tensor:
    """Row and column spacing of the pixels of a batch, mm, (B, 2); 1 of frames."""
    exposure: Tensor = batch["exposure"]
    return batch["spacing_mm"].float() if "spacing_mm" in batch else exposure.new_ones(len(exposure), 2)


def labels_of(batch: Batch, images: LabelledImages) -> Tensor:
    """Labels of a batch, (B, V, H, W).

    Args:
        batch: Of a data module.
        images: What it holds.

    Raises:
        RbsError: A case of the batch has no labels.
    """
    if "labels" not in batch:
        fault = f"training needs labelled regions, but a {images.labelled_by} is missing"
        raise RbsError(f"{fault} (near patient {', '.join(batch['patient'])})", remedy=images.how_to_label)
    labels: Tensor = batch["labels"]
    return labels


def require_rest(batch: Batch) -> None:
    """Refuse crops of a patient who moved: labels lie on the standard scan, not on the rapid one.

    Raises:
        RbsError: One of the patients moved.
    """
    if "displacement" in batch:
        fault = "labels lie on the standard scan, from which a training patient moved to the rapid one"
        raise RbsError(fault, remedy="set --data.pairs split")


def require_same_start(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on from a training that started from other weights, teacher or data.

    Args:
        file: Checkpoint to go on from.
        before: Provenance in it.
        now: Provenance of the training that is to go on.

    Raises:
        CheckpointError: It did.
    """
    for name in ("init_from", "cascade_from", "teacher", "manifest_sha256"):
        if before.get(name, now.get(name)) != now.get(name):
            fault = f"it was trained with {name} {before[name]}, which is now {now.get(name)}"
            remedy = "delete its version folder to start afresh, or give what it was trained with"
            raise CheckpointError(fault, file=file, remedy=remedy)


def require_expectation(losses: Iterable[Loss], data: Any) -> None:
    """Refuse losses that noise of their target would bias, where targets are counts.

    Args:
        losses: Of a training.
        data: Its data module; frames have no `pairs`, and clean targets.

    Raises:
        RbsError: A target is noisy.
    """
    pairs = getattr(data, "pairs", "expectation")
    biased = [type(loss).__name__ for loss in losses if loss.needs_expectation]
    if biased and pairs != "expectation":
        fault = f"pairs: {pairs} has noisy targets, by which {', '.join(biased)} would be biased"
        raise RbsError(fault, remedy="set --data.pairs expectation (phantoms only), or leave the loss out")


class WarmupCosine(LambdaLR):
    """Linear warm-up of the learning rate from a hundredth of its peak, then cosine decay to zero.

    Args:
        optimizer: Its learning rates are the peak.
        warmup_steps: Steps of the warm-up.
        t_total: Steps in all.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, warmup_steps: int, t_total: int) -> None:
        self.warmup_steps, self.t_total = min(max(warmup_steps, 0), t_total), t_total
        super().__init__(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return 0.01 + 0.99 * (step / self.warmup_steps)
        progress = (step - self.warmup_steps) / max(1, self.t_total - self.warmup_steps)
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))


class TrainingTask(LightningModule, ABC):
    """A LightningModule that trains with AdamW and writes what it made.

    Args:
        lr: Peak learning rate.
        weight_decay: Weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero over the whole
            training.
        output: Folder of the product; None writes nothing.
        betas: AdamW's.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float,
        warmup_steps: int,
        output: Path | None,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.warmup_steps, self.betas = lr, weight_decay, warmup_steps, betas
        self.output = output
        self._batch: Batch = {}
        self._written = False

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the product, made of the weights the module holds now; called in every process."""

    @property
    def datamodule(self) -> Any:
        """The data module of the trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        """AdamW; linear warm-up and cosine decay, stepped every step."""
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, self.lr, self.betas, weight_decay=self.weight_decay)
        schedule = WarmupCosine(optimizer, self.warmup_steps, self._steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)

    def on_train_start(self) -> None:
        """Go on as if there had been no interruption."""
        # The state of a resumed schedule holds the length planned at first.
        self.lr_schedulers().t_total = self._steps()  # type: ignore[union-attr]
        loop = self.trainer.fit_loop
        if not loop.is_resuming:
            return
        if loop.restarted_on_epoch_end:
            # Where max_steps is set, Lightning ends that epoch once more, counts it twice, and so
            # skips the samples of the next one. This is how it goes on where max_steps is not set.
            loop._restarting = loop.epoch_loop._restarting = False
            loop.reset()
        # Its loaders have begun before it knew which epoch this is, with the samples of the first.
        assert loop._combined_loader is not None
        assert loop._data_fetcher is not None
        for loader in loop._combined_loader.flattened:
            _set_sampler_epoch(loader, self.current_epoch)
        iter(loop._data_fetcher)

    # --- early failure

    def total(self, batch: Batch, terms: dict[str, Tensor]) -> Tensor:
        """The term "total" of the losses of `batch`, once it is known to be finite.

        Raises:
            RbsError: It is not; step, terms, patients and crops are named.
        """
        self._batch = batch
        if not torch.isfinite(terms["total"]):
            broken = ", ".join(name for name, term in terms.items() if not torch.isfinite(term))
            raise self._not_finite(f"the loss ({broken})")
        return terms["total"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a gradient that is not finite ruins the weights.

        Raises:
            RbsError: It is not finite; step, patients and crops are named.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return  # float16: the scaler leaves such steps out and goes on
        gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
            raise self._not_finite("the gradient")

    def _not_finite(self, what: str) -> RbsError:
        fault = f"step {self.global_step}: {what} is not finite"
        if "patient" in self._batch:
            crops = zip(self._batch["patient"], self._batch["crop"].tolist(), strict=True)
            fault += " on " + ", ".join(f"{patient} at row {c[0]}, column {c[1]}" for patient, c in crops)
        return RbsError(fault, remedy="check these scans with `rbs inspect`, or lower the learning rate")

    # --- checkpoints and products

    def on_train_end(self) -> None:
        """Write the product, of averaged weights where there are such (callbacks come first)."""
        if self.output is not None:
            self.write(Path(self.output))
        self._written = True

    def on_fit_end(self) -> None:
        """Write it also where a resumed training was over: the first writing may have failed."""
        if self._written:
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.on_train_end(self.trainer, self)
        self.on_train_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reduce to plain data without places.

        torch loads nothing but plain data without running code, and where files lie is nobody's
        business who is given the checkpoint.
        """
        hyper_parameters = self.CHECKPOINT_HYPER_PARAMS_KEY, LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY
        for name in hyper_parameters:
            if name in checkpoint:
                checkpoint[name] = without_places(checkpoint[name])
        for callback, state in checkpoint.get("callbacks", {}).items():
            if callback.startswith(ModelCheckpoint.__name__):  # knows files of its own run alone
                checkpoint["callbacks"][callback] = without_places(state)
