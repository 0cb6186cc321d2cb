"""Training an uncertainty head for a restorer that is trained already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbs.data.manifest import manifest_record
from rbs.errors import CheckpointError, ManifestError, RbsError
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.restorers.uncertainty import (
    Uncertainty,
    UncertaintyHead,
    fitted_factor,
    head_file,
    root_error,
    root_likelihood,
    save_uncertainty,
)
from rbs.scans.body import body_mask
from rbs.tasks.task import Batch, TrainingTask, images_of
from rbs.weights.shipped import NAME, SHIPPED

_FITTING_SEED = 20


class UncertaintyTask(TrainingTask):
    """Training of an `UncertaintyHead` on the errors of a restorer against the known expectation.

    The restorer stays as it is, and stays outside the module tree: neither checkpoints nor weight
    averaging carry it. Children that it was trained on are the wrong ones to learn its errors from.

    Args:
        head: The head.
        f1: Weights of the restorer, .safetensors or .ckpt; None for the shipped ones.
        beta: Of `rbs.restorers.uncertainty.root_likelihood`.
        lr: Peak learning rate of AdamW.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero over the whole
            training.
        output: Folder to which the head is written, named after the restorer's file; to be found by
            `rbs` it must lie beside that. None: the command line puts in the run's own folder.
    """

    def __init__(
        self,
        head: UncertaintyHead,
        f1: Path | None = None,
        beta: float = 0.5,
        lr: float = 3e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 20,
        output: Path | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output)
        self.save_hyperparameters(ignore=["head"])
        self.save_hyperparameters({"head": head.spec()})
        self.head, self.f1, self.beta = head, f1, beta
        self._outside: dict[str, LoadedRestorer] = {}

    def setup(self, stage: str) -> None:
        """Load the restorer.

        Raises:
            CheckpointError: It cannot be read, restores frames, or has other features than the head
                expects.
        """
        loaded = load_restorer(self.f1 or NAME)
        f1 = loaded.restorer.requires_grad_(False)
        if f1.images.shows != "scans":
            raise CheckpointError(
                "it restores frames, whose errors are unknown", file=self.f1, remedy="name weights for scans"
            )
        if f1.feature_channels != self.head.feature_channels:
            fault = f"its features have {f1.feature_channels} channels, not {self.head.feature_channels}"
            remedy = f"set --model.head.init_args.feature_channels {f1.feature_channels}"
            raise CheckpointError(fault, file=self.f1, remedy=remedy)
        self._outside["f1"] = loaded

    def on_fit_start(self) -> None:
        """Refuse targets whose own noise would pass for errors of the restorer.

        Raises:
            RbsError: The targets are counts.
        """
        if self.datamodule.pairs != "expectation":
            fault = f"pairs: {self.datamodule.pairs} has noisy targets, and errors are learned from the truth"
            raise RbsError(fault, remedy="set --data.pairs expectation (phantoms only)")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on a batch of crops or whole scans."""
        loss = self._loss(batch, batch["target"])
        self.log("train/total", loss.detach(), batch_size=len(batch["rapid"]))
        return self.total(batch, {"total": loss})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss of a whole scan."""
        if "expectation" not in batch:
            fault = f"patient {batch['patient'][0]} has no known expectation to learn errors from"
            raise ManifestError(fault, file=self.datamodule.manifest, remedy="validate on phantoms")
        self.log("val/total", self._loss(batch, batch["expectation"]), batch_size=1, sync_dist=True)

    def _loss(self, batch: Batch, expectation: Tensor) -> Tensor:
        f1: Restorer = self._outside["f1"].restorer.to(self.device)
        x, exposure = images_of(batch, f1.images), batch["exposure"]
        # As f1 works at the bedside: its errors must not be those of a lower precision.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            restored, features = f1.restore_with_features(x, exposure)
        return root_likelihood(
            root_error(restored, expectation), self.head(features, restored, exposure), self.beta
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose errors are learned."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["f1_sha256"] = self._outside["f1"].sha256

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with the errors of another restorer.

        Raises:
            CheckpointError: The checkpoint is of one.
        """
        if checkpoint.get("f1_sha256") != self._outside["f1"].sha256:
            fault = f"it was trained on other weights than {self._outside['f1'].name}"
            remedy = "delete its version folder to start afresh, or give what it was trained with"
            raise CheckpointError(fault, file=Path(str(self.trainer.ckpt_path)), remedy=remedy)

    def write(self, folder: Path) -> None:
        """Fit the factor of the averaged weights on the validation children, and write the head."""
        if not self.trainer.is_global_zero:
            return
        loaded = self._outside["f1"]
        self.head.factor.fill_(1.0)
        self.head.factor.fill_(self._fitted_factor(Uncertainty(loaded, self.head, "", "", "")))
        ranges = self.datamodule.training_ranges()
        provenance = ranges | {
            "steps": self.global_step,
            "seed": os.environ.get("PL_GLOBAL_SEED"),
            **manifest_record(self.datamodule.manifest),
            "beta": self.beta,
            "factor": float(self.head.factor),
            "factor_fitted_on": f"{len(self.datamodule.cases('val'))} validation children",
        }
        file = Path(folder) / head_file(self.f1 or SHIPPED).name
        save_uncertainty(file, self.head, loaded.sha256, provenance)

    def _fitted_factor(self, uncertainty: Uncertainty) -> float:
        """`fitted_factor` of the pixels of all bodies, at exposures spread over the training's."""
        errors, deviations = [], []
        low, high = self.datamodule.exposures
        rng = np.random.default_rng(_FITTING_SEED)
        for index, exposure in enumerate(np.linspace(low, high, len(self.datamodule.cases("val")))):
            scan = self.datamodule.loaded("val", index)
            rapid = rng.poisson(exposure * scan.expectation)
            mask = body_mask(scan.standard, scan.spacing_mm)
            restored = uncertainty.loaded.restore(rapid, float(exposure))
            errors.append((restored - scan.expectation)[mask])
            deviations.append(uncertainty.deviation(rapid, float(exposure))[mask])
        stated = np.concatenate(deviations)
        known = stated > 0  # rows that counted nothing state nothing
        return fitted_factor(np.concatenate(errors)[known], stated[known])
