"""Descriptions against the truth of phantoms: precision, recall and F1 of facts, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from rbs.description.saying import Said, answers, said
from rbs.description.sentences import MIDDLE, SOME, TOPICS, Statement
from rbs.evaluation.statistics.summary import interval
from rbs.scans.scan import Array

LARGE = ("age", "coverage", "position", "growth plate", "comparison", "kidney", "bladder")
"""Kinds of large facts."""
USUAL = {
    "coverage": ("", "whole"),
    "position": (MIDDLE, ""),
    "comparison": ("", "alike"),
}
"""Side and grade that most children have, of kinds where one is far more common than the others."""
BINS = (0.0, 0.5, 0.7, 0.9, 0.97, 1.0)
"""Borders of the bins of confidence."""


@dataclass(frozen=True)
class JudgedScan:
    """A description and the truth.

    Attributes:
        patient: The child.
        foci: Number of its foci, those that do not stand out with them.
        said: Sentences that are said.
        answers: The likeliest sentence of each topic, said or not.
        truth: True statement of each topic.
    """

    patient: str
    foci: int
    said: tuple[Said, ...]
    answers: tuple[Said, ...]
    truth: tuple[Statement, ...]


def judge(patient: str, foci: int, chances: Array, truth: Sequence[Statement], least: float) -> JudgedScan:
    """Compare what is said of a scan with the truth.

    Args:
        patient: The child.
        foci: Number of its foci.
        chances: Probability of each sentence, (S,).
        truth: True statement of each topic.
        least: Confidence from which on a sentence is said.
    """
    return JudgedScan(patient, foci, tuple(said(chances, least)[0]), tuple(answers(chances)), tuple(truth))


def right(one: Statement, true: Statement) -> bool:
    """True for a statement that is true; of a number that is not told, where there are some."""
    return one == true or (one.grade == SOME and true.claims)


def place_right(one: Statement, true: Statement) -> bool:
    """True for a statement that is true but for its number."""
    return one.claims == true.claims and (one.kind == "hot foci" or right(one, true))


def scores(scans: Sequence[JudgedScan]) -> pd.DataFrame:
    """Precision, recall and F1 of the facts that are said, by kind, with intervals over children.

    Sentences that deny (no focus) are no claims: they count where they should have claimed. Of hot
    foci the part of the body counts, and in a row of its own the number, too.

    Returns:
        Columns kind, facts, claims, precision, recall, f1 and their _low and _high.
    """
    kinds: dict[str, tuple[Callable[[Statement], bool], Callable[[Statement, Statement], bool]]] = {
        kind: (lambda one, kind=kind: one.kind == kind, place_right)  # type: ignore[misc]
        for kind in dict.fromkeys(topic.kind for topic in TOPICS)
    }
    kinds["number of hot foci"] = (lambda one: one.kind == "hot foci", right)
    kinds["large facts"] = (lambda one: one.kind in LARGE, place_right)
    kinds["unusual large facts"] = (lambda one: one.kind in LARGE and _unusual(one), place_right)
    rows = []
    for name, (asked, agrees) in kinds.items():
        counts = np.array([_counts(scan, asked, agrees) for scan in scans], float)
        found = {"kind": name, "facts": int(counts[:, 2].sum()), "claims": int(counts[:, 1].sum())}
        for score, function in _SCORES.items():
            low, high = interval(tuple(counts.T), function)
            found |= {score: float(function(*counts.T)), f"{score}_low": low, f"{score}_high": high}
        rows.append(found)
    return pd.DataFrame(rows)


def _unusual(one: Statement) -> bool:
    if one.kind == "kidney":
        return one.grade != "clear"
    return one.kind in USUAL and (one.side, one.grade) != USUAL[one.kind]


def _counts(
    scan: JudgedScan,
    asked: Callable[[Statement], bool],
    agrees: Callable[[Statement, Statement], bool],
) -> tuple[int, int, int]:
    """True claims, claims and facts of one child."""
    true = {(one.kind, *_place(one)): one for one in scan.truth}
    claims = [one.statement for one in scan.said if one.statement.claims and asked(one.statement)]
    facts = sum(one.claims and asked(one) for one in scan.truth)
    return sum(agrees(one, true[one.kind, *_place(one)]) for one in claims), len(claims), facts


def _place(one: Statement) -> tuple[str, str]:
    """Region and side where they name the topic, and are no answer to it."""
    if one.kind in ("position", "comparison", "coverage", "injection site"):
        return "", ""
    return one.region, one.side


def _precision(right: Array, claims: Array, facts: Array, axis: int = -1) -> Array:
    return _ratio(right.sum(axis), claims.sum(axis))


def _recall(right: Array, claims: Array, facts: Array, axis: int = -1) -> Array:
    return _ratio(right.sum(axis), facts.sum(axis))


def _f1(right: Array, claims: Array, facts: Array, axis: int = -1) -> Array:
    return _ratio(2 * right.sum(axis), claims.sum(axis) + facts.sum(axis))


def _ratio(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


_SCORES = {"precision": _precision, "recall": _recall, "f1": _f1}


def free_of_claims(scans: Iterable[JudgedScan]) -> Array:
    """Of each child without any focus 1 where no focus is claimed, (n,)."""
    return np.array(
        [
            not any(
                one.statement.claims for one in scan.said if one.statement.kind in ("hot foci", "cold foci")
            )
            for scan in scans
            if not scan.foci
        ],
        float,
    )


def reliability(scans: Sequence[JudgedScan]) -> pd.DataFrame:
    """Confidence of all answers and the share of them that is true, by bins of confidence.

    Returns:
        Columns confidence_from, confidence_to, sentences, confidence (mean) and right.
    """
    told = np.array(
        [
            (one.confidence, one.statement == true)
            for scan in scans
            for one, true in zip(scan.answers, scan.truth, strict=True)
        ],
        float,
    )
    bins = np.clip(np.digitize(told[:, 0], BINS) - 1, 0, len(BINS) - 2)
    rows = []
    for number, (low, high) in enumerate(pairwise(BINS)):
        own = told[bins == number]
        mean, share = own.mean(axis=0) if len(own) else (np.nan, np.nan)
        rows.append((low, high, len(own), mean, share))
    return pd.DataFrame(
        rows, columns=["confidence_from", "confidence_to", "sentences", "confidence", "right"]
    )
