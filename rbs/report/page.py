"""The report: one HTML page that holds everything it shows."""

from __future__ import annotations

import base64
import datetime
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import rbs
from rbs.errors import RbsError
from rbs.report import figures
from rbs.report.assessment import (
    Assessment,
    coverage_tables,
    curves_figure,
    is_assessment,
    read_assessment,
    study_tables,
)
from rbs.report.searches import ablation_figure, ablation_table, cost_table, read_ablation, sweep_table
from rbs.report.tables import (
    Evaluation,
    TrainingLog,
    csv_table,
    difference_tables,
    read_evaluation,
    region_table,
    score_tables,
    set_table,
    training_logs,
)
from rbs.utils.files import read_npz, whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHORT = {
    "rapid": "rapid",
    "gaussian": "Gaussian",
    "tv": "total variation",
    "wavelet": "wavelets",
    "nlm": "non-local means",
    "bm3d": "BM3D",
    "stage1": "stage 1",
    "stage2_f1": "stage 2 (ships)",
    "stage2_f2": "stage 2, second",
    "standard": "standard scan",
    "truth": "truth",
    "degraded": "degraded",
    "median": "median",
    "gamma": "gamma",
    "exposure": "exposure",
    "clahe": "CLAHE",
    "unsharp": "unsharp mask",
    "lucy": "Richardson-Lucy",
    "clean": "clean frame",
}
"""Labels above pictures; a method that is not here is shown by its name."""


_FOUND = ("summary.csv", "ablation.csv", "sweep.csv", "metrics.csv", "dice.csv")


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its name as a file, title, caption, itself, and whether it shows photographs."""

    name: str
    title: str
    caption: str
    figure: Figure
    photographs: bool = False

    @cached_property
    def source(self) -> str:
        """The figure as a data URI."""
        kind, data = ("jpeg", figures.jpeg) if self.photographs else ("png", figures.png)
        return f"data:image/{kind};base64,{base64.b64encode(data(self.figure)).decode('ascii')}"


def write_report(
    runs: Sequence[Path], output: Path, *, figure_folder: Path | None = None, overwrite: bool = True
) -> None:
    """Write one self-contained page about all results found in the given folders.

    Evaluations, assessments (settings.json beside summary.csv), benchmarks, ablations, sweeps,
    training runs (the version_N/metrics.csv of each experiment, joined) and dice.csv files are
    found in the folders and below them. The trainings that an ablation or a sweep is made of are
    not shown one by one.

    Args:
        runs: Folders.
        output: The HTML file.
        figure_folder: Where every figure of the page is written as SVG and PDF, too; None for
            nowhere.
        overwrite: Whether an existing page is replaced.

    Raises:
        RbsError: A folder is missing, holds nothing to report, or a result in it is damaged.
        OutputError: The page or a figure cannot be written.
    """
    import jinja2
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    evaluations, assessments, ablations, sweeps, trainings, dice = [], [], [], [], [], []
    for run in runs:
        if not run.is_dir():
            raise RbsError("there is no such folder", file=run, remedy="name folders of runs")
        found = {name: sorted(run.rglob(name)) for name in _FOUND}
        if not any(found.values()):
            raise RbsError(
                "it holds nothing to report",
                file=run,
                remedy="name folders written by rbs evaluate, benchmark, ablation, sweep or fit",
            )
        for folder in (file.parent for file in found["summary.csv"]):
            if is_assessment(folder):
                assessments.append(_assessment(read_assessment(folder)))
            else:
                evaluations.append(_evaluation(read_evaluation(folder)))
        ablations += [_ablation(file.parent) for file in found["ablation.csv"]]
        sweeps += [_sweep(file) for file in found["sweep.csv"]]
        wholes = {file.parent for name in ("ablation.csv", "sweep.csv") for file in found[name]}
        logs = [file for file in found["metrics.csv"] if not wholes.intersection(file.parents)]
        trainings += [picture for log in training_logs(logs) if (picture := _training(log))]
        dice += [(str(file.parent), csv_table(file)) for file in found["dice.csv"]]
    template = (files("rbs.report") / "page.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    html = page.render(
        version=rbs.__version__,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        scans=any(not e["of_frames"] for e in evaluations) or not evaluations,
        frames=any(e["of_frames"] for e in evaluations),
        evaluations=evaluations,
        assessments=assessments,
        ablations=ablations,
        sweeps=sweeps,
        trainings=trainings,
        dice=dice,
    )
    with whole_file(output, overwrite=overwrite) as path:
        path.write_text(html, encoding="utf-8")
    if figure_folder is not None:
        taken: Counter[str] = Counter()
        for picture in _all_pictures(evaluations, [*assessments, *ablations], trainings):
            taken[picture.name] += 1
            again = taken[picture.name]
            figures.save(picture.figure, figure_folder, picture.name + (f"-{again}" if again > 1 else ""))
    plt.close("all")


def _all_pictures(
    evaluations: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], trainings: Sequence[Picture]
) -> Iterator[Picture]:
    """In the order of the page."""
    for evaluation in evaluations:
        if evaluation["forest"]:
            yield evaluation["forest"]
        for _, pictures in evaluation["pictures"]:
            yield from pictures
    yield from (other["picture"] for other in others if other["picture"])
    yield from trainings


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "folder": str(evaluation.folder),
        "settings": evaluation.settings,
        "of_frames": evaluation.of_frames,
        "units": evaluation.units,
        "scores": score_tables(evaluation),
        "differences": difference_tables(evaluation),
        "forest": _forest(evaluation),
        "sets": set_table(evaluation),
        "regions": region_table(evaluation),
        "costs": cost_table(evaluation.folder),
        "pictures": _pictures(evaluation),
        "metrics": evaluation.printed,
        "peers": ", ".join(evaluation.labels[name] for name in evaluation.settings["peers"]),
    }


def _forest(evaluation: Evaluation) -> Picture | None:
    figure = figures.differences_figure(evaluation.differences, evaluation.labels, evaluation.printed)
    if figure is None:
        return None
    caption = "Mean difference to the best peer, which stands at zero as a tick, and its 95 % interval."
    return Picture(_name(evaluation.folder.name, "differences"), "At a glance", caption, figure)


def _assessment(assessment: Assessment) -> dict[str, Any]:
    figure = curves_figure(assessment)
    name = _name(assessment.folder.name, "curves")
    caption = "Points are means, bars 95 % bootstrap intervals over patients."
    return {
        "folder": str(assessment.folder),
        "settings": assessment.settings,
        "tables": study_tables(assessment),
        "coverage": coverage_tables(assessment),
        "picture": figure and Picture(name, "At a glance", caption, figure),
    }


def _ablation(folder: Path) -> dict[str, Any]:
    ablation = read_ablation(folder)
    figure = ablation_figure(ablation)
    caption = "Mean differences and their 95 % intervals; the row compared with stands at zero as a tick."
    return {
        "folder": str(folder),
        "about": ablation.about,
        "table": ablation_table(ablation),
        "picture": figure and Picture(_name(folder.name, "differences"), "At a glance", caption, figure),
    }


def _sweep(file: Path) -> dict[str, Any]:
    picture = file.with_name("sweep.png")
    data = base64.b64encode(picture.read_bytes()).decode("ascii") if picture.exists() else ""
    source = f"data:image/png;base64,{data}" if data else ""
    return {"folder": str(file.parent), "table": sweep_table(file), "source": source}


def _training(log: TrainingLog) -> Picture | None:
    figure = figures.curves_figure(log.table)
    return None if figure is None else Picture(_name("training", log.title), log.title, "", figure)


def _name(*words: str) -> str:
    """A file name of words, in small letters, digits and hyphens."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)


