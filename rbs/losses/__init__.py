"""Losses as named terms.

A loss of your own is a subclass of `Loss`, listed in YAML:

    losses:
      - class_path: rbs.losses.RootCharbonnier
        init_args: {weight: 0.1}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rbs.utils.checkpoint import describe


class Loss(nn.Module, ABC):
    """A reconstruction loss: estimate against counts of some exposure, or against a clean frame.

    Args:
        weight: Its factor in the total.

    Attributes:
        uses: Names of further batch entries that `forward` takes as keyword arguments, None where
            a batch has none: "labels" (B, V, H, W), "places" (B, P, 3), "cut" (B,). Targets of
            which counts up to `cut` were set to 0 (`Scan.cut`) are refused by losses without it.
        needs_expectation: True where noise of the target would bias the estimate.
    """

    uses: ClassVar[tuple[str, ...]] = ()
    needs_expectation: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @property
    def name(self) -> str:
        """Its name in logs, followed there by 1 or 2 for the restorer."""
        return type(self).__name__

    def spec(self) -> dict[str, Any]:
        """Class and arguments to build it again: {"class_path": ..., "init_args": {...}}."""
        return describe(self)

    @abstractmethod
    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """The loss, a scalar before weighting.

        Args:
            estimate: Expected counts at standard scale, (B, V, H, W); or frames, (B, 3, H, W).
            target: Counts as measured, (B, V, H, W); or clean frames.
            exposure: Exposure of the target relative to the standard scan, (B,); of a frame 1.
        """


def log_series(mean: Tensor, last: Tensor) -> Tensor:
    r"""Logarithm of the truncated exponential series, :math:`\log \sum_{n=0}^{last} mean^n / n!`.

    Args:
        mean: Any shape.
        last: Last n of each element, broadcast to `mean`.
    """
    total, term = torch.ones_like(mean), torch.ones_like(mean)
    for n in range(1, int(last.max()) + 1):
        term = term * mean / n
        total = total + torch.where(n <= last, term, 0.0)
    return torch.log(total)


def half_deviance(mean: Tensor, counts: Tensor) -> Tensor:
    """Half the Poisson deviance of counts from a mean, both positive, of any one shape."""
    return mean - counts + counts * torch.log(counts / mean)


def deviance_of_pixels(
    estimate: Tensor, target: Tensor, exposure: Tensor, epsilon: float, cut: Tensor | None = None
) -> Tensor:
    """The deviance of `PoissonDeviance` for each pixel, (B, V, H, W)."""
    q = exposure[:, None, None, None]
    mean, counts = q * (estimate + epsilon), target + q * epsilon
    deviance = half_deviance(mean, counts)
    if cut is None:
        return deviance
    k = cut[:, None, None, None]
    return torch.where((target == 0) & (k > 0), mean - log_series(mean, k), deviance)


class PoissonDeviance(Loss):
    r"""Half the Poisson deviance a pixel: the negative log-likelihood less its least value.

    .. math::
        \ell = \mu - t \log\mu - (t - t\log t), \qquad \mu = q\,(I + \epsilon), \quad t = y +
        q\,\epsilon

    for counts y measured at exposure q. The small :math:`\epsilon` keeps the logarithm finite where
    nothing is expected; being added to both sides it leaves the minimum in expectation at :math:`I
    = \operatorname{E}[y]/q`.

    A target pixel whose count was cut says no more than :math:`y \le k`. Its likelihood
    :math:`P(y \le k) = e^{-\mu} \sum_{n=0}^{k} \mu^n / n!` gives the term

    .. math::
        \ell = \mu - \log \sum_{n=0}^{k} \mu^n / n!

    with the same :math:`\mu` and the same least value, zero; without a cut, k = 0, it is what a
    pixel of no counts has. By Gibbs' inequality the sum over all pixels, cut or not, has its least
    expectation at the true mean, which neither leaving out the pixels of 0 nor taking the 0 for a
    count would have. Censored likelihood: Tobin, Econometrica 26 (1958) 24-36; of counts: Terza,
    Economics Letters 18 (1985) 361-365.

    Args:
        weight: Its factor in the total.
        epsilon: Counts at standard scale.
    """

    uses = ("cut",)

    def __init__(self, weight: float = 1.0, epsilon: float = 1e-3) -> None:
        super().__init__(weight)
        self.epsilon = epsilon

    @property
    def name(self) -> str:
        """`rec`: the reconstruction term of the method."""
        return "rec"

    def forward(
        self, estimate: Tensor, target: Tensor, exposure: Tensor, cut: Tensor | None = None
    ) -> Tensor:
        """See `Loss.forward`."""
        return deviance_of_pixels(estimate, target, exposure, self.epsilon, cut).mean()


class SquaredError(Loss):
    r"""Squared error at standard scale, :math:`\overline{(I - y/q)^2}`.

    Minimal at the mean, as the likelihood is, but it weighs bright pixels, which are the noisiest,
    most: the variance of :math:`y/q` is :math:`I/q`.
    """

    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return ((estimate - target / exposure[:, None, None, None]) ** 2).mean()


class RootCharbonnier(Loss):
    r"""Robust distance in the square-root domain.

    .. math::
        \sqrt{(\sqrt{qI + 3/8} - \sqrt{y + 3/8})^2 + e^2}

    Charbonnier et al., ICIP 1994. Unlike the likelihood it is not minimal at the mean: use it
    beside, not instead.

    Args:
        weight: Its factor in the total.
        softness: e, in units of square-root counts; about 0.5 is the noise.
    """

    def __init__(self, weight: float = 1.0, softness: float = 0.1) -> None:
        super().__init__(weight)
        self.softness = softness

    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """See `Loss.forward`."""
        q = exposure[:, None, None, None]
        difference = torch.sqrt(q * estimate + 0.375) - torch.sqrt(target + 0.375)
        return torch.sqrt(difference**2 + self.softness**2).mean()


class Charbonnier(Loss):
    r"""Robust distance of colours, :math:`\sqrt{(I - y/q)^2 + e^2}`, q being 1 for frames.

    Charbonnier et al., ICIP 1994: nearly the absolute difference, so that a few large errors, at
    edges and highlights, do not outweigh all small ones; smooth where it is zero.

    Args:
        weight: Its factor in the total.
        softness: e, in units of sRGB values from 0 to 1.
    """

    def __init__(self, weight: float = 1.0, softness: float = 1e-3) -> None:
        super().__init__(weight)
        self.softness = softness

    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """See `Loss.forward`."""
        difference = estimate - target / exposure[:, None, None, None]
        return torch.sqrt(difference**2 + self.softness**2).mean()
