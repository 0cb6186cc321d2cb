"""Counts and labels on another pixel grid of the same field of view, from its upper left corner."""

from __future__ import annotations

import math

import numpy as np

from rbs.scans.scan import Array, Spacing

SAME_SPACING = 1e-3
"""Relative difference up to which two pixel sizes are the same: headers round them."""


def same_spacing(first: Spacing, second: Spacing) -> bool:
    """True where pixels have one size."""
    return bool(np.allclose(first, second, rtol=SAME_SPACING))


def resample_expectation(images: Array, spacing_mm: Spacing, onto_mm: Spacing) -> Array:
    """Expected counts on pixels of another size; those of every view are kept.

    Counts up to an edge are interpolated (PCHIP, which rises where they do) and their differences
    taken, along rows and then along columns. Acquired counts would no longer be Poisson's.

    Args:
        images: Expected counts (V, H, W).
        spacing_mm: Row and column spacing, mm.
        onto_mm: That of the result.

    Returns:
        float32 (V, H', W'), no pixel negative; the last row and column may reach beyond the field.
    """
    for axis, (own, wanted) in enumerate(zip(spacing_mm, onto_mm, strict=True), start=1):
        images = _resampled(images, axis, own, wanted)
    return np.maximum(images, 0).astype(np.float32)


def _resampled(images: Array, axis: int, own: float, wanted: float) -> Array:
    from scipy.interpolate import PchipInterpolator

    size = images.shape[axis]
    before = np.zeros((*images.shape[:axis], 1, *images.shape[axis + 1 :]))
    sums = np.concatenate([before, np.cumsum(images, axis=axis, dtype=np.float64)], axis=axis)
    edges = np.minimum(np.arange(resampled_size(size, own, wanted) + 1) * wanted / own, size)
    return np.diff(PchipInterpolator(np.arange(size + 1), sums, axis=axis)(edges), axis=axis)


def resample_labels(labels: Array, spacing_mm: Spacing, onto_mm: Spacing) -> Array:
    """The label in the middle of each pixel of `resample_expectation`, (V, H', W')."""
    places = []
    for size, own, wanted in zip(labels.shape[1:], spacing_mm, onto_mm, strict=True):
        middles = (np.arange(resampled_size(size, own, wanted)) + 0.5) * wanted / own
        places.append(np.minimum(middles.astype(int), size - 1))
    return labels[:, places[0][:, None], places[1]]


def resampled_size(size: int, own: float, wanted: float) -> int:
    """Pixels of `wanted` mm that hold `size` pixels of `own` mm."""
    return math.ceil(size * own / wanted - 1e-6)
