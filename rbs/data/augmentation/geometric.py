"""Augmentation: the one place that knows the augmentation library (albumentations)."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from rbs.scans.scan import Array

# Unless told not to, the library asks the internet for its newest version when imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Imported here, not at the first sample: that is drawn in a forked worker, where W&B's import hook
# fails.
import albumentations  # noqa: TID253

LARGEST_SEED = 2**32 - 1

_FLIPPER = albumentations.Compose([albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)])


def log_uniform(span: tuple[float, float], rng: np.random.Generator) -> float:
    """A number between the two ends of a span, both above zero, its logarithm uniform."""
    return float(np.exp(rng.uniform(*np.log(span))))


def flip_alike(arrays: Mapping[str, Array], seed: int) -> tuple[dict[str, Array], tuple[bool, bool]]:
    """Flip all arrays of one sample alike: left-right and up-down, each with probability 1/2, independently.

    Only exact permutations of pixels are allowed here: interpolated counts are no longer Poisson.

    Args:
        arrays: Arrays (views, rows, columns) of the same rows and columns; any dtype.
        seed: What decides the flips, 0 to `LARGEST_SEED`. The library keeps a random generator of
            its own, which worker processes would inherit in the same state; so each call seeds it.

    Returns:
        The flipped arrays under their names, and which flips were applied: (left-right, up-down).
    """
    names = list(arrays)
    rows, columns = arrays[names[0]].shape[-2:]
    # The library moves one grid of pixel numbers and the arrays are read through it, so that no
    # cast or interpolation inside the library can touch a count.
    grid = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    # Compose.set_random_seed would give both transforms the same seed: they would always flip
    # together.
    for transform, state in zip(
        _FLIPPER.transforms, np.random.SeedSequence(seed).generate_state(2), strict=True
    ):
        transform.set_random_seed(int(state))
    moved = _FLIPPER(image=np.zeros((rows, columns, 1), np.uint8), mask=grid)["mask"]
    if np.array_equal(moved, grid):
        return dict(arrays), (False, False)
    left_right = moved[0, 0] % columns != 0
    up_down = moved[0, 0] // columns != 0
    flat = moved.reshape(-1)
    flipped = {
        name: np.take(array.reshape(len(array), -1), flat, axis=1).reshape(array.shape)
        for name, array in arrays.items()
    }
    return flipped, (bool(left_right), bool(up_down))
