"""From scores a scan to scores a patient to the mean over patients with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.scans.references import REFERENCES

KEYS = ["patient", "method"]
CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
"""Seed of the resampling."""


def by_patient(per_scan: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Mean over the scans of each patient, so that a patient seen twice does not count twice.

    A reference that some scans lack (that of SSIM is known on phantoms only) is left out: beside
    means over all scans, its mean over some would be no ceiling.

    Args:
        per_scan: Columns patient, method and those of `metrics`.
        metrics: A metric with `pooled_from` is recomputed from the patient's mean of that column.
    """
    numbers = [m.name for m in metrics]
    known = per_scan.groupby("method", sort=False)[numbers].count()
    table = per_scan.groupby(KEYS, sort=False)[numbers].mean().reset_index()
    for row in known.index.intersection(list(REFERENCES)):
        partial = known.columns[known.loc[row] < known.max()]
        table.loc[table["method"] == row, partial] = np.nan
    for metric in metrics:
        if metric.pooled_from:
            table[metric.name] = decibels(table[metric.pooled_from].to_numpy())
    return table


def summarise(per_patient: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Mean over patients with its 95 % percentile bootstrap interval, a row a method and metric.

    For a metric with `pooled_from`, mean and interval are those of 10 log10 of the mean relative
    error; where the noise-corrected error of the mean is not positive, the error is below what the
    scans can resolve and the value is infinite.

    Args:
        per_patient: As `by_patient` makes it.
        metrics: The columns.

    Returns:
        Columns method, metric, patients, mean, low, high. The interval is NaN with fewer than two
        patients; metrics without a value for a method have no row.
    """
    rows = []
    for method, table in per_patient.groupby("method", sort=False):
        for metric in metrics:
            values = table[metric.pooled_from or metric.name].to_numpy(dtype=float)
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            low, high = interval((values,), np.mean)
            numbers = np.array([values.mean(), low, high])
            if metric.pooled_from:
                numbers = decibels(numbers[[0, 2, 1]])
            mean, low, high = numbers
            rows.append((method, metric.name, len(values), mean, low, high))
    return pd.DataFrame(rows, columns=["method", "metric", "patients", "mean", "low", "high"])


def interval(samples: Sequence[np.ndarray], statistic: Callable[..., Any]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a statistic of samples, each a value a patient.

    NaN with fewer than two patients, or where a value is not finite.
    """
    from scipy.stats import bootstrap

    if len(samples[0]) < 2 or not np.isfinite(np.stack(samples)).all():
        return np.nan, np.nan
    found = bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def decibels(relative_error: np.ndarray) -> np.ndarray:
    """-10 log10, infinite where noise took the estimate to zero or below."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.where(np.isnan(relative_error), np.nan, np.maximum(relative_error, 0)))
