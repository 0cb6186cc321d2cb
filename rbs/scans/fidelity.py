"""Errors of a restored scan, defined once for training's validation and for `rbs evaluate`."""

from __future__ import annotations

import math

import numpy as np

from rbs.scans.body import smooth
from rbs.scans.scan import Array


def peak_counts(standard: Array, spacing_mm: tuple[float, float]) -> float:
    """Peak P of PSNR, SSIM and the display window: 99.9th percentile of the 4 mm smoothed scan.

    Args:
        standard: Standard counts (V, H, W).
        spacing_mm: Row and column spacing, mm.
    """
    return float(np.percentile(smooth(standard, 4.0, spacing_mm), 99.9))


def decibels(relative_error: float) -> float:
    """-10 log10(e) of a squared error relative to P²; infinite at zero, NaN below."""
    if relative_error > 0:
        return -10 * math.log10(relative_error)
    return math.inf if relative_error == 0 else math.nan


def psnr_between(estimate: Array, reference: Array, mask: Array, peak: float) -> float:
    """PSNR = 10 log10(P² / mean((T - S)²)) over the mask, dB.

    Args:
        estimate: T, standard counts (V, H, W).
        reference: S, standard counts (V, H, W).
        mask: bool (V, H, W).
        peak: P, standard counts.
    """
    return decibels(relative_error(estimate, reference, mask, peak))


def relative_error(estimate: Array, reference: Array, mask: Array, peak: float) -> float:
    """Squared error mean((T - S)²) / P² over the mask; arguments as of `psnr_between`."""
    error = (estimate[mask].astype(np.float64) - reference[mask].astype(np.float64)) ** 2
    return float(error.mean()) / peak**2


def noise_corrected_mse(estimate: Array, counts: Array, exposure: float, mask: Array) -> float:
    """Squared error against the unknown expectation, estimated from an independent noisy scan.

    mean((T - Q/q)²) - mean(Q)/q², the means over the mask. With Q ~ Poisson(qλ) independent of T
    the expected value is mean((T - λ)²): Q/q has the variance λ/q, which mean(Q)/q² estimates
    without bias. Valid on raw counts that were never interpolated. It may come out negative by
    chance when T is near λ.

    Args:
        estimate: T, standard counts (V, H, W).
        counts: Q, raw counts at their own exposure (V, H, W), independent of the rapid scan T was
            made from.
        exposure: q.
        mask: The evaluated pixels, bool (V, H, W).

    Returns:
        Counts²; NaN of an empty mask.
    """
    if not mask.any():
        return math.nan
    t, q = estimate[mask].astype(np.float64), counts[mask].astype(np.float64)
    return float(((t - q / exposure) ** 2).mean() - q.mean() / exposure**2)


def count_bias(estimate: Array, standard: Array, mask: Array) -> float:
    """100 (ΣT - ΣS) / ΣS over the mask, %; NaN where S has no counts.

    Args:
        estimate: T, standard counts (V, H, W).
        standard: S, standard counts (V, H, W).
        mask: bool (V, H, W).
    """
    total = float(standard[mask].sum())
    return math.nan if total == 0 else 100 * (float(estimate[mask].sum(dtype=np.float64)) - total) / total
