import numpy as np
import pytest

from rbs.description.sentences import SENTENCES, TOPICS, Statement
from rbs.evaluation.descriptions import DescriptionPair, compare, free_of_claims, reliability, scores

FIRSTS = tuple(next(iter(topic.sentences)) for topic in TOPICS)
"""A child of whom the first sentence of each topic is true: an infant without foci."""


def pair(
    said: dict[str, tuple[Statement, float]], truth: dict[str, Statement], foci: int = 0
) -> DescriptionPair:
    """What is said, where it is not the first sentence, and what is true, by the name of a topic."""
    chances = np.zeros(len(SENTENCES))
    true = tuple(truth.get(topic.name, first) for topic, first in zip(TOPICS, FIRSTS, strict=True))
    numbers = {statement: number for number, (_, statement, _) in enumerate(SENTENCES)}
    for topic, first in zip(TOPICS, FIRSTS, strict=True):
        statement, chance = said.get(topic.name, (first, 0.99))
        other = next(one for one in topic.sentences if one != statement)
        chances[numbers[statement]], chances[numbers[other]] = chance, 1 - chance
    return compare("P1", foci, chances, true, 0.7)


def spine(grade: str) -> Statement:
    return Statement("hot foci", "spine", grade=grade)


def row(scans: list[DescriptionPair], kind: str) -> dict:
    table = scores(scans)
    return table[table["kind"] == kind].iloc[0].to_dict()


def test_what_is_true_and_said_scores_one_and_denials_are_no_claims() -> None:
    table = scores([pair({}, {})] * 2)
    assert (table[["precision", "recall", "f1"]] == 1).all(axis=None)
    assert row([pair({}, {})] * 2, "hot foci")["claims"] == 0
    assert row([pair({}, {})] * 2, "age")["claims"] == 2


def test_a_focus_of_another_number_is_right_in_its_place_alone() -> None:
    topic = "<hot foci spine>"
    scan = pair({topic: (spine("one"), 0.9)}, {topic: spine("a few")}, foci=2)
    assert row([scan], "hot foci")["f1"] == 1
    assert row([scan], "number of hot foci")["f1"] == 0


def test_focus_made_up_and_focus_missed() -> None:
    topic = "<hot foci spine>"
    made_up = pair({topic: (spine("one"), 0.9)}, {})
    missed = pair({}, {topic: spine("one")}, foci=1)
    found = pair({topic: (spine("one"), 0.9)}, {topic: spine("one")}, foci=1)
    scored = row([made_up, missed, found], "hot foci")
    assert (scored["precision"], scored["recall"], scored["f1"]) == (0.5, 0.5, 0.5)
    assert 0 <= scored["f1_low"] <= 0.5 <= scored["f1_high"] <= 1
    assert free_of_claims([made_up, missed, found, pair({}, {})]).tolist() == [0, 1]


def test_a_sentence_that_is_not_sure_is_not_said_and_its_fact_is_missed() -> None:
    age = FIRSTS[0]
    scan = pair({"<age>": (age, 0.6)}, {})
    scored = row([scan], "age")
    assert (scored["claims"], scored["precision"], scored["recall"]) == (0, 1, 0)


def test_unusual_facts_are_told_apart() -> None:
    aside = Statement("position", side="left")
    scan = pair({}, {"<position>": aside})
    assert row([scan], "unusual large facts")["facts"] == 1
    assert row([scan], "unusual large facts")["recall"] == 0


def test_confidence_is_compared_with_what_is_true() -> None:
    wrong = pair({"<age>": (Statement("age", grade="adolescent"), 0.8)}, {})
    table = reliability([wrong, pair({}, {})])
    assert table["sentences"].sum() == 2 * len(TOPICS)
    between = table[table["confidence_from"] == 0.7].iloc[0]
    assert (between["sentences"], between["right"]) == (1, 0)
    assert between["confidence"] == pytest.approx(0.8)
    assert table.iloc[-1]["right"] == 1
