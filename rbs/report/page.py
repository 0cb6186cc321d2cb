"""The report: one HTML page that holds everything it shows."""

from __future__ import annotations

import base64
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.errors import RbsError, printable
from rbs.report import figures
from rbs.report.assessment import (
    Assessment,
    coverage_tables,
    curves_figure,
    is_assessment,
    read_assessment,
    study_tables,
)
from rbs.report.html import render
from rbs.report.pictures import Picture, case_pictures, choice, file_name
from rbs.report.real_scans import TABLE as REAL_SCANS
from rbs.report.real_scans import about, read_real_scans, speed_tables, view_table
from rbs.report.searches import ablation_figure, ablation_tables, cost_table, read_ablation, sweep_table
from rbs.report.tables import (
    UNRESOLVED,
    Evaluation,
    TrainingLog,
    csv_table,
    difference_tables,
    headline_table,
    read_evaluation,
    region_table,
    score_tables,
    set_table,
    training_logs,
)
from rbs.utils.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

log = logging.getLogger(__name__)

TOO_SHORT = (
    "its training log has fewer than two points of each quantity, so there is no curve to draw",
    "train for more steps, or log more often with trainer.log_every_n_steps",
)
"""Fault and remedy of a training without curves."""

_RESULTS = ("summary.csv", f"{REAL_SCANS}.csv", "ablation.csv", "sweep.csv", "metrics.csv", "dice.csv")


def write_report(runs: Sequence[Path], output: Path, *, figure_folder: Path | None = None) -> None:
    """Write one self-contained page about all results found in the given folders.

    Evaluations, assessments (settings.json beside summary.csv), evaluations of real scans,
    benchmarks, ablations, sweeps, training runs (the version_N/metrics.csv of each experiment,
    joined) and dice.csv files are found in the folders and below them. Trainings of an ablation or
    a sweep are not shown one by one. A training whose log is too short for a curve is named, on the
    page and in the log.

    Args:
        runs: Folders.
        output: The HTML file; an older one is replaced.
        figure_folder: Folder for every figure of the page as SVG and PDF; None to write none.

    Raises:
        RbsError: A folder is missing, there is nothing to report, or a result is damaged.
        OutputError: The page or a figure cannot be written.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    found = _sections(runs)
    evaluations = found["evaluations"]
    content = {
        "scans": any(not e["of_frames"] for e in evaluations) or not evaluations or found["real_scans"],
        "frames": any(e["of_frames"] for e in evaluations),
        "phantoms": any(e["truth_known"] for e in evaluations) or not evaluations or found["assessments"],
        "too_short": "; ".join(TOO_SHORT),
        **found,
    }
    filters = {"marked": _marked}
    write_text(output, render("page.html", content, filters=filters, finalize=_without_control_characters))
    if figure_folder is not None:
        taken: Counter[str] = Counter()
        for picture in _all_pictures(found):
            taken[picture.name] += 1
            again = taken[picture.name]
            figures.save(picture.figure, figure_folder, picture.name + (f"-{again}" if again > 1 else ""))
    plt.close("all")


def _sections(runs: Sequence[Path]) -> dict[str, list[Any]]:
    """All results in the folders and below them, by the section of the page."""
    names = ("evaluations", "real_scans", "assessments", "ablations", "sweeps", "trainings", "dice")
    found: dict[str, list[Any]] = {name: [] for name in names}
    for run in runs:
        if not run.is_dir():
            raise RbsError("there is no such folder", file=run, remedy="name folders of runs")
        results = {name: sorted(run.rglob(name)) for name in _RESULTS}
        if not any(results.values()):
            fault = "it holds nothing to report"
            remedy = "name folders written by rbs evaluate, evaluate-real, benchmark, ablation, sweep or fit"
            raise RbsError(fault, file=run, remedy=remedy)
        for folder in (file.parent for file in results["summary.csv"]):
            if is_assessment(folder):
                found["assessments"].append(_assessment(read_assessment(folder)))
            else:
                found["evaluations"].append(_evaluation(read_evaluation(folder)))
        found["real_scans"] += [_real_scans(file.parent) for file in results[f"{REAL_SCANS}.csv"]]
        found["ablations"] += [_ablation(file.parent) for file in results["ablation.csv"]]
        found["sweeps"] += [_sweep(file) for file in results["sweep.csv"]]
        wholes = {file.parent for name in ("ablation.csv", "sweep.csv") for file in results[name]}
        logs = [file for file in results["metrics.csv"] if not wholes.intersection(file.parents)]
        found["trainings"] += [(each.title, _training(each)) for each in training_logs(logs)]
        found["dice"] += [(str(file.parent), csv_table(file)) for file in results["dice.csv"]]
    short = [title for title, picture in found["trainings"] if not picture]
    if short and len(short) == sum(map(len, found.values())):
        raise RbsError(TOO_SHORT[0], file=short[0], remedy=TOO_SHORT[1])
    for title in short:
        log.warning("%s: %s; %s.", printable(title), *TOO_SHORT)
    return found


def _without_control_characters(value: Any) -> Any:
    """Names of files and runs as they may be printed; what the page itself is made of, as it is."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else printable(value, None)


