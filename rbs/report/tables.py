"""Reading results and laying them out as tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rbs.errors import RbsError
from rbs.utils.words import counted

CEILING = "ceiling"
TABLES = ("summary", "differences", "sets")
ALPHA = 0.05
WIDEST = 6
"""Columns of a table that still fits a printed page."""
UNRESOLVED = "not resolvable"
"""Printed for a noise-corrected error that is not above zero."""
HEADLINE = ("nc_psnr", "lesion_recovery", "physis_peak", "hallucinated", "count_bias")
"""Metrics that the headline table shows first."""
HEADLINES = 5
"""Columns of the headline table."""
ESTIMATED = "Noise-corrected comparison with the standard scan"
"""Group of the metrics that estimate the error against the truth, where no truth is known."""


@dataclass(frozen=True)
class Evaluation:
    """Results of `rbs evaluate` in a folder.

    Attributes:
        folder: The folder.
        settings: settings.json.
        summary: summary.csv: method, metric, patients, mean, low, high.
        regions: regions.csv: patient, case, method, region, bias_percent; empty without labels.
        differences: differences.csv: each method against the best peer.
        sets: sets.csv: method, metric, tiles, value; empty without the weights of FID and KID.
    """

    folder: Path
    settings: dict[str, Any]
    summary: pd.DataFrame
    regions: pd.DataFrame
    differences: pd.DataFrame
    sets: pd.DataFrame

    @property
    def labels(self) -> dict[str, str]:
        """Method names to printed labels, in the order of the table."""
        return {method["name"]: method["label"] for method in self.settings["methods"]}

    @property
    def references(self) -> dict[str, str]:
        """Likewise of the rows that no method made."""
        return dict(self.settings["references"])

    @property
    def of_frames(self) -> bool:
        """True for an evaluation of colour frames, not of scans."""
        return self.settings.get("images") == "frames"

    @property
    def unit(self) -> str:
        """Unit of the statistics: a patient, or a group of frames (of a video or a patient)."""
        return "group" if self.of_frames else "patient"

    @property
    def units(self) -> str:
        """The same in the plural."""
        return f"{self.unit}s"

    @property
    def truth_known(self) -> bool:
        """True where the expectation of a scan is known, as it is of phantoms."""
        return bool(self.summary["metric"].str.endswith("_truth").any())

    @property
    def printed(self) -> list[dict[str, Any]]:
        """The metrics that reports show: those that a method has a value for."""
        found = set(self.summary.loc[self.summary["method"].isin(self.labels), "metric"])
        shown = [m for m in self.settings["metrics"] if m["printed"] and m["name"] in found]
        if self.truth_known:
            return shown
        return [m | {"group": ESTIMATED} if m.get("pooled_from") else m for m in shown]


@dataclass(frozen=True)
class Cell:
    """A table cell: the value, its interval and a remark below it, and whether it stands out."""

    text: str = ""
    interval: str = ""
    remark: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table ready to print.

    Attributes:
        title: Common heading of its columns; may be empty.
        columns: Heads: (label, note below it).
        references: (label, cells) of the rows that no method made.
        rows: (label, cells) of each method.
    """

    title: str
    columns: list[tuple[str, str]]
    references: list[tuple[str, list[Cell]]]
    rows: list[tuple[str, list[Cell]]]

    def as_text(self) -> str:
        """The table turned round for a terminal: a line a cell that holds anything."""
        lines = [self.title] if self.title else []
        for place, (column, note) in enumerate(self.columns):
            lines.append(f"{column} ({note})")
            for label, cells in (*self.references, *self.rows):
                cell = cells[place]
                interval = f" [{cell.interval}]" if cell.interval else ""
                if cell.text:
                    lines.append(f"  {label:<34} {cell.text}{interval}  {cell.remark}".rstrip())
        return "\n".join(lines)


@dataclass(frozen=True)
class TrainingLog:
    """Log of a training run: its folder with the versions shown, and rows of their metrics.csv."""

    title: str
    table: pd.DataFrame


@contextmanager
def reading(place: Path, fault: str, remedy: str) -> Iterator[None]:
    """Explain errors in reading results.

    Args:
        place: The file or the folder of the results.
        fault: What is wrong with results that cannot be read, as a clause.
        remedy: What to do about it.

    Raises:
        RbsError: They are missing or damaged.
    """
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise RbsError(f"{fault} ({error})", file=place, remedy=remedy) from error


def read_evaluation(folder: Path) -> Evaluation:
    """Read the results in a folder.

    Raises:
        RbsError: A file is missing or damaged.
    """
    with reading(folder, "the evaluation is incomplete or damaged", "run `rbs evaluate` again"):
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        summary, compared, sets = (pd.read_csv(folder / f"{name}.csv") for name in TABLES)
        try:
            regions = pd.read_csv(folder / "regions.csv")
        except pd.errors.EmptyDataError:
            regions = pd.DataFrame(columns=["method", "region", "bias_percent"])
        evaluation = Evaluation(folder, settings, summary, regions, compared, sets)
        for key in ("methods", "peers", "references", "metrics", "sets", "pictures", "peak", "mask"):
            settings[key]
        summary[["method", "metric", "patients", "mean", "low", "high"]]
        compared[["metric", "method", "against", "patients", "better", "difference", "p_holm", "p_least"]]
        sets[["method", "metric", "tiles", "value"]]
    return evaluation


