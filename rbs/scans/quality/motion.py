"""Motion of the patient within a scan, and between its views."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, irfft2, next_fast_len, rfft, rfft2

from rbs.scans.quality.findings import Kind, Suspicion
from rbs.scans.quality.seen import Seen
from rbs.scans.scan import Array

SLAB_MM = 9.0
"""Length of the slabs whose places are compared, mm."""

SHIFTS_MM = (7.0, 60.0)
"""Sideways steps that are looked for, mm."""

FIELD_MM = 400.0
"""Axial field of view, mm. Under a bed that moves on, every row is seen for as long as this takes
to pass: a patient who moves is seen in both poses over this length."""

USUAL_STEP, USUAL_BEND_MM = 0.6, 30.0
"""Score of a step, and bend of the axis, mm, that hardly any clean scan reaches."""


def motion_within(seen: Seen) -> Suspicion:
    """Score a sideways move of the whole body: a step between two rows, or a bend over one field.

    A bed that moves in steps leaves a seam, one that moves on a bend of the body's axis. Both are
    taken in units of what clean scans reach.
    """
    score, row, mm = _step(seen)
    bend, bend_row = _bend(seen)
    if score / USUAL_STEP >= abs(bend) / USUAL_BEND_MM:
        fault, place = (
            f"the body jumps sideways by {mm:.0f} mm between two rows",
            seen.across(row - 1, row + 1),
        )
    else:
        half = round(FIELD_MM / 2 / seen.spacing[0])
        first, end = max(bend_row - half, 0), min(bend_row + half, seen.counts.shape[1])
        fault, place = f"the body's axis shifts sideways by {abs(bend):.0f} mm", seen.across(first, end)
    return Suspicion(
        Kind.MOTION,
        max(score / USUAL_STEP, abs(bend) / USUAL_BEND_MM),
        fault,
        "look for double contours; scan the part again",
        place=place,
    )


def _step(seen: Seen) -> tuple[float, int, float]:
    """Score, row and size, mm, of the strongest sideways step.

    The profile of the slab above a row is laid over that of the slab below it at every shift. The
    score is the fall of chi-square at the best shift, over what misfit is left: where anatomy ends,
    the misfit is large at any shift.
    """
    slab = max(round(SLAB_MM / seen.spacing[0]), 1)
    near, far = (max(round(mm / seen.spacing[1]), 1) for mm in SHIFTS_MM)
    root = seen.roots_of_slabs(slab).astype(np.float32)
    first, last = seen.rows
    # A step in between two rows that are looked at is seen by both.
    rows = np.arange(max(first, slab) + 2 * slab, min(last, seen.counts.shape[1] - slab) - 2 * slab, 2)
    above, below = root[:, rows - slab], root[:, rows]
    width = root.shape[2]
    far = min(far, width // 3)
    shifts = np.array([0, *range(-far, -near + 1), *range(near, far + 1)])
    misfits = np.stack(
        [
            (
                (above[..., max(s, 0) : width + min(s, 0)] - below[..., max(-s, 0) : width - max(s, 0)]) ** 2
            ).mean(axis=(0, 2))
            for s in shifts
        ]
    )
    best = 1 + misfits[1:].argmin(axis=0)
    left = misfits[1:].min(axis=0)
    gain = (misfits[0] - left) / np.maximum(left, 0.1)  # rows written twice leave none
    at = int(gain.argmax())
    return float(gain[at]), int(rows[at]), float(abs(shifts[best[at]])) * seen.spacing[1]


def _bend(seen: Seen) -> tuple[float, int]:
    """Size, mm, and row of the bend that explains the axis of symmetry best."""
    z, x, weight = _symmetry_axis(seen)
    line = np.stack([np.ones_like(z), z], axis=1)
    straight, _ = _robust_fit(line, x, weight)
    best = (0.0, 0.0, 0)
    for at in z[0] + (z[-1] - z[0]) * np.linspace(0.2, 0.8, 13):
        ramp = np.clip((z - at) / FIELD_MM + 0.5, 0, 1)
        misfit, found = _robust_fit(np.column_stack([line, ramp]), x, weight)
        best = max(best, (straight - misfit, float(found[2]), round(at / seen.spacing[0])))
    return best[1], best[2]


def _symmetry_axis(seen: Seen) -> tuple[Array, Array, Array]:
    """Place along the bed and across it, mm, of the body's axis of symmetry, and its weights.

    The axis of a slab is half the shift at which its profile fits its own mirror image best, and
    its weight how well.
    """
    first, last = seen.rows
    slab = max(round(30 / seen.spacing[0]), 1)
    number = (last - first) // slab
    image = np.minimum(seen.broad, 2 * seen.level[:, None, None]).sum(axis=0)
    profile = np.sqrt(image[first : first + number * slab].reshape(number, slab, -1).mean(axis=1))
    width = profile.shape[1]
    fit = irfft(rfft(profile, 2 * width, axis=1) ** 2, 2 * width, axis=1)
    usual, far = int(np.median(fit.argmax(axis=1))), 2 * round(SHIFTS_MM[1] / seen.spacing[1])
    low, high = max(usual - far, 1), min(usual + far, 2 * width - 2)
    at = low + fit[:, low:high].argmax(axis=1)
    before, peak, after = (fit[np.arange(number), at + by] for by in (-1, 0, 1))
    curve = before - 2 * peak + after
    between = np.where(curve < 0, 0.5 * (before - after) / np.where(curve < 0, curve, 1), 0)
    weight = np.clip(peak / (profile**2).sum(axis=1) / 0.3 - 7 / 3, 0.01, 1)
    z = (first + (np.arange(number) + 0.5) * slab) * seen.spacing[0]
    return z, (at + between) / 2 * seen.spacing[1], weight


def _robust_fit(columns: Array, values: Array, weight: Array, soft: float = 4.0) -> tuple[float, Array]:
    """Huber's misfit and coefficients of a linear model, by reweighted least squares."""
    own = weight
    for _ in range(4):
        root = np.sqrt(own)
        found = np.linalg.lstsq(columns * root[:, None], values * root, rcond=None)[0]
        error = np.abs(values - columns @ found)
        own = weight / np.maximum(1, error / soft)
    return float((weight * np.where(error < soft, error**2, 2 * soft * error - soft**2)).sum()), found


