r"""Losses of blocks and of regions, after the quantities that are read from a scan.

A mean over pixels is decided by the many pixels of large, dim parts. A reader looks at means and
maxima of small parts. LeqMod (Xia et al., arXiv 2404.17994, its QuMod) therefore compares means and
maxima of sub-regions of several sizes, by absolute differences; here the distances are those that
counts call for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rbs.errors import RbsError
from rbs.losses import Loss, deviance_of_pixels, half_deviance

SIDES = (8, 16, 32)
"""Sides of blocks, pixels."""


class LocalMeans(Loss):
    r"""Half the Poisson deviance of block means, for each block B of n pixels.

    .. math::
        n\,d(q \bar I_B,\ \bar y_B), \qquad d(\mu, t) = \mu - t + t \log(t / \mu)

    The counts of a block are Poisson, too, so it is least in expectation at the true mean, also
    against noisy targets, where an absolute difference is least at the median. Averaged over the
    blocks, then over their sizes; blocks at the right and lower edge may be smaller.

    Args:
        weight: Its factor in the total.
        sides: Sides of the blocks, pixels.
        epsilon: As of `PoissonDeviance`.
    """

    def __init__(self, weight: float = 1.0, sides: tuple[int, ...] = SIDES, epsilon: float = 1e-3) -> None:
        super().__init__(weight)
        self.sides, self.epsilon = sides, epsilon

    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """See `Loss.forward`."""
        q = exposure[:, None, None, None]
        pair = q * (estimate + self.epsilon), target + q * self.epsilon

        def deviance(side: int) -> Tensor:
            sums = (F.avg_pool2d(image, side, ceil_mode=True, divisor_override=1) for image in pair)
            return half_deviance(*sums).mean()

        return torch.stack([deviance(side) for side in self.sides]).mean()


class LocalMaxima(Loss):
    r"""Absolute difference of block maxima, in the square-root domain, for each block B.

    .. math::
        \left|\sqrt{\max_B I + 3/8} - \sqrt{\max_B \lambda + 3/8}\right|

    Only against known expectations: the maximum of noisy counts lies far above that of their mean.
    A block without an error has none of this loss, but only the brightest pixel of each feels it:
    use it beside a likelihood.

    Args:
        weight: Its factor in the total.
        sides: Sides of the blocks, pixels.
    """

    needs_expectation = True

    def __init__(self, weight: float = 1.0, sides: tuple[int, ...] = SIDES) -> None:
        super().__init__(weight)
        self.sides = sides

    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """See `Loss.forward`."""

        def roots(image: Tensor, side: int) -> Tensor:
            return torch.sqrt(F.max_pool2d(image, side, ceil_mode=True) + 0.375)

        expected = target / exposure[:, None, None, None]
        differences = [(roots(estimate, side) - roots(expected, side)).abs().mean() for side in self.sides]
        return torch.stack(differences).mean()


class RegionDeviance(Loss):
    r"""Half the Poisson deviance, averaged inside each region first.

    .. math::
        \frac{1}{R} \sum_r \frac{1}{|r|} \sum_{i \in r} \ell_i

    over the R regions r that a batch shows, background and soft tissue being one of them, with
    :math:`\ell` of `PoissonDeviance`. A growth plate of 40 pixels weighs as much as a leg. It is
    least in expectation at the true mean, as every weighting of pixels is that does not look at the
    counts.

    Args:
        weight: Its factor in the total.
        epsilon: As of `PoissonDeviance`.
    """

    uses = ("cut", "labels")

    def __init__(self, weight: float = 1.0, epsilon: float = 1e-3) -> None:
        super().__init__(weight)
        self.epsilon = epsilon

    def forward(
        self,
        estimate: Tensor,
        target: Tensor,
        exposure: Tensor,
        cut: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """See `Loss.forward`.

        Raises:
            RbsError: There are no labels.
        """
        if labels is None:
            fault = "RegionDeviance needs labelled regions, but the batch has none"
            remedy = "train on cases that all have truth or label files, without --data.scenes"
            raise RbsError(fault, remedy=remedy)
        sizes = torch.bincount(labels.flatten())
        weights = 1 / (sizes.clamp(min=1) * (sizes > 0).sum())
        deviance = deviance_of_pixels(estimate, target, exposure, self.epsilon, cut)
        return (deviance * weights[labels]).sum()
