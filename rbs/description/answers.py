"""Answers of a description network: the likeliest sentence of each topic, if it is sure enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rbs.description.sentences import SENTENCES, TOPICS, Statement, sentence_of
from rbs.scans.scan import Array

LEAST_CONFIDENCE = 0.7
"""Confidence from which on an answer is given."""

_topics = np.array([number for number, _, _ in SENTENCES])
_claims = np.array([statement.claims for _, statement, _ in SENTENCES])


@dataclass(frozen=True)
class Answer:
    """A statement on a topic and its confidence.

    Attributes:
        statement: Its meaning.
        confidence: Its probability, 0 to 1.
    """

    statement: Statement
    confidence: float

    def __str__(self) -> str:
        return f"{self.confidence:.2f}  {sentence_of(self.statement)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "sentence": sentence_of(self.statement),
            "confidence": round(self.confidence, 4),
            **vars(self.statement),
        }


def likeliest_answers(chances: Array) -> list[Answer]:
    """The likeliest answer to each topic.

    Args:
        chances: Probability of each sentence of `SENTENCES` within its topic, (S,).
    """
    found = []
    for number in range(len(TOPICS)):
        own = np.flatnonzero(_topics == number)
        best = int(own[chances[own].argmax()])
        found.append(Answer(SENTENCES[best][1], min(float(chances[best]), 1.0)))
    return found


def confident_answers(chances: Array, least: float = LEAST_CONFIDENCE) -> tuple[list[Answer], int]:
    """Answers of at least a confidence, and the number of topics that are not sure enough.

    Where several foci are as likely as one, no number is said but that there are some. Nothing is
    denied: a focus that was not found may be there all the same.

    Args:
        chances: Probability of each sentence of `SENTENCES` within its topic, (S,).
        least: The confidence.
    """
    kept, sure = [], 0
    for number, (topic, answer) in enumerate(zip(TOPICS, likeliest_answers(chances), strict=True)):
        if answer.confidence < least and topic.coarser:
            claimed = float(chances[(_topics == number) & _claims].sum())
            answer = Answer(topic.coarser[0], min(claimed, 1.0))
        if answer.confidence >= least:
            sure += 1
            kept += [answer] if answer.statement.claims else []
    return kept, len(TOPICS) - sure
