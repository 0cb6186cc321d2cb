"""Losses as named terms.

A loss of your own is a subclass of `Loss`, listed in YAML:

    losses:
      - class_path: rbs.losses.RootCharbonnier
        init_args: {weight: 0.1}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.cascade import Cascade, CascadeOutput
from rbs.restorers.base import describe


class Loss(nn.Module, ABC):
    """A reconstruction loss: estimate against counts measured at some exposure, or against a clean frame.

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
            estimate: Expected counts at standard scale, (B, V, H, W); or frames, (B, 3, H, W).
            target: Counts as measured, (B, V, H, W); or clean frames.
            exposure: Exposure of the target relative to the standard scan, (B,); of a frame 1.
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


class SquaredError(Loss):
    r"""Squared error at standard scale, :math:`\overline{(I - y/q)^2}`.

    Minimal at the mean, as the likelihood is, but it weighs bright pixels, which are the noisiest, most: the
    variance of :math:`y/q` is :math:`I/q`.
    """

    def forward(self, estimate: Tensor, target: Tensor, exposure: Tensor) -> Tensor:
        """See `Loss.forward`."""
        return ((estimate - target / exposure[:, None, None, None]) ** 2).mean()


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


class Charbonnier(Loss):
    r"""Robust distance of colours, :math:`\sqrt{(I - y/q)^2 + e^2}`, q being 1 for frames.

    Charbonnier et al., ICIP 1994: nearly the absolute difference, so that a few large errors, at edges and
    highlights, do not outweigh all small ones; smooth where it is zero.

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
    displacement: Tensor | None = None,
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
        displacement: Where the target lies in the estimates, (B, 2, H, W), see `laid_on`; None where nothing
            moved. The reconstruction losses leave out a margin of its largest value, beyond which some
            target lies outside the crop.

    Returns:
        Scalars, unweighted: "rec1", "rec2", "skd", "scm", others by class name and restorer; and their
        weighted sum, "total". Terms that are off are absent.

    Raises:
        ValueError: There is an SCM but no prior or analyser.
    """
    terms: dict[str, Tensor] = {}
    total = torch.zeros((), device=target.device)
    estimates = [out.i1, out.i2]
    if displacement is not None:
        inner = _inner(displacement)
        target = target[inner]
        estimates = [None if i is None else laid_on(i, displacement)[inner] for i in estimates]
    for number, estimate in enumerate(estimates, start=1):
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


def laid_on(estimate: Tensor, displacement: Tensor) -> Tensor:
    """Lay an estimate on a target of the same patient, who has moved: the estimate at x + u(x), bicubic.

    The smooth side of a comparison is moved, for interpolated counts are no counts. Bicubic, because bilinear
    interpolation blurs, and a restorer trained through it would learn to sharpen.

    Args:
        estimate: Counts at standard scale, (B, V, H, W).
        displacement: u in pixels, down and right, (B, 2, H, W); all views move alike.

    Returns:
        Non-negative counts (B, V, H, W), differentiable in `estimate`. Beyond its border the outermost pixels
        go on.
    """
    rows, columns = estimate.shape[-2:]
    displacement = displacement.float()
    down, across = (torch.arange(n, device=estimate.device, dtype=torch.float32) for n in (rows, columns))
    at = torch.stack([across + displacement[:, 1], down[:, None] + displacement[:, 0]], dim=-1)
    # grid_sample counts from the middle of the image, -1 and 1 being the middles of the outermost pixels.
    at = at / torch.tensor([(columns - 1) / 2, (rows - 1) / 2], device=at.device) - 1
    moved = F.grid_sample(estimate.float(), at, mode="bicubic", padding_mode="border", align_corners=True)
    return moved.clamp(min=0)


def _inner(displacement: Tensor) -> tuple[slice | EllipsisType, ...]:
    """The pixels whose targets lie inside the crop; of a motion as large as the crop, at least its middle."""
    sizes, reach = displacement.shape[-2:], displacement.abs().amax(dim=(0, 2, 3)).ceil().long().tolist()
    margins = [min(int(m), size // 4) for m, size in zip(reach, sizes, strict=True)]
    return (..., *(slice(m, size - m) for m, size in zip(margins, sizes, strict=True)))
