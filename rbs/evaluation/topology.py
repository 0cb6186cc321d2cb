"""Agreement of thin structures: Dice of centrelines, and the number of connected parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]


def centreline_dice(found: Mask, there: Mask) -> float:
    r"""Dice of centrelines (clDice; Shit et al., CVPR 2021, arXiv 2003.07311).

    .. math::
        P = \frac{|S_f \cap V_t|}{|S_f|}, \qquad R = \frac{|S_t \cap V_f|}{|S_t|}, \qquad
        \text{clDice} = \frac{2 P R}{P + R}

    with mask V and skeleton S, found f and true t, of all views together. 0 where nothing is found,
    NaN where nothing is.

    Args:
        found: Masks (V, H, W) of one region.
        there: The truth, likewise.
    """
    from skimage.morphology import skeletonize

    lines_found, lines_there = (np.stack([skeletonize(view) for view in masks]) for masks in (found, there))
    if not lines_there.any():
        return float("nan")
    precision = (lines_found & there).sum() / max(1, lines_found.sum())
    recall = (lines_there & found).sum() / lines_there.sum()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def parts_error(found: Mask, there: Mask) -> float:
    """Difference of the number of connected parts (Betti number 0), mean over views.

    Pixels that touch at a corner are connected.

    Args:
        found: Masks (V, H, W) of one region.
        there: The truth, likewise.
    """
    ours, theirs = ([ndimage.label(view, np.ones((3, 3)))[1] for view in masks] for masks in (found, there))
    return float(np.abs(np.subtract(ours, theirs)).mean())
