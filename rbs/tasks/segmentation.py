"""Training of segmenters from labelled scans or frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rbs.data.manifest import manifest_record
from rbs.errors import CheckpointError, RbsError
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.dice import DiceTally, regions_found, update_rows
from rbs.segmentation.labels import LABELLED
from rbs.segmentation.objective import DiceCrossEntropy
from rbs.segmentation.segmenter import Segmenter
from rbs.tasks.task import (
    Batch,
    TrainingTask,
    images_of,
    labels_of,
    require_same_start,
    spacing_of,
)


class SegmentationTask(TrainingTask):
    """Training of a segmenter by Dice, cross-entropy and, with a weight, clDice.

    At the end `segmenter.safetensors` and the table `dice.csv` of the validation patients are
    written.

    Args:
        segmenter: The network.
        init_from: Weight file of a segmenter to start from, such as a pretrained one.
        lr: Peak learning rate of AdamW.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero.
        cldice_weight: Weight of soft clDice (`rbs.segmentation.objective`).
        thin: Regions that clDice is averaged over: those whose bones are thin.
        output: Folder of the product; None: the command line puts in the run's own folder.

    Raises:
        RbsError: A thin region is none of the segmenter's.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        init_from: Path | None = None,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        cldice_weight: float = 0.0,
        thin: Sequence[str] = ("thorax", "arms", "legs", "growth plates"),
        output: Path | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output)
        self.save_hyperparameters(ignore=["segmenter"])
        self.save_hyperparameters({"segmenter": segmenter.spec()})
        self.segmenter, self.init_from = segmenter, init_from
        self.labelled = LABELLED[segmenter.images.shows]
        self._init_sha256: str | None = None
        names = segmenter.labels.names
        if cldice_weight and (not thin or set(thin) - set(names)):
            fault = f"clDice is asked for the regions {', '.join(thin) or 'of no name'}"
            raise RbsError(fault, remedy=f"set `thin` to some of {', '.join(names)}")
        classes = [1 + names.index(region) for region in thin] if cldice_weight else []
        self.objective = DiceCrossEntropy(1 + len(names), cldice_weight, classes)
        self._tally = DiceTally(segmenter.labels)

    def setup(self, stage: str) -> None:
        """Load the weights to start from.

        Raises:
            CheckpointError: They are missing, or of another network.
        """
        if stage != "fit" or self.init_from is None:
            return
        loaded = load_segmenter(self.init_from)
        if loaded.segmenter.spec() != self.segmenter.spec():
            fault = f"it holds {loaded.segmenter.spec()}, but the model is {self.segmenter.spec()}"
            raise CheckpointError(fault, file=self.init_from, remedy="make --model.segmenter the same")
        self.segmenter.load_state_dict(loaded.segmenter.state_dict())
        self._init_sha256 = loaded.sha256

    def forward(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """Probabilities (B, V, 1 + K, H, W); see `Segmenter.forward`."""
        return self.segmenter(x, exposure, spacing_mm)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch of whole scans, or of crops of frames."""
        terms = self.losses(batch)
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()}, batch_size=1)
        return self.total(batch, terms)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss, "total" among them."""
        logits = self.segmenter.logits(*self.inputs(batch))
        return {"total": self.objective(logits.flatten(0, 1), labels_of(batch, self.labelled).flatten(0, 1))}

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Images, exposure and spacing (mm) of a batch; frames have pixels of 1."""
        return images_of(batch, self.segmenter.images), batch["exposure"], spacing_of(batch)

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self._tally = DiceTally(self.segmenter.labels)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Find the regions of a whole rapid scan, or of a frame, where they are labelled."""
        if "labels" not in batch:
            return
        (found,) = regions_found(self.segmenter, *self.inputs(batch))
        poor, _ = self.labelled.levels
        self._tally.add(int(batch["case"][0]), batch["patient"][0], poor, found, batch["labels"][0])

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice over regions, and that of each."""
        self._tally.gather()
        for row in self._tally.rows("segmenter", "val"):
            scores = {name: float(row[name] or "nan") for name in (*self.segmenter.labels.names, "mean")}
            self.log_dict({f"val/dice/{name}": score for name, score in scores.items()})
            self.log("val/dice", scores["mean"], prog_bar=True)

    def write(self, folder: Path) -> None:
        """Write the segmenter and its table."""
        if not self.trainer.is_global_zero:
            return
        save_segmenter(folder / "segmenter.safetensors", self.segmenter, self.provenance())
        if self._tally.counted:
            update_rows(folder / "dice.csv", self._tally.rows("segmenter", "val"))

    def provenance(self) -> dict[str, Any]:
        """Record of the making of the weights."""
        return self.datamodule.training_ranges() | {
            "steps": self.global_step,
            "seed": os.environ.get("PL_GLOBAL_SEED"),
            **self.started_from(),
        }

    def started_from(self) -> dict[str, str | None]:
        """Weights and data that the training started from; an interrupted one needs the same."""
        data = manifest_record(getattr(self.datamodule, "manifest", None))
        return {**data, "init_from": self._init_sha256}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the training started from."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["started_from"] = self.started_from()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from a training that started from other weights, teacher or data.

        Raises:
            CheckpointError: It did.
        """
        if self.trainer.state.fn == "fit":
            file = Path(str(self.trainer.ckpt_path))
            require_same_start(file, checkpoint.get("started_from", {}), self.started_from())
