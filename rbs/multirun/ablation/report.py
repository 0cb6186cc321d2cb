"""Tables and figures of an ablation, and its results in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.statistics.differences import holm
from rbs.multirun.ablation.compare import Difference, improves, paired
from rbs.multirun.ablation.curves import RULE, curves_figure, last_gains
from rbs.multirun.ablation.definition import NETWORKS, STAGE1, Ablation, Key, Runs
from rbs.multirun.ablation.verdicts import (
    BETTER,
    MAIN,
    NONE,
    UNTESTED,
    WORSE,
    Results,
    comparisons,
    main_metric,
    scores_by_place,
    with_verdicts,
)
from rbs.multirun.runs import Training
from rbs.report.searches import ablation_figure, ablation_tables, difference_cell, read_ablation
from rbs.report.tables import Cell
from rbs.restorers.checkpoint import load_restorer
from rbs.utils.files import whole_file, write_json, write_text
from rbs.utils.markdown import latex, markdown
from rbs.utils.words import counted


def write_report(ablation: Ablation, results: Results) -> tuple[pd.DataFrame, str]:
    """Write the files of an ablation into its folder.

    They are ablation.csv, .md, .tex, .json (for `rbs report`) and .svg, .png; per_scan.csv or
    per_frame.csv; curves.csv, .svg, .png.

    Returns:
        The table of ablation.csv and the text of ablation.md.
    """
    folder, own = ablation.output, results.sets[0]
    table = with_verdicts(ablation, results, comparisons(ablation, results))
    labels = {STAGE1: "stage 1 as it was"} | {row.name: row.label for row in ablation.rows}
    found = set(table["metric"])
    about = {
        "title": ablation.title,
        "what": _basis(ablation, results),
        "labels": {name: label for name, label in labels.items() if name in set(table["row"])},
        "regimes": {regime.name: regime.label for regime in ablation.regimes},
        "images": {images.name: images.label for images in results.sets},
        "metrics": [m.describe() for m in own.metrics if m.name in found],
        "main": {images.name: main_metric(table, images) for images in results.sets},
        "references": {network: list(names) for network, names in ablation.references.items()},
        "words": [*_words(ablation, results, table), *_contrasts(ablation, results)],
    }
    for file, frame in (
        (f"per_{own.kind.case}", results.per_image),
        ("ablation", table),
        ("curves", results.curves),
    ):
        with whole_file(folder / f"{file}.csv", overwrite=True) as path:
            frame.to_csv(path, index=False, float_format="%.7g")
    write_json(folder / "ablation.json", about, ensure_ascii=False)
    written = read_ablation(folder)
    for name, figure in (
        ("ablation", ablation_figure(written)),
        ("curves", curves_figure(ablation, results.curves)),
    ):
        for kind in ("svg", "png") if figure is not None else ():
            with whole_file(folder / f"{name}.{kind}", overwrite=True) as path:
                figure.savefig(path, dpi=150, bbox_inches="tight")  # type: ignore[union-attr]
    tables = []
    for printed in ablation_tables(written):
        head = ["row", *(", ".join(filter(None, column)) for column in printed.columns)]
        tables.append((printed.title, head, [[label, *map(_plain, cells)] for label, cells in printed.rows]))
    text = "\n".join(
        [
            f"# {about['title']}\n",
            f"{about['what']}\n",
            "".join(f"- {sentence}\n" for sentence in about["words"]),
            *(f"## {title}\n\n{markdown(head, lines)}" for title, head, lines in tables),
            f"## Compute\n\n{_compute(ablation, results.runs)}",
            f"## Learning curves\n\n{_flatness(labels, results.curves)}",
            *(f"{limit}\n" for limit in _limits(ablation, results)),
        ]
    )
    write_text(folder / "ablation.md", text)
    write_text(
        folder / "ablation.tex", "\n".join(f"% {t}\n{latex(head, lines)}" for t, head, lines in tables)
    )
    return table, text


def _basis(ablation: Ablation, results: Results) -> str:
    """Cases, seeds and statistics, in words."""
    own = results.sets[0]
    units, seeds = f"{own.kind.unit}s", ", ".join(map(str, ablation.seeds))
    patients = results.per_image.loc[results.per_image["images"] == own.name, "patient"].nunique()
    return (
        f"{counted(patients, own.kind.unit)} of the {own.label},"
        f" {'seed' if len(ablation.seeds) == 1 else 'seeds'} {seeds}. f1 is the restorer that ships, f2 the"
        f" second one, with the prior of its training. Every difference is paired over {units} and seeds,"
        f" with its 95 % bootstrap interval over both; p is Wilcoxon's signed-rank test over {units},"
        f" corrected by Holm over the rows. 'Not tested' means that an effect could not have shown; {RULE}."
    )


def _words(ablation: Ablation, results: Results, table: pd.DataFrame) -> list[str]:
    """Each row against its main reference: all of the own images, of others what is shown."""
    labels = {STAGE1: "stage 1 as it was"} | {row.name: row.label for row in ablation.rows}
    regimes = {regime.name: regime.label for regime in ablation.regimes}
    verbs = {BETTER: "is better than", WORSE: "is worse than", NONE: "cannot be told from"}
    words = []
    for images in results.sets:
        metric = next(m for m in images.metrics if m.name == main_metric(table, images))
        own = images is results.sets[0]
        chosen = table[(table["images"] == images.name) & (table["metric"] == metric.name)]
        for line in chosen.to_dict("records"):
            against_main = line["reference"] in ablation.references.get(line["network"], ())[:1]
            if not against_main or not (own or line["verdict"] in (BETTER, WORSE)):
                continue
            place = ", ".join(filter(None, (regimes[line["regime"]], "" if own else images.label)))
            difference = Difference(*(float(line[name]) for name in ("difference", "low", "high", "p")))
            said = _said(difference, float(line["p_holm"]), metric)
            row, reference = labels[line["row"]], labels[line["reference"]]
            start = f"{line['network']}, {place}: {row}"
            if line["verdict"] == UNTESTED:
                words.append(f"{start} against {reference} is **not tested** ({line['why']}): {said}.")
            else:
                note = f" ({line['why']})" if line["why"] else ""
                words.append(f"{start} {verbs[line['verdict']]} {reference}: {said}{note}.")
    return words


def _contrasts(ablation: Ablation, results: Results) -> list[str]:
    """The effects that the file asks for, each the mean of some differences of f1, in words."""
    words, own = [], results.sets[0]
    for regime in ablation.regimes:
        part = results.per_image.query("images == @own.name and regime == @regime.name")
        named = {metric.name: metric for metric in own.metrics}
        for metric in [named[name] for name in MAIN if name in named]:
            scores = scores_by_place(ablation, part, metric)
            if scores:
                break
        found = {}
        for label, pairs in ablation.contrasts.items():
            places = [((a, NETWORKS[0]), (b, NETWORKS[0])) for a, b in pairs]
            if all(place in scores for pair in places for place in pair):
                found[label] = paired([(scores[a], scores[b]) for a, b in places], metric)
        corrected = holm([difference.p for difference in found.values()])
        for (label, difference), p in zip(found.items(), corrected, strict=True):
            verb = {True: "helps", False: "harms", None: "shows no effect"}[improves(difference, p, metric)]
            words.append(f"f1, {regime.label}: {label} {verb}: {_said(difference, p, metric)}.")
    return words


def _said(difference: Difference, p: float, metric: Metric) -> str:
    cell = difference_cell(difference.mean, difference.low, difference.high, p)
    interval = f" ({cell.interval})" if cell.interval else ""
    remark = f", {cell.remark}" if cell.remark else ""
    return f"{' '.join(filter(None, (cell.text, metric.unit, metric.label)))}{interval}{remark}"


def _limits(ablation: Ablation, results: Results) -> Iterable[str]:
    """Limits of the comparison, a sentence each."""
    if len(ablation.seeds) == 2:
        yield "Two seeds say little about other trainings. Add seeds where an effect is near."
    if missing := [
        f"{key.regime}/{key.row}/seed_{key.seed} ({run.state if run else 'not begun'})"
        for key in ablation.keys
        if (run := results.runs.get(key)) is None or run.state != "finished"
    ]:
        yield f"Left out, for a training is missing: {', '.join(missing)}."


def _compute(ablation: Ablation, runs: Runs) -> str:
    """Steps, crops and time of each row, in each regime."""
    lines, spent = [], set()
    labels = {STAGE1: "stage 1"} | {row.name: row.label for row in ablation.rows}
    for regime in ablation.regimes:
        for name, label in labels.items():
            mine = [runs.get(Key(regime.name, name, seed)) for seed in ablation.seeds]
            done = [run for run in mine if run is not None and run.state == "finished"]
            if not done:
                continue
            training = Training.read(done[0].folder)
            steps = int(load_restorer(training.weights).provenance["steps"])
            crops = steps * int(training.data["batch_size"])
            if name != STAGE1:
                spent.add((steps, crops))
            minutes = np.mean([run.seconds for run in done]) / 60
            lines.append([regime.label, label, str(steps), str(crops), f"{minutes:.1f}"])
    same = (
        "Every row is trained for equally many steps on equally many crops"
        if len(spent) == 1
        else "**Rows differ in steps or crops, so their differences are not of the method alone**"
    )
    head = ["regime", "row", "steps", "crops", "minutes a run"]
    return (
        f"{same} (the second restorer and the teacher add time, in training only).\n\n{markdown(head, lines)}"
    )


def _flatness(labels: Mapping[str, str], curves: pd.DataFrame) -> str:
    """Gain of each curve over its last quarter, in words."""
    lines = []
    for place, seeds in last_gains(curves).groupby(["regime", "row", "network"], sort=False):
        regime, row, network = map(str, place)
        said = (
            "flat" if seeds["flat"].all() else "still rising" if seeds["gain"].notna().all() else "too short"
        )
        gains = ", ".join(f"{gain:+.3f}" for gain in seeds["gain"])
        lines.append([regime, labels[row], network, gains, said])
    head = ["regime", "row", "network", "gain of the last quarter by seed, dB", "curve"]
    return f"By the rule that {RULE}.\n\n{markdown(head, lines)}"


def _plain(cell: Cell) -> str:
    remark = ", ".join(filter(None, (cell.interval, cell.remark)))
    return f"{cell.text} ({remark})" if remark else cell.text