def headline_table(evaluation: Evaluation) -> Table:
    """Methods by the few metrics that matter most, without intervals."""
    order = {name: place for place, name in enumerate(HEADLINE)}
    metrics = sorted(evaluation.printed, key=lambda metric: order.get(metric["name"], len(order)))
    return _score_table(evaluation, "", metrics[:HEADLINES], intervals=False)


def score_tables(evaluation: Evaluation) -> list[Table]:
    """Methods by metrics with intervals, in tables that fit a printed page."""
    return [_score_table(evaluation, title, metrics) for title, metrics in _pages(evaluation.printed)]


def _score_table(
    evaluation: Evaluation, title: str, metrics: Sequence[dict[str, Any]], *, intervals: bool = True
) -> Table:
    summary = evaluation.summary.set_index(["method", "metric"])

    def cell(method: str, metric: dict[str, Any]) -> Cell:
        name = metric["name"]
        if (method, name) not in summary.index:
            return Cell()
        mean, low, high = (
            _number(float(summary.loc[(method, name), part]), metric) for part in ("mean", "low", "high")
        )
        best = method in _best(summary["mean"].xs(name, level="metric"), metric, evaluation.labels)
        return Cell(mean, f"{low} to {high}" if low and intervals else "", best=best)

    return Table(
        title,
        [(metric["label"], _note(metric)) for metric in metrics],
        _rows(evaluation.references, metrics, cell, empty=False),
        _rows(evaluation.labels, metrics, cell),
    )


def difference_tables(evaluation: Evaluation) -> list[Table]:
    """Methods by metrics: the difference to the best peer, its interval, and what it means."""
    compared = evaluation.differences.set_index(["method", "metric"])
    against = dict(zip(evaluation.differences["metric"], evaluation.differences["against"], strict=True))

    def cell(method: str, metric: dict[str, Any]) -> Cell:
        name = metric["name"]
        if (method, name) not in compared.index:
            return Cell("–", remark="comparator") if method == against[name] else Cell()
        row = compared.loc[(method, name)]
        text, low, high = (_number(float(row[part]), metric) for part in ("difference", "low", "high"))
        return Cell(
            text if row["difference"] <= 0 else f"+{text}",
            f"{low} to {high}" if low else "",
            verdict(row, metric, evaluation.unit),
            best=_shown_better(row, metric),
        )

    return [
        Table(
            title,
            [(m["label"], f"{_note(m)}; against {evaluation.labels[against[m['name']]]}") for m in metrics],
            [],
            _rows(evaluation.labels, metrics, cell),
        )
        for title, metrics in _pages([metric for metric in evaluation.printed if metric["name"] in against])
    ]


def verdict(row: Mapping[str, Any], metric: dict[str, Any], unit: str = "patient") -> str:
    """A row of differences.csv in words.

    Args:
        row: patients, better, worse, difference, p_holm and p_least of a comparison.
        metric: Its description in settings.json.
        unit: Noun for one of the things compared.
    """
    of_all = f"of {counted(round(row['patients']), unit)}"
    better, worse = f"better in {row['better']:.0f} {of_all}", f"worse in {row['worse']:.0f} {of_all}"
    if math.isnan(row["p_holm"]):
        return f"too few to test: {better}"
    if row["p_least"] > ALPHA:
        return f"too few for so many methods (p at least {row['p_least']:.2g}): {better}"
    p = "p < 0.001" if row["p_holm"] < 0.001 else f"p = {row['p_holm']:.2g}"
    if row["p_holm"] > ALPHA:
        return f"no difference shown: {better}, {p}"
    gain = _gain(row, metric)
    if gain * (row["better"] - row["worse"]) <= 0:
        return f"{better}, {p}, yet the mean says the opposite"
    return f"{better if gain > 0 else worse}, {p}"


def _shown_better(row: Mapping[str, Any], metric: dict[str, Any]) -> bool:
    """True where mean, patients and test agree that the method is the better one."""
    return row["p_holm"] <= ALPHA and _gain(row, metric) > 0 and row["better"] > row["worse"]


def _gain(row: Mapping[str, Any], metric: dict[str, Any]) -> float:
    return float(row["difference"] if metric["higher_is_better"] else -row["difference"])


