"""The table of an ablation as CSV, Markdown and LaTeX, and what it says in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.statistics.differences import holm
from rbs.multirun.ablation.cases import Cases
from rbs.multirun.ablation.compare import Difference, improves, paired, scores_of, value
from rbs.multirun.ablation.plan import CONTROL, FULL, MODULES, STAGE1, Plan, Row, newest_config
from rbs.multirun.ablation.scores import weights_of
from rbs.multirun.runs import Run
from rbs.restorers.checkpoint import load_restorer
from rbs.utils.files import whole_file
from rbs.utils.markdown import latex, markdown

_REFERENCE_WORDS = {FULL: "full method", CONTROL: "stage 1 goes on"}


def write_report(
    plan: Plan, runs: Mapping[tuple[str, int], Run], cases: Cases, per_case: pd.DataFrame, folder: Path
) -> tuple[pd.DataFrame, str]:
    """Write ablation.csv, .md and .tex, per_scan.csv or per_frame.csv, and ablation.json for `rbs report`.

    Args:
        plan: The ablation.
        runs: Its runs.
        cases: What was scored.
        per_case: Scores, as `rbs.multirun.ablation.scores.score` makes them.
        folder: Where the files go.

    Returns:
        The table (a line a row and metric), and the text.
    """
    rows = [
        row for row in plan.table() if all(runs[row.name, seed].state == "finished" for seed in plan.seeds)
    ]
    if plan.second_stage:
        rows.append(Row(STAGE1, "stage 1 as it was"))
    metrics = [m for m in cases.metrics if m.printed and per_case[m.pooled_from or m.name].notna().all()]
    table = _table(rows, per_case, metrics)
    main = _main(metrics)
    words = _words(rows, per_case, table, main)
    text, print_rows = _text(plan, rows, runs, per_case, table, metrics, cases, words)
    about = {
        "title": f"Ablation of {plan.experiment.name}",
        "what": _what(plan, per_case, cases),
        "labels": {row.name: row.label for row in rows},
        "metrics": [metric.describe() for metric in metrics],
        "main": main.name,
        "references": {name: _REFERENCE_WORDS[name] for name in _references(rows)},
        "words": words,
    }
    with whole_file(folder / f"per_{cases.kind.case}.csv", overwrite=True) as path:
        per_case.to_csv(path, index=False, float_format="%.7g")
    with whole_file(folder / "ablation.csv", overwrite=True) as path:
        table.to_csv(path, index=False, float_format="%.7g")
    with whole_file(folder / "ablation.md", overwrite=True) as path:
        path.write_text(text, encoding="utf-8")
    with whole_file(folder / "ablation.tex", overwrite=True) as path:
        path.write_text(latex(*print_rows), encoding="utf-8")
    with whole_file(folder / "ablation.json", overwrite=True) as path:
        path.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return table, text


def _main(metrics: Sequence[Metric]) -> Metric:
    """What the words go by: where the truth is known, the standard scan's noise need not blur it."""
    by_name = {metric.name: metric for metric in metrics}
    return next(by_name[name] for name in ("psnr_truth", "nc_psnr", "psnr") if name in by_name)


def _what(plan: Plan, per_case: pd.DataFrame, cases: Cases) -> str:
    count, seeds = per_case["patient"].nunique(), ", ".join(map(str, plan.seeds))
    units = f"{cases.kind.unit}s"
    own = cases.manifest == plan.manifest.path
    other = "" if own else f" of {cases.manifest}, which no row was trained on"
    return (
        f"{count} {units} of the split `{cases.split}`{other}, seeds {seeds}; the first restorer, the one"
        f" that ships. Every difference is paired over {units} and seeds, with its 95 % bootstrap interval"
        f" over both; p is Wilcoxon's signed-rank test over {units}, corrected by Holm over the rows."
    )


def _references(rows: Sequence[Row]) -> list[str]:
    names = [row.name for row in rows]
    return [name for name in (FULL, CONTROL) if name in names]


