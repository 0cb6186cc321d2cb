"""The body in a scan."""

from __future__ import annotations

import numpy as np

from rbs.scans.scan import Array

MASK_DEFINITION = (
    "body: pixels whose standard scan, smoothed with a Gaussian of 9 mm sigma, exceeds a quarter of the "
    "median of those smoothed pixels that lie above the mean of their view"
)


def smooth(counts: Array, sigma_mm: float, spacing_mm: tuple[float, float]) -> Array:
    """Gaussian filter of each view, reflecting at the borders so that the counts are kept.

    Args:
        counts: (V, H, W).
        sigma_mm: Standard deviation, mm.
        spacing_mm: Row and column spacing, mm.

    Returns:
        float64 (V, H, W).
    """
    from scipy.ndimage import gaussian_filter

    sigma = (0.0, sigma_mm / spacing_mm[0], sigma_mm / spacing_mm[1])
    return np.asarray(gaussian_filter(counts.astype(np.float64), sigma, mode="reflect"))


def body_mask(standard: Array, spacing_mm: tuple[float, float]) -> Array:
    """The body, found in the standard scan.

    The scan is smoothed with a 9 mm Gaussian (some 200 pixels, so even 0.3 counts a pixel are known
    to 13 %). In each view, the pixels above that view's mean are surely body; a quarter of their
    median is the threshold. The median makes it insensitive to a hot bladder or injection site.

    Args:
        standard: Counts at any exposure (V, H, W).
        spacing_mm: Row and column spacing, mm.

    Returns:
        bool (V, H, W).
    """
    smoothed = smooth(standard, 9.0, spacing_mm)
    mask = np.zeros(standard.shape, dtype=bool)
    for view, image in zip(mask, smoothed, strict=True):
        surely = image[image > image.mean()]
        if surely.size:
            view[:] = image > 0.25 * np.median(surely)
    return mask
