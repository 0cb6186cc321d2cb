"""Means and bootstrap intervals of values that are nested: draws in views, views in scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rbs.evaluation.statistics.summary import CONFIDENCE, RESAMPLES, SEED

Nested: TypeAlias = "Sequence[Nested] | npt.NDArray[np.float64]"
"""Values of the innermost level, or groups of them, or groups of groups."""


def nested_mean(values: Nested) -> float:
    """Mean of the means of the groups, so that a group of many values does not count for more."""
    if isinstance(values, np.ndarray):
        return float(values.mean())
    return float(np.mean([nested_mean(group) for group in values]))


def nested_interval(values: Nested) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `nested_mean`: every level is resampled.

    Davison & Hinkley, Bootstrap Methods and their Application (1997), section 3.8. A level of a
    single group adds nothing: the interval of one scan is that of its views and draws.

    Returns:
        NaN where a value is not finite, or where no level has two groups or values.
    """
    if not _finite(values) or not _varied(values):
        return np.nan, np.nan
    means = _resampled(values, RESAMPLES, np.random.default_rng(SEED))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, (tail, 100 - tail))
    return float(low), float(high)


def _resampled(values: Nested, times: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Means of resampled values, (times,)."""
    size = len(values)
    chosen = rng.integers(size, size=(times, size))
    if isinstance(values, np.ndarray):
        return values[chosen].mean(axis=1)
    means = np.empty(chosen.shape)
    for number, group in enumerate(values):
        places = chosen == number  # a group that is chosen twice is resampled twice
        means[places] = _resampled(group, int(places.sum()), rng)
    return means.mean(axis=1)


def _finite(values: Nested) -> bool:
    if isinstance(values, np.ndarray):
        return bool(np.isfinite(values).all())
    return all(map(_finite, values))


def _varied(values: Nested) -> bool:
    return len(values) > 1 or (not isinstance(values, np.ndarray) and _varied(values[0]))
