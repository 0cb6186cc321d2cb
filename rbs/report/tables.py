"""Reading results and laying them out as tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rbs.errors import RbsError

CEILING = "ceiling"
CEILING_LABEL = "Perfect restoration (ceiling)"


@dataclass(frozen=True)
class Evaluation:
    """What `rbs evaluate` left in a folder.

    Attributes:
        folder: The folder.
        settings: settings.json.
        summary: summary.csv: method, metric, patients, mean, low, high.
        regions: regions.csv: patient, case, method, region, bias_percent; empty without labels.
    """

    folder: Path
    settings: dict[str, Any]
    summary: pd.DataFrame
    regions: pd.DataFrame

    @property
    def labels(self) -> dict[str, str]:
        """Method names to printed labels, in the order of the table."""
        return {method["name"]: method["label"] for method in self.settings["methods"]}


@dataclass(frozen=True)
class Cell:
    """A table cell: the value, its interval below it, and whether it is the best of its column."""

    text: str = ""
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table ready to print.

    Attributes:
        columns: Heads: (label, note below it).
        ceiling: Cells of the ceiling row; empty where there is none.
        rows: (label, cells) of each method.
    """

    columns: list[tuple[str, str]]
    ceiling: list[Cell]
    rows: list[tuple[str, list[Cell]]]


@dataclass(frozen=True)
class TrainingLog:
    """What a training run logged: its folder with the versions shown, and the rows of their metrics.csv."""

    title: str
    table: pd.DataFrame


def read_evaluation(folder: Path) -> Evaluation:
    """Read the results in a folder.

    Raises:
        RbsError: A file is missing or damaged.
    """
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        summary = pd.read_csv(folder / "summary.csv")
        try:
            regions = pd.read_csv(folder / "regions.csv")
        except pd.errors.EmptyDataError:
            regions = pd.DataFrame(columns=["method", "region", "bias_percent"])
        evaluation = Evaluation(folder, settings, summary, regions)
        for key in ("methods", "metrics", "pictures", "peak", "mask"):
            settings[key]
        summary[["method", "metric", "patients", "mean", "low", "high"]]
    except (OSError, ValueError, KeyError) as error:
        raise RbsError(
            f"the evaluation is incomplete or damaged ({error})",
            file=folder,
            remedy="run `rbs evaluate` again",
        ) from error
    return evaluation


def score_table(evaluation: Evaluation) -> Table:
    """Methods by metrics with intervals; metrics that no method has a value for are left out."""
    summary = evaluation.summary.set_index(["method", "metric"])
    metrics = [
        metric
        for metric in evaluation.settings["metrics"]
        if metric.get("printed", True) and metric["name"] in set(evaluation.summary["metric"])
    ]
    best = {metric["name"]: _best(evaluation, metric) for metric in metrics}

    def cell(method: str, metric: dict[str, Any]) -> Cell:
        key = (method, metric["name"])
        if key not in summary.index:
            return Cell()
        mean, low, high = (float(summary.loc[key, column]) for column in ("mean", "low", "high"))
        digits = _digits(metric)
        interval = "" if math.isnan(low) else f"{number(low, digits)} to {number(high, digits)}"
        return Cell(number(mean, digits), interval, method == best[metric["name"]])

    return Table(
        columns=[(metric["label"], _note(metric)) for metric in metrics],
        ceiling=[cell(CEILING, metric) for metric in metrics],
        rows=[
            (label, [cell(name, metric) for metric in metrics]) for name, label in evaluation.labels.items()
        ],
    )


def region_table(evaluation: Evaluation) -> Table | None:
    """Mean signed count bias of each region by method, %, over patients; None without labels."""
    if evaluation.regions.empty:
        return None
    patients = evaluation.regions.groupby(["patient", "method", "region"], sort=False)["bias_percent"].mean()
    means = patients.groupby(["method", "region"], sort=False).mean()
    regions = list(dict.fromkeys(evaluation.regions["region"]))
    rows = []
    for name, label in evaluation.labels.items():
        values = [means.get((name, region), math.nan) for region in regions]
        rows.append((label, [Cell(number(v, 1)) for v in values]))
    return Table([(region, "%") for region in regions], [], rows)


