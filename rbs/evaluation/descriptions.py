"""Descriptions against the truth of phantoms: precision, recall and F1 of facts, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from rbs.description.answers import Answer, confident_answers, likeliest_answers
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
class DescriptionPair:
    """Answers of a description network on a child, and the truth.

    Attributes:
        patient: The child.
        foci: Number of its foci, those that do not stand out with them.
        confident: Answers of enough confidence.
        likeliest: The likeliest answer to each topic.
        truth: True statement of each topic.
    """

    patient: str
    foci: int
    confident: tuple[Answer, ...]
    likeliest: tuple[Answer, ...]
    truth: tuple[Statement, ...]


def compare(
    patient: str, foci: int, chances: Array, truth: Sequence[Statement], least: float
) -> DescriptionPair:
    """Put answers beside the truth.

    Args:
        patient: The child.
        foci: Number of its foci.
        chances: Probability of each sentence, (S,).
        truth: True statement of each topic.
        least: Confidence from which on an answer is given.
    """
    confident, _ = confident_answers(chances, least)
    return DescriptionPair(patient, foci, tuple(confident), tuple(likeliest_answers(chances)), tuple(truth))


def right(one: Statement, true: Statement) -> bool:
    """True for a statement that is true; where no number is given, one where there are some."""
    return one == true or (one.grade == SOME and true.claims)


def place_right(one: Statement, true: Statement) -> bool:
    """True for a statement that is true but for its number."""
    return one.claims == true.claims and (one.kind == "hot foci" or right(one, true))


def scores(scans: Sequence[DescriptionPair]) -> pd.DataFrame:
    """Precision, recall and F1 of confident answers, by kind of fact, with intervals over children.

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
    scan: DescriptionPair,
    asked: Callable[[Statement], bool],
    agrees: Callable[[Statement, Statement], bool],
) -> tuple[int, int, int]:
    """True claims, claims and facts of one child."""
    true = {(one.kind, *_place(one)): one for one in scan.truth}
    claims = [one.statement for one in scan.confident if one.statement.claims and asked(one.statement)]
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


def free_of_claims(scans: Iterable[DescriptionPair]) -> Array:
    """Of each child without any focus 1 where no focus is claimed, (n,)."""
    kinds = ("hot foci", "cold foci")
    claims = [
        [one for one in scan.confident if one.statement.claims and one.statement.kind in kinds]
        for scan in scans
        if not scan.foci
    ]
    return np.array([not own for own in claims], float)


def reliability(scans: Sequence[DescriptionPair]) -> pd.DataFrame:
    """Confidence of all answers and the share of them that is true, by bins of confidence.

    Returns:
        Columns confidence_from, confidence_to, sentences, confidence (mean) and right.
    """
    rated = np.array(
        [
            (one.confidence, one.statement == true)
            for scan in scans
            for one, true in zip(scan.likeliest, scan.truth, strict=True)
        ],
        float,
    )
    bins = np.clip(np.digitize(rated[:, 0], BINS) - 1, 0, len(BINS) - 2)
    rows = []
    for number, (low, high) in enumerate(pairwise(BINS)):
        own = rated[bins == number]
        mean, share = own.mean(axis=0) if len(own) else (np.nan, np.nan)
        rows.append((low, high, len(own), mean, share))
    return pd.DataFrame(
        rows, columns=["confidence_from", "confidence_to", "sentences", "confidence", "right"]
    )
