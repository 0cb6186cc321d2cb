"""Results of `rbs evaluate-real` as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbs.report.tables import UNRESOLVED, Cell, Table, number, reading
from rbs.utils.markdown import markdown
from rbs.utils.words import counted

TABLE = "real_scans"
"""Name of the table, by which results are known."""
FOCI = ("bright", "faint")
"""Classes of foci, as printed from left to right."""


@dataclass(frozen=True)
class RealScans:
    """Results of `rbs evaluate-real` in a folder.

    Attributes:
        folder: The folder.
        settings: settings.json.
        table: real_scans.csv: a row a speed and method.
        scores: scores.csv: a row a restoration and view.
    """

    folder: Path
    settings: dict[str, Any]
    table: pd.DataFrame
    scores: pd.DataFrame


def read_real_scans(folder: Path) -> RealScans:
    """Read the results in a folder.

    Raises:
        RbsError: A file is missing or damaged.
    """
    with reading(folder, "the evaluation is incomplete or damaged", "run `rbs evaluate-real` again"):
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        for key in (
            "scans",
            "draws",
            "methods",
            "reference",
            "pictures",
            "command",
            "peak",
            "mask",
            "nc_psnr",
            "foci",
        ):
            settings[key]
        table = pd.read_csv(folder / f"{TABLE}.csv")
        table[["speed", "label", "scans", "views", "nc_psnr", "difference", "count_bias"]]
        table[
            [f"{kind}_{name}" for kind in FOCI for name in ("scans", "foci", "kept", "kept_low", "kept_high")]
        ]
        scores = pd.read_csv(folder / "scores.csv", dtype={"scan": str, "method": str})
        scores[["scan", "view", "speed", "method", "nc_psnr"]]
    return RealScans(folder, settings, table, scores)


def speed_tables(results: RealScans) -> list[Table]:
    """A table a speed: means over scans, and differences to the reference."""
    reference = results.settings["reference"]["label"]
    figures = [("NC-PSNR", "dB"), ("Difference", f"minus {reference}, dB"), ("Count bias", "%")]
    tables = []
    for speed, part in results.table.groupby("speed", sort=False):
        first = part.iloc[0]
        foci = [(f"Contrast of {kind} foci kept", _unit(first, kind)) for kind in FOCI]
        columns = [*figures, *foci]
        size = f"{counted(int(first['scans']), 'scan')}, {counted(int(first['views']), 'view')}"
        rows = [(str(row["label"]), _cells(row)) for row in part.to_dict("records")]
        tables.append(Table(f"{speed}: {size}", columns, [], rows))
    return tables


def view_table(results: RealScans) -> Table:
    """NC-PSNR of every view at every speed, mean over draws; a column a method."""
    scores = results.scores.assign(place=[*map(_place, results.scores.to_dict("records"))])
    means = scores.pivot_table(
        index="place", columns="method", values="nc_psnr", aggfunc=_mean, sort=False, dropna=False
    )
    labels = {method["name"]: method["label"] for method in results.settings["methods"]}
    rows = [
        (str(place), [Cell(number(float(line[name]), 2) or UNRESOLVED) for name in labels])
        for place, line in means.iterrows()
    ]
    return Table("NC-PSNR of each view, dB", [(label, "") for label in labels.values()], [], rows)


def about(results: RealScans) -> str:
    """Sentence on what the intervals cover."""
    scans = counted(len(results.settings["scans"]), "scan")
    draws = counted(results.settings["draws"], "draw")
    means = f"Means over {draws} of each view, then over views, then over scans"
    if len(results.settings["scans"]) == 1:
        return (
            f"{means}. There is one scan: the 95 % intervals cover its views and draws only and say nothing "
            "of other patients."
        )
    return (
        f"{means}; 95 % bootstrap intervals over scans, views and draws. Intervals of {scans} are too narrow "
        "below about 10 scans."
    )


def as_markdown(results: RealScans) -> str:
    """All tables in Markdown."""
    parts = [f"{about(results)}\n"]
    for table, first in [
        *((table, "method") for table in speed_tables(results)),
        (view_table(results), "scan"),
    ]:
        head = [first, *(f"{label}, {note}" if note else label for label, note in table.columns)]
        rows = [[label, *map(_text, cells)] for label, cells in table.rows]
        parts.append(f"### {table.title}\n\n{markdown(head, rows)}")
    return "\n".join(parts)


def _cells(row: Mapping[Any, Any]) -> list[Cell]:
    found = []
    for name in ("nc_psnr", "difference"):
        value, low, high = (float(row[column]) for column in (name, f"{name}_low", f"{name}_high"))
        sign = "+" if name == "difference" and value > 0 else ""
        interval = f"{number(low, 2)} to {number(high, 2)}" if np.isfinite(low) else ""
        missing = UNRESOLVED if name == "nc_psnr" else ""
        found.append(Cell(f"{sign}{number(value, 2)}" if np.isfinite(value) else missing, interval))
    bias = float(row["count_bias"])
    found.append(Cell(f"{'+' if bias > 0 else ''}{number(bias, 2)}"))
    for kind in FOCI:
        kept, low, high = (100 * float(row[f"{kind}_kept{end}"]) for end in ("", "_low", "_high"))
        interval = f"{number(low, 0)} to {number(high, 0)}" if np.isfinite(low) else ""
        found.append(Cell(number(kept, 0), interval))
    return found


def _unit(row: pd.Series[Any], kind: str) -> str:
    """Unit of the contrast kept, and the foci that it is of."""
    return f"%, {row[f'{kind}_foci']:.0f} in each of {counted(int(row[f'{kind}_scans']), 'scan')}"


def _place(row: Mapping[Any, Any]) -> str:
    return f"{row['scan']}, {row['view']}, {row['speed']}"


def _mean(values: pd.Series) -> float:
    """Mean that is NaN where a value is."""
    return float(values.mean(skipna=False))


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.interval})" if cell.interval else cell.text
