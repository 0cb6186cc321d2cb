"""Texture and sharpness of a restoration: noise power spectrum, and local impulse response.

Both are means over Poisson draws of one known expectation, for a network is not linear: its noise
depends on what it sees, and so does its sharpness. Both therefore state where they were measured,
and the impulse response how strong the impulse was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rbs.evaluation.observers.growth_plates import width_at
from rbs.scans.scan import Array

WINDOW = 16
"""Edge of a window of the noise power spectrum, pixels: what soft tissue leaves between bones."""


def soft_tissue_windows(labels: Array, mask: Array) -> list[tuple[int, int, int]]:
    """Windows of the body that hold no labelled region, next to each other but not overlapping.

    Args:
        labels: Region labels (V, H, W), 0 for soft tissue and background.
        mask: The body, bool (V, H, W).

    Returns:
        (view, first row, first column) of each.
    """
    free = (labels == 0) & mask
    found = []
    for view in range(len(free)):
        left = free[view].copy()
        # Sums over windows from an integral image; taken greedily, row by row.
        integral = np.pad(left.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        w = WINDOW
        full = integral[w:, w:] - integral[:-w, w:] - integral[w:, :-w] + integral[:-w, :-w] == w * w
        for row, column in np.argwhere(full):
            if left[row : row + w, column : column + w].all():
                left[row : row + w, column : column + w] = False
                found.append((view, int(row), int(column)))
    return found


def noise_power_spectrum(
    draws: Array, windows: Sequence[tuple[int, int, int]], spacing_mm: tuple[float, float]
) -> Array:
    """Noise power spectrum of restorations of repeated draws.

    NPS(f) = Δy Δx / (Ny Nx) <|DFT(n)|²>, n the difference of a draw from the mean of all M, times
    M/(M-1). Its integral over all frequencies is the variance (Parseval); of Poisson counts it is
    λ̄ Δy Δx everywhere.

    Args:
        draws: (M, V, H, W), two at least.
        windows: (view, first row, first column) of each, one at least.
        spacing_mm: Row and column spacing, mm.

    Returns:
        counts² mm², (WINDOW, WINDOW), in the order of `numpy.fft.fftfreq`.
    """
    power = np.zeros((WINDOW, WINDOW))
    for view, row, column in windows:
        seen = draws[:, view, row : row + WINDOW, column : column + WINDOW].astype(np.float64)
        noise = seen - seen.mean(axis=0)
        power += (np.abs(np.fft.fft2(noise)) ** 2).sum(axis=0)
    count = (len(draws) - 1) * len(windows)
    return power * spacing_mm[0] * spacing_mm[1] / (WINDOW * WINDOW * count)


def spectrum_variance(nps: Array, spacing_mm: tuple[float, float]) -> float:
    """∫ NPS df, counts²."""
    return float(nps.sum() / (nps.size * spacing_mm[0] * spacing_mm[1]))


def radial_spectrum(nps: Array, spacing_mm: tuple[float, float]) -> list[tuple[float, float]]:
    """Mean NPS in rings of frequency as wide as its resolution, up to the Nyquist frequency.

    Returns:
        (frequency mm^-1, counts² mm²) of each ring.
    """
    f = _frequencies(nps.shape, spacing_mm)
    width = 1 / (nps.shape[0] * max(spacing_mm))
    rings = np.arange(0.5 * width, 0.5 / max(spacing_mm) + 0.5 * width, width)
    inside = ((f >= low) & (f < low + width) for low in rings)
    return [(float(f[ring].mean()), float(nps[ring].mean())) for ring in inside if ring.any()]


def mean_frequency(nps: Array, spacing_mm: tuple[float, float]) -> float:
    """∫ f NPS df / ∫ NPS df, mm^-1: low where noise is coarse."""
    return float((_frequencies(nps.shape, spacing_mm) * nps).sum() / nps.sum())


def _frequencies(shape: tuple[int, ...], spacing_mm: tuple[float, float]) -> Array:
    rows, columns = (np.fft.fftfreq(n, d) for n, d in zip(shape, spacing_mm, strict=True))
    return np.asarray(np.hypot(rows[:, None], columns))


@dataclass(frozen=True)
class Response:
    """A local impulse response.

    Attributes:
        fwhm_mm: Full width at half maximum, geometric mean of rows and columns, mm; NaN where it
            has none.
        gain: Its integral over the counts put in: 1 where none is lost.
    """

    fwhm_mm: float
    gain: float


def impulse_response(
    with_impulse: Array,
    without: Array,
    places: Sequence[tuple[int, int, int]],
    counts: float,
    spacing_mm: tuple[float, float],
    reach: int = 12,
) -> tuple[Array, Response]:
    """Mean difference that one pixel's additional counts make around it.

    Args:
        with_impulse: Restorations (M, V, H, W) of draws to which a Poisson number of counts was
            added.
        without: Restorations of the same draws as they were.
        places: (view, row, column) of the pixels, further apart than twice the reach.
        counts: How many standard counts were added on average.
        spacing_mm: Row and column spacing, mm.
        reach: Half the edge of the window around each, pixels.

    Returns:
        The mean response in counts, (2 reach + 1, 2 reach + 1), and its width and integral.
    """
    difference = (with_impulse.astype(np.float64) - without).mean(axis=0)
    mean = np.mean(
        [difference[v, r - reach : r + reach + 1, c - reach : c + reach + 1] for v, r, c in places], axis=0
    )
    offsets = np.arange(-reach, reach + 1.0)
    widths = [
        width_at(offsets * spacing, profile, reach, profile[reach] / 2) if profile[reach] > 0 else math.nan
        for profile, spacing in ((mean[:, reach], spacing_mm[0]), (mean[reach], spacing_mm[1]))
    ]
    return mean, Response(math.sqrt(widths[0] * widths[1]), float(mean.sum() / counts))
