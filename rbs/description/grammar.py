"""The grammar as choices between words, which is all that a decoder has to make.

A sentence is written word by word after the token of its topic. Most words are the only one that
can follow; a choice is a beginning after which several can. The probability of a sentence is the
product of those of its words at its choices, and the probabilities of all sentences of a topic sum
to 1. Needs no PyTorch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbs.description.sentences import SENTENCES, TOPICS
from rbs.errors import CheckpointError

END = "<end>"
WORDS: tuple[str, ...] = tuple(sorted({word for _, _, text in SENTENCES for word in text.split()}))
"""The vocabulary."""
TOKENS: tuple[str, ...] = (END, *(topic.name for topic in TOPICS), *WORDS)
"""End of a sentence, topics and words, by the numbers that networks know."""
_NUMBER = {token: number for number, token in enumerate(TOKENS)}


@dataclass(frozen=True)
class Choice:
    """A beginning of a sentence after which several words can follow.

    Attributes:
        beginning: Tokens so far, that of the topic first.
        options: Tokens that can follow, two or more.
    """

    beginning: tuple[int, ...]
    options: tuple[int, ...]


def _tokens(number: int, text: str) -> tuple[int, ...]:
    return tuple(_NUMBER[token] for token in (TOPICS[number].name, *text.split(), END))


def _choices() -> tuple[tuple[Choice, ...], tuple[tuple[tuple[int, int], ...], ...]]:
    """All choices, and the way of each sentence: numbers of choice and token."""
    following: dict[tuple[int, ...], set[int]] = {}
    written = [_tokens(number, text) for number, _, text in SENTENCES]
    for tokens in written:
        for end in range(1, len(tokens)):
            following.setdefault(tokens[:end], set()).add(tokens[end])
    choices = tuple(Choice(start, tuple(sorted(ends))) for start, ends in following.items() if len(ends) > 1)
    at = {choice.beginning: number for number, choice in enumerate(choices)}
    ways = tuple(
        tuple((at[tokens[:end]], tokens[end]) for end in range(1, len(tokens)) if tokens[:end] in at)
        for tokens in written
    )
    return choices, ways


CHOICES, WAYS = _choices()
"""All choices; and of each sentence of `SENTENCES` the choices on its way and the tokens chosen."""
FOCI_CHOICES = [
    number for number, choice in enumerate(CHOICES) if TOKENS[choice.beginning[-1]].startswith("<hot foci")
]
"""The first choice on hot foci of each of `rbs.description.sentences.PARTS`."""
LONGEST = max(len(choice.beginning) for choice in CHOICES)
"""Tokens of the longest beginning."""


def grammar_digest() -> str:
    """Hash of all sentences and their meanings, by which weights say what they were taught."""
    sentences = "\n".join(f"{number} {statement} {text}" for number, statement, text in SENTENCES)
    return hashlib.sha256(sentences.encode()).hexdigest()[:16]


def require_grammar(provenance: Mapping[str, Any], file: Path) -> None:
    """Refuse weights that were taught other sentences.

    Args:
        provenance: Theirs.
        file: Theirs.

    Raises:
        CheckpointError: They were.
    """
    if provenance.get("grammar") != grammar_digest():
        fault = "it was taught other sentences than those of this version of rbs"
        raise CheckpointError(fault, file=file, remedy="train it again with `make train-describer`")
