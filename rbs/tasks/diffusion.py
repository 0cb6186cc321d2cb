"""Training the diffusion restorer: the same batches and whole-scan scores, another loss."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from rbs.errors import RbsError
from rbs.restorers.diffusion import Diffusion
from rbs.tasks.restoration import RestorationTask
from rbs.tasks.task import Batch, images_of


class DiffusionTask(RestorationTask):
    """Training of a `Diffusion` restorer: the clean scan is predicted at every level of noise.

    Args:
        f1: The restorer.
        lr: Peak learning rate of AdamW.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero over the whole
            training.
        init_from: Weights to start from, .safetensors or .ckpt.
        output: Folder to which the trained restorer is written, as `restorer.safetensors`. None:
            the command line puts in the run's own folder.
    """

    def __init__(
        self,
        f1: Diffusion,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
        init_from: Path | None = None,
        output: Path | None = None,
    ) -> None:
        super().__init__(
            f1,
            lr=lr,
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            init_from=init_from,
            output=output,
        )

    def on_fit_start(self) -> None:
        """Refuse noisy targets.

        Raises:
            RbsError: The targets are counts, whose noise the model would learn to draw.
        """
        if self.datamodule.pairs != "expectation":
            raise RbsError(
                f"pairs: {self.datamodule.pairs} has noisy targets, and a diffusion model draws what its"
                " targets are like",
                remedy="set --data.pairs expectation (phantoms only)",
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step on a batch of crops."""
        x = images_of(batch, self.cascade.f1.images)
        f1: Diffusion = self.cascade.f1  # type: ignore[assignment]
        error = f1.denoising_error(x, batch["exposure"], batch["target"])
        self.log("train/total", error.detach(), batch_size=len(x))
        return self.total(batch, {"total": error})
