"""NAFNet on counts as they are, for the ablation of the domain restorers work in."""

from __future__ import annotations

import torch
from torch import Tensor

from rbs.restorers.base import LOCAL_MEAN_SIGMA_PX, gaussian
from rbs.restorers.nafnet import NAFNet

COUNTS_SCALE = 4.0
"""Counts are divided by this: those of 0.1 to 50 a pixel then lie between 0.03 and 12."""


class NAFNetInCounts(NAFNet):
    r"""NAFNet without variance stabilisation: it sees counts, and adds to a Gaussian filter of them.

    .. math::
        f(x) = \max(G_\sigma x + \delta, 0)

    It sees the same five channels, scan, local mean and exposure, so nothing but the domain differs; the
    noise of its input grows with the square root of the counts. Untrained, it too is the Gaussian filter.
    """

    def see(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """See `Restorer.see`: counts."""
        noise = (0.5 / torch.sqrt(p)).expand(-1, 1, *x.shape[-2:])
        local = gaussian(x, LOCAL_MEAN_SIGMA_PX)
        return torch.cat([x / COUNTS_SCALE, local / COUNTS_SCALE, noise], dim=1), gaussian(x, self.sigma_px)

    def answer(self, start: Tensor, delta: Tensor) -> Tensor:
        """See `Restorer.answer`: a sum."""
        return (start + delta).clamp(min=0)
