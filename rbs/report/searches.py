"""Results of ablations, sweeps and benchmarks, as tables and figures for the page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rbs.report.figures import forest, small_multiples, titled
from rbs.report.tables import UNRESOLVED, Cell, Table, number, reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_RUNS = 20
"""Runs of a sweep that the page lists; all are in its csv."""


@dataclass(frozen=True)
class Ablation:
    """Results of `rbs ablation` in a folder.

    Attributes:
        folder: The folder.
        about: ablation.json: title, labels by row, metrics, the main one's name, references, words.
        table: ablation.csv: row, metric, value, minus_REFERENCE_{mean,low,high,p_holm}.
    """

    folder: Path
    about: dict[str, Any]
    table: pd.DataFrame


def read_ablation(folder: Path) -> Ablation:
    """Read the results in a folder.

    Raises:
        RbsError: A file is missing or damaged.
    """
    with reading(folder, "the ablation is incomplete or damaged", "run `rbs ablation` again"):
        about = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
        for key in ("title", "what", "labels", "metrics", "main", "references", "words"):
            about[key]
        table = pd.read_csv(folder / "ablation.csv")
        table[["row", "metric", "value"]]
    return Ablation(folder, about, table)


def ablation_table(ablation: Ablation) -> Table:
    """Rows by metrics, and the main metric's difference to each reference."""
    lines = {(line["row"], line["metric"]): line for line in ablation.table.to_dict("records")}
    metrics, main = ablation.about["metrics"], ablation.about["main"]
    columns = [(metric["label"], metric["unit"]) for metric in metrics]
    label = next(metric["label"] for metric in metrics if metric["name"] == main)
    columns += [(label, f"minus {words}") for words in ablation.about["references"].values()]
    rows = []
    for row, name in ablation.about["labels"].items():
        values = [(float(lines[row, m["name"]]["value"]), 2 if m["unit"] else 4) for m in metrics]
        cells = [Cell(number(value, digits) or UNRESOLVED) for value, digits in values]
        for reference in ablation.about["references"]:
            ends = (f"minus_{reference}_{end}" for end in ("mean", "low", "high", "p_holm"))
            difference = difference_cell(*(float(lines[row, main].get(end, np.nan)) for end in ends))
            cells.append(Cell() if row == reference else difference)
        rows.append((name, cells))
    return Table("", columns, [], rows)


def ablation_figure(ablation: Ablation) -> Figure | None:
    """Each row minus each reference in the main metric, with intervals; None without references."""
    references, labels, main = (ablation.about[key] for key in ("references", "labels", "main"))
    if not references:
        return None
    metric = next(metric for metric in ablation.about["metrics"] if metric["name"] == main)
    lines = ablation.table[ablation.table["metric"] == main].set_index("row")
    figure, axes = small_multiples(len(references), len(references), 5.2, 1.0 + 0.26 * len(labels))
    for axis, (reference, words) in zip(axes, references.items(), strict=True):
        names = {f"minus_{reference}_{end}": end for end in ("low", "high")}
        names[f"minus_{reference}_mean"] = "difference"
        forest(axis, lines.rename(columns=names), labels, reference)
        axis.set_title(f"{titled(metric)}: minus {words}", fontsize=8)
    figure.tight_layout()
    return figure


def sweep_table(file: Path) -> Table:
    """The best runs of a sweep.csv, best first.

    Raises:
        RbsError: It cannot be read.
    """
    with reading(file, "it is no table of a sweep", "make it again"):
        content = pd.read_csv(file, dtype={"run": str}).head(MOST_RUNS)
        names = content["run"] + ", " + content["state"]
        columns = [[Cell(text) for text in printed_column(content[name])] for name in content.columns[2:]]
        rows = list(zip(names, map(list, zip(*columns, strict=True)), strict=True))
    return Table("", [(str(name), "") for name in content.columns[2:]], [], rows)


def cost_table(folder: Path) -> Table | None:
    """Cost and origin of each method of a benchmark; None where the folder holds no benchmark.

    Raises:
        RbsError: Its table cannot be read.
    """
    file = folder / "benchmark.csv"
    if not file.exists():
        return None
    shown = (
        ("parameters", "Parameters", "millions", 1e6, 2),
        ("macs", "Multiply-adds", "10⁹", 1e9, 0),
        ("seconds", "Time a scan or frame", "s", 1.0, 2),
        ("memory_mb", "Peak memory", "GB", 1e3, 2),
    )
    with reading(file, "it is no table of a benchmark", "run `rbs benchmark` again"):
        content = pd.read_csv(file)
        there = [column for column in shown if column[0] in content]
        rows = []
        for row in content.dropna(subset=["seconds"]).to_dict("records"):
            cells = [Cell(number(float(row[name]) / unit, digits)) for name, _, _, unit, digits in there]
            made = [str(row.get(name, "")) for name in ("sha256", "command")]
            rows.append((str(row["label"]), [*cells, *(Cell("" if m == "nan" else m[:80]) for m in made)]))
    heads = [(label, unit) for _, label, unit, _, _ in there]
    return Table("", [*heads, ("Weights", "SHA-256"), ("Made by", "")], [], rows)


def difference_cell(mean: float, low: float, high: float, p: float) -> Cell:
    """A difference with its sign, its interval and its p-value, as printed."""
    text = number(mean, 3) or UNRESOLVED
    remark = "" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    interval = f"{number(low, 3)} to {number(high, 3)}" if np.isfinite(low) else ""
    return Cell(f"+{text}" if round(mean, 3) > 0 else text, interval, remark)


def printed_column(values: pd.Series) -> list[str]:
    """A column as printed: its numbers with the least digits, 3 to 6, that tell them apart."""
    numbers = [value for value in values if isinstance(value, float) and not np.isnan(value)]
    digits = next((d for d in range(3, 6) if len({f"{n:.{d}g}" for n in numbers}) == len(set(numbers))), 6)
    return ["" if pd.isna(v) else f"{v:.{digits}g}" if isinstance(v, float) else str(v) for v in values]