def _marked(text: str) -> Markup:
    """Text with the Markdown marks of code and of weight turned into HTML."""
    from markupsafe import Markup, escape

    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html))


def _all_pictures(found: dict[str, list[Any]]) -> Iterator[Picture]:
    """Every figure of the page."""
    for evaluation in found["evaluations"]:
        for case in evaluation["cases"]:
            yield from (case.overview, *case.methods)
        if evaluation["forest"]:
            yield evaluation["forest"]
    yield from (
        other["picture"] for other in (*found["assessments"], *found["ablations"]) if other["picture"]
    )
    yield from (picture for _, picture in found["trainings"] if picture)


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    known, scores = set(evaluation.summary["method"]), score_tables(evaluation)
    cells = [cell for table in scores for _, row in (*table.references, *table.rows) for cell in row]
    return {
        "folder": str(evaluation.folder),
        "settings": evaluation.settings,
        "of_frames": evaluation.of_frames,
        "truth_known": evaluation.truth_known,
        "references": known.intersection(evaluation.references),
        "unit": evaluation.unit,
        "headline": headline_table(evaluation),
        "scores": scores,
        "intervals": any(cell.interval for cell in cells),
        "unresolved": any(UNRESOLVED in cell.text + cell.interval for cell in cells),
        "differences": difference_tables(evaluation),
        "forest": _forest(evaluation),
        "sets": set_table(evaluation),
        "regions": region_table(evaluation),
        "costs": cost_table(evaluation.folder),
        "cases": case_pictures(evaluation),
        "choice": choice(evaluation),
        "metrics": evaluation.printed,
        "peers": ", ".join(evaluation.labels[name] for name in evaluation.settings["peers"]),
    }


def _forest(evaluation: Evaluation) -> Picture | None:
    figure = figures.differences_figure(evaluation.differences, evaluation.labels, evaluation.printed)
    if figure is None:
        return None
    caption = "Mean difference to the best peer, a tick at zero, and its 95 % interval."
    return Picture(file_name(evaluation.folder.name, "differences"), "", caption, figure)


def _real_scans(folder: Path) -> dict[str, Any]:
    results = read_real_scans(folder)
    return {
        "folder": str(folder),
        "settings": results.settings,
        "about": about(results),
        "tables": speed_tables(results),
        "views": view_table(results),
        "pictures": [
            (name, _png(folder / "pictures" / file)) for name, file in results.settings["pictures"].items()
        ],
    }


def _png(picture: Path) -> str:
    """A picture as a data URI; empty without one."""
    if not picture.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode('ascii')}"


def _assessment(assessment: Assessment) -> dict[str, Any]:
    figure = curves_figure(assessment)
    name = file_name(assessment.folder.name, "curves")
    caption = "Points are means, bars 95 % bootstrap intervals over patients."
    return {
        "folder": str(assessment.folder),
        "settings": assessment.settings,
        "tables": study_tables(assessment),
        "coverage": coverage_tables(assessment),
        "picture": figure and Picture(name, "", caption, figure),
    }


def _ablation(folder: Path) -> dict[str, Any]:
    ablation = read_ablation(folder)
    figure = ablation_figure(ablation)
    caption = "Mean differences and their 95 % intervals; the tick at zero is the row compared with."
    return {
        "folder": str(folder),
        "about": ablation.about,
        "tables": ablation_tables(ablation),
        "picture": figure and Picture(file_name(folder.name, "differences"), "", caption, figure),
    }


def _sweep(file: Path) -> dict[str, Any]:
    source = _png(file.with_name("sweep.png"))
    return {"folder": str(file.parent), "table": sweep_table(file), "source": source}


def _training(run: TrainingLog) -> Picture | None:
    """Curves of a run; None where its log is too short for one."""
    figure = figures.curves_figure(run.table)
    return Picture(file_name("training", run.title), run.title, "", figure) if figure else None
