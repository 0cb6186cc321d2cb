"""Faint foci kept: part of what a restorer took for noise is given back, where the scan holds more counts."""

from __future__ import annotations

import math

import numpy as np

from rbs.scans.body import smooth
from rbs.scans.counts import where_scanned
from rbs.scans.scan import Array

SCALES_MM = (8.0, 3.5)
"""Standard deviations of the Gaussians that look for foci, coarse first: of 19 and 8 mm FWHM."""
THRESHOLD = 0.5
"""Standard deviations of the counting noise by which a residual must exceed zero."""
SHARE = 0.75
"""Of what lies above the threshold, how much is given back."""

_FLOOR = 1e-3
"""Counts a pixel that are expected at least, so that empty air has some noise."""

SUFFIX = ", faint foci kept"
"""What headers and tables add to a restorer's name."""


def keep_faint(restored: Array, rapid: Array, fraction: float, spacing_mm: tuple[float, float]) -> Array:
    r"""Give back to a restoration what the scan holds beyond it, as far as that may be foci.

    The restoration of least error flattens a focus at the edge of visibility, and with it what an observer
    could have made of the counts. They are still in the residual, whose noise is known. At each scale s

    .. math::
        z = \frac{G_s (r/p - f)}{\sigma_s}, \quad \sigma_s^2 = \frac{G_{s/\sqrt2} f}{4\pi s^2 p}, \qquad
        f \leftarrow f + \alpha\,\Big(\sigma_s (z - z_0)_+ \; - \; c\,\sigma_s\Big)

    with counts r of exposure p, the restoration f, Gaussians G (s in pixels) and c such that what is given
    back sums to zero: the restored counts stay as many as they were. Foci are hot, so that only a surplus is
    given back, and half of the noise stays out; a soft threshold keeps out more (Donoho, IEEE Trans Inf
    Theory 1995;41:613). The price is that noise all the same: docs/task-figures.md has both sides, measured.

    Args:
        restored: Standard counts (V, H, W).
        rapid: The raw counts it was made from, (V, H, W).
        fraction: Their exposure p relative to the standard scan.
        spacing_mm: Rows, columns.

    Returns:
        Standard counts (V, H, W), float32.
    """
    f = np.asarray(restored, np.float64)
    scan, total = np.asarray(rapid, np.float64) / fraction, f.sum()
    for scale in SCALES_MM:
        residual = smooth(scan - f, scale, spacing_mm)
        area = 4 * math.pi * scale**2 / math.prod(spacing_mm)
        deviation = np.sqrt(smooth(np.maximum(f, _FLOOR), scale / math.sqrt(2), spacing_mm) / fraction / area)
        surplus = np.maximum(residual - THRESHOLD * deviation, 0)
        f = np.maximum(f + SHARE * (surplus - deviation * surplus.sum() / deviation.sum()), 0)
    f = where_scanned(f, np.asarray(rapid))
    return (f * (total / f.sum() if f.any() else 1)).astype(np.float32)
