"""A perceptual hash of frames, 1024 bits: it recognises copies, and tells other scenes apart.

The field of view of a frame (no borders, insets and text, which all frames of one processor have in
common) is reduced to 32 x 32 cells. A bit says if a cell is brighter than its surroundings, under a
Gaussian of two cells, so that little depends on exposure, tone curve, size or compression. The
likeness of two hashes is twice the share of cells in which they agree, of those that both show,
less 1: zero on average for frames that have nothing in common.

On 200 real frames (`benchmarks/perceptual_hash.py`) it is 0.53 and more for a frame and its copies
(JPEG of quality 20, other sizes, a quarter of the brightness, squared or clipped values, another
colour), 0.56 for the one pair that shows the same a second later, and at most 0.34 for the 19 899
others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rbs.endoscopy.colour import Frame, Mask
from rbs.scans.scan import Array

CELLS = 32
_SURROUNDINGS = 2.0
_LEAST_SHARED = CELLS**2 // 4
"""Cells that both must show: of fewer too many agree by chance."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class PerceptualHash:
    """Hash of a frame.

    Attributes:
        bits: Cells brighter than their surroundings, uint64 (16,).
        shown: Cells in the field of view, uint64 (16,).
    """

    bits: Array
    shown: Array


def perceptual_hash(frame: Frame, field: Mask) -> PerceptualHash:
    """Hash a frame.

    Args:
        frame: float32 (3, H, W), sRGB 0..1.
        field: Its field of view, bool (H, W).
    """
    from scipy.ndimage import gaussian_filter

    luma = _cells(np.tensordot(_LUMA, frame, 1))
    shown = _cells(field.astype(np.float32)) > 0.5
    weight = gaussian_filter(shown.astype(np.float32), _SURROUNDINGS)
    around = gaussian_filter(np.where(shown, luma, 0), _SURROUNDINGS) / np.maximum(weight, 1e-6)
    return PerceptualHash(_packed(shown & (luma > around)), _packed(shown))


def alike(first: PerceptualHash, second: PerceptualHash) -> float:
    """Likeness of two hashes: 1 for the same, about 0 for unlike ones, NaN for too few cells."""
    return float(likeness(first.bits[None], first.shown[None], second.bits[None], second.shown[None])[0, 0])


def likeness(bits: Array, shown: Array, others: Array, others_shown: Array) -> Array:
    """Likeness of each of M hashes with each of N others.

    Args:
        bits: As in `PerceptualHash`, (M, 16).
        shown: Likewise.
        others: Of the others, (N, 16).
        others_shown: Likewise.

    Returns:
        float32 (M, N), see `alike`.
    """
    shared = np.zeros((len(bits), len(others)), np.int16)
    unlike = np.zeros_like(shared)
    for word in range(bits.shape[1]):  # one by one, so that little is in memory
        both = shown[:, None, word] & others_shown[None, :, word]
        shared += np.bitwise_count(both)
        unlike += np.bitwise_count((bits[:, None, word] ^ others[None, :, word]) & both)
    value = 1 - 2 * unlike / np.maximum(shared, 1)
    return np.where(shared >= _LEAST_SHARED, value, np.nan).astype(np.float32)


def _cells(plane: Array) -> Array:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX))


def _packed(cells: Array) -> Array:
    return np.packbits(cells).view(np.uint64)
