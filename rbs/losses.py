"""Losses as named terms.

A loss of your own is a subclass of `Loss`, listed in YAML:

    losses:
      - class_path: rbs.losses.RootCharbonnier
        init_args: {weight: 0.1}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rbs.cascade import Cascade, CascadeOutput
from rbs.restorers.base import describe


class Loss(nn.Module, ABC):
    """A reconstruction loss: estimate against counts measured at some exposure.

    Args:
        weight: Its factor in the total.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @property
    def name(self) -> str:
        """Its name in logs, followed there by 1 or 2 for the restorer."""
        return type(self).__name__

    def spec(self) -> dict[str, Any]:
        """How to build it again: {"class_path": ..., "init_args": {...}}."""
        return describe(self)

    @abstractmethod
    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """The loss, a scalar before weighting.

        Args:
            estimate: Expected counts at standard scale, (B, V, H, W).
            target: Counts as measured, (B, V, H, W).
            exposure: Exposure of the target relative to the standard scan, (B,).
        """


class PoissonDeviance(Loss):
    r"""Half the Poisson deviance a pixel: the negative log-likelihood of the target, less its least value.

    .. math::
        \ell = \mu - t \log\mu - (t - t\log t), \qquad \mu = q\,(I + \epsilon), \quad t = y + q\,\epsilon

    for counts y measured at exposure q. The small :math:`\epsilon` keeps the logarithm finite where nothing
    is expected; being added to both sides it leaves the minimum in expectation at :math:`I =
    \operatorname{E}[y]/q`.

    Args:
        weight: Its factor in the total.
        epsilon: Counts at standard scale.
    """

    def __init__(self, weight: float = 1.0, epsilon: float = 1e-3) -> None:
        super().__init__(weight)
        self.epsilon = epsilon

    @property
    def name(self) -> str:
        """`rec`: the reconstruction term of the method."""
        return "rec"

    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """See `Loss.forward`."""
        q = exposure[:, None, None, None]
        mean, counts = q * (estimate + self.epsilon), target + q * self.epsilon
        return (mean - counts + counts * torch.log(counts / mean)).mean()


class RootCharbonnier(Loss):
    r"""Robust distance in the square-root domain, :math:`\sqrt{(\sqrt{qI + 3/8} - \sqrt{y + 3/8})^2 + e^2}`.

    Charbonnier et al., ICIP 1994. Unlike the likelihood it is not minimal at the mean: use it beside, not
    instead.

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


def cascade_losses(
    cascade: Cascade,
    out: CascadeOutput,
    target: Tensor,
    exposure: Tensor,
    *,
    losses: Sequence[Loss],
    skd_weight: float,
    scm_weight: float,
    analyser: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """All terms of the training loss.

    Args:
        cascade: Whose SKD and SCM apply, where it has them.
        out: What it made of the batch.
        target: Counts as measured, (B, V, H, W).
        exposure: Their exposure relative to the standard scan, (B,).
        losses: Reconstruction losses, applied to I1 and, where there is one, to I2.
        skd_weight: Factor of SKD in the total.
        scm_weight: Factor of SCM in the total.
        analyser: Counts (B, V, H, W) to features (B, V, C, h, w), weights frozen; needed where there is an
            SCM.

    Returns:
        Scalars, unweighted: "rec1", "rec2", "skd", "scm", others by class name and restorer; and their
        weighted sum, "total". Terms that are off are absent.

    Raises:
        ValueError: There is an SCM but no prior or analyser.
    """
    terms: dict[str, Tensor] = {}
    total = torch.zeros((), device=target.device)
    for number, estimate in enumerate((out.i1, out.i2), start=1):
        for loss in losses if estimate is not None else ():
            term = loss(estimate, target, exposure)
            terms[f"{loss.name}{number}"] = term
            total = total + loss.weight * term
    if out.i2 is not None and out.f2_features is not None:
        if cascade.skd is not None:
            terms["skd"] = cascade.skd(out.i1, out.i2, out.f1_features, out.f2_features)
            total = total + skd_weight * terms["skd"]
        if cascade.scm is not None:
            if out.prior is None or analyser is None:
                raise ValueError("semantic consistency needs a prior and an analyser")
            with torch.no_grad():
                features2 = analyser(out.i2)
            terms["scm"] = cascade.scm(analyser(out.i1), features2, out.prior.masks)
            total = total + scm_weight * terms["scm"]
    return {**terms, "total": total}
