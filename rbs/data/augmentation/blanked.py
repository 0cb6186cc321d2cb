"""Blanked areas: parts of a scan painted black, such as all but the chest, filled for training.

A painted pixel is no count. Trained on, it teaches black edges that no patient has; so it gets what
lies next to it, of which an input and a target can be thinned as of the rest.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, binary_opening, distance_transform_edt, gaussian_filter

from rbs.scans.scan import Array

SIDE = 4
"""Side of the smallest empty square that is taken for blanked, pixels."""

SIGMA_PX = 2.5
"""Width of the filter that finds the level at the edge of a blanked area, pixels."""


def fill_blanked(counts: Array, cut: int, rng: np.random.Generator) -> Array:
    """Fill the blanked areas of a scan with Poisson counts of the level at their nearest edge.

    Empty air is filled, too, with the level at the edge of the body.

    Args:
        counts: Whole counts (V, H, W).
        cut: Counts up to this number do not tell a pixel from a blank one (`Scan.cut`).
        rng: Source of randomness.

    Returns:
        Counts of the same type and shape; the same where nothing is blank, or all of a view.
    """
    filled = counts.copy()
    for view in filled:
        empty = binary_opening(view <= cut, np.ones((SIDE, SIDE)))
        blank = binary_dilation(empty, np.ones((3, 3)))  # a JPEG smears the edge
        if blank.all() or not blank.any():
            continue
        known = (~blank).astype(np.float64)
        weight = gaussian_filter(known, SIGMA_PX)
        level = gaussian_filter(view * known, SIGMA_PX) / np.maximum(weight, 1e-6)
        nearest = distance_transform_edt(blank, return_distances=False, return_indices=True)
        level = gaussian_filter(level[tuple(nearest)], SIGMA_PX)
        view[blank] = rng.poisson(level[blank])
    return filled
