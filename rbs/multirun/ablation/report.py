"""Tables of an ablation as CSV, Markdown and LaTeX, and its results in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.statistics.differences import MIN_PATIENTS, holm
from rbs.multirun.ablation.compare import Difference, improves, paired, scores_of, value
from rbs.multirun.ablation.definition import CONTROL, FULL, MODULES, STAGE1, Ablation, Row, Runs
from rbs.multirun.ablation.scores import Split
from rbs.multirun.runs import Training
from rbs.report.searches import ablation_table, difference_cell, read_ablation
from rbs.report.tables import Cell
from rbs.restorers.checkpoint import load_restorer
from rbs.utils.files import whole_file, write_json, write_text
from rbs.utils.markdown import latex, markdown
from rbs.utils.words import counted


def write_report(
    ablation: Ablation, runs: Runs, split: Split, per_case: pd.DataFrame, folder: Path
) -> tuple[pd.DataFrame, str]:
    """Write ablation.csv, .md, .tex, .json (for `rbs report`), and per_scan.csv or per_frame.csv.

    Args:
        ablation: The ablation.
        runs: Its runs.
        split: What was scored.
        per_case: Scores, as `rbs.multirun.ablation.scores.score` makes them.
        folder: Where the files go.

    Returns:
        The table of ablation.csv and the text of ablation.md.
    """
    rows = [r for r in ablation.rows if all(runs[r.name, s].state == "finished" for s in ablation.seeds)]
    missing = [f"{r}/seed_{s} ({run.state})" for (r, s), run in runs.items() if run.state != "finished"]
    compute = _compute(ablation, rows, runs)
    if ablation.second_stage:
        rows.append(Row(STAGE1, "stage 1 as it was"))
    references = {row.name: row.label for row in rows if row.name in (FULL, CONTROL)}
    metrics = [m for m in split.metrics if m.printed and per_case[m.pooled_from or m.name].notna().all()]
    by_name = {metric.name: metric for metric in metrics}
    # Where the truth is known, the noise of the standard scan need not blur the comparison.
    main = next(by_name[name] for name in ("psnr_truth", "nc_psnr", "psnr") if name in by_name)
    table = _table(rows, references, per_case, metrics)
    about = {
        "title": f"Ablation of {ablation.experiment.name}",
        "what": _basis(ablation, per_case, split),
        "labels": {row.name: row.label for row in rows},
        "metrics": [metric.describe() for metric in metrics],
        "main": main.name,
        "references": references,
        "words": _modules(rows, per_case, main) + _comparisons(rows, references, table, main),
    }
    for file, frame in ((f"per_{split.kind.case}.csv", per_case), ("ablation.csv", table)):
        with whole_file(folder / file, overwrite=True) as path:
            frame.to_csv(path, index=False, float_format="%.7g")
    write_json(folder / "ablation.json", about, ensure_ascii=False)
    shown = ablation_table(read_ablation(folder))
    head = ["row", *(f"{label}, {unit}" if unit else label for label, unit in shown.columns[: len(metrics)])]
    head += [f"{label} {minus}" for label, minus in shown.columns[len(metrics) :]]
    lines = [[label, *map(_plain, cells)] for label, cells in shown.rows]
    text = "\n".join(
        [
            f"# {about['title']}\n",
            f"{about['what']}\n",
            compute,
            markdown(head, lines),
            "".join(f"- {sentence}\n" for sentence in about["words"]),
            *(f"{limit}\n" for limit in _limits(ablation, per_case, split, missing)),
        ]
    )
    write_text(folder / "ablation.md", text)
    write_text(folder / "ablation.tex", latex(head, lines))
    return table, text


def _basis(ablation: Ablation, per_case: pd.DataFrame, split: Split) -> str:
    """Cases, seeds and statistics, in words."""
    units, seeds = f"{split.kind.unit}s", ", ".join(map(str, ablation.seeds))
    own = split.manifest == ablation.manifest.path
    other = "" if own else f" of {split.manifest.name}, which no row was trained on"
    return (
        f"{counted(per_case['patient'].nunique(), split.kind.unit)} of the {split.name} split{other},"
        f" {'seed' if len(ablation.seeds) == 1 else 'seeds'} {seeds}; the first restorer, which ships. Every"
        f" difference is paired over {units} and seeds, with its 95 % bootstrap interval over both; p is"
        f" Wilcoxon's signed-rank test over {units}, corrected by Holm over the rows."
    )


def _limits(ablation: Ablation, per_case: pd.DataFrame, split: Split, missing: Sequence[str]) -> list[str]:
    """Limits of the comparison, a sentence each."""
    count, seeds, limits = per_case["patient"].nunique(), len(ablation.seeds), []
    if seeds < 3:
        limits.append(
            f"{'One seed' if seeds == 1 else 'Two seeds'}: how far another training would differ is not"
            " known. Use three or more before believing a difference."
        )
    if count < MIN_PATIENTS:
        limits.append(
            f"With {counted(count, split.kind.unit)} the test cannot reach p < 0.05 whatever the difference;"
            f" it needs {MIN_PATIENTS}."
        )
    if missing:
        limits.append(f"Left out, for a run is missing: {', '.join(missing)}.")
    return limits


def _table(
    rows: Sequence[Row], references: Mapping[str, str], per_case: pd.DataFrame, metrics: Sequence[Metric]
) -> pd.DataFrame:
    """A line a row and metric: value, differences to the references, intervals, p-values."""
    lines: list[dict[str, Any]] = []
    for metric in metrics:
        scores = {row.name: scores_of(per_case, row.name, metric) for row in rows}
        of_metric: dict[str, dict[str, Any]] = {
            name: {"row": name, "metric": metric.name, "unit": metric.unit, "value": value(mine, metric)}
            for name, mine in scores.items()
        }
        for reference in references:
            others = [name for name in scores if name != reference]
            differences = [paired([(scores[name], scores[reference])], metric) for name in others]
            corrected = holm([difference.p for difference in differences])
            for name, difference, p in zip(others, differences, corrected, strict=True):
                entries = vars(difference) | {"p_holm": p}
                of_metric[name] |= {f"minus_{reference}_{key}": number for key, number in entries.items()}
        lines += of_metric.values()
    return pd.DataFrame(lines)


def _compute(ablation: Ablation, rows: Sequence[Row], runs: Runs) -> str:
    """Steps, crops and time of each row."""
    lines, spent = [], set()
    for row in rows:
        mine = [runs[row.name, seed] for seed in ablation.seeds]
        training = Training.read(mine[0].folder)
        steps = int(load_restorer(training.weights).provenance["steps"])
        crops = steps * int(training.data["batch_size"])
        spent.add((steps, crops))
        minutes = np.mean([run.seconds for run in mine]) / 60
        lines.append([row.label, str(steps), str(crops), f"{minutes:.1f}"])
    same = (
        "Every row is trained for equally many steps on equally many crops"
        if len(spent) == 1
        else "**Rows differ in steps or crops, so their differences are not of the method alone**"
    )
    note = (
        " (the second restorer and the teacher add time, in training only)" if ablation.second_stage else ""
    )
    return f"{same}{note}.\n\n" + markdown(["row", "steps", "crops", "minutes a run"], lines)


def _modules(rows: Sequence[Row], per_case: pd.DataFrame, metric: Metric) -> list[str]:
    """Effect of each module, averaged over the four combinations of the other two, in words."""
    scores = {row.modules: scores_of(per_case, row.name, metric) for row in rows if row.modules is not None}
    effects = {}
    for module in MODULES:
        with_it = [on for on in scores if module in on and on - {module} in scores]
        if len(with_it) == 4:
            effects[module] = paired([(scores[on], scores[on - {module}]) for on in with_it], metric)
    words = []
    corrected = holm([difference.p for difference in effects.values()])
    for (module, difference), p in zip(effects.items(), corrected, strict=True):
        verb = {True: "helps", False: "harms", None: "does not help"}[improves(difference, p, metric)]
        said = _said(difference, p, metric)
        words.append(f"{module.upper()} {verb}: averaged over the other modules, {said}.")
    return words


def _comparisons(
    rows: Sequence[Row], references: Mapping[str, str], table: pd.DataFrame, metric: Metric
) -> list[str]:
    """Each row against each reference, in words."""
    words = []
    lines = {line["row"]: line for line in table[table["metric"] == metric.name].to_dict("records")}
    for reference, label in references.items():
        for row in (row for row in rows if row.name != reference):
            numbers = {key: lines[row.name][f"minus_{reference}_{key}"] for key in Difference.__annotations__}
            difference, p = Difference(**numbers), lines[row.name][f"minus_{reference}_p_holm"]
            better = improves(difference, p, metric)
            verb = {True: "is better than", False: "is worse than", None: "cannot be told from"}[better]
            words.append(f"{row.label} {verb} {label}: {_said(difference, p, metric)}.")
    return words


def _said(difference: Difference, p: float, metric: Metric) -> str:
    cell = difference_cell(difference.mean, difference.low, difference.high, p)
    interval = f" ({cell.interval})" if cell.interval else ""
    remark = f", {cell.remark}" if cell.remark else ""
    return f"{' '.join(filter(None, (cell.text, metric.unit, metric.label)))}{interval}{remark}"


def _plain(cell: Cell) -> str:
    remark = ", ".join(filter(None, (cell.interval, cell.remark)))
    return f"{cell.text} ({remark})" if remark else cell.text
