"""Augmentation: the one place that knows the augmentation library (albumentations)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from rbs.scans.scan import Array

LARGEST_SEED = 2**32 - 1


def log_uniform(span: tuple[float, float], rng: np.random.Generator) -> float:
    """A number between the two ends of a span, both above zero, its logarithm uniform."""
    return float(np.exp(rng.uniform(*np.log(span))))


def flip_alike(arrays: Mapping[str, Array], seed: int) -> tuple[dict[str, Array], tuple[bool, bool]]:
    """Flip all arrays of one sample alike: left-right and up-down, each with probability 1/2.

    Only exact permutations of pixels are allowed here: interpolated counts are no longer Poisson.

    Args:
        arrays: Arrays (views, rows, columns) of the same rows and columns; any dtype.
        seed: Decides the flips, 0 to `LARGEST_SEED`. The library keeps a random generator of its
            own, which worker processes would inherit in the same state; so each call seeds it.

    Returns:
        The flipped arrays under their names, and which flips were applied: (left-right, up-down).
    """
    flips = _flips(tuple(arrays))
    # Compose.set_random_seed would give both transforms the same seed: they would always flip
    # together.
    for transform, state in zip(
        flips.transforms, np.random.SeedSequence(seed).generate_state(2), strict=True
    ):
        transform.set_random_seed(int(state))
    flipped = flips(volume=next(iter(arrays.values())), **arrays)
    applied = {name for name, _ in flipped["applied_transforms"]}
    return {name: flipped[name] for name in arrays}, ("HorizontalFlip" in applied, "VerticalFlip" in applied)


def library() -> Any:
    """The augmentation library, imported now: in a forked worker W&B's import hook would fail."""
    # Unless told not to, it asks the internet for its newest version when imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


@cache
def _flips(names: tuple[str, ...]) -> Any:
    """Both flips of arrays of these names, as volumes, which the library slices exactly."""
    flips = [library().HorizontalFlip(p=0.5), library().VerticalFlip(p=0.5)]
    targets = dict.fromkeys(names, "volume")
    return library().Compose(
        flips, additional_targets=targets, is_check_shapes=False, save_applied_params=True
    )
