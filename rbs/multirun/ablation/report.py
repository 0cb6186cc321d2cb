"""Tables and figures of an ablation, and its results in words.

A row is better or worse than its reference where that is shown. Where it is not, the row may do
nothing, or the ablation may have been unable to show what it does: then the word is "not tested",
and the reasons are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.statistics.differences import MIN_PATIENTS, holm
from rbs.multirun.ablation.compare import Difference, improves, paired, scores_of, value
from rbs.multirun.ablation.curves import RULE, curves_figure, last_gains
from rbs.multirun.ablation.definition import NETWORKS, STAGE1, Ablation, Key, Runs
from rbs.multirun.ablation.scores import Images
from rbs.multirun.runs import Training
from rbs.report.searches import ablation_figure, ablation_tables, difference_cell, read_ablation
from rbs.report.tables import Cell
from rbs.restorers.checkpoint import load_restorer
from rbs.utils.files import whole_file, write_json, write_text
from rbs.utils.markdown import latex, markdown
from rbs.utils.words import counted

Scores = npt.NDArray[np.float64]
Place = tuple[str, str]
"""A row and one of its networks."""

BETTER, WORSE, NONE, UNTESTED = "better", "worse", "no difference", "not tested"
MAIN = ("psnr_truth", "nc_psnr", "psnr")
"""The metric that words follow, the first there is: where the truth is known, the noise of the
standard scan need not blur the comparison."""


@dataclass(frozen=True)
class Results:
    """All that was found.

    Attributes:
        runs: The trainings.
        sets: Sets of images that were scored, the regimes' own first.
        per_image: Scores, as `rbs.multirun.ablation.scores.score` makes them, of all regimes.
        curves: Validation curves, as `rbs.multirun.ablation.curves.curves_of` makes them.
    """

    runs: Runs
    sets: tuple[Images, ...]
    per_image: pd.DataFrame
    curves: pd.DataFrame


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
        "main": {images.name: _main(table, images) for images in results.sets},
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


# --- numbers


def comparisons(ablation: Ablation, results: Results) -> pd.DataFrame:
    """Every row and its differences, before they are judged.

    Returns:
        A line an image set, regime, row, network, metric and reference: value, difference, low,
        high, p, p_holm, patients, and whether the difference is shown to be an improvement
        (`improved`: True, False or None). Lines without a reference hold a value alone.
    """
    lines: list[dict[str, Any]] = []
    for images in results.sets:
        for regime in ablation.regimes:
            part = results.per_image.query("images == @images.name and regime == @regime.name")
            for metric in (metric for metric in images.metrics if metric.printed):
                scores = _scores(ablation, part, metric)
                about = {"images": images.name, "regime": regime.name, "metric": metric.name}
                for line in _compared(ablation, scores, metric):
                    row, network = line.pop("place")
                    found = _value(part[(part["row"] == row) & (part["network"] == network)], metric)
                    lines.append(
                        {**about, "row": row, "network": network, "unit": metric.unit, "value": found, **line}
                    )
    return pd.DataFrame(lines)


def _scores(ablation: Ablation, part: pd.DataFrame, metric: Metric) -> dict[Place, Scores]:
    """Scores (seeds, patients) of the rows and networks that have all seeds.

    Of the patients that have a value in all of these: not every child has a lesion.
    """
    column, found = metric.pooled_from or metric.name, {}
    if column not in part:
        return {}
    for row, network in part[["row", "network"]].drop_duplicates().itertuples(index=False):
        # Patients of other networks stay: f2 has no value where its prior does not exist.
        own = part.assign(row=part["row"].where(part["network"] == network))
        scores = scores_of(own, row, metric)
        if len(scores) == len(ablation.seeds) and np.isfinite(scores).any():
            found[row, network] = scores
    if not found:
        return {}
    known = np.all([np.isfinite(scores).all(axis=0) for scores in found.values()], axis=0)
    return {place: scores[:, known] for place, scores in found.items()} if known.any() else {}


def _value(own: pd.DataFrame, metric: Metric) -> float:
    """Mean over seeds and patients, in the metric's unit, as measured."""
    by_patient = own.groupby(["seed", "patient"])[metric.pooled_from or metric.name].mean()
    return value(by_patient.dropna().to_numpy(dtype=np.float64), metric)


