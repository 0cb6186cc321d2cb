"""Crops placed by masks: hot spots and growth plates are few pixels, which chance seldom shows."""

from __future__ import annotations

import numpy as np

from rbs.data.datasets import GRID
from rbs.scans.regions import label_of
from rbs.scans.scan import Array

REGIONS = ("hot spots", "growth plates")
_LABELS = tuple(label_of(region) for region in REGIONS)


def place_on_lesion(labels: Array, crop: tuple[int, int], rng: np.random.Generator) -> tuple[int, int] | None:
    """Top and left of a random crop that holds a random pixel of a hot spot or growth plate.

    Which of the two regions is drawn first, so that large plates do not crowd out small spots.

    Args:
        labels: Region labels (V, H, W).
        crop: Rows and columns.
        rng: Source of everything random.

    Returns:
        Multiples of 16; None where the child has neither.
    """
    last = [(size - side) // GRID for size, side in zip(labels.shape[1:], crop, strict=True)]
    # A margin narrower than the grid lies in no crop.
    height, width = (number * GRID + side for number, side in zip(last, crop, strict=True))
    reached = labels[:, :height, :width]
    present = [label for label in _LABELS if (reached == label).any()]
    if not present:
        return None
    pixels = np.argwhere(reached == present[rng.integers(len(present))])
    pixel = pixels[rng.integers(len(pixels))][1:].tolist()
    top, left = (
        GRID * int(rng.integers(max(0, -((side - 1 - at) // GRID)), min(at // GRID, number) + 1))
        for at, side, number in zip(pixel, crop, last, strict=True)
    )
    return top, left
