"""Is a stated uncertainty true? Coverage of intervals, by how many counts a pixel is expected to hold.

A method that states a standard deviation s beside its estimate T claims that the expectation λ lies within
T ± ks with the probability erf(k/√2). What share of pixels does so, in each tenth of the pixels ordered by λ,
is compared with the claim: overconfidence in hot pixels must not be hidden by caution in the background. No
method of `rbs` states one yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEVELS = (0.5, 0.683, 0.9, 0.954)


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
