"""JSON of files from elsewhere: bounded, and of the types that a dataclass asks for."""

from dataclasses import dataclass
from typing import Literal

import pytest

from rbs.utils.schema import DEEPEST, MOST, checked, fits, parsed, require_plain, shown


@dataclass(frozen=True)
class Record:
    name: str
    kind: Literal["a", "b"] = "a"
    range: tuple[float, float] = (0.0, 1.0)
    number: int | None = None

    def __post_init__(self):
        if self.number == 7:
            raise ValueError("its number is 7")


def test_json_within_bounds():
    assert parsed(b'{"a": [1, 2.5, null, "x"]}') == {"a": [1, 2.5, None, "x"]}
    assert parsed("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "[" + "1," * MOST + "1]",
        '"' + "a" * 2**20 + '"',
        "{",
        "NaN",
        "[1e999]",
        "-Infinity",
        "1" * 30,
        "1" * 5000,
        b"\xff",
    ],
)
def test_json_without_bounds(text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the JSON module's own are among them
        parsed(text)
    assert len(str(caught.value)) < 200


def test_lists_that_hold_each_other_many_times_are_not_walked_to_the_end():
    laughs = ["ha"]
    for _ in range(30):
        laughs = [laughs] * 10
    with pytest.raises(ValueError, match="too many values"):
        require_plain(laughs)


@pytest.mark.parametrize("value", [{1: 2}, [object()], {"a": {2j}}, float("nan"), b"bytes"])
def test_only_what_json_can_hold_is_plain(value):
    with pytest.raises(ValueError, match="it h"):
        require_plain(value)


def test_a_record_of_the_right_types():
    values = {"name": "x", "kind": "b", "range": [0, 2.5], "number": None}
    assert checked(Record, values) == Record("x", "b", [0, 2.5])
    assert checked(Record, {"name": "x"}) == Record("x")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([], "it is no JSON object"),
        ({}, "it holds no name"),
        ({"name": 1}, "its name is 1"),
        ({"name": "x", "kind": "c"}, "its kind is 'c'"),
        ({"name": "x", "range": [1]}, r"its range is \[1\]"),
        ({"name": "x", "range": ["1", "2"]}, "its range is"),
        ({"name": "x", "number": True}, "its number is True"),
        ({"name": "x", "number": 1.5}, "its number is 1.5"),
        ({"name": "x", "number": 7}, "its number is 7"),
        ({"name": "x", "wings": 2}, "it holds 'wings', which is unknown here"),
    ],
)
def test_a_record_of_other_types(values, fault):
    with pytest.raises(ValueError, match=fault):
        checked(Record, values)


def test_types_that_json_does_not_know_are_not_judged():
    assert fits("anything", Record)
    assert not fits(True, Literal[1])


def test_what_is_shown_is_short_and_printable():
    assert shown("\x1b[2J\u202e") == "'\\x1b[2J\\u202e'"
    assert len(shown("a" * 1000)) == 40