def _compared(ablation: Ablation, scores: Mapping[Place, Scores], metric: Metric) -> list[dict[str, Any]]:
    """Lines of one metric: `place`, and where there is a reference the difference from it."""
    lines: list[dict[str, Any]] = []
    for network in NETWORKS:
        mine = [place for place in scores if place[1] == network]
        compared: set[Place] = set()
        for name in ablation.references.get(network, ()):
            # Stage 1 has no second restorer: that of a row is compared with the one it began with.
            reference = (name, network) if (name, network) in scores else (name, NETWORKS[0])
            others = [place for place in mine if place[0] != name]
            if reference not in scores:
                continue
            differences = [paired([(scores[place], scores[reference])], metric) for place in others]
            corrected = holm([difference.p for difference in differences])
            for place, difference, p in zip(others, differences, corrected, strict=True):
                entry = {"place": place, "reference": name, "difference": difference.mean}
                entry |= {"low": difference.low, "high": difference.high, "p": difference.p, "p_holm": p}
                patients = scores[place].shape[1]
                lines.append({**entry, "patients": patients, "improved": improves(difference, p, metric)})
                compared.add(place)
        lines += [{"place": place} for place in mine if place not in compared]
    return lines


def with_verdicts(ablation: Ablation, results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """The table with a verdict, and the reasons why an effect could not have shown.

    Returns:
        ablation.csv.
    """
    gains = last_gains(results.curves)
    rising = {(g["regime"], g["row"], g["network"]) for g in gains.to_dict("records") if not g["flat"]}
    own = results.sets[0]
    main = _main(table, own)
    bounds = {row.name: row.bound for row in ablation.rows if row.bound}
    lines = table.to_dict("records")

    def gained(regime: str, row: str) -> bool:
        """True where a row is better than the main reference of its last network."""
        shown = [
            line["improved"]
            for line in lines
            if (line["images"], line["regime"], line["row"], line["metric"]) == (own.name, regime, row, main)
            and line.get("reference") == next(iter(ablation.references.get(line["network"], ())), None)
        ]
        return not shown or shown[-1] is True

    limits = {row: {r.name for r in ablation.regimes if not gained(r.name, row)} for row in bounds.values()}
    judged = []
    for line in lines:
        if not isinstance(line.get("reference"), str):
            judged.append(("", ""))
            continue
        regime, network = line["regime"], line["network"]
        reasons = ["one seed"] if len(ablation.seeds) == 1 else []
        if line["patients"] < MIN_PATIENTS:
            reasons.append(counted(int(line["patients"]), own.kind.unit))
        powerless = bool(reasons)
        if {(regime, line["row"], network), (regime, line["reference"], network)} & rising:
            reasons.append("a learning curve is not flat")
        bound = bounds.get(line["row"])
        if bound is not None and regime in limits[bound]:
            reasons.append(f"{ablation.row(bound).label}, its upper bound, shows no gain")
        shown = {True: BETTER, False: WORSE}.get(line["improved"], UNTESTED if reasons else NONE)
        judged.append((UNTESTED if powerless else shown, "; ".join(reasons)))
    table = table.drop(columns="improved", errors="ignore")
    return table.assign(verdict=[v for v, _ in judged], why=[why for _, why in judged])


def _main(table: pd.DataFrame, images: Images) -> str:
    found = set(table.loc[table["images"] == images.name, "metric"])
    return next(name for name in MAIN if name in found)


# --- words


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
        metric = next(m for m in images.metrics if m.name == _main(table, images))
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
            scores = _scores(ablation, part, metric)
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
