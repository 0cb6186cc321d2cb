"""Places of a detection task in a training crop: those of its foci, and as many without."""

from __future__ import annotations

import numpy as np

from rbs.data.augmentation.lesions import local_mean
from rbs.scans.scan import Array

APART = 16
"""Rows or columns from an empty place to the nearest focus at least: past the edge of any."""


def draw_places(
    image: Array, spacing_mm: tuple[float, float], foci: Array, rows: int, rng: np.random.Generator
) -> Array:
    """Places of foci, as many as fit in half the rows, and as many empty ones.

    Empty places lie as foci do, more where there is more tracer, away from every inserted focus.

    Args:
        image: Counts or expectation at standard exposure, (V, H, W).
        spacing_mm: Rows, columns.
        foci: Rows and columns of all that were inserted, (n, 2).
        rows: Rows of the table, even.
        rng: Source of everything random.

    Returns:
        int64 (rows, 3): row, column, 1 with a focus and 0 without; -1 in rows that are not used.
    """
    weight = local_mean(image, spacing_mm).sum(axis=0).astype(np.float64)
    for row, column in foci.tolist():
        weight[max(row - APART, 0) : row + APART + 1, max(column - APART, 0) : column + APART + 1] = 0
    number = min(len(foci), rows // 2)
    table = np.full((rows, 3), -1)
    table[:number] = np.column_stack([foci[:number], np.ones(number, int)])
    if weight.any():
        chosen = rng.choice(weight.size, size=number, p=weight.ravel() / weight.sum())
        empty = np.unravel_index(chosen, weight.shape)
        table[number : 2 * number] = np.column_stack([*empty, np.zeros(number, int)])
    return table


def flip_places(places: Array, shape: tuple[int, int], flip: tuple[bool, bool]) -> Array:
    """The same places once their crop of this shape was flipped (left-right, up-down)."""
    left_right, up_down = flip
    flipped, used = places.copy(), places[:, 2] >= 0
    for axis, done in ((0, up_down), (1, left_right)):
        if done:
            flipped[used, axis] = shape[axis] - 1 - places[used, axis]
    return flipped
