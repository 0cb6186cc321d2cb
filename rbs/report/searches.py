"""Results of ablations, sweeps and benchmarks, as tables and figures for the page."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rbs.report.figures import forest, small_multiples, titled
from rbs.report.tables import UNRESOLVED, Cell, Table, number, reading

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REGIONAL = "By region"
"""Group of the metrics of single regions, which have a table of their own."""

MOST_RUNS = 20
"""Runs of a sweep that the page lists; all are in its csv."""


@dataclass(frozen=True)
class Ablation:
    """Results of `rbs ablation` in a folder.

    Attributes:
        folder: The folder.
        about: ablation.json: title, what, labels of rows, regimes and sets of images, metrics, main
            metric of each set, references of each network, words.
        table: ablation.csv: a line an image set, regime, row, network, metric and reference.
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
        for key in ("title", "what", "labels", "regimes", "images", "metrics", "main", "references", "words"):
            about[key]
        table = pd.read_csv(folder / "ablation.csv", keep_default_na=True)
        table[["images", "regime", "row", "network", "metric", "value", "reference", "difference", "verdict"]]
    return Ablation(folder, about, table)


def ablation_tables(ablation: Ablation) -> list[Table]:
    """Of each set of images, regime and network: values and main differences; PSNR by region."""
    about, tables = ablation.about, []
    for (images, regime, network), part in ablation.table.groupby(
        ["images", "regime", "network"], sort=False
    ):
        title = f"{network}, {about['regimes'][regime]}, {about['images'][images]}"
        lines = {(line["row"], line["metric"], line["reference"]): line for line in part.to_dict("records")}
        values = {(line["row"], line["metric"]): float(line["value"]) for line in part.to_dict("records")}
        found = [m for m in about["metrics"] if m["name"] in set(part["metric"])]
        rows = [row for row in about["labels"] if row in set(part["row"])]
        references = [r for r in about["references"].get(network, ()) if r in set(part["reference"])]
        main = about["main"][images]
        regional = [m for m in found if m["group"] == REGIONAL]
        shown = [m for m in found if m not in regional]

        def difference(row: str, metric: str, reference: str, lines: Any = lines) -> Cell:
            line = lines.get((row, metric, reference))
            if line is None:
                return Cell()
            cell = difference_cell(*(float(line[name]) for name in ("difference", "low", "high", "p_holm")))
            return replace(cell, remark=", ".join(filter(None, (cell.remark, str(line["verdict"])))))

        label = next(m["label"] for m in about["metrics"] if m["name"] == main)
        columns = [(m["label"], m["unit"]) for m in shown]
        columns += [(label, f"minus {about['labels'][reference]}") for reference in references]
        body = []
        for row in rows:
            cells = [
                Cell(number(values.get((row, m["name"]), np.nan), 2 if m["unit"] else 4) or UNRESOLVED)
                for m in shown
            ]
            cells += [difference(row, main, reference) for reference in references]
            body.append((about["labels"][row], cells))
        tables.append(Table(title, columns, [], body))
        if regional and references:
            reference = references[0]
            heads = [(m["label"], f"minus {about['labels'][reference]}, dB") for m in regional]
            body = [
                (about["labels"][row], [difference(row, m["name"], reference) for m in regional])
                for row in rows
                if row != reference
            ]
            tables.append(Table(f"{title}: by region", heads, [], body))
    return tables


def ablation_figure(ablation: Ablation) -> Figure | None:
    """Each row minus the main reference in the main metric, with intervals; None without any.

    Of the first set of images, which is that of the regimes themselves.
    """
    about, table = ablation.about, ablation.table
    first = next(iter(about["images"]))
    main = about["main"][first]
    chosen = table[(table["images"] == first) & (table["metric"] == main)]
    panels = []
    for network, references in about["references"].items():
        for regime, part in chosen[chosen["network"] == network].groupby("regime", sort=False):
            lines = part[part["reference"] == references[0]].set_index("row")
            if len(lines):
                panels.append((f"{network}, {about['regimes'][regime]}", references[0], lines))
    if not panels:
        return None
    metric = next(metric for metric in about["metrics"] if metric["name"] == main)
    figure, axes = small_multiples(len(panels), 2, 5.4, 1.0 + 0.22 * len(about["labels"]))
    for axis, (title, reference, lines) in zip(axes, panels, strict=True):
        labels = {
            row: label for row, label in about["labels"].items() if row in lines.index or row == reference
        }
        forest(axis, lines, labels, reference)
        axis.set_title(f"{title}: {titled(metric)} minus {about['labels'][reference]}", fontsize=7)
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
