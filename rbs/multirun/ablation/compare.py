r"""Differences between rows, paired over patients and seeds.

Row a minus row b of one patient and one seed shares the patient, the scans, the start and the
crops; what is left is what the rows do differently, and chance. The interval resamples patients and
seeds, each as a whole (Owen, "The pigeonhole bootstrap", Ann Appl Stat 2007;1:386, arXiv
0712.1111), so it covers other patients and other trainings, as far as so few seeds can tell. The
p-value is Wilcoxon's signed-rank test over patients of the mean over seeds, and Holm's correction
(Scand J Stat 1979;6:65) holds over all rows of a table.

A metric in dB whose single values are not defined (`pooled_from`) is compared by the ratio of its
mean errors: :math:`10 \log_{10}(\bar e_b / \bar e_a)`. Of a metric whose best value is a number, as
that of a recovered contrast is 1, distances from it are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.statistics.differences import signed_rank_p
from rbs.evaluation.statistics.summary import CONFIDENCE, RESAMPLES

Array = npt.NDArray[np.float64]

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """Row a minus row b.

    Attributes:
        mean: In the metric's unit.
        low: Lower end of the 95 % interval; NaN with fewer than two patients.
        high: Upper end.
        p: Of Wilcoxon's test, before any correction; NaN with too few patients to show anything.
    """

    mean: float
    low: float
    high: float
    p: float


def scores_of(per_scan: pd.DataFrame, row: str, metric: Metric) -> Array:
    """Scores (seeds, patients) of a row: means over the scans of a patient; NaN where it has none.

    Distances from the ideal where one value is best. Of a metric that is pooled from another
    column, that column.
    """
    table = per_scan[per_scan["row"] == row]
    column = metric.pooled_from or metric.name
    by_patient = table.groupby(["seed", "patient"])[column].mean().unstack("patient")
    found = by_patient.reindex(columns=np.unique(per_scan["patient"])).to_numpy(dtype=np.float64)
    return np.abs(found - metric.ideal) if metric.higher_is_better is None else found


def value(scores: Array, metric: Metric) -> float:
    """Mean over seeds and patients, in the metric's unit; no dB for an error below zero."""
    mean = scores.mean()
    return float(_decibels(mean)) if metric.pooled_from else float(mean)


def paired(pairs: Sequence[tuple[Array, Array]], metric: Metric, seed: int = 0) -> Difference:
    """The mean difference a - b over pairs of rows.

    Args:
        pairs: Scores (seeds, patients) of a and of b, as `scores_of` gives them; one pair for two
            rows, several for the mean of their differences.
        metric: The metric of the scores.
        seed: Seed of the resampling.
    """
    mean = float(_statistic(pairs, metric, *(np.full((1, n), 1 / n) for n in pairs[0][0].shape))[0])
    seeds, patients = pairs[0][0].shape
    if patients < 2:
        return Difference(mean, np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    drawn = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in (seeds, patients))
    draws = _statistic(pairs, metric, *drawn)
    low, high = np.nanquantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    by_patient = np.mean([(a - b).mean(axis=0) for a, b in pairs], axis=0)
    return Difference(mean, float(low), float(high), signed_rank_p(by_patient))


def improves(difference: Difference, p: float, metric: Metric) -> bool | None:
    """True where a is better than b, False where it is worse; None where neither is shown.

    Args:
        difference: a minus b.
        p: Its p-value, corrected.
        metric: Its metric; of one whose ideal is zero, distances from it, so less is better.
    """
    clear = p < SIGNIFICANT and not difference.low <= 0 <= difference.high
    return (difference.mean > 0) == bool(metric.higher_is_better) if clear else None


def _statistic(pairs: Sequence[tuple[Array, Array]], metric: Metric, seeds: Array, patients: Array) -> Array:
    """Mean difference for each draw, (draws,): weights (draws, seeds) and (draws, patients)."""

    def means(scores: Array) -> Array:
        found = ((seeds @ scores) * patients).sum(axis=1)
        return _decibels(found) if metric.pooled_from else found

    return np.mean([means(a) - means(b) for a, b in pairs], axis=0)


def _decibels(errors: Array) -> Array:
    """-10 log10 of relative errors; infinite at zero, NaN below."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.where(errors < 0, np.nan, errors))
