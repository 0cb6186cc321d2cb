"""Degradation of clean images: count scans thinned, colour frames blurred, darkened, compressed.

All that degrades has one call, `degrade(image, rng) -> image`, stated by `Degrader`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rbs.scans.scan import Array


class Degrader(Protocol):
    """Simulation of a worse acquisition.

    `Thinning` degrades scans, `Optical` frames. Parameters beside the image (exposure,
    preset, field of view) are attributes, so that a learned degrader has the same call.
    """

    def __call__(self, image: Array, rng: np.random.Generator, /) -> Array:
        """Degrade one image.

        Args:
            image: Counts (V, H, W), or sRGB values 0..1, float32 (3, H, W); left as it is.
            rng: Source of all randomness: the same state gives the same answer.

        Returns:
            An image of the same kind and shape.
        """
