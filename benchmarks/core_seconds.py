"""A training of so many steps, and the processor time it takes."""

from __future__ import annotations

import time

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


def train(task: LightningModule, data: LightningDataModule, steps: int, decay: float) -> float:
    """Train, with averaged weights and without validation; returns core seconds."""
    begun = time.process_time()
    Trainer(
        max_steps=steps,
        accelerator="cpu",
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        callbacks=[EMAWeightAveraging(decay=decay)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    ).fit(task, datamodule=data)
    return time.process_time() - begun
