"""Callbacks of the trainings: the progress bar, ranks that begin at one checkpoint, FedProx."""

from __future__ import annotations

import math

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from rbs.errors import CheckpointError


class TrainingBar(RichProgressBar):
    """The progress bar, with the last epoch also where `max_steps` ends the training."""

    def _get_train_description(self, current_epoch: int) -> str:
        trainer = self.trainer
        if trainer.max_epochs != -1:
            return super()._get_train_description(current_epoch)
        if trainer.max_steps == -1:
            return f"Epoch {current_epoch}"
        batches = trainer.max_steps * trainer.accumulate_grad_batches
        return f"Epoch {current_epoch}/{math.ceil(batches / trainer.num_training_batches) - 1}"


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


class Proximal(Callback):
    """Pull of FedProx to the weights of the start: mu / 2 times the squared distance in the loss.

    Its gradient is added before gradients are clipped; the loss that is logged is without it.

    Args:
        mu: Weight of the pull.
    """

    def __init__(self, mu: float) -> None:
        self.mu = mu
        self._start: list[torch.Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the weights."""
        self._start = [weight.detach().clone() for weight in pl_module.parameters()]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the gradient of the pull."""
        for weight, start in zip(pl_module.parameters(), self._start, strict=True):
            if weight.grad is not None:
                weight.grad.add_(weight.detach() - start, alpha=self.mu)