def csv_table(path: Path) -> Table:
    """A small CSV as it is: its columns of words name the rows.

    Raises:
        RbsError: It cannot be read.
    """
    try:
        content = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise RbsError(f"it is no table ({error})", file=path, remedy="make it again") from error
    # Words come first and name the row; numbers are its cells.
    words = [name for name in content.columns if not pd.api.types.is_numeric_dtype(content[name])]
    numbers = [name for name in content.columns if name not in words]
    rows = [
        (", ".join(str(row[name]) for name in words), [Cell(number(float(row[name]), 3)) for name in numbers])
        for row in content.to_dict("records")
    ]
    return Table([(str(name), "") for name in numbers], [], rows)


def number(value: float, digits: int) -> str:
    """A number as printed; an unbounded one, and none at all, in words."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "not resolvable" if value > 0 else "-∞"
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def training_logs(files: Sequence[Path]) -> list[TrainingLog]:
    """The log of each training run: of .../EXPERIMENT/version_N/metrics.csv all N joined, others alone.

    Each resumption writes a version of its own, which goes on from a checkpoint: it replaces what the
    versions before it logged at its first step and later. Versions without training points (`rbs validate`)
    are left out.

    Raises:
        RbsError: A file cannot be read.
    """
    runs: dict[Path, list[tuple[int, Path]]] = {}
    for file in files:
        match = re.fullmatch(r"version_(\d+)", file.parent.name)
        run, version = (file.parent.parent, int(match[1])) if match else (file.parent, 0)
        runs.setdefault(run, []).append((version, file))
    logs = []
    for run, versions in runs.items():
        parts: list[tuple[Path, pd.DataFrame]] = []
        for _, file in sorted(versions):
            table = _training_table(file)
            if len(table):
                earlier = [(path, part[part["step"] < table["step"].min()]) for path, part in parts]
                parts = [*((path, part) for path, part in earlier if len(part)), (file, table)]
        if parts:
            names = ", ".join(path.parent.name for path, _ in parts if path.parent != run)
            logs.append(
                TrainingLog(f"{run}: {names}" if names else f"{run}", pd.concat([t for _, t in parts]))
            )
    return logs


def _training_table(file: Path) -> pd.DataFrame:
    """A metrics.csv; no rows of it where nothing was trained."""
    try:
        table = pd.read_csv(file)
        steps = pd.to_numeric(table.get("step", pd.Series(dtype=float)))
    except (OSError, ValueError) as error:
        raise RbsError(f"it is no training log ({error})", file=file, remedy="remove it") from error
    trained = table.filter(regex=r"^train[/_]").notna().any(axis=None)
    return table.assign(step=steps) if trained and len(steps) else table[:0]


def _best(evaluation: Evaluation, metric: dict[str, Any]) -> str | None:
    """The best method; None where one passes the ceiling, for then the metric does not measure truth."""
    table = evaluation.summary
    means = table[table["metric"] == metric["name"]].set_index("method")["mean"]
    cost = means.abs() if metric["higher_is_better"] is None else means
    cost = -cost if metric["higher_is_better"] else cost
    methods = cost.drop(CEILING, errors="ignore")
    if len(methods) < 2 or methods.min() < cost.get(CEILING, -math.inf):
        return None
    return str(methods.idxmin())


def _digits(metric: dict[str, Any]) -> int:
    return {"dB": 2, "%": 2}.get(metric["unit"], 3)


def _note(metric: dict[str, Any]) -> str:
    wish = {True: "higher is better", False: "lower is better", None: "zero is best"}[
        metric["higher_is_better"]
    ]
    return f"{metric['unit']}, {wish}" if metric["unit"] else wish
