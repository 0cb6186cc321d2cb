"""From scores of single restorations to means over scans and differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rbs.evaluation.methods import RAPID
from rbs.evaluation.real.foci import CLASSES
from rbs.evaluation.statistics.hierarchical import Nested, nested_interval, nested_mean

FEWEST = 10
"""Foci of a scan: the contrast of fewer says more of their noise than of a method."""


def best_peer(scores: pd.DataFrame, peers: Sequence[str]) -> str:
    """The peer of the highest mean NC-PSNR over all scans and speeds; a filter if there is one.

    Args:
        scores: Columns scan, view, speed, draw, method, nc_psnr.
        peers: Names of the peers.
    """
    filters = [name for name in peers if name != RAPID.name] or list(peers)
    means = scores.groupby("method")["nc_psnr"].mean().reindex(filters)
    return str(means.idxmax()) if means.notna().any() else filters[0]


def summarise(scores: pd.DataFrame, labels: Mapping[str, str], reference: str) -> pd.DataFrame:
    """Means over scans and paired differences to a reference method, by speed and method.

    Args:
        scores: Columns scan, view, speed, draw, method, nc_psnr (dB), count_bias (%), and
            `rbs.evaluation.real.foci.COLUMNS`.
        labels: Names of the methods to their printed labels, in the order of the table.
        reference: Method that all others are compared with.

    Returns:
        A row a speed and method: method, label, scans, views (of all scans), draws, nc_psnr and the
        difference to the reference with their 95 % intervals, count_bias, and for each class of
        foci the number of scans with at least `FEWEST`, the foci in each of these, and the contrast
        kept with its interval. NaN where the error of a draw is not resolvable, or no scan has
        `FEWEST` foci.
    """
    rows = []
    for speed, part in scores.groupby("speed", sort=False):
        nested = {name: _nested(own, "nc_psnr") for name, own in part.groupby("method")}
        series = part.drop_duplicates(["scan", "view"])
        for name, label in labels.items():
            own = part[part["method"] == name]
            values = nested[name]
            difference = _minus(values, nested[reference])
            low, high = nested_interval(values)
            difference_low, difference_high = nested_interval(difference)
            rows.append(
                {
                    "speed": speed,
                    "method": name,
                    "label": label,
                    "scans": series["scan"].nunique(),
                    "views": len(series),
                    "draws": part["draw"].nunique(),
                    "nc_psnr": nested_mean(values),
                    "nc_psnr_low": low,
                    "nc_psnr_high": high,
                    "difference": nested_mean(difference),
                    "difference_low": difference_low,
                    "difference_high": difference_high,
                    "count_bias": nested_mean(_nested(own, "count_bias")),
                    **{k: v for kind in CLASSES for k, v in _kept(own, kind).items()},
                }
            )
    table = pd.DataFrame(rows)
    table.loc[table["method"] == reference, [c for c in table if str(c).startswith("difference")]] = np.nan
    return table


def _kept(scores: pd.DataFrame, kind: str) -> dict[str, float]:
    """Number of the foci of a class, and the contrast kept of them, by one method at one speed.

    A ratio of sums a scan. Its interval is that of the mean of its linearised values (Cochran,
    Sampling Techniques (1977), section 6.3), whose mean it is, too.
    """
    ratios: list[Nested] = []
    numbers = []
    for _, own in scores.groupby("scan", sort=True):
        number = own.groupby("draw")[f"{kind}_foci"].sum().mean()
        restored, rapid = own[f"{kind}_restored"], own[f"{kind}_rapid"]
        if number < FEWEST or rapid.sum() <= 0:
            continue
        numbers.append(number)
        ratio = restored.sum() / rapid.sum()
        linear = own.assign(kept=ratio + (restored - ratio * rapid) / rapid.mean())
        ratios += _nested(linear, "kept")
    low, high = nested_interval(ratios) if ratios else (np.nan, np.nan)
    return {
        f"{kind}_scans": len(numbers),
        f"{kind}_foci": float(np.mean(numbers)) if numbers else 0.0,
        f"{kind}_kept": nested_mean(ratios) if ratios else np.nan,
        f"{kind}_kept_low": low,
        f"{kind}_kept_high": high,
    }


def _nested(scores: pd.DataFrame, column: str) -> Nested:
    """Values of one method at one speed: draws in views, views in scans."""
    return [
        [
            own.sort_values("draw")[column].to_numpy(dtype=float)
            for _, own in of_scan.groupby("view", sort=True)
        ]
        for _, of_scan in scores.groupby("scan", sort=True)
    ]


def _minus(ours: Nested, theirs: Nested) -> Nested:
    """Paired differences."""
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return ours - theirs
    return [_minus(a, b) for a, b in zip(ours, theirs, strict=True)]
