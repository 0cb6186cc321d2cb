"""Two passes over a body that moved in between, its expectation known in closed form wherever it moved to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SHAPE, SPACING = (256, 128), (2.4, 2.2)
MIDDLE = (290.0, 140.0)
# Row and column of the middle, their sigmas, all in mm; counts a pixel at the peak.
BODY = [
    *((300, 140, 130, 45, 2.0), (80, 140, 25, 20, 5.0), (240, 140, 70, 8, 6.0), (360, 140, 15, 40, 4.0)),
    *((470, 110, 60, 9, 4.0), (470, 170, 60, 9, 4.0), (465, 110, 5, 14, 9.0), (465, 170, 5, 14, 9.0)),
    *((270, 75, 60, 7, 2.5), (270, 205, 60, 7, 2.5), (190, 115, 6, 6, 6.0), (200, 170, 5, 8, 5.0)),
    *((160 + 22 * rib, 140, 3, 32, 1.5) for rib in range(6)),
]
BLADDER = (385, 140, 10, 12, 15.0)
LEVEL = 4.0
"""Brings both views together to half a million counts, as of a child of 15 kg."""
Field = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def still(z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 0 * z, 0 * x


def rigid(down: float, across: float, degrees: float = 0.0) -> Field:
    """The point (z, x) of the fixed scan lies at (z, x) + u in the moving one."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))

    def u(z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z, x = z - MIDDLE[0], x - MIDDLE[1]
        return cos * z - sin * x - z + down, sin * z + cos * x - x + across

    return u


def legs_apart(z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower half moves across by 4 mm more than the upper one."""
    below = 1 / (1 + np.exp((400 - z) / 15))
    return 0 * z + 1.0, -1 + 4 * below + 0 * x


def expectation(u: Field = still, bladder: float = 1.0) -> np.ndarray:
    """Expected standard counts of both aligned views where the body lies at x + u(x) of the rapid scan."""
    z, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    down, across = u(z, x)
    z, x = z + down, x + across

    def seen(*blobs: tuple[float, ...]) -> np.ndarray:
        return sum(a * np.exp(-(((z - m) / s) ** 2 + ((x - n) / t) ** 2) / 2) for m, n, s, t, a in blobs)

    full = bladder * seen(BLADDER)
    return LEVEL * np.stack([0.01 + seen(*BODY) + full, 0.01 + 0.8 * seen(*BODY) + 0.3 * full])


def passes(u: Field, *, seed: int = 0, exposure: float = 0.5, bladder: float = 1.0) -> tuple:
    """Standard and rapid counts: two Poisson draws, the standard one of the body that has moved."""
    rng = np.random.default_rng(seed)
    return rng.poisson(expectation(u, bladder)), rng.poisson(exposure * expectation())