def set_table(evaluation: Evaluation) -> Table | None:
    """FID and KID of each method and reference; None without."""
    if evaluation.sets.empty:
        return None
    values = evaluation.sets.set_index(["method", "metric"])["value"]
    of_metric = {
        name: table["value"] for name, table in evaluation.sets.set_index("method").groupby("metric")
    }

    def cell(method: str, metric: dict[str, Any]) -> Cell:
        value = float(values.get((method, metric["name"]), math.nan))
        best = method in _best(of_metric[metric["name"]], metric, evaluation.labels)
        return Cell(number(value, 1 if metric["name"] == "fid" else 4), best=best)

    metrics = evaluation.settings["sets"]
    return Table(
        "",
        [(metric["label"], _note(metric)) for metric in metrics],
        _rows(evaluation.references, metrics, cell, empty=False),
        _rows(evaluation.labels, metrics, cell),
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
    return Table("", [(region, "") for region in regions], [], rows)


def csv_table(path: Path) -> Table:
    """A small CSV as it is: its columns of words name the rows.

    Raises:
        RbsError: It cannot be read.
    """
    with reading(path, "it is no table", "make it again"):
        content = pd.read_csv(path)
    # Words come first and name the row; numbers are its cells.
    words = [name for name in content.columns if not pd.api.types.is_numeric_dtype(content[name])]
    numbers = [name for name in content.columns if name not in words]
    rows = [
        (", ".join(str(row[name]) for name in words), [Cell(number(float(row[name]), 3)) for name in numbers])
        for row in content.to_dict("records")
    ]
    return Table("", [(str(name), "") for name in numbers], [], rows)


def number(value: float, digits: int, unbounded: str = "∞") -> str:
    """A number as printed; an unbounded one, and none at all, in words."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return unbounded if value > 0 else "\N{MINUS SIGN}∞"
    # Adding zero takes the sign off what is rounded to zero.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def significant(value: float) -> str:
    """A number of three significant digits, as printed; none for NaN."""
    if math.isnan(value) or math.isinf(value):
        return number(value, 0)
    return f"{value + 0.0:.3g}".replace("-", "\N{MINUS SIGN}")


def training_logs(files: Sequence[Path]) -> list[TrainingLog]:
    """Log of each training run: of EXPERIMENT/version_N/metrics.csv all N joined, others alone.

    Each resumption writes a version of its own, which goes on from a checkpoint: it replaces what
    the versions before it logged at its first step and later. Versions without training points
    (`rbs validate`) are left out; a run of such versions alone has an empty log.

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
        names = ", ".join(path.parent.name for path, _ in parts if path.parent != run)
        table = pd.concat([part for _, part in parts]) if parts else pd.DataFrame()
        logs.append(TrainingLog(f"{run} ({names})" if names else f"{run}", table))
    return logs


def _training_table(file: Path) -> pd.DataFrame:
    """Rows of a metrics.csv; none where nothing was trained."""
    with reading(file, "it is no training log", "remove it"):
        table = pd.read_csv(file)
        steps = pd.to_numeric(table.get("step", pd.Series(dtype=float)))
    trained = table.filter(regex=r"^train[/_]").notna().any(axis=None)
    return table.assign(step=steps) if trained and len(steps) else table[:0]


def _pages(metrics: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Metrics of one group each, in as many tables as a printed page needs, of equal width."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for metric in metrics:
        groups.setdefault(metric["group"], []).append(metric)
    pages = []
    for title, group in groups.items():
        size = math.ceil(len(group) / math.ceil(len(group) / WIDEST))
        pages += [(title, group[start : start + size]) for start in range(0, len(group), size)]
    return pages


def _rows(
    labels: Mapping[str, str],
    metrics: Sequence[dict[str, Any]],
    cell: Callable[[str, dict[str, Any]], Cell],
    *,
    empty: bool = True,
) -> list[tuple[str, list[Cell]]]:
    """A row a name; rows without any value only where `empty` ones are wanted."""
    rows = [(label, [cell(name, metric) for metric in metrics]) for name, label in labels.items()]
    return [(label, cells) for label, cells in rows if empty or any(c.text for c in cells)]


def _best(values: pd.Series, metric: dict[str, Any], methods: Iterable[str]) -> set[str]:
    """The best methods: one, or several that are equally good.

    None where one passes the ceiling, for then the metric does not measure truth.

    By chance any method may pass a ceiling that is the ideal give or take noise: where one value is
    best, and where the noise is subtracted.
    """
    cost = (values - metric["ideal"]).abs() if metric["higher_is_better"] is None else values
    cost = -cost if metric["higher_is_better"] else cost
    of_methods = cost[cost.index.isin(list(methods))]
    bounded = metric["higher_is_better"] is not None and not metric.get("pooled_from")
    if len(of_methods) < 2 or (bounded and of_methods.min() < cost.get(CEILING, -math.inf)):
        return set()
    return {str(name) for name in of_methods.index[of_methods == of_methods.min()]}


def _number(value: float, metric: dict[str, Any]) -> str:
    """A value of a metric as printed; noise can leave a noise-corrected error of no size at all."""
    digits = {"dB": 2, "%": 2}.get(metric["unit"], 3)
    return number(value, digits, UNRESOLVED if metric.get("pooled_from") else "∞")


def _note(metric: dict[str, Any]) -> str:
    wish = {True: "higher is better", False: "lower is better", None: f"{metric.get('ideal', 0):g} is best"}[
        metric["higher_is_better"]
    ]
    return f"{metric['unit']}, {wish}" if metric["unit"] else wish
