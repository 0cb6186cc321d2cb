"""Strength of a restoration: the share of its smooth residual that is put back."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbs.scans.scan import Array

SIGMA_MM = 4.0
"""Smoothing of the residual that is put back, about the camera's own blur."""

ERROR_LEFT = 0.4
"""Share of the variance of a restoration's error that this smoothing leaves. Fitted so that the
intervals of `deviation` cover what they claim on six validation children at shares of 0.2 to 1."""


class Strength(StrEnum):
    """The strengths, from the one for reading faint foci to the quietest image."""

    GENTLE = "gentle"
    STANDARD = "standard"
    STRONG = "strong"

    @property
    def share(self) -> float:
        """Of the smooth residual that is put back."""
        return _SHARES[self]


_SHARES = {Strength.GENTLE: 0.6, Strength.STANDARD: 0.1, Strength.STRONG: 0.0}
"""`strong` is the restorer's own answer. The others are the least shares, on four validation
children, with which an observer of foci of 5, 10 and 20 mm has an AUC within 0.02 of that in a
Gaussian filter's image (standard), and not below that in the raw scan (gentle)."""

DEFAULT = Strength.STANDARD


def apply(
    strength: Strength, restored: Array, rapid: Array, exposure: float, spacing_mm: tuple[float, float]
) -> Array:
    """Give a restoration a strength.

    The restoration of least error flattens a focus at the edge of visibility, and with it what an
    observer could have made of the counts. They are still in the residual. What is put back answers
    them linearly, hot or cold, as a Gaussian filter does; and it brings every region larger than
    the camera's blur that share of the way back to what was counted. The price is the same share of
    the filter's noise.

    Args:
        strength: Its share is put back.
        restored: The restorer's own answer, standard counts (V, H, W), or (V, 2 H, 2 W) of one that
            enlarges.
        rapid: The raw counts it was made from, (V, H, W).
        exposure: Their exposure relative to the standard scan.
        spacing_mm: Rows, columns.

    Returns:
        Standard counts of the shape of `restored`, float32.
    """
    import numpy as np

    from rbs.scans.counts import where_scanned

    if not strength.share:
        return restored
    counts = put_back(restored, rapid, exposure, spacing_mm, strength.share)
    return where_scanned(counts.astype(np.float32), np.asarray(rapid))


def deviation(
    strength: Strength, own: Array, rapid: Array, exposure: float, spacing_mm: tuple[float, float]
) -> Array:
    r"""Standard deviation of what `apply` gives, from that of the restorer's own answer.

    With e = T - λ the error of the restorer and r = R / p - T its residual,

    .. math::
        T' - \lambda = e + \alpha\, G_\sigma r, \qquad
        s'^2 = s^2 + \alpha^2 \max\big(G_\sigma^2 * R / p^2 - \kappa s^2,\, 0\big), \qquad
        G_\sigma^2 = \frac{G_{\sigma / \sqrt 2}}{4 \pi \sigma^2} .

    Assumed is that e and r are uncorrelated, as they are where T is the estimate of least squared
    error: whatever could be told of e from R, T would have used. So the variance of G r adds to
    that of e. It is the variance of G (r + e), filtered Poisson noise of variance λ / p, for which
    R / p^2 stands, less that of G e, which is κ s^2 with κ = `ERROR_LEFT`. Pixels of R are
    independent; that T' is cut at zero is neglected.

    Args:
        strength: As given to `apply`.
        own: s, of the restorer's own answer, standard counts (V, H, W).
        rapid: Raw counts R (V, H, W).
        exposure: Their exposure p relative to the standard scan.
        spacing_mm: Rows, columns.

    Returns:
        Standard counts (V, H, W), float32.
    """
    import numpy as np

    from rbs.scans.body import smooth
    from rbs.scans.counts import where_scanned

    if not strength.share:
        return own
    rapid = np.asarray(rapid)
    squared_sum = math.prod(spacing_mm) / (4 * math.pi * SIGMA_MM**2)
    filtered = squared_sum * smooth(rapid / exposure**2, SIGMA_MM / math.sqrt(2), spacing_mm)
    variance = own**2 + strength.share**2 * np.maximum(filtered - ERROR_LEFT * own**2, 0)
    return where_scanned(np.sqrt(variance).astype(np.float32), rapid)


def put_back(
    estimate: Array, rapid: Array, exposure: float, spacing_mm: tuple[float, float], share: float = 1.0
) -> Array:
    r"""Put back the counts an estimate lost, the smooth part of its residual: twicing (Tukey 1977).

    .. math::
        T' = \max\big(T + \alpha\, G_\sigma (R / p - T),\, 0\big)

    What an estimate lost of the scan is still in the residual, the rest of which is noise. Of an
    estimate on finer pixels the residual is that of its sums over the pixels of the scan, and what
    is put back is cut up among them.

    Args:
        estimate: T, standard counts (V, H, W), or on pixels twice as fine.
        rapid: Raw counts R (V, H, W).
        exposure: Their exposure p relative to the standard scan.
        spacing_mm: Rows, columns.
        share: How much of it is put back.

    Returns:
        Standard counts, float64, of the shape of `estimate`.
    """
    import numpy as np

    from rbs.scans.body import smooth
    from rbs.scans.counts import cut_up, on_pixels_of, standard_scale

    rapid = np.asarray(rapid, np.float64)
    residual = smooth(standard_scale(rapid, exposure) - on_pixels_of(estimate, rapid), SIGMA_MM, spacing_mm)
    if estimate.shape != rapid.shape:
        residual = cut_up(residual, estimate.shape[1] // rapid.shape[1])
    return np.maximum(estimate + share * residual, 0)
