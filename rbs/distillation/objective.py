"""The training objective of the method: L = rec(I1) + rec(I2) + a SKD + b SCM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from rbs.distillation.balance import GradientBalance
from rbs.distillation.cascade import Cascade, CascadeOutput
from rbs.errors import RbsError
from rbs.losses import Loss
from rbs.utils.image_ops import warp


def cascade_losses(
    cascade: Cascade,
    out: CascadeOutput,
    target: Tensor,
    exposure: Tensor,
    *,
    losses: Sequence[Loss],
    balance: GradientBalance,
    analyser: Callable[[Tensor], Tensor] | None = None,
    displacement: Tensor | None = None,
    facts: Mapping[str, Any] = MappingProxyType({}),
    further: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """All terms of the training loss.

    Args:
        cascade: Whose SKD and SCM apply, where it has them.
        out: Output of the cascade for the batch.
        target: Counts as measured, (B, V, H, W).
        exposure: Their exposure relative to the standard scan, (B,).
        losses: Reconstruction losses, applied to those of I1 and I2 whose restorer is trained.
        balance: Weighs SKD, SCM and further terms against the reconstruction of I1.
        analyser: Counts (B, V, H, W) to features (B, V, C, h, w), weights frozen; needed where
            there is an SCM.
        displacement: Where the target lies in the estimates, (B, 2, H, W), see `warp`; None where
            nothing moved.
        facts: Batch entries, of which each loss is given those that it `uses`.
        further: Further terms of the first restorer, scalars by name.

    Returns:
        Scalars, unweighted: "rec1", "rec2", "skd", "scm", others by class name and restorer; and
        their weighted sum, "total". Terms that are off are absent.

    Raises:
        RbsError: Counts were cut, and one of the losses needs them all.
        ValueError: There is an SCM but no prior or analyser.
    """
    terms: dict[str, Tensor] = {}
    unfit = [type(loss).__name__ for loss in losses if "cut" in facts and "cut" not in loss.uses]
    if unfit:
        fault = f"{', '.join(unfit)} needs all counts of a target, but the lowest ones of some were cut"
        raise RbsError(
            fault,
            remedy="train on cut scans with losses that take the cut, such as rbs.losses.PoissonDeviance",
        )

    def rec(number: int, estimate: Tensor | None) -> Tensor | float:
        trained = cascade.trains in ("both", f"f{number}")
        if estimate is None or not trained:
            return 0.0
        pair, given = (estimate, target), dict(facts)
        if displacement is not None:
            inner = without_margin(displacement)
            pair = warp(estimate, displacement)[inner], target[inner]
            if "labels" in facts:
                given["labels"] = facts["labels"][inner]
        for loss in losses:
            used = {name: given.get(name) for name in loss.uses}
            terms[f"{loss.name}{number}"] = loss(*pair, exposure, **used)
        return sum(loss.weight * terms[f"{loss.name}{number}"] for loss in losses)

    rec1, rec2 = rec(1, out.i1), rec(2, out.i2)
    auxiliary = dict(further or {})
    if cascade.skd is not None and out.i2 is not None and out.f2_features is not None:
        auxiliary["skd"] = cascade.skd(out.i1, out.i2, out.f1_features, out.f2_features)
    if cascade.scm is not None and out.i2 is not None:
        if out.prior is None or analyser is None:
            raise ValueError("semantic consistency needs a prior and an analyser")
        with torch.no_grad():
            features2 = analyser(out.i2)
        auxiliary["scm"] = cascade.scm(analyser(out.i1), features2, out.prior.masks)
    total = torch.as_tensor(rec1 + rec2)
    if auxiliary:
        weights = balance(auxiliary, torch.as_tensor(rec1), out.f1_features)
        total = total + torch.stack([weights[name] * term for name, term in auxiliary.items()]).sum()
    return {**terms, **auxiliary, "total": total}


def without_margin(displacement: Tensor) -> tuple[Any, slice, slice]:
    """Index of what remains of (..., H, W) once an estimate was warped onto a target that moved.

    The margin is the largest displacement, beyond which some target lies outside the crop; of a
    motion as large as the crop at least the middle half of each side is kept.

    Args:
        displacement: Pixels down and right, (B, 2, H, W).
    """
    sizes, reach = displacement.shape[-2:], displacement.abs().amax(dim=(0, 2, 3)).ceil().long().tolist()
    margins = [min(int(m), size // 4) for m, size in zip(reach, sizes, strict=True)]
    rows, columns = (slice(m, size - m) for m, size in zip(margins, sizes, strict=True))
    return ..., rows, columns
