"""The patient's left and right: the midline of the body in a labelled scan."""

from __future__ import annotations

import numpy as np

from rbs.scans.regions import label_of
from rbs.scans.scan import Array

AXIAL = tuple(label_of(name) for name in ("skull", "spine", "thorax", "pelvis"))
"""Labels that lie on both sides of the midline."""

LEAST_ROWS = 20
"""Fewer rows than these tell no direction: the midline is then upright."""


def midline(counts: Array, labels: Array) -> Array:
    """Column of the body's midline in each row, float64 (H,).

    A straight line through the middles of skull, spine, thorax and pelvis in each row, by the
    Theil-Sen estimator: up to 29 % of the rows may be off, as where one shoulder is raised. Where
    none of them is seen, it is an upright line through the median of the counts.

    Args:
        counts: (V, H, W), aligned.
        labels: (V, H, W).
    """
    from scipy.stats import theilslopes

    height, width = labels.shape[1:]
    axial = np.asarray(np.isin(labels, AXIAL).any(axis=0))
    rows = np.flatnonzero(axial.any(axis=1))
    if rows.size < LEAST_ROWS:
        per_column = (counts if not rows.size else axial[None]).sum(axis=(0, 1)).cumsum()
        return np.full(height, float(np.searchsorted(per_column, per_column[-1] / 2)))
    first = axial[rows].argmax(axis=1)
    last = width - 1 - axial[rows, ::-1].argmax(axis=1)
    # 200 rows are enough, and the estimator takes the square of their number.
    step = -(-rows.size // 200)
    slope, intercept, _, _ = theilslopes(((first + last) / 2)[::step], rows[::step])
    return np.asarray(intercept + slope * np.arange(height))


def is_left(middle: Array, width: int) -> Array:
    """True at pixels of the patient's left half, bool (H, W): columns beyond the midline.

    The aligned anterior view shows the patient's right on the left of the image, and the posterior
    view is mirrored onto it.
    """
    return np.asarray(np.arange(width)[None, :] > middle[:, None])