def _table(rows: Sequence[Row], per_case: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """A line a row and metric: value, and difference to each reference with interval and p-values."""
    lines: list[dict[str, Any]] = []
    for metric in metrics:
        scores = {row.name: scores_of(per_case, row.name, metric) for row in rows}
        found = [
            {
                "row": row.name,
                "metric": metric.name,
                "unit": metric.unit,
                "value": value(scores[row.name], metric),
            }
            for row in rows
        ]
        for reference in _references(rows):
            others = [line for line in found if line["row"] != reference]
            differences = [paired([(scores[str(line["row"])], scores[reference])], metric) for line in others]
            corrected = holm([difference.p for difference in differences])
            for line, difference, p in zip(others, differences, corrected, strict=True):
                line |= {f"minus_{reference}_{name}": number for name, number in vars(difference).items()}
                line |= {f"minus_{reference}_p_holm": p}
        lines += found
    return pd.DataFrame(lines)


def _effects(
    rows: Sequence[Row], per_case: pd.DataFrame, metric: Metric
) -> list[tuple[str, Difference, float]]:
    """What each module adds, averaged over the four combinations of the other two; p-values corrected."""
    by_modules = {
        row.modules: scores_of(per_case, row.name, metric) for row in rows if row.modules is not None
    }
    effects = []
    for module in MODULES:
        pairs = [
            (scores, by_modules[on - {module}])
            for on, scores in by_modules.items()
            if module in on and on - {module} in by_modules
        ]
        if len(pairs) == 4:
            effects.append((module.upper(), paired(pairs, metric)))
    corrected = holm([difference.p for _, difference in effects])
    return [(module, difference, p) for (module, difference), p in zip(effects, corrected, strict=True)]


def _text(
    plan: Plan,
    rows: Sequence[Row],
    runs: Mapping[tuple[str, int], Run],
    per_case: pd.DataFrame,
    table: pd.DataFrame,
    metrics: Sequence[Metric],
    cases: Cases,
    words: Sequence[str],
) -> tuple[str, tuple[list[str], list[list[str]]]]:
    count = per_case["patient"].nunique()
    parts = [
        f"# Ablation of {plan.experiment.name}\n",
        _what(plan, per_case, cases) + "\n",
        _compute(plan, rows, runs),
    ]
    head, printed = _printed(rows, table, metrics, _main(metrics))
    parts.append(markdown(head, printed))
    parts.append("".join(f"- {sentence}\n" for sentence in words))
    if len(plan.seeds) < 3:
        parts.append(
            f"{'One seed' if len(plan.seeds) == 1 else 'Two seeds'}: how far another training would differ is"
            " not known. Use three or more before believing a difference.\n"
        )
    if count < 6:
        units = cases.kind.unit if count == 1 else f"{cases.kind.unit}s"
        parts.append(
            f"With {count} {units} the test cannot reach p < 0.05 whatever the difference; it needs 6.\n"
        )
    missing = [
        f"{name}/seed_{seed} ({run.state})" for (name, seed), run in runs.items() if run.state != "finished"
    ]
    if missing:
        parts.append(f"Left out, for a run is missing: {', '.join(missing)}.\n")
    return "\n".join(parts), (head, printed)


def _compute(plan: Plan, rows: Sequence[Row], runs: Mapping[tuple[str, int], Run]) -> str:
    """What was spent on each row."""
    lines, spent = [], set()
    for row in rows:
        if row.name == STAGE1:
            continue
        mine = [runs[row.name, seed] for seed in plan.seeds]
        steps = int(load_restorer(weights_of(mine[0])).provenance["steps"])
        batch = int(newest_config(mine[0].folder)["data"]["init_args"]["batch_size"])
        spent.add((steps, batch))
        minutes = np.mean([run.seconds for run in mine]) / 60
        lines.append([row.label, str(steps), str(steps * batch), f"{minutes:.1f}"])
    same = (
        "Every row is trained for equally many steps on equally many crops"
        if len(spent) == 1
        else ("**Rows differ in steps or crops, so their differences are not of the method alone**")
    )
    note = " (the second restorer and the teacher add time, in training only).\n\n"
    return same + note + markdown(["row", "steps", "crops", "minutes a run"], lines)


def _printed(
    rows: Sequence[Row], table: pd.DataFrame, metrics: Sequence[Metric], main: Metric
) -> tuple[list[str], list[list[str]]]:
    """Values of all metrics, and the differences of the main one."""
    references = _references(rows)
    head = ["row", *(f"{m.label}, {m.unit}" if m.unit else m.label for m in metrics)]
    for reference in references:
        head += [f"{main.label} minus {_REFERENCE_WORDS[reference]}", "p"]
    lines = {(str(line["row"]), str(line["metric"])): line for line in table.to_dict("records")}
    values = {key: float(line["value"]) for key, line in lines.items()}
    printed = []
    for row in rows:
        cells = [row.label, *(_number(values[row.name, m.name], m) for m in metrics)]
        line = lines[row.name, main.name]
        for reference in references:
            cells += ["", ""] if row.name == reference else _difference_cells(line, reference, main)
        printed.append(cells)
    return head, printed


def _difference_cells(line: Mapping[Any, Any], reference: str, metric: Metric) -> list[str]:
    mean, low, high = (float(line[f"minus_{reference}_{name}"]) for name in ("mean", "low", "high"))
    interval = (
        ""
        if math.isnan(low)
        else f" ({_number(low, metric, sign=True)} to {_number(high, metric, sign=True)})"
    )
    p = float(line[f"minus_{reference}_p_holm"])
    return [_number(mean, metric, sign=True) + interval, "" if math.isnan(p) else _p(p)]


def _words(rows: Sequence[Row], per_case: pd.DataFrame, table: pd.DataFrame, main: Metric) -> list[str]:
    """What helps and what does not, a sentence each."""
    said = []
    for module, difference, p in _effects(rows, per_case, main):
        verdict = {True: "helps", False: "harms", None: "does not help"}[improves(difference, p, main)]
        said.append(f"**{module} {verdict}**: averaged over the other modules, {_said(difference, p, main)}.")
    references = _references(rows)
    labels = {row.name: row.label for row in rows}
    for reference, better, worse, neither in (
        (
            FULL,
            "is better than the full method",
            "is worse than the full method",
            "cannot be told from the full method",
        ),
        (CONTROL, "beats stage 1 alone", "is worse than stage 1 alone", "does not beat stage 1 alone"),
    ):
        if reference not in references:
            continue
        for line in table[table["metric"] == main.name].to_dict("records"):
            if line["row"] == reference:
                continue
            found = Difference(*(float(line[f"minus_{reference}_{n}"]) for n in ("mean", "low", "high", "p")))
            p = float(line[f"minus_{reference}_p_holm"])
            verdict = {True: better, False: worse, None: neither}[improves(found, p, main)]
            said.append(f"{labels[str(line['row'])]} {verdict}: {_said(found, p, main)}.")
    return said


def _said(difference: Difference, p: float, metric: Metric) -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    text = f"{_number(difference.mean, metric, sign=True)}{unit} {metric.label}"
    if math.isnan(difference.low):
        return text
    ends = f"{_number(difference.low, metric, sign=True)} to {_number(difference.high, metric, sign=True)}"
    return f"{text} ({ends}), p {_p(p) if p < 0.001 else f'= {_p(p)}'}"


def _number(number: float, metric: Metric, *, sign: bool = False) -> str:
    if math.isnan(number):
        return "not resolvable"
    digits = {"dB": 3 if sign else 2, "%": 2}.get(metric.unit, 4)
    rounded = round(number, digits) + 0.0  # no minus zero
    return f"{rounded:{'+' if sign and rounded else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
