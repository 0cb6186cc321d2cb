"""Count statistics: thinning, disjoint splitting, noise dispersion and variance stabilisation.

Everything here rests on counts being Poisson: on integers a camera counted, neither scaled nor
smoothed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from rbs.scans.scan import Array

ENOUGH_COUNTS = 1000
ENOUGH_PIXELS = 2500
"""Below either number the dispersion index says nothing: its spread is about sqrt(2 / independent
blocks)."""

_TABLE_END = 100.0
"""Mean up to which the inverse Anscombe transform is tabulated."""


def dispersion_index(counts: Array) -> float:
    """Noise variance over mean: 1 for raw counts, s for counts scaled by s, below 1 once smoothed.

    The index is sum(w d^2) / sum(w mean) over the blocks of `block_contrasts`, with w the inverse
    of the level: it is independent of the block, so Poisson counts give 1 without bias, and a few
    steep hot pixels (bladder, injection site) do not drown the rest of the body.
    `rbs.scans.noise.examine` judges it, level by level.

    Args:
        counts: (rows, columns) or (frames, rows, columns).

    Returns:
        The index, or NaN with fewer than `ENOUGH_COUNTS` counts or `ENOUGH_PIXELS` pixels.
    """
    frames = np.atleast_3d(counts.T).T.astype(np.float64)
    if frames.sum() < ENOUGH_COUNTS or frames.size < ENOUGH_PIXELS or min(frames.shape[-2:]) < 4:
        return float("nan")
    squares, means, levels = block_contrasts(frames)
    # The constant keeps a nearly empty background from outweighing the body.
    weight = 1 / (levels + 1)
    return float((weight * squares).sum() / (weight * means).sum())


def block_contrasts(counts: Array) -> tuple[Array, Array, Array]:
    """Noise and mean of every inner 2x2 block [[a, b], [c, e]], and of the pixels around it.

    The contrast d = (a - b - c + e) / 2 cancels the anatomy to first order, and for Poisson counts
    its variance is the block's mean.

    Args:
        counts: Floats (..., rows, columns), 4 x 4 pixels at least.

    Returns:
        The squared contrast d^2, the mean of the block, and its level: the mean of the 12 pixels
        around it, which share no noise with it; each (..., rows - 3, columns - 3).
    """
    left, right = counts[..., :-1], counts[..., 1:]
    pairs, steps = left + right, left - right
    contrast = steps[..., 1:-2, 1:-1] - steps[..., 2:-1, 1:-1]
    block = pairs[..., 1:-2, 1:-1] + pairs[..., 2:-1, 1:-1]
    fours = pairs[..., :-2] + pairs[..., 2:]
    eights = fours[..., :-1, :] + fours[..., 1:, :]
    around = eights[..., :-2, :] + eights[..., 2:, :] - block
    return contrast**2 / 4, block / 4, np.maximum(around, 0) / 12


def anscombe(counts: Array) -> Array:
    """Anscombe's transform 2 sqrt(x + 3/8): unit variance for Poisson counts of a mean above 4.

    Anscombe, Biometrika 35 (1948) 246-254.
    """
    return 2 * np.sqrt(np.asarray(counts) + 0.375)


def inverse_anscombe(values: Array) -> Array:
    """Mean of the Poisson counts whose transform has the mean `values`: the exact unbiased inverse.

    Solves E[2 sqrt(X + 3/8) | mean] = value from a table of the Poisson sums; above a mean of 100
    the asymptotically unbiased (z/2)^2 - 1/8 agrees with it. Values below the transform of zero
    counts give 0. Mäkitalo & Foi, IEEE Trans. Image Process. 20 (2011) 99-109.

    Args:
        values: Transformed values, any shape; such as a denoised `anscombe` image.

    Returns:
        Non-negative counts, float64.
    """
    z = np.asarray(values, dtype=np.float64)
    means, transforms = _inverse_table()
    return np.where(z < transforms[-1], np.interp(z, transforms, means), (z / 2) ** 2 - 0.125)


@lru_cache(maxsize=1)
def _inverse_table() -> tuple[Array, Array]:
    """Poisson means and the means of their Anscombe transforms, both rising."""
    means = np.linspace(0, np.sqrt(_TABLE_END), 1500) ** 2
    x = np.arange(260)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(x[1:]))])
    # The first mean is 0, whose logarithm does not exist; 1e-300 gives the same probabilities.
    logs = x * np.log(np.maximum(means, 1e-300))[:, None] - means[:, None] - log_factorial
    return means, np.exp(logs) @ anscombe(x)


def block_sums(images: Array, rows: int, columns: int) -> Array:
    """Sums over blocks of (V, H, W), float64; what is left at the lower right edges is dropped."""
    down, across = images.shape[1] // rows, images.shape[2] // columns
    cut = images[:, : down * rows, : across * columns].astype(np.float64)
    return cut.reshape(len(cut), down, rows, across, columns).sum(axis=(2, 4))


def on_pixels_of(fine: Array, coarse: Array) -> Array:
    """Counts (V, m H, n W) summed up to the pixels of others, (V, H, W), which are m x n larger."""
    rows, columns = (f // c for f, c in zip(fine.shape[1:], coarse.shape[1:], strict=True))
    return fine if rows == columns == 1 else block_sums(fine, rows, columns)


def cut_up(image: Array, scale: int) -> Array:
    """An image (V, H, W) on finer pixels, (V, scale H, scale W), bilinear, its sum kept.

    Unlike `rbs.restorers.enlarging`, which is of counts, it is linear and may be negative.
    """
    from scipy.ndimage import zoom

    finer = [zoom(view, scale, order=1, grid_mode=True, mode="nearest") for view in image]
    return np.stack(finer) / scale**2


def poisson_deviance(counted: Array, expected: Array) -> Array:
    """Deviance 2 (r ln(r/m) - (r - m)) of counts r from their means m > 0; 2m where r is 0.

    McCullagh & Nelder, Generalized Linear Models, 2nd ed. (1989), section 2.4.
    """
    from scipy.special import xlogy

    return np.maximum(2 * (xlogy(counted, counted / expected) - (counted - expected)), 0)


def standard_scale(counts: Any, exposure: Any) -> Any:
    """Raw counts at the scale of the standard scan: x = r / p.

    Args:
        counts: Raw counts r, an array or tensor of one scan (V, H, W) or of a batch (B, V, H, W).
        exposure: Exposure p relative to the standard scan: a number, or one for each scan of a
            batch (B,).

    Returns:
        Expected counts of the standard scan, of the kind, precision and shape of `counts`.
    """
    if getattr(exposure, "ndim", 0) == 1:
        exposure = exposure[:, None, None, None]
    elif isinstance(exposure, np.generic):  # of which a float64 would raise the precision of the counts
        exposure = float(exposure)
    return counts / exposure


END_MM = 10.0
"""Length of the ends of a scan that hold no part of a body that was scanned whole, mm."""


def scanned_rows(counts: Array) -> tuple[int, int]:
    """First row of (V, H, W) in which a view holds a count, and one past the last; 0, 0 without."""
    scanned = np.flatnonzero(counts.any(axis=(0, 2)))
    return (int(scanned[0]), int(scanned[-1]) + 1) if scanned.size else (0, 0)


def scanned_ends(counts: Array, row_mm: float) -> tuple[slice, slice]:
    """The first and the last `END_MM` of the rows of (V, H, W) that were scanned."""
    first, end = scanned_rows(counts)
    deep = max(round(END_MM / row_mm), 1)
    return slice(first, first + deep), slice(max(end - deep, first), end)


def where_scanned(counts: Array, rapid: Array) -> Array:
    """Remove restored counts from rows that no view has scanned.

    Args:
        counts: Restored counts (V, H, W); the rows above the first and below the last count are set
            to zero. They may have a whole number of rows for each of the rapid scan.
        rapid: The rapid scan (V, H, W).

    Returns:
        `counts`.
    """
    rows = counts.shape[1] // rapid.shape[1]
    first, end = (rows * row for row in scanned_rows(rapid))
    counts[:, :first], counts[:, end:] = 0, 0
    return counts
