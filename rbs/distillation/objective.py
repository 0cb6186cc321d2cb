"""The training objective of the method: L = rec(I1) + rec(I2) + a SKD + b SCM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType

import torch
from torch import Tensor

from rbs.distillation.cascade import Cascade, CascadeOutput
from rbs.losses import Loss
from rbs.utils.image_ops import warp


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
        analyser: Counts (B, V, H, W) to features (B, V, C, h, w), weights frozen; needed where
            there is an SCM.
        displacement: Where the target lies in the estimates, (B, 2, H, W), see `warp`; None where
            nothing moved. The reconstruction losses leave out a margin of its largest value, beyond
            which some target lies outside the crop.

    Returns:
        Scalars, unweighted: "rec1", "rec2", "skd", "scm", others by class name and restorer; and
            their
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
        estimates = [None if i is None else warp(i, displacement)[inner] for i in estimates]
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


def _inner(displacement: Tensor) -> tuple[slice | EllipsisType, ...]:
    """The pixels whose targets lie inside the crop; of a motion as large as the crop, at least its middle."""
    sizes, reach = displacement.shape[-2:], displacement.abs().amax(dim=(0, 2, 3)).ceil().long().tolist()
    margins = [min(int(m), size // 4) for m, size in zip(reach, sizes, strict=True)]
    return (..., *(slice(m, size - m) for m, size in zip(margins, sizes, strict=True)))
