"""Semantic Consistency Module: a frozen analyser finds the same in both restorations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SCM(nn.Module):
    r"""Compares region prototypes of both restorations, and how the regions of each relate.

    With features F of a frozen analyser and the teacher's masks M, the prototype of region k and
    the relations are

    .. math::
        \pi_k = \frac{\sum_u M_k(u) F(u)}{\sum_u M_k(u)}, \qquad R_{kl} = \cos(\pi_k, \pi_l)

    .. math::
        L = \operatorname{mean}_k \big(1 - \cos(\pi_k^1, \operatorname{sg} \pi_k^2)\big)
          + \operatorname{mean}_{kl} \big(R^1_{kl} - \operatorname{sg} R^2_{kl}\big)^2

    over the regions present in the view. It has no parameters.

    Args:
        least_mass: A region counts as present if its mask sums to at least this many cells of the
            feature grid.
    """

    def __init__(self, least_mass: float = 0.1) -> None:
        super().__init__()
        self.least_mass = least_mass

    def forward(self, features1: Tensor, features2: Tensor, masks: Tensor) -> Tensor:
        """The loss, a scalar; 0 where no region is present.

        Args:
            features1: Analyser's features of the first restoration, (B, V, C, h, w).
            features2: Of the second restoration, (B, V, C, h, w); taken as constant.
            masks: Region probabilities (B, V, K, hm, wm) on any grid over the same pixels.
        """
        # The loss is a difference of cosines near 1, which half precision cannot tell apart.
        with torch.autocast(features1.device.type, enabled=False):
            return self._loss(features1.float(), features2.detach().float(), masks.detach().float())

    def _loss(self, features1: Tensor, features2: Tensor, masks: Tensor) -> Tensor:
        height, width = features1.shape[-2:]
        masks = F.adaptive_avg_pool2d(masks.flatten(0, 1), (height, width))
        present = (masks.sum(dim=(-2, -1)) >= self.least_mass).to(features1.dtype)
        p1 = _prototypes(features1.flatten(0, 1), masks)
        p2 = _prototypes(features2.flatten(0, 1), masks)
        moved = _mean(1 - (p1 * p2).sum(dim=-1), present)
        pairs = present[:, :, None] * present[:, None, :]
        relations = _mean((p1 @ p1.mT - p2 @ p2.mT) ** 2, pairs)
        return moved + relations


def _prototypes(features: Tensor, masks: Tensor) -> Tensor:
    """Unit-length mask-weighted means (N, K, C) of features (N, C, h, w) in masks (N, K, h, w)."""
    # The mask's mass only scales the sum, and the length is normalised away.
    return F.normalize(torch.einsum("nkhw,nchw->nkc", masks, features), dim=-1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)
