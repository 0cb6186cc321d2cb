"""The report: one HTML page that holds everything it shows."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import rbs
from rbs.arrays import read_npz
from rbs.errors import RbsError
from rbs.files import whole_file
from rbs.report import figures
from rbs.report.tables import (
    CEILING_LABEL,
    Evaluation,
    Table,
    TrainingLog,
    csv_table,
    read_evaluation,
    region_table,
    score_table,
    training_logs,
)

SHORT = {
    "rapid": "rapid",
    "gaussian": "Gaussian",
    "nlm": "non-local means",
    "stage1": "stage 1",
    "stage2_f1": "stage 2 (ships)",
    "stage2_f2": "stage 2, second",
    "standard": "standard scan",
    "truth": "truth",
}
"""Labels above pictures; a method that is not here is shown by its name."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page: title, caption and a PNG as a data URI."""

    title: str
    caption: str
    source: str


def write_report(runs: Sequence[Path], output: Path, *, overwrite: bool = True) -> None:
    """Write one self-contained page about all results found in the given folders.

    Evaluations (settings.json beside summary.csv), training runs (the version_N/metrics.csv of each
    experiment, joined) and dice.csv files are found in the folders and below them.

    Args:
        runs: Folders.
        output: The HTML file.
        overwrite: Whether an existing page is replaced.

    Raises:
        RbsError: A folder is missing, holds nothing to report, or a result in it is damaged.
        OutputError: The page cannot be written.
    """
    import jinja2
    import matplotlib

    matplotlib.use("Agg")
    evaluations, trainings, dice = [], [], []
    for run in runs:
        if not run.is_dir():
            raise RbsError("there is no such folder", file=run, remedy="name folders of runs")
        found = {name: sorted(run.rglob(name)) for name in ("summary.csv", "metrics.csv", "dice.csv")}
        if not any(found.values()):
            raise RbsError(
                "it holds nothing to report",
                file=run,
                remedy="name folders written by `rbs evaluate` or `rbs fit`",
            )
        evaluations += [_evaluation(read_evaluation(file.parent)) for file in found["summary.csv"]]
        trainings += [_training(log) for log in training_logs(found["metrics.csv"])]
        dice += [(str(file.parent), csv_table(file)) for file in found["dice.csv"]]
    template = (files("rbs.report") / "page.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    html = page.render(
        version=rbs.__version__,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        evaluations=evaluations,
        trainings=[training for training in trainings if training],
        dice=dice,
        ceiling_label=CEILING_LABEL,
    )
    with whole_file(output, overwrite=overwrite) as path:
        path.write_text(html, encoding="utf-8")


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    regions: Table | None = region_table(evaluation)
    return {
        "folder": str(evaluation.folder),
        "settings": evaluation.settings,
        "scores": score_table(evaluation),
        "regions": regions,
        "pictures": _pictures(evaluation),
        "metrics": [metric for metric in evaluation.settings["metrics"] if metric.get("printed", True)],
    }


def _training(log: TrainingLog) -> dict[str, str] | None:
    png = figures.curves_figure(log.table)
    return None if png is None else {"title": log.title, "source": _uri(png)}


def _pictures(evaluation: Evaluation) -> list[tuple[str, list[Picture]]]:
    """Pictures of each representative case, under a heading each."""
    file = evaluation.folder / "pictures.npz"
    try:
        arrays = read_npz(file)
        return [
            (_heading(shown), _case_pictures(evaluation, arrays, shown))
            for shown in evaluation.settings["pictures"]
        ]
    except (ValueError, KeyError) as error:
        raise RbsError(
            f"the pictures are missing or damaged ({error})", file=file, remedy="run `rbs evaluate` again"
        ) from error


def _heading(shown: dict[str, Any]) -> str:
    age = shown.get("age_y")
    return f"Patient {shown['patient']}" + (f", {age:.1f} years" if age else "")


def _case_pictures(
    evaluation: Evaluation, arrays: dict[str, npt.NDArray[Any]], shown: dict[str, Any]
) -> list[Picture]:
    prefix = f"{shown['case']}/"
    peak = float(arrays[prefix + "peak"])
    row, column = (float(v) for v in arrays[prefix + "spacing_mm"])
    spacing, views = (row, column), shown["views"]
    order = [*evaluation.labels, "standard", "truth"]
    panels = {
        SHORT.get(name, name): arrays[prefix + name].astype(np.float32)
        for name in order
        if prefix + name in arrays
    }
    found = [
        Picture(
            "Whole scan",
            f"Inverse grey, the same window for all: white 0, black {peak:.1f} counts a pixel (P) and more. "
            "Posterior views as the camera saw them.",
            _uri(figures.views_figure(panels, views, peak, spacing)),
        ),
        Picture(
            "Knees",
            f"The growth plates, enlarged; {views[0]} view, same window.",
            _uri(figures.knees_figure(panels, peak, spacing)),
        ),
    ]
    truth = panels.pop(SHORT["truth"], None)
    if truth is not None:
        limit = figures.DIFFERENCE_SHARE * peak
        found.append(
            Picture(
                "Difference to the truth",
                f"Estimate minus expected: red too many, blue too few, full colour at {limit:.1f} counts.",
                _uri(figures.difference_figure(panels, truth, views, peak, spacing)),
            )
        )
    return found


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
