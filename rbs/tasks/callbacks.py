"""Callback of the trainings: all ranks begin at one checkpoint."""

from __future__ import annotations

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from rbs.errors import CheckpointError


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
