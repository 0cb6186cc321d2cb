"""What a restoration leaves over of a scan, and how much of it is put back."""

from __future__ import annotations

import numpy as np

from rbs.scans.body import smooth
from rbs.scans.scan import Array

SIGMA_MM = 4.0
"""Smoothing of the residual that is put back, about the camera's own blur."""


def put_back(
    estimate: Array, rapid: Array, fraction: float, spacing_mm: tuple[float, float], share: float = 1.0
) -> Array:
    r"""Put back the counts an estimate lost, as the smooth part of its residual: "twicing" (Tukey 1977).

    .. math::
        T' = \max\big(T + \alpha\, G_\sigma (R / p - T),\, 0\big)

    What an estimate lost of the scan is still in the residual, the rest of which is noise.

    Args:
        estimate: T, standard counts (V, H, W).
        rapid: Raw counts R (V, H, W).
        fraction: Their exposure p relative to the standard scan.
        spacing_mm: Rows, columns.
        share: How much of it is put back.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    residual = np.asarray(rapid, np.float64) / fraction - estimate
    return np.maximum(estimate + share * smooth(residual, SIGMA_MM, spacing_mm), 0)
