"""Learning how a camera degrades images, from good and poor ones of different patients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbs.degradation.learned import DegradationModel, save_degrader
from rbs.tasks.task import Batch, TrainingTask, WarmupCosine
from rbs.utils.checkpoint import describe


class LearnDegradation(TrainingTask):
    """Training of a `DegradationModel` on the batches of `rbs.data.unpaired.UnpairedImages`.

    Args:
        model: The model.
        lr: Peak learning rate of AdamW.
        lr_discriminators: The same of the model's discriminators, where it has any.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero.
        betas: AdamW's; adversarial training does with little momentum.
        output: Folder to which `degrader.safetensors` is written. None: the command line puts in
            the run's own folder.
    """

    def __init__(
        self,
        model: DegradationModel,
        lr: float = 1e-3,
        lr_discriminators: float = 4e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 50,
        betas: tuple[float, float] = (0.9, 0.999),
        output: Path | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output, betas)
        self.save_hyperparameters(ignore=["model"])
        self.save_hyperparameters({"model": describe(model)})
        self.model, self.lr_discriminators = model, lr_discriminators

    def configure_optimizers(self) -> Any:
        """As `TrainingTask`; discriminators have a learning rate of their own."""
        groups: dict[bool, list[Tensor]] = {False: [], True: []}
        for name, weight in self.named_parameters():
            groups[".discriminators." in name].append(weight)
        rates = {False: self.lr, True: self.lr_discriminators}
        split = [{"params": groups[own], "lr": rates[own]} for own in groups if groups[own]]
        optimizer = torch.optim.AdamW(split, self.lr, self.betas, weight_decay=self.weight_decay)
        schedule = WarmupCosine(optimizer, self.warmup_steps, self._steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Take from the images what is measured, not trained."""
        self.model.prepare(**self.datamodule.measured())

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The losses of the model on a batch."""
        terms = self.model.losses(**batch)
        logged = {f"train/{name}": term.detach() for name, term in terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch["good"]))
        return self.total({}, terms)

    def write(self, folder: Path) -> None:
        """Write the degrader."""
        if self.trainer.is_global_zero:
            save_degrader(folder / "degrader.safetensors", self.model, self._provenance())

    def _provenance(self) -> dict[str, Any]:
        made = {"steps": self.global_step, "seed": os.environ.get("PL_GLOBAL_SEED")}
        return {**self.datamodule.provenance(), **made}
