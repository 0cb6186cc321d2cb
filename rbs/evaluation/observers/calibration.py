"""Calibration of a stated uncertainty: coverage of intervals by expected counts of a pixel.

A method that states a standard deviation s beside its estimate T claims that the expectation λ lies
within T ± ks with the probability erf(k/√2). The share of pixels where it does is compared with the
claim in each tenth of the pixels ordered by λ: caution in the background must not hide
overconfidence in hot pixels.

Where no expectation is known, the counts of an independent scan are the reference: their own noise
is known, and the rest is the error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rbs.scans.counts import block_sums
from rbs.scans.scan import Array

LEVELS = (0.5, 0.683, 0.9, 0.954)

BLOCK = 16
"""Edge, in pixels, of the blocks that stand for regions."""


@dataclass(frozen=True)
class Coverage:
    """Coverage in one tenth of the pixels.

    Attributes:
        decile: 1 (fewest counts) to 10.
        mean_count: Their mean expectation, standard counts.
        level: The probability claimed.
        covered: The share found.
        pixels: How many.
    """

    decile: int
    mean_count: float
    level: float
    covered: float
    pixels: int


def coverage(estimate: Array, deviation: Array, expectation: Array, mask: Array) -> list[Coverage]:
    """Coverage of central normal intervals by decile of the expectation.

    Args:
        estimate: T, standard counts (V, H, W).
        deviation: s, the standard deviation the method states, standard counts (V, H, W).
        expectation: λ, (V, H, W).
        mask: The evaluated pixels, bool (V, H, W); ten at least.

    Returns:
        One entry a decile and level of `LEVELS`.

    Raises:
        ValueError: Fewer than ten pixels, or a deviation is negative or not finite.
    """
    from scipy.stats import norm

    truth, s = expectation[mask].astype(np.float64), deviation[mask].astype(np.float64)
    if truth.size < 10 or not (np.isfinite(s).all() and (s >= 0).all()):
        raise ValueError("coverage needs ten pixels and finite, non-negative standard deviations")
    error = np.abs(estimate[mask].astype(np.float64) - truth)
    found = []
    for decile, inside in enumerate(np.array_split(np.argsort(truth, kind="stable"), 10), start=1):
        for level in LEVELS:
            within = error[inside] <= norm.ppf((1 + level) / 2) * s[inside]
            found.append(
                Coverage(decile, float(truth[inside].mean()), level, float(within.mean()), inside.size)
            )
    return found


def calibration_error(coverages: list[Coverage]) -> float:
    """Mean over deciles and levels of |covered - claimed|: 0 is calibrated."""
    return float(np.mean([abs(entry.covered - entry.level) for entry in coverages]))


@dataclass(frozen=True)
class Calibration:
    """Calibration of stated deviations against an independent scan.

    Attributes:
        z: Root mean square deviation of the independent scan from the estimate, over the
            standard deviation by its own noise and the stated uncertainty: 1 where both are true.
        error: Root mean square error of the estimate, corrected for the noise of the independent
            scan, over the root mean square of the stated deviation: above 1 is overconfident. NaN
            where noise outweighs the error.
    """

    z: float
    error: float


def calibration_by_counts(
    estimate: Array, deviation: Array, counts: Array, exposure: float, mask: Array, block: int = 1
) -> Calibration:
    r"""Deviations against the counts y of an independent scan of exposure q.

    .. math::
        z^2 = \overline{\frac{(y - qT)^2}{qT + q^2 s^2}}, \qquad
        \text{error}^2 = \frac{\overline{(y - qT)^2} - \overline{y}}{q^2\, \overline{s^2}} .

    In blocks y and T are sums over pixels, and so is its square, as if errors of pixels were
    independent: the error is then the factor by which a region's deviation is larger than that.

    Args:
        estimate: T, standard counts (V, H, W).
        deviation: s, (V, H, W).
        counts: y, raw counts that share none with the scan the estimate was made of, (V, H, W).
        exposure: q, relative to the standard scan.
        mask: The evaluated pixels, bool (V, H, W).
        block: Edge of the blocks, pixels; blocks of which less than half is evaluated are left out.
    """
    expected, found, stated = _summed((exposure * estimate, counts, (exposure * deviation) ** 2), mask, block)
    squared, variance = (found - expected) ** 2, expected + stated
    left = squared.mean() - found.mean()
    return Calibration(
        z=float(np.sqrt((squared[variance > 0] / variance[variance > 0]).mean())),
        error=float(np.sqrt(left / stated.mean())) if left > 0 and stated.any() else float("nan"),
    )


def calibration_by_truth(
    estimate: Array, deviation: Array, expectation: Array, mask: Array, block: int = 1
) -> float:
    """The `error` of `Calibration` against a known expectation."""
    error, stated = _summed((estimate - expectation, deviation**2), mask, block)
    return float(np.sqrt((error**2).mean() / stated.mean()))


def _summed(images: tuple[Array, ...], mask: Array, block: int) -> list[Array]:
    """Sums over the evaluated pixels of blocks that are evaluated by half at least, (blocks,)."""
    kept = block_sums(mask, block, block) >= block**2 / 2
    return [block_sums(np.where(mask, image, 0), block, block)[kept] for image in images]


def bootstrap_deviation(
    restore: Callable[[Array], Array], estimate: Array, exposure: float, draws: int, seed: int
) -> Array:
    """Parametric bootstrap of an estimate: its deviation over scans drawn as if it were the truth.

    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6. It needs no training, and
    sees how the noise goes through a method; what the method smooths away every time alike, it
    cannot see.

    Args:
        restore: The method, raw counts (V, H, W) to standard counts.
        estimate: T, what it made of the scan, standard counts (V, H, W).
        exposure: Exposure p of the rapid scan relative to the standard one.
        draws: Number of scans drawn, Poisson of p T.
        seed: Of the draws.

    Returns:
        Standard counts (V, H, W).
    """
    rng = np.random.default_rng(seed)
    again = [restore(rng.poisson(exposure * np.maximum(estimate, 0))) for _ in range(draws)]
    return np.std(again, axis=0, ddof=1)
