"""A callback for tests: what the restorer of every process holds when a training is over."""

import torch
from lightning.pytorch import Callback


class RankWeights(Callback):
    """Writes `rank_<n>.pt` into the version's folder."""

    def on_fit_end(self, trainer, pl_module):
        torch.save(pl_module.cascade.f1.state_dict(), f"{trainer.log_dir}/rank_{trainer.global_rank}.pt")
