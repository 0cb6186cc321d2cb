"""Numbers that are identifiers: a Patient ID may stand where a number belongs.

Numbers are kept for their form, whatever they are. So the digits of what identifies the patient are
looked for in them: a Patient ID as Series Number or in the fraction of a Window Center.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue

NUMBERS = ("IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "TM", "DT")
"""Types of numbers that may be kept. Dates are shifted and UIDs replaced, so both are others; of a
date and time (DT) the time is kept."""

_IDENTIFYING = re.compile(r"(ID|IDs|Numbers?|BirthDate|Address)$")
"""Ends of the keywords of attributes whose digits may identify a patient, a visit or a camera, as
may names of persons."""

WHOLE, PART, ANYWHERE = 3, 4, 6
"""Digits from which an identifier is looked for: as a whole, where it is nothing but digits; as a
part of a longer one; and within longer numbers. What is shorter is everywhere."""


def identifiers(ds: Dataset) -> frozenset[str]:
    """Runs of digits in what identifies the patient, without leading zeros."""
    found = set()
    for text in _identifying_texts(ds):
        runs = [*re.findall(r"\d+", text, re.ASCII), re.sub(r"\D", "", text, flags=re.ASCII)]
        shortest = WHOLE if text.strip().isdecimal() else PART
        found |= {run.lstrip("0") for run in runs if len(run.lstrip("0")) >= shortest}
    return frozenset(found)


def identifies(values: Sequence[object], known: frozenset[str]) -> bool:
    """True for numbers, or a text, in which an identifier stands.

    Args:
        values: The values of an element.
        known: `identifiers` of its patient.
    """
    written = [str(value) for value in values]
    texts = [*written, *map(_plainly, written)]
    runs = {run for text in texts for run in re.findall(r"\d+", text)}
    there = {run.lstrip("0") for run in runs} | {run.strip("0") for run in runs}
    digits = [re.sub(r"\D", "", text) for text in (*texts, "".join(written))]
    return any(
        token in there or (len(token) >= ANYWHERE and any(token in run for run in digits)) for token in known
    )


def values_of(value: Any) -> list[Any]:
    """The values of an element that is no sequence; none of an empty one."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, MultiValue | list) else [value]


def kept_values(element: DataElement) -> list[Any]:
    """The values of an element, as far as de-identification keeps them: of a DT only the time."""
    values = values_of(element.value)
    return [str(value)[8:] for value in values] if element.VR == "DT" else values


def _plainly(value: str) -> str:
    """A number without an exponent; empty of what is none."""
    try:
        return f"{float(value):.6f}"
    except ValueError:
        return ""


def _identifying_texts(ds: Dataset) -> Iterator[str]:
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield from _identifying_texts(item)
            continue
        meant = dictionary_VR(element.tag) if element.keyword else ""
        named = _IDENTIFYING.search(element.keyword) and meant not in (*NUMBERS, "UI")
        if named or meant == "PN":
            yield from map(str, values_of(element.value))
