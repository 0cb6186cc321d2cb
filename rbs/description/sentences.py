"""The closed grammar: topics, the statements that can be made on each, and their sentences.

A topic is asked of every scan, and answered by one of its statements. A statement has exactly one
sentence, and a sentence exactly one statement. Left and right are those of the patient. Words of
disease are not in the vocabulary. Needs no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

LEFT, RIGHT, MIDDLE = "left", "right", "middle"
NONE, OUTSIDE, SOME = "none", "outside", "some"
"""Grades: nothing of the kind, not scanned, and an unknown number above zero."""

AGES = {"infant": 0.0, "young child": 2.0, "school child": 6.0, "adolescent": 12.0}
"""Age groups and the age at which each begins, years."""

OLDEST = 16.0
"""Age of the oldest child of whom sentences are learned, years (`rbs.synthetic.cohort`)."""
NUMBERS = {"one": 1, "a few": 2, "many": 4}
"""Words for numbers of foci, and the least number that each stands for."""
SIDES = (LEFT, RIGHT)

PARTS = {
    ("skull", ""): "the skull",
    ("spine", ""): "the spine",
    **{("thorax", side): f"the {side} side of the chest" for side in SIDES},
    ("thorax", MIDDLE): "the middle of the chest",
    **{("pelvis", side): f"the {side} side of the pelvis" for side in SIDES},
    ("pelvis", MIDDLE): "the middle of the pelvis",
    **{("arms", side): f"the {side} arm" for side in SIDES},
    **{("legs", side): f"the {side} leg" for side in SIDES},
}
"""Parts of the skeleton in which foci are told apart, by region and side."""
COLD_PARTS = {
    "skull": "the skull",
    "spine": "the spine",
    "thorax": "the chest",
    "pelvis": "the pelvis",
    "arms": "the arms",
    "legs": "the legs",
}
METAL_PARTS = {
    "head": "the head",
    "trunk": "the trunk",
    "pelvis": "the pelvis",
    "arms": "the arms",
    "legs": "the legs",
}
INJECTED = ("elbow", "hand")


@dataclass(frozen=True)
class Statement:
    """A fact of a scan.

    Attributes:
        kind: Kind of fact.
        region: Part of the body.
        side: "left" or "right" of the patient, "middle", or empty.
        grade: Amount or number, "none", or "outside" of the field; empty where the rest says all.
    """

    kind: str
    region: str = ""
    side: str = ""
    grade: str = ""

    @property
    def claims(self) -> bool:
        """False where it says that there is nothing of the kind."""
        return self.grade != NONE

    def mirrored(self) -> Statement:
        """The same fact of the mirrored child."""
        return replace(self, side={LEFT: RIGHT, RIGHT: LEFT}.get(self.side, self.side))


@dataclass(frozen=True)
class Topic:
    """A question that is asked of every scan.

    Attributes:
        kind: Kind of fact.
        name: Its token, with which the decoder starts.
        sentences: Its possible answers.
        coarser: An answer that is true wherever one that claims something is, and its sentence.
    """

    kind: str
    name: str
    sentences: Mapping[Statement, str]
    coarser: tuple[Statement, str] | None = None


def _topic(kind: str, place: str, answers: Mapping[Statement, str], *coarser: Statement | str) -> Topic:
    return Topic(kind, f"<{kind} {place}>".replace(" >", ">"), answers, coarser or None)  # type: ignore[arg-type]


def _age() -> Topic:
    return _topic(
        "age",
        "",
        {
            Statement(
                "age", grade=group
            ): f"the skeleton is that of {'an' if group[0] in 'ai' else 'a'} {group}"
            for group in AGES
        },
    )


def _coverage() -> Topic:
    return _topic(
        "coverage",
        "",
        {
            Statement("coverage", grade="whole"): "the whole body lies in the field",
            Statement("coverage", "legs", grade=OUTSIDE): "the lower legs lie outside the field",
            Statement("coverage", "head", grade=OUTSIDE): "the head lies outside the field",
        },
    )


def _position() -> Topic:
    answers = {Statement("position", side=MIDDLE): "the child lies in the middle of the field"}
    answers |= {
        Statement("position", side=side): f"the child lies {side} of the middle of the field"
        for side in SIDES
    }
    return _topic("position", "", answers)


def _bladder() -> Topic:
    answers = {
        Statement("bladder", grade=grade): f"the bladder holds {grade} activity"
        for grade in ("little", "moderate", "much")
    }
    return _topic(
        "bladder", "", answers | {Statement("bladder", grade=OUTSIDE): "the bladder lies outside the field"}
    )


def _kidney(side: str) -> Topic:
    words = {"clear": "is seen clearly", "faint": "is seen faintly", "not seen": "is not seen"}
    words |= {OUTSIDE: "lies outside the field"}
    return _topic(
        "kidney",
        side,
        {
            Statement("kidney", side=side, grade=grade): f"the {side} kidney {text}"
            for grade, text in words.items()
        },
    )


def _plate(side: str) -> Topic:
    plate = f"the {side} distal femoral growth plate"
    answers = {
        Statement("growth plate", "distal femur", side, grade): f"{plate} shows {grade} uptake"
        for grade in ("mild", "moderate", "intense")
    }
    answers[Statement("growth plate", "distal femur", side, OUTSIDE)] = f"{plate} lies outside the field"
    return _topic("growth plate", side, answers)


def _comparison() -> Topic:
    start = "uptake at the knees"
    answers = {Statement("comparison", "knees", grade="alike"): f"{start} is alike on both sides"}
    for side in SIDES:
        answers[Statement("comparison", "knees", side, "greater")] = f"{start} is greater on the {side}"
    answers[Statement("comparison", "knees", grade=OUTSIDE)] = f"{start} cannot be compared"
    return _topic("comparison", "", answers)


def _hot(region: str, side: str) -> Topic:
    part = PARTS[region, side]

    def of(grade: str) -> Statement:
        return Statement("hot foci", region, side, grade)

    answers = {of(NONE): f"no focus of raised uptake in {part}"}
    for grade, least in NUMBERS.items():
        answers[of(grade)] = f"{grade} {'focus' if least == 1 else 'foci'} of raised uptake in {part}"
    coarser = of(SOME), f"one or more foci of raised uptake in {part}"
    return _topic("hot foci", f"{region} {side}".strip(), answers, *coarser)


def _cold(region: str) -> Topic:
    part = COLD_PARTS[region]
    answers = {
        Statement("cold foci", region, grade=NONE): f"no focus of lowered uptake in {part}",
        Statement("cold foci", region, grade=SOME): f"one or more foci of lowered uptake in {part}",
    }
    return _topic("cold foci", region, answers)


def _injection() -> Topic:
    answers = {Statement("injection site", grade=NONE): "no injection site is seen"}
    for place in INJECTED:
        for side in SIDES:
            text = f"the injection site is seen at the {side} {place}"
            answers[Statement("injection site", place, side)] = text
    return _topic("injection site", "", answers)


def _contamination() -> Topic:
    answers = {
        Statement("contamination", grade=NONE): "no drops of tracer on skin or clothes",
        Statement("contamination", grade=SOME): "drops of tracer on skin or clothes",
    }
    return _topic("contamination", "", answers)


def _metal(region: str) -> Topic:
    part = METAL_PARTS[region]
    answers = {
        Statement("metal", region, grade=NONE): f"no shadow of metal over {part}",
        Statement("metal", region, grade=SOME): f"a shadow of metal over {part}",
    }
    return _topic("metal", region, answers)


TOPICS: tuple[Topic, ...] = (
    _age(),
    _coverage(),
    _position(),
    *(_plate(side) for side in SIDES),
    _comparison(),
    *(_hot(region, side) for region, side in PARTS),
    *(_cold(region) for region in COLD_PARTS),
    *(_kidney(side) for side in SIDES),
    _bladder(),
    _injection(),
    _contamination(),
    *(_metal(region) for region in METAL_PARTS),
)
"""All topics, in the order in which a description tells of them."""

SENTENCES: tuple[tuple[int, Statement, str], ...] = tuple(
    (number, statement, text)
    for number, topic in enumerate(TOPICS)
    for statement, text in topic.sentences.items()
)
"""Number of the topic, statement and words of every sentence."""

_COARSER = dict(topic.coarser for topic in TOPICS if topic.coarser)
_TEXTS = {statement: text for _, statement, text in SENTENCES} | _COARSER
_STATEMENTS = {text: statement for statement, text in _TEXTS.items()}


def sentence_of(statement: Statement) -> str:
    """The sentence of a statement, with its capital and its full stop.

    Raises:
        KeyError: The grammar has no such statement.
    """
    text = _TEXTS[statement]
    return f"{text[0].upper()}{text[1:]}."


def statement_of(sentence: str) -> Statement:
    """The statement of a sentence.

    Raises:
        KeyError: It is none of the grammar.
    """
    return _STATEMENTS[sentence[:1].lower() + sentence[1:].removesuffix(".")]
