"""Reader studies: blinded pairs on a page, and what their scores say once they are unblinded."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rbs.errors import OutputError, RbsError
from rbs.report.html import render
from rbs.utils.files import write_csv, write_text

REPEATED = 0.2
"""Share of the pairs that are shown twice."""

KEY = ("study", "trial", "pair", "left", "right", "repeat", "a", "b")
"""Columns of the key: `left` and `right` are "a" or "b", `repeat` is 1 the second time."""
SCORES = (
    *("study", "reader", "trial", "left_quality", "left_confidence", "right_quality", "right_confidence"),
    *("preference", "comment", "scored"),
)
"""Columns of the scores: 1 to 5, and "left", "right" or "none"; empty where not scored."""
QUESTIONS = {"quality": "overall quality", "confidence": "confidence in reading it"}


@dataclass(frozen=True)
class Trial:
    """A pair as it is shown once.

    Attributes:
        pair: Number of the pair, from 0.
        left: "a" or "b".
        repeat: True the second time.
    """

    pair: int
    left: str
    repeat: bool = False

    @property
    def right(self) -> str:
        """The other one."""
        return "b" if self.left == "a" else "a"


def design(pairs: int, seed: int) -> list[Trial]:
    """Order and sides of the pairs.

    The pairs come in random order, a on the left in half of them. Some from the first half of that
    order come again at the end, each with its own random sides.

    Args:
        pairs: Number of pairs.
        seed: Decides all of it.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(pairs)
    # Half of the pairs, and by chance one more: neither side is the likelier one.
    lefts = rng.permutation(np.arange(pairs) + rng.integers(2)) % 2
    again = rng.permutation(order[: (pairs + 1) // 2])[: round(REPEATED * pairs)]
    trials = [Trial(int(n), "ab"[left]) for n, left in zip(order, lefts, strict=True)]
    return trials + [Trial(int(n), "ab"[rng.integers(2)], repeat=True) for n in again]


def write_study(
    pairs: Sequence[Mapping[str, Any]],
    output: Path,
    *,
    seed: int,
    overwrite: bool = False,
) -> Path:
    """Write the page of a study, and beside it the key that tells the sides.

    The page holds nothing of the key: images have numbers in random order, and pixels only.

    Args:
        pairs: Of each pair its `name`, its `scan` (`rbs.report.viewer.geometry`, and `black`), and
            of "a" and "b" each `files`, the name of the file, and `images`, as of
            `rbs.report.viewer.packed`.
        output: The HTML file.
        seed: Decides order and sides. Who knows it, or can guess it, is not blinded.
        overwrite: Replace an older page. A key is never replaced: scores may rest on it.

    Returns:
        The key, a CSV file with the columns `KEY`.

    Raises:
        OutputError: A file exists already, or cannot be written; or the key that is there is that
            of another study.
    """
    trials = design(len(pairs), seed)
    # Which number an image has must not tell what it is.
    places = [(n, side) for n in range(len(pairs)) for side in "ab"]
    shuffled = [places[n] for n in np.random.default_rng([seed, 1]).permutation(len(places))]
    number = {place: n for n, place in enumerate(shuffled)}
    data = {
        "images": [pairs[n]["images"][side] for n, side in shuffled],
        "scans": [pair["scan"] for pair in pairs],
        "trials": [
            {"scan": t.pair, "left": number[t.pair, t.left], "right": number[t.pair, t.right]} for t in trials
        ],
    }
    study = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12]
    key = output.with_name(f"{output.stem}_key.csv")
    rows = [
        (study, n, pairs[t.pair]["name"], t.left, t.right, int(t.repeat), *pairs[t.pair]["files"].values())
        for n, t in enumerate(trials, start=1)
    ]
    content = {"data": {"study": study, "columns": SCORES, **data}, "questions": QUESTIONS}
    page = render("reader_study.html", content)
    kept = overwrite and key.exists()
    if kept and not _holds(key, [KEY, *rows]):
        fault = "it is the key of another study, without which scores of that say nothing"
        raise OutputError(fault, file=key, remedy="choose another name for the page")
    if not kept:
        write_csv(key, KEY, rows, overwrite=False)
    try:
        write_text(output, page, overwrite=overwrite)
    except RbsError:
        if not kept:
            key.unlink()
        raise
    return key


def _holds(table: Path, rows: Sequence[Sequence[Any]]) -> bool:
    """True for a CSV file of these rows and no others."""
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        return list(csv.reader(file)) == [list(map(str, row)) for row in rows]


@dataclass(frozen=True)
class Comparison:
    """Scores of a and b by one reader on one question, over the pairs as first shown.

    Attributes:
        a: Mean score of a.
        b: Mean score of b.
        difference: Mean of b - a.
        low: Lower end of its 95 % interval (Student's t over pairs); NaN where it has none.
        high: Upper end.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ReaderSummary:
    """What one reader said.

    Attributes:
        reader: Code of the reader.
        pairs: Pairs of the study.
        scored: Those with a preference, as first shown.
        questions: Scores by question; without those that nobody answered.
        preferred: Number of pairs in which "a", "b" and "none" was preferred.
        share: Share of b among the pairs in which one was preferred; NaN without.
        low: Lower end of its 95 % interval (Clopper-Pearson).
        high: Upper end.
        p: Of the binomial test against one half.
        repeats: Pairs that were scored twice.
        same_preference: Those with the same preference both times.
        score_changes: Mean absolute change of a score between the two times; NaN without.
    """

    reader: str
    pairs: int
    scored: int
    questions: Mapping[str, Comparison]
    preferred: Mapping[str, int]
    share: float
    low: float
    high: float
    p: float
    repeats: int
    same_preference: int
    score_changes: float

    def __str__(self) -> str:
        lines = [f"reader {self.reader}: {self.scored} of {self.pairs} pairs scored"]
        for name, one in self.questions.items():
            interval = "" if math.isnan(one.low) else f" ({one.low:+.2f} to {one.high:+.2f})"
            lines.append(f"  {name}: a {one.a:.2f}, b {one.b:.2f}, b - a {one.difference:+.2f}{interval}")
        chosen = ", ".join(f"{side} {n}" for side, n in self.preferred.items())
        if not math.isnan(self.share):
            interval = f"{100 * self.low:.0f} to {100 * self.high:.0f} %"
            chosen += f"; b in {100 * self.share:.0f} % ({interval}) of those with one, p = {self.p:.2g}"
        lines.append(f"  preferred: {chosen}")
        if self.repeats:
            same = f"  shown twice: {self.repeats}, same preference in {self.same_preference}"
            changes = f", scores change by {self.score_changes:.2f} on average"
            lines.append(same + ("" if math.isnan(self.score_changes) else changes))
        return "\n".join(lines)


def summarise(scores: Sequence[Mapping[str, str]], key: Sequence[Mapping[str, str]]) -> list[ReaderSummary]:
    """Unblind scores and sum them up, reader by reader.

    Intervals and tests take pairs, as first shown, for independent.

    Args:
        scores: Rows with the columns `SCORES`; those of several readers and studies may be mixed.
        key: Rows with the columns `KEY`, of all those studies.

    Raises:
        RbsError: The two do not fit, a score is none, or a trial was scored twice.
    """
    trials = {(row["study"], row["trial"]): row for row in key}
    told: dict[str, dict[tuple[str, str], dict[str, Any]]] = defaultdict(dict)
    for row in scores:
        place = row["study"], row["trial"]
        if place not in trials:
            fault = f"the key has no trial {row['trial']} of study {row['study']}"
            raise RbsError(fault, remedy="name the key that was written with the page")
        if place in told[row["reader"]]:
            fault = f"reader {row['reader']} scored trial {row['trial']} twice"
            raise RbsError(fault, remedy="give each file of scores once, and each reader a code")
        told[row["reader"]][place] = _unblinded(row, trials[place])
    return [_summary(reader, answers, trials) for reader, answers in sorted(told.items())]


_KEYS = [f"{name} {side}" for name in QUESTIONS for side in "ab"]


def _unblinded(row: Mapping[str, str], trial: Mapping[str, str]) -> dict[str, Any]:
    """Scores of a trial by question and "a" or "b" (`_KEYS`), and the side that is preferred."""
    answer: dict[str, Any] = {}
    for name in QUESTIONS:
        for side in ("left", "right"):
            text = row[f"{side}_{name}"]
            if text not in ("", *"12345"):
                fault = f"trial {row['trial']} of reader {row['reader']}: {name} is {text}"
                raise RbsError(fault, remedy="scores are 1 to 5, or empty")
            answer[f"{name} {trial[side]}"] = int(text) if text else math.nan
    preferred = row["preference"]
    if preferred not in ("", "left", "right", "none"):
        fault = f"trial {row['trial']} of reader {row['reader']}: preference is {preferred}"
        raise RbsError(fault, remedy="it is left, right, none or empty")
    answer["preference"] = trial.get(preferred, preferred)
    return answer


def _summary(
    reader: str,
    answers: Mapping[tuple[str, str], Mapping[str, Any]],
    trials: Mapping[tuple[str, str], Mapping[str, str]],
) -> ReaderSummary:
    from scipy.stats import binomtest

    studies = {study for study, _ in answers}
    first, second = (
        {
            (study, trial["pair"]): answers[study, number]
            for (study, number), trial in trials.items()
            if trial["repeat"] == repeat and (study, number) in answers
        }
        for repeat in "01"
    )
    preferences = [answer["preference"] for answer in first.values()]
    preferred = {side: preferences.count(side) for side in ("a", "b", "none")}
    decided = preferred["a"] + preferred["b"]
    test = binomtest(preferred["b"], decided) if decided else None
    interval = test.proportion_ci() if test else None
    both = [(first[pair], second[pair]) for pair in second if pair in first]
    both = [(one, two) for one, two in both if one["preference"] and two["preference"]]
    changes = [abs(one[key] - two[key]) for one, two in both for key in _KEYS]
    changes = [change for change in changes if not math.isnan(change)]
    questions = {name: _comparison(name, list(first.values())) for name in QUESTIONS}
    return ReaderSummary(
        reader=reader,
        pairs=sum(study in studies and trial["repeat"] == "0" for (study, _), trial in trials.items()),
        scored=sum(preferred.values()),
        questions={name: one for name, one in questions.items() if one},
        preferred=preferred,
        share=test.statistic if test else math.nan,
        low=interval.low if interval else math.nan,
        high=interval.high if interval else math.nan,
        p=test.pvalue if test else math.nan,
        repeats=len(both),
        same_preference=sum(one["preference"] == two["preference"] for one, two in both),
        score_changes=float(np.mean(changes)) if changes else math.nan,
    )


def _comparison(name: str, answers: Sequence[Mapping[Any, Any]]) -> Comparison | None:
    """Scores on one question, of pairs both sides of which have one; None without."""
    from scipy.stats import ttest_1samp

    pairs = np.array([[answer[f"{name} {side}"] for side in "ab"] for answer in answers]).reshape(-1, 2)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs):
        return None
    differences = pairs[:, 1] - pairs[:, 0]
    low, high = math.nan, math.nan
    if len(pairs) > 1 and np.ptp(differences):
        low, high = ttest_1samp(differences, 0).confidence_interval()
    a, b = pairs.mean(axis=0)
    return Comparison(float(a), float(b), float(differences.mean()), float(low), float(high))
