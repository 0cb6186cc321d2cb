"""Differences of an ablation's rows, and what they show.

A row is better or worse than its reference where that is shown. Where it is not, the row may do
nothing, or the ablation may have been unable to show what it does: then the word is "not tested",
and the reasons are named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.statistics.differences import MIN_PATIENTS, holm
from rbs.multirun.ablation.compare import improves, paired, scores_of, value
from rbs.multirun.ablation.curves import last_gains
from rbs.multirun.ablation.definition import NETWORKS, Ablation, Runs
from rbs.multirun.ablation.scores import Images
from rbs.utils.words import counted

Scores = npt.NDArray[np.float64]
Place = tuple[str, str]
"""A row and one of its networks."""

BETTER, WORSE, NONE, UNTESTED = "better", "worse", "no difference", "not tested"
MAIN = ("psnr_truth", "nc_psnr", "psnr")
"""The metric that words follow, the first there is: where the truth is known, the noise of the
standard scan need not blur the comparison."""


@dataclass(frozen=True)
class Results:
    """All that was found.

    Attributes:
        runs: The trainings.
        sets: Sets of images that were scored, the regimes' own first.
        per_image: Scores, as `rbs.multirun.ablation.scores.score` makes them, of all regimes.
        curves: Validation curves, as `rbs.multirun.ablation.curves.curves_of` makes them.
    """

    runs: Runs
    sets: tuple[Images, ...]
    per_image: pd.DataFrame
    curves: pd.DataFrame


def comparisons(ablation: Ablation, results: Results) -> pd.DataFrame:
    """Every row and its differences, before they are judged.

    Returns:
        A line an image set, regime, row, network, metric and reference: value, difference, low,
        high, p, p_holm, patients, and whether the difference is shown to be an improvement
        (`improved`: True, False or None). Lines without a reference hold a value alone.
    """
    lines: list[dict[str, Any]] = []
    for images in results.sets:
        for regime in ablation.regimes:
            part = results.per_image.query("images == @images.name and regime == @regime.name")
            for metric in (metric for metric in images.metrics if metric.printed):
                scores = scores_by_place(ablation, part, metric)
                about = {"images": images.name, "regime": regime.name, "metric": metric.name}
                for line in _compared(ablation, scores, metric):
                    row, network = line.pop("place")
                    found = _value(part[(part["row"] == row) & (part["network"] == network)], metric)
                    lines.append(
                        {**about, "row": row, "network": network, "unit": metric.unit, "value": found, **line}
                    )
    return pd.DataFrame(lines)


def scores_by_place(ablation: Ablation, part: pd.DataFrame, metric: Metric) -> dict[Place, Scores]:
    """Scores (seeds, patients) of the rows and networks that have all seeds.

    Of the patients that have a value in all of these: not every child has a lesion.
    """
    column, found = metric.pooled_from or metric.name, {}
    if column not in part:
        return {}
    for row, network in part[["row", "network"]].drop_duplicates().itertuples(index=False):
        # Patients of other networks stay: f2 has no value where its prior does not exist.
        own = part.assign(row=part["row"].where(part["network"] == network))
        scores = scores_of(own, row, metric)
        if len(scores) == len(ablation.seeds) and np.isfinite(scores).any():
            found[row, network] = scores
    if not found:
        return {}
    known = np.all([np.isfinite(scores).all(axis=0) for scores in found.values()], axis=0)
    return {place: scores[:, known] for place, scores in found.items()} if known.any() else {}


def _value(own: pd.DataFrame, metric: Metric) -> float:
    """Mean over seeds and patients, in the metric's unit, as measured."""
    by_patient = own.groupby(["seed", "patient"])[metric.pooled_from or metric.name].mean()
    return value(by_patient.dropna().to_numpy(dtype=np.float64), metric)


def _compared(ablation: Ablation, scores: Mapping[Place, Scores], metric: Metric) -> list[dict[str, Any]]:
    """Lines of one metric: `place`, and where there is a reference the difference from it."""
    lines: list[dict[str, Any]] = []
    for network in NETWORKS:
        mine = [place for place in scores if place[1] == network]
        compared: set[Place] = set()
        for name in ablation.references.get(network, ()):
            # Stage 1 has no second restorer: that of a row is compared with the one it began with.
            reference = (name, network) if (name, network) in scores else (name, NETWORKS[0])
            others = [place for place in mine if place[0] != name]
            if reference not in scores:
                continue
            differences = [paired([(scores[place], scores[reference])], metric) for place in others]
            corrected = holm([difference.p for difference in differences])
            for place, difference, p in zip(others, differences, corrected, strict=True):
                entry = {"place": place, "reference": name, "difference": difference.mean}
                entry |= {"low": difference.low, "high": difference.high, "p": difference.p, "p_holm": p}
                patients = scores[place].shape[1]
                lines.append({**entry, "patients": patients, "improved": improves(difference, p, metric)})
                compared.add(place)
        lines += [{"place": place} for place in mine if place not in compared]
    return lines


def with_verdicts(ablation: Ablation, results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """The table with a verdict, and the reasons why an effect could not have shown.

    Returns:
        ablation.csv.
    """
    gains = last_gains(results.curves)
    rising = {(g["regime"], g["row"], g["network"]) for g in gains.to_dict("records") if not g["flat"]}
    own = results.sets[0]
    main = main_metric(table, own)
    bounds = {row.name: row.bound for row in ablation.rows if row.bound}
    lines = table.to_dict("records")

    def gained(regime: str, row: str) -> bool:
        """True where a row is better than the main reference of its last network."""
        shown = [
            line["improved"]
            for line in lines
            if (line["images"], line["regime"], line["row"], line["metric"]) == (own.name, regime, row, main)
            and line.get("reference") == next(iter(ablation.references.get(line["network"], ())), None)
        ]
        return not shown or shown[-1] is True

    limits = {row: {r.name for r in ablation.regimes if not gained(r.name, row)} for row in bounds.values()}
    judged = []
    for line in lines:
        if not isinstance(line.get("reference"), str):
            judged.append(("", ""))
            continue
        regime, network = line["regime"], line["network"]
        reasons = ["one seed"] if len(ablation.seeds) == 1 else []
        if line["patients"] < MIN_PATIENTS:
            reasons.append(counted(int(line["patients"]), own.kind.unit))
        powerless = bool(reasons)
        if {(regime, line["row"], network), (regime, line["reference"], network)} & rising:
            reasons.append("a learning curve is not flat")
        bound = bounds.get(line["row"])
        if bound is not None and regime in limits[bound]:
            reasons.append(f"{ablation.row(bound).label}, its upper bound, shows no gain")
        shown = {True: BETTER, False: WORSE}.get(line["improved"], UNTESTED if reasons else NONE)
        judged.append((UNTESTED if powerless else shown, "; ".join(reasons)))
    table = table.drop(columns="improved", errors="ignore")
    return table.assign(verdict=[v for v, _ in judged], why=[why for _, why in judged])


def main_metric(table: pd.DataFrame, images: Images) -> str:
    """Name of the metric that words follow, of those that the table has for these images."""
    found = set(table.loc[table["images"] == images.name, "metric"])
    return next(name for name in MAIN if name in found)
