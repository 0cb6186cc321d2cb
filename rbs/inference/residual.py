"""Keeping faint foci: half of the smooth residual of a restoration is put back."""

from __future__ import annotations

import numpy as np

from rbs.scans.body import smooth
from rbs.scans.counts import standard_scale, where_scanned
from rbs.scans.scan import Array

SIGMA_MM = 4.0
"""Smoothing of the residual that is put back, about the camera's own blur."""
SHARE = 0.5
"""Of the smooth part of the residual. Chosen on validation children: less shows an observer clearly
less than a Gaussian filter does, and more costs more than it shows."""

SUFFIX = ", faint foci kept"
"""Added to a restorer's name in headers and tables."""


def keep_faint(restored: Array, rapid: Array, exposure: float, spacing_mm: tuple[float, float]) -> Array:
    """Put half of the smooth residual back to a restoration.

    The restoration of least error flattens a focus at the edge of visibility, and with it what an
    observer could have made of the counts. They are still in the residual. What is put back answers
    them linearly, hot or cold, as a Gaussian filter does, so that an observer finds in the sum
    nearly what the filter shows; and it brings every region larger than the camera's blur half of
    the way back to what was counted. The price is half of the filter's noise: docs/task-figures.md
    has both sides, measured.

    Args:
        restored: Standard counts (V, H, W).
        rapid: The raw counts it was made from, (V, H, W).
        exposure: Their exposure relative to the standard scan.
        spacing_mm: Rows, columns.

    Returns:
        Standard counts (V, H, W), float32.
    """
    kept = put_back(restored, rapid, exposure, spacing_mm, SHARE)
    return where_scanned(kept.astype(np.float32), np.asarray(rapid))


def put_back(
    estimate: Array, rapid: Array, exposure: float, spacing_mm: tuple[float, float], share: float = 1.0
) -> Array:
    r"""Put back the counts an estimate lost, the smooth part of its residual: twicing (Tukey 1977).

    .. math::
        T' = \max\big(T + \alpha\, G_\sigma (R / p - T),\, 0\big)

    What an estimate lost of the scan is still in the residual, the rest of which is noise.

    Args:
        estimate: T, standard counts (V, H, W).
        rapid: Raw counts R (V, H, W).
        exposure: Their exposure p relative to the standard scan.
        spacing_mm: Rows, columns.
        share: How much of it is put back.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    residual = standard_scale(np.asarray(rapid, np.float64), exposure) - estimate
    return np.maximum(estimate + share * smooth(residual, SIGMA_MM, spacing_mm), 0)
