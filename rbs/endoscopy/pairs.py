"""Checks that a frame, its picture of low quality and its masks belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rbs.endoscopy.colour import Frame, Mask
from rbs.endoscopy.files import read_mask, size_of
from rbs.endoscopy.perceptual_hash import alike, perceptual_hash
from rbs.errors import ManifestError

ONE_SCENE = 0.3
"""Likeness (`rbs.endoscopy.perceptual_hash`) below which two pictures are of different scenes.

Of 3 000 degraded real frames of all presets one was below, hazy and nearly white; of 2 988 with a
wrong frame six were not (`benchmarks/perceptual_hash.py`).
"""


def mask_of(frame: Path, *masks: Path) -> Mask:
    """Unite some masks of a frame, bool (H, W).

    Raises:
        FrameError: A file cannot be read.
        ManifestError: A mask has another size than the frame.
    """
    shape = size_of(frame)
    marked = np.zeros(shape, bool)
    for file in masks:
        mask = read_mask(file)
        if mask.shape != shape:
            fault = f"the mask has {_pixels(mask.shape)}, but {frame} has {_pixels(shape)}"
            raise ManifestError(fault, file=file, remedy="give the mask of this frame, at its size")
        marked |= mask
    return marked


def refuse_other_size(frame: Path, low: Path) -> None:
    """Refuse a picture of low quality that has neither the size of its frame nor half of it.

    Raises:
        FrameError: A file cannot be read.
        ManifestError: It has another size; both files are named.
    """
    shape, size = size_of(frame), size_of(low)
    if size != shape and any(abs(2 * a - b) > 1 for a, b in zip(size, shape, strict=True)):
        fault = f"it has {_pixels(size)}, but {frame} has {_pixels(shape)}"
        raise ManifestError(fault, file=low, remedy="give a picture of the same size, or of half of it")


def refuse_other_scene(frame: Path, clean: Frame, low: Path, acquired: Frame, field: Mask) -> None:
    """Refuse a picture of low quality that does not show what its frame shows.

    Args:
        frame: The frame's file.
        clean: Its content, (3, H, W).
        low: The other file.
        acquired: Its content, (3, H, W).
        field: The field of view of the frame, (H, W).

    Raises:
        ManifestError: It shows something else; both files are named.
    """
    value = alike(perceptual_hash(clean, field), perceptual_hash(acquired, field))
    if value < ONE_SCENE:  # which NaN is not: too little is shown to tell
        raise ManifestError(
            f"it does not show what {frame} shows (likeness {value:.2f}, of one scene at least {ONE_SCENE})",
            file=low,
            remedy="pair each frame with its own picture, or leave the pair out",
        )


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"
