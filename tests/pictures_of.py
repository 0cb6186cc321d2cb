"""Pictures of Poisson counts, exported as the public collections are."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def counts_of_a_body(seed: int = 0, level: float = 6.0, shape: tuple[int, int] = (512, 192)) -> np.ndarray:
    """Poisson counts of a warm body with bones and a bladder, int (rows, columns)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    y, x = y / shape[0], x / shape[1] - 0.5
    body = 0.3 * (np.abs(x) < 0.25) + 1.0 * (np.abs(x) < 0.04) + 0.8 * (np.hypot(2 * (y - 0.5), x) < 0.15)
    ribs = 0.6 * (np.sin(120 * y) > 0.3) * (np.abs(x) < 0.2) * (np.abs(y - 0.3) < 0.12)
    bladder = 4.0 * (np.hypot(2 * (y - 0.57), x) < 0.04)
    expectation = gaussian_filter(0.01 + (body + ribs + bladder) * (y > 0.03) * (y < 0.97), 2.0)
    return np.random.default_rng(seed).poisson(level * expectation)


def exported(counts: np.ndarray, scale: float, quality: int | None = None) -> np.ndarray:
    """Greys round(scale x count), uint8, through a JPEG of this quality if any."""
    return through_jpeg(np.clip(np.rint(scale * counts), 0, 255), quality)


def through_jpeg(grey: np.ndarray, quality: int | None) -> np.ndarray:
    """What is read back, uint8."""
    grey = np.asarray(grey).clip(0, 255).astype(np.uint8)
    if quality is None:
        return grey
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
