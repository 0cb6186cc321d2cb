"""Difference-of-Gaussian channels, through which model observers look at images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

RATIO = 1.4
WIDTH = 1.67
CHANNELS = 6


def dog_channels(window: int, first: float) -> npt.NDArray[Any]:
    """Dense difference-of-Gaussian channels as templates in space, centred on the middle pixel.

    C_j(f) = exp(-(f / Qσ_j)² / 2) - exp(-(f / σ_j)² / 2), σ_j = σ_0 α^j, α = 1.4, Q = 1.67, f in
    cycles/pixel, evaluated on the discrete frequencies of a four times larger grid and cut to the
    window. Abbey & Barrett, J Opt Soc Am A 2001;18:473.

    Args:
        window: Edge of the window, pixels; odd.
        first: σ_0, cycles/pixel. About 1 / `window` is the widest channel that the window holds.

    Returns:
        float64 (CHANNELS, window * window), each of length 1.
    """
    size = 4 * window
    f = np.fft.fftfreq(size)
    squared = f[:, None] ** 2 + f**2
    middle = slice(size // 2 - window // 2, size // 2 + window // 2 + 1)
    templates = []
    for j in range(CHANNELS):
        sigma = first * RATIO**j
        passed = np.exp(-0.5 * squared / (WIDTH * sigma) ** 2) - np.exp(-0.5 * squared / sigma**2)
        template = np.fft.fftshift(np.fft.ifft2(passed).real)[middle, middle]
        templates.append((template / np.linalg.norm(template)).ravel())
    return np.stack(templates)
