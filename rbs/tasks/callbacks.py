"""Callbacks of the trainings: restored images on disk, and ranks that begin at one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from rbs.errors import CheckpointError
from rbs.utils.files import whole_file


class PredictionWriter(BasePredictionWriter):
    """Writes each restored image of `rbs predict` as `<version>/restored/<patient>_<case>.npz`.

    Such a file holds `counts`, float32 (V, H, W) at standard scale, aligned (posterior mirrored);
    or of a frame `colours`, sRGB values 0..1, float32 (3, H, W).
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._folder = Path()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the folder once, in every process: the answer is broadcast."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir) / "restored"

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one scan or frame."""
        task: Any = pl_module  # a RestorationTask: no other predicts
        for patient, case, image in zip(batch["patient"], batch["case"].tolist(), prediction, strict=True):
            name = f"{patient}_{case}.npz".replace("/", "_")  # a frame by itself is named by its path
            with whole_file(self._folder / name, overwrite=True) as temporary:
                np.savez_compressed(temporary, **{task.cascade.f1.images.values: image.float().cpu().numpy()})


class SameStart(Callback):
    """Refuses a training whose processes would not all begin at the same checkpoint.

    Each of them looks for `last` by itself, and finds another where its machine does not see the
    same files.

    Args:
        checkpoint: Where this process begins; None afresh.
    """

    def __init__(self, checkpoint: str | None) -> None:
        self.checkpoint = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask the others, before any of them reads a checkpoint.

        Raises:
            CheckpointError: They begin elsewhere.
        """
        if trainer.world_size == 1:
            return
        starts: list[str | None] = [None] * trainer.world_size
        torch.distributed.all_gather_object(starts, self.checkpoint)
        for rank, other in enumerate(starts):
            if other != starts[0]:
                raise CheckpointError(
                    f"the processes do not begin alike: rank 0 goes on from {starts[0] or 'nothing'}, rank"
                    f" {rank} from {other or 'nothing'}",
                    remedy="let --trainer.default_root_dir lie on a disk that all machines see",
                )
