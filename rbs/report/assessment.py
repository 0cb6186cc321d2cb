"""Results of `rbs evaluate --observers` as tables and curves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rbs.report.figures import small_multiples
from rbs.report.tables import WIDEST, Cell, Table, reading, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STANDARD, TRUTH = "standard", "truth"
_NAMES = {
    STANDARD: "Standard scan, raw",
    TRUTH: "Known expectation",
    "ideal rapid": "Bound: ideal observer of the rapid scan",
    "ideal standard": "Bound: ideal observer of the standard scan",
    "bootstrap": "Parametric bootstrap",
}
_QUANTITIES = {
    "recovery": "Contrast recovery",
    "cnr": "Contrast-to-noise ratio",
    "peak": "Peak recovery",
    "fwhm": "Width",
    "asymmetry_error": "Asymmetry error",
    "hallucinated": "Hallucinated foci",
    "lost": "Lost foci",
    "ratio": "Deviance",
    "clusters": "Clusters that disagree",
    "variance": "Variance",
    "mean_frequency_per_mm": "Mean frequency",
    "fwhm_mm": "FWHM",
    "gain": "Gain",
    "auc": "AUC",
    "auc_minus_rapid": "AUC minus the raw rapid scan's",
    "auc_minus_first": "AUC minus the first restorer's",
    "auc_internal_noise": "AUC, observer with internal noise",
    "calibration_error": "Coverage error",
    "pixel_z": "z of other counts",
    "pixel_error": "Error of a pixel",
    "block_error": "Error of a 16 x 16 block",
    "pixel_error_by_counts": "Error of a pixel, by other counts",
    "block_error_by_counts": "Error of a 16 x 16 block, by other counts",
    "mean_count": "Expected counts",
}
COVERAGE = "coverage"
"""The study with a table of its own: coverage of intervals by tenths of the pixels."""
_SIZES = ("small (", "medium (8", "large (")
"""First words of the names of the size classes."""
_COLOURS = ("#7f7f7f", "#c77c11", "#1f4e79", "#2a7f3f", "#8c2d5a", "#5a4fcf", "#17888c", "#d1495b")


@dataclass(frozen=True)
class Assessment:
    """Results of `rbs evaluate --observers` in a folder.

    Attributes:
        folder: The folder.
        settings: settings.json.
        summary: summary.csv: study, group, method, quantity, unit, n, mean, low, high.
        spectra: spectra.csv: noise power by patient, method and frequency; empty without phantoms.
    """

    folder: Path
    settings: dict[str, Any]
    summary: pd.DataFrame
    spectra: pd.DataFrame

    @property
    def labels(self) -> dict[str, str]:
        """Printed labels of all that has a row: the methods first, in their order."""
        methods = {method["name"]: method["label"] for method in self.settings["methods"]}
        found = dict.fromkeys([*self.summary["method"], *self.spectra["method"]])
        return methods | {name: _NAMES.get(name, name) for name in found if name not in methods}


def is_assessment(folder: Path) -> bool:
    """True where the results in a folder are of `rbs evaluate --observers`."""
    try:
        return "draws" in json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def read_assessment(folder: Path) -> Assessment:
    """Read the results in a folder.

    Raises:
        RbsError: A file is missing or damaged.
    """
    with reading(folder, "the assessment is incomplete or damaged", "run `rbs evaluate --observers` again"):
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        for key in ("methods", "split", "manifest", "scans", "drawn", "draws", "seed", "observer", "command"):
            settings[key]
        summary = pd.read_csv(folder / "summary.csv")
        summary[["study", "group", "method", "quantity", "unit", "n", "mean", "low", "high"]]
        spectra = pd.DataFrame(columns=["patient", "method", "frequency_per_mm", "nps_counts2_mm2"])
        if (folder / "spectra.csv").exists():
            spectra = pd.read_csv(folder / "spectra.csv")[spectra.columns]
    return Assessment(folder, settings, summary, spectra)


def study_tables(assessment: Assessment) -> list[Table]:
    """A table a study, methods by group and quantity, in pieces that fit a page."""
    tables = []
    summary = assessment.summary
    for study, part in summary[summary["study"] != COVERAGE].groupby("study", sort=False):
        cells = {
            (row["method"], row["group"], row["quantity"]): _cell(row) for row in part.to_dict("records")
        }
        columns = part[["group", "quantity", "unit", "n"]].drop_duplicates(["group", "quantity"])
        pieces = math.ceil(len(columns) / WIDEST)
        size = math.ceil(len(columns) / pieces)
        for start in range(0, len(columns), size):
            shown = columns.iloc[start : start + size].to_dict("records")
            keys = [(column["group"], column["quantity"]) for column in shown]
            rows = [
                (label, [cells.get((name, *key), Cell()) for key in keys])
                for name, label in assessment.labels.items()
            ]
            heads = [_head(column) for column in shown]
            title = str(study).capitalize() if start == 0 else ""
            tables.append(Table(title, heads, [], [row for row in rows if any(c.text for c in row[1])]))
    return tables


def coverage_tables(assessment: Assessment) -> list[Table]:
    """Coverage of intervals by tenths of the pixels, few counts first; a table for each method."""
    found = assessment.summary[assessment.summary["study"] == COVERAGE]
    tables = []
    for method, part in found.groupby("method", sort=False):
        quantities = sorted(part["quantity"].unique(), key=lambda name: (name != "mean_count", name))
        cells = {(row["group"], row["quantity"]): _cell(row) for row in part.to_dict("records")}
        heads = [_covered(name) for name in quantities]
        rows = [
            (str(group), [cells.get((group, name), Cell()) for name in quantities])
            for group in part["group"].unique()
        ]
        title = f"{assessment.labels[str(method)]}: share of pixels that intervals cover"
        tables.append(Table(title, heads, [], rows))
    return tables


def curves_figure(assessment: Assessment) -> Figure | None:
    """Noise power, contrast, detection, sharpness and coverage, a panel each; None without any."""
    summary = assessment.summary
    lesions = _pick(summary, "lesions", "recovery")
    drawn: list[Callable[[Axes], None]] = []
    if len(assessment.spectra):
        drawn.append(partial(_spectra, assessment))
    if len(lesions):
        sizes = [group for name in _SIZES for group in dict.fromkeys(lesions["group"]) if name in str(group)]
        title = "contrast recovery of lesions"
        drawn.append(partial(_points, assessment, lesions, sizes, title, 1.0))
    for study, quantity, title, ideal in (
        ("observer", "auc", "model observer's AUC by size of focus", None),
        ("observer, Laguerre-Gauss channels", "auc", "the same, Laguerre-Gauss channels", None),
        ("impulse response", "fwhm_mm", "width of an impulse, mm, by its counts", None),
    ):
        found = _pick(summary, study, quantity)
        if len(found):
            groups = list(dict.fromkeys(found["group"]))
            drawn.append(partial(_points, assessment, found, groups, title, ideal))
    if (summary["study"] == COVERAGE).any():
        drawn.append(partial(_coverage, assessment))
    if not drawn:
        return None
    figure, axes = small_multiples(len(drawn), 2 if len(drawn) <= 4 else 3, 6.25, 3.8)
    for axis, draw in zip(axes, drawn, strict=True):
        draw(axis)
        axis.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return figure


def _spectra(assessment: Assessment, axis: Axes) -> None:
    spectra = assessment.spectra
    power = spectra.groupby(["method", "frequency_per_mm"])["nps_counts2_mm2"].mean().unstack("method")
    # Poisson noise is white: the standard scan's mean level is what all are measured by.
    level = power[STANDARD].mean() if STANDARD in power else power.to_numpy().mean()
    for name, label, style in _styled(assessment.labels, power.columns):
        axis.plot(power.index, power[name] / level, label=label, linewidth=1.4, **style)
    axis.set_yscale("log")
    axis.set_title("noise power in soft tissue (1: the standard scan's)", fontsize=9)
    axis.set_xlabel("spatial frequency, 1/mm", fontsize=8)
    axis.grid(color="0.92", linewidth=0.6)


def _points(
    assessment: Assessment,
    table: pd.DataFrame,
    groups: list[Any],
    title: str,
    ideal: float | None,
    axis: Axes,
) -> None:
    """A place a group, and in it a point with its interval a method."""
    shown = list(_styled(assessment.labels, table["method"].unique()))
    if ideal is not None:
        axis.axhline(ideal, color="0.6", linewidth=0.8)
    for k, (name, label, style) in enumerate(shown):
        part = table[table["method"] == name].set_index("group").reindex(groups)
        middle, low, high = (part[column].to_numpy(dtype=float) for column in ("mean", "low", "high"))
        whiskers = np.nan_to_num(np.stack([middle - low, high - middle])).clip(min=0)
        places = np.arange(len(groups)) + (k - (len(shown) - 1) / 2) * 0.6 / len(shown)
        colour = style["color"]
        axis.errorbar(
            places, middle, yerr=whiskers, fmt="o", color=colour, markersize=4, capsize=2, label=label
        )
    axis.set_xticks(range(len(groups)), [str(group) for group in groups], fontsize=7)
    axis.set_title(title, fontsize=9)
    axis.grid(axis="y", color="0.92", linewidth=0.6)


def _coverage(assessment: Assessment, axis: Axes) -> None:
    """Covered over claimed, by tenths: a line a method and level, the claims as thin lines."""
    found = assessment.summary[assessment.summary["study"] == COVERAGE]
    levels = [name for name in found["quantity"].unique() if name.startswith("covered_")]
    for name, label, style in _styled(assessment.labels, found["method"].unique()):
        for k, quantity in enumerate(levels):
            part = found[(found["method"] == name) & (found["quantity"] == quantity)]
            tenths = range(1, len(part) + 1)
            axis.plot(tenths, part["mean"], label=None if k else label, linewidth=1.4, **style)
            axis.fill_between(tenths, part["low"], part["high"], alpha=0.15, color=style["color"])
    for quantity in levels:
        axis.axhline(_level(quantity), color="0.6", linewidth=0.8)
    axis.set_ylim(0, 1)
    axis.set_xlabel("tenth of the pixels, from few to many counts", fontsize=8)
    axis.set_title("share of pixels that intervals cover (grey: claimed)", fontsize=9)


def _level(quantity: str) -> float:
    return float(quantity.removeprefix("covered_"))


def _covered(quantity: str) -> tuple[str, str]:
    """Head of a column: what is claimed."""
    if quantity.startswith("covered_"):
        return f"Covered, claimed {100 * _level(quantity):g} %", ""
    return _QUANTITIES[quantity], "standard scan"


def _styled(labels: Mapping[str, str], names: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, label and style of what is drawn, one colour a name in all panels."""
    styles = {
        name: {"color": _COLOURS[k % len(_COLOURS)], "linestyle": "--" if name in _NAMES else "-"}
        for k, name in enumerate(labels)
    }
    return [(name, label, styles[name]) for name, label in labels.items() if name in set(names)]


def _pick(summary: pd.DataFrame, study: str, quantity: str) -> pd.DataFrame:
    return summary[(summary["study"] == study) & (summary["quantity"] == quantity)]


def _head(column: Mapping[Any, Any]) -> tuple[str, str]:
    group, unit = str(column["group"]), column["unit"]
    quantity = str(column["quantity"])
    label = _covered(quantity)[0] if quantity.startswith("covered_") else _QUANTITIES.get(quantity, quantity)
    notes = ["" if group == "all" else group, unit if isinstance(unit, str) else "", f"n = {column['n']}"]
    return label, "; ".join(note for note in notes if note)


def _cell(row: Mapping[Any, Any]) -> Cell:
    mean, low, high = (significant(float(row[name])) for name in ("mean", "low", "high"))
    return Cell(mean, f"{low} to {high}" if low else "")
