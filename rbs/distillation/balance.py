"""Weights of auxiliary losses, from the norms of their gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor, nn

from rbs.errors import RbsError

LEAST = 1e-3
"""Least norm of a term that its weight is computed from, as a part of the reconstruction's norm."""


class GradientBalance(nn.Module):
    r"""Keeps the gradient of each auxiliary loss at a stated share of the reconstruction's.

    All that a loss tells the backbone of the first restorer passes through its last features
    :math:`F_1`. With gradients there, the weight of term t with the share :math:`s_t` is

    .. math::
        w_t = s_t\, \frac{\overline{\|\nabla_{F_1} L_{rec}\|}}
          {\max\big(\overline{\|\nabla_{F_1} L_t\|},\;
          10^{-3}\, \overline{\|\nabla_{F_1} L_{rec}\|}\big)} ,

    as VQGAN weighs its adversarial loss (Esser et al., CVPR 2021, arXiv 2012.09841, eq. 7, at the
    last layer of its decoder). Bars are exponential running averages of the norms, measured every
    few steps, which costs a pass from each loss back to :math:`F_1`, not through the backbone. All
    ranks use the root mean square of the norms over ranks.

    A term whose gradient is zero (a teacher that still equals its student) has the weight 0: norms
    of 0, or not finite, are no part of the average, which begins with the first other one. The
    lower limit of the norm limits weights to a thousand times the share.

    Norms are buffers: a training that goes on from a checkpoint keeps its weights.

    Args:
        shares: Wanted norm of each term by name, as a part of the reconstruction's.
        every: Steps from one measurement to the next.
        decay: Part of the running average that a measurement keeps.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(self, shares: Mapping[str, float], every: int = 10, decay: float = 0.9) -> None:
        super().__init__()
        if any(not 0 <= share < float("inf") for share in shares.values()) or every < 1 or not 0 <= decay < 1:
            fault = f"shares {dict(shares)}, every {every} steps and decay {decay} are out of range"
            raise RbsError(fault, remedy="try a share of 0.1, every 10 steps and a decay of 0.9")
        self.shares, self.every, self.decay = dict(shares), every, decay
        self.register_buffer("running", torch.zeros(1 + len(shares)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.running: Tensor
        self.steps: Tensor

    def forward(self, terms: Mapping[str, Tensor], reference: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Weights of the terms, scalars without gradient.

        Args:
            terms: The losses before weighting, scalars, those with a share; any may be absent.
            reference: The reconstruction's loss, a scalar.
            features: F1, (B, C, H, W), which all of them were computed from.
        """
        if self.training:
            if int(self.steps) % self.every == 0:
                self._measure([reference, *(terms.get(name) for name in self.shares)], features)
            self.steps += 1
        wanted, *norms = self.running
        weights = zip(self.shares, norms, strict=True)
        return {
            name: torch.where(norm > 0, self.shares[name] * wanted / norm.clamp(min=LEAST * wanted), 0.0)
            for name, norm in weights
            if name in terms
        }

    def norms(self) -> dict[str, Tensor]:
        """Running averages of the gradient norms: "rec" and every term."""
        return dict(zip(("rec", *self.shares), self.running.clone(), strict=True))

    def _measure(self, losses: list[Tensor | None], features: Tensor) -> None:
        norms = torch.stack([gradient_norm(loss, features) for loss in losses]).to(self.running)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Squares add up over samples: ratios are those of one process that is given all crops.
            squares = norms.square()
            torch.distributed.all_reduce(squares)
            norms = (squares / torch.distributed.get_world_size()).sqrt()
        averaged = torch.where(self.running > 0, self.decay * self.running + (1 - self.decay) * norms, norms)
        self.running.copy_(torch.where(norms.isfinite() & (norms > 0), averaged, self.running))


def gradient_norm(loss: Tensor | None, features: Tensor) -> Tensor:
    """Norm of the gradient of a loss at features (B, C, H, W); 0 where it does not depend on them.

    The graph is kept. Losses are means over pixels: half precision holds their gradients after
    multiplication by the number of values only.
    """
    if loss is None or not loss.requires_grad:
        return torch.zeros((), device=features.device)
    scale = features.numel()
    (gradient,) = torch.autograd.grad(loss.float() * scale, features, retain_graph=True, allow_unused=True)
    if gradient is None:
        return torch.zeros((), device=features.device)
    return torch.linalg.vector_norm(gradient, dtype=torch.float32) / scale
