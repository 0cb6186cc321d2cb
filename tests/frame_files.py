"""Pictures that look enough like mucosa to be told apart, and files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def scene(seed: int, rows: int = 96, columns: int = 128) -> np.ndarray:
    """A scene of its own for every seed, uint8 (rows, columns, 3)."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(96, 128)), 4)
    light = np.clip(0.5 + 2 * field, 0.1, 1)
    pixels = (light[..., None] * np.array([230, 140, 110])).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BICUBIC))


def write_picture(path: Path, pixels: np.ndarray, **options: object) -> Path:
    """Write pixels as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_box(path: Path, *, rows: slice = slice(10, 40), shape: tuple[int, int] = (96, 128)) -> Path:
    """Write a mask with a box in it."""
    pixels = np.zeros(shape, np.uint8)
    pixels[rows, 20:60] = 255
    return write_picture(path, pixels)