def _pictures(evaluation: Evaluation) -> list[tuple[str, list[Picture]]]:
    """Pictures of each representative case, under a heading each."""
    file = evaluation.folder / "pictures.npz"
    make = _frame_pictures if evaluation.of_frames else _case_pictures
    try:
        arrays = read_npz(file)
        return [
            (_heading(shown), make(evaluation, arrays, shown)) for shown in evaluation.settings["pictures"]
        ]
    except (ValueError, KeyError) as error:
        raise RbsError(
            f"the pictures are missing or damaged ({error})", file=file, remedy="run `rbs evaluate` again"
        ) from error


def _heading(shown: dict[str, Any]) -> str:
    if "frame" in shown:
        done = f": {shown['degradation']}" if shown["degradation"] else ""
        return f"Frame {shown['frame']} of {shown['patient']}{done}"
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
    folder, patient = evaluation.folder.name, str(shown["patient"])
    found = [
        Picture(
            _name(folder, patient, "whole scan"),
            "Whole scan",
            f"Inverse grey, the same window for all: white 0, black {peak:.1f} counts a pixel (P) and more. "
            "Posterior views as the camera saw them.",
            figures.views_figure(panels, views, peak, spacing),
        ),
        Picture(
            _name(folder, patient, "knees"),
            "Knees",
            f"The growth plates, enlarged; {views[0]} view, same window.",
            figures.knees_figure(panels, peak, spacing),
        ),
    ]
    truth = panels.pop(SHORT["truth"], None)
    if truth is not None:
        limit = figures.DIFFERENCE_SHARE * peak
        found.append(
            Picture(
                _name(folder, patient, "difference to the truth"),
                "Difference to the truth",
                f"Estimate minus expected: red too many, blue too few, full colour at {limit:.1f} counts.",
                figures.difference_figure(panels, truth, views, peak, spacing),
            )
        )
    return found


def _frame_pictures(
    evaluation: Evaluation, arrays: dict[str, npt.NDArray[Any]], shown: dict[str, Any]
) -> list[Picture]:
    prefix = f"{shown['case']}/"
    panels = {
        SHORT.get(name, name): arrays[prefix + name] / np.float32(255)
        for name in (*evaluation.labels, "clean")
        if prefix + name in arrays
    }
    clean, valid = panels[SHORT["clean"]], arrays[prefix + "valid"]
    of_interest = arrays.get(prefix + "lesion", valid)
    places = np.argwhere(of_interest if of_interest.any() else np.ones_like(valid))
    row, column = (int(middle) for middle in places.mean(axis=0))
    words = (evaluation.folder.name, str(shown["frame"]))
    errors = {label: frame for label, frame in panels.items() if label != SHORT["clean"]}
    return [
        Picture(
            _name(*words, "frame"),
            "Whole frame",
            "As restored, in sRGB; what is not valid is that of the clean frame everywhere.",
            figures.frames_figure(panels),
            photographs=True,
        ),
        Picture(
            _name(*words, "detail"),
            "Detail",
            "About the middle of the marked lesion, or of the valid area where none is marked.",
            figures.zoomed_frames_figure(panels, (row, column)),
            photographs=True,
        ),
        Picture(
            _name(*words, "error"),
            "Error",
            f"Mean absolute difference of the three colours to the clean frame: black none, full colour "
            f"{figures.FRAME_ERROR:g} of the range and more.",
            figures.frame_errors_figure(errors, clean, valid),
        ),
    ]
