"""Paired comparisons of methods over patients.

Every method is compared with the best peer, patient by patient: Wilcoxon's signed-rank test
(Biometrics Bull 1945;1:80), Holm's correction over the methods compared (Scand J Stat 1979;6:65),
and the mean difference with a bootstrap interval. Metrics are not corrected for each other: decide
beforehand which one answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.statistics.summary import decibels, interval

Values = npt.NDArray[np.float64]

COLUMNS = [
    *("metric", "method", "against", "patients", "better", "worse"),
    *("difference", "low", "high", "p", "p_holm", "p_least"),
]
MIN_PATIENTS = 6
"""With fewer the least p that the two-sided test can give, 2 / 2^n, is above 0.05: it could show
nothing."""


def differences(
    per_patient: pd.DataFrame,
    metrics: Sequence[Metric],
    methods: Sequence[str],
    peers: Sequence[str],
    *,
    against: str | None = None,
) -> pd.DataFrame:
    """Every method minus the best peer, for each metric.

    Where one value is best, distances from it are compared, patient by patient. For a metric with
    `pooled_from` the test is of the patients' relative errors, and difference and interval are
    those of the pooled dB.

    Args:
        per_patient: As `summary.by_patient` makes it.
        metrics: The columns.
        methods: Rows that are compared, among them all of `peers`.
        peers: Candidates for the best peer of a metric: the one with the best mean over patients.
        against: Compare with this method instead, whatever the metric.

    Returns:
        A row a metric and method, with COLUMNS: patients that both have a value for, and on how
        many of them the method is better and worse; the mean difference in the metric's unit and
        its 95 % percentile bootstrap interval over patients (NaN below two); p of the signed-rank
        test, NaN where fewer than MIN_PATIENTS patients differ; p_holm after Holm's correction over
        the methods; p_least, the smallest p_holm that so many patients and methods can give.
    """
    rows = []
    for metric in metrics:
        table = per_patient.pivot(
            index="patient", columns="method", values=metric.pooled_from or metric.name
        ).reindex(columns=list(methods))
        if metric.higher_is_better is None:
            table = (table - metric.ideal).abs()
        means = table[list(peers)].mean()
        if metric.higher_is_better and not metric.pooled_from:
            means = -means
        if against is None and means.isna().all():
            continue
        other = against or str(means.idxmin())
        family = [
            _compared(table[method], table[other], metric)
            for method in methods
            if method != other and (table[method].notna() & table[other].notna()).any()
        ]
        tested = [row for row in family if not np.isnan(row["p"])]
        for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
            row["p_holm"], row["p_least"] = p, min(1.0, len(tested) * row["p_least"])
        rows += [{"metric": metric.name, "against": other, **row} for row in family]
    return pd.DataFrame(rows, columns=COLUMNS)


def signed_rank_p(differences: Values) -> float:
    """The p of Wilcoxon's two-sided signed-rank test, exact up to 50 patients without ties.

    Args:
        differences: One a patient; patients without any difference are left out, as Wilcoxon did.

    Returns:
        NaN where fewer than MIN_PATIENTS differ.
    """
    from scipy.stats import wilcoxon

    informative = differences[differences != 0]
    return float(wilcoxon(informative).pvalue) if len(informative) >= MIN_PATIENTS else np.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p: the k-th smallest of m times m - k + 1, never less than one before it, at most 1.

    NaN stays NaN, and is not counted among the m.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    found = np.full_like(p, np.nan)
    if len(order):
        found[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return found.tolist()


def _compared(method: pd.Series, other: pd.Series, metric: Metric) -> dict[str, Any]:
    """A row of the table, before Holm's correction."""
    both = method.notna() & other.notna()
    ours, theirs = method[both].to_numpy(dtype=float), other[both].to_numpy(dtype=float)
    # Two perfect scores (infinite dB) do not differ.
    paired = np.subtract(ours, theirs, out=np.zeros_like(ours), where=ours != theirs)
    gain = paired if metric.higher_is_better and not metric.pooled_from else -paired
    difference, low, high = _difference(ours, theirs, paired, metric)
    return {
        "method": method.name,
        "patients": len(paired),
        "better": int((gain > 0).sum()),
        "worse": int((gain < 0).sum()),
        "difference": difference,
        "low": low,
        "high": high,
        "p": signed_rank_p(paired),
        "p_holm": np.nan,
        "p_least": 2.0 ** (1 - np.count_nonzero(paired)),
    }


def _difference(ours: Values, theirs: Values, paired: Values, metric: Metric) -> tuple[float, float, float]:
    """Mean difference and its interval."""

    def of_decibels(a: Values, b: Values, axis: int = -1) -> Values:
        return decibels(a.mean(axis=axis)) - decibels(b.mean(axis=axis))

    samples, statistic = ((ours, theirs), of_decibels) if metric.pooled_from else ((paired,), np.mean)
    with np.errstate(invalid="ignore"):
        return float(statistic(*samples)), *interval(samples, statistic)