def motion_between(seen: Seen) -> Suspicion | None:
    """Score the distance, mm, by which the posterior view must move to fit the anterior one."""
    if len(seen.views) < 2:
        return None
    _, (down, across) = fit_of_views(seen, mirrored=False)
    return Suspicion(
        Kind.BETWEEN,
        float(np.hypot(down, across)),
        f"the views lie {abs(down):.0f} mm along the bed and {abs(across):.0f} mm across it from each other",
        "restore each view alone, or register one to the other first",
    )


def fit_of_views(seen: Seen, *, mirrored: bool) -> tuple[float, tuple[float, float]]:
    """Best correlation of the two views under a shift, and that shift (down, across), mm.

    Args:
        seen: A scan of two views.
        mirrored: Whether the posterior view is flipped left to right first.
    """
    first, second = np.sqrt(seen.held[:, ::2, ::2])
    if mirrored:
        second = second[:, ::-1]
    first, second = first - first.mean(), second - second.mean()
    shape = tuple(next_fast_len(2 * n) for n in first.shape)
    fits = irfft2(rfft2(first, shape) * rfft2(second, shape).conj(), shape)
    fits /= np.sqrt((first**2).sum() * (second**2).sum())
    step = 2 * np.array(seen.spacing)
    reach = [min(int(150 / mm), n // 2) for mm, n in zip(step, first.shape, strict=True)]
    near = np.roll(fits, reach, axis=(0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    peak = np.unravel_index(near.argmax(), near.shape)
    down, across = (
        (at + _between_pixels(np.take(near, peak[1 - axis], axis=1 - axis), int(at)) - reach[axis])
        * step[axis]
        for axis, at in enumerate(peak)
    )
    return float(near.max()), (float(down), float(across))


def _between_pixels(line: Array, at: int) -> float:
    """Offset of the maximum of a parabola through a pixel and its neighbours."""
    if not 0 < at < len(line) - 1:
        return 0.0
    low, peak, high = line[at - 1 : at + 2]
    curve = low - 2 * peak + high
    return float(0.5 * (low - high) / curve) if curve < 0 else 0.0
