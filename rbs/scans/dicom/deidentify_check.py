"""Search of a de-identified file for what was removed from it: the last check of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

import pydicom
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from rbs.scans.dicom.deidentify import Deidentified, texts
from rbs.scans.dicom.deidentify_numbers import NUMBERS, identifies, kept_values
from rbs.scans.dicom.deidentify_rules import safe_words, words
from rbs.scans.dicom.quiet import quiet

SHORTEST = 3
"""Letters or digits of the shortest removed text that is looked for: shorter ones are
everywhere."""

_ANYWHERE = 6
"""Letters from which a removed text is looked for in all bytes; shorter ones only among the words
of texts, since the bytes of tags and lengths may spell them."""

_SPELT = 4
"""Letters from which a removed word is looked for in the bytes of binary numbers."""

_CHECKED = ("UI", "DA", "DT", "TM", "DS", "IS", "AS", "AT", "US", "SS", "UL", "SL", "FL", "FD", "OB", "OW")
"""Types of numbers, dates, UIDs and pixels, some of which are by chance equal to a removed number.
Whether they may stay was decided by their form, value by value."""

_FIGURES = re.compile(r"[\d.]+", re.ASCII)
_PSEUDONYMS = ("PatientID", "PatientName")


@quiet()
def survivors(content: bytes, done: Deidentified) -> list[str]:
    """Look through a written file for anything that was removed from its source.

    Every text that was removed or replaced, as a whole and word by word, is looked for in all bytes
    of the file but those of numbers, dates, UIDs and pixels; words that rbs itself writes into
    every file are not ("body"), nor those of fewer than three letters. In numbers the digits of
    what identifies the patient are looked for. Also, there must be no byte outside the elements,
    and no character beyond ASCII, so that no name can hide in another character set.

    Args:
        content: The file.
        done: How it was made.

    Returns:
        Where the removed texts came from; or what else is wrong. Never the text.
    """
    ds = pydicom.dcmread(BytesIO(content))
    again = BytesIO()
    ds.save_as(again, enforce_file_format=True)
    if again.getvalue() != content or content[:128] != bytes(128):
        return ["bytes outside its elements"]
    found, numbers = list(_identifying(ds, done)), _bytes_of_numbers(ds).lower()
    _blank(ds)
    _blank(ds.file_meta)
    told = [text for part in (ds.file_meta, ds) for element in part for text in texts(element)]
    if not all(text.isascii() for text in told):
        return ["characters beyond ASCII"]
    there = {word for text in told for word in words(text)}
    everything = _serialised(ds).lower()
    safe = safe_words() | {word for text in done.made for word in words(text)} | {"pydicom"}
    for where, text in done.removed:
        for needle in _needles(text, safe):
            # A part of a word that rbs writes ("poster" of "posterior") proves nothing; that word
            # alone does.
            part_of_safe = any(needle in word for word in safe)
            spelt = len(needle) >= _SPELT and needle.isalpha() and needle.encode() in numbers
            if (
                needle in there
                or spelt
                or (len(needle) >= _ANYWHERE and not part_of_safe and needle.encode() in everything)
            ):
                found.append(where)
    return list(dict.fromkeys(found))


def _bytes_of_numbers(ds: Dataset) -> bytes:
    """All binary numbers, but the pixels', as they are stored."""
    binary = Dataset()
    items = [item for element in ds if element.VR == "SQ" for item in element.value]
    binary.update({e.tag: e for e in ds if e.VR in ("US", "SS", "UL", "SL", "FL", "FD")})
    return b"\0".join([_serialised(binary), *map(_bytes_of_numbers, items)])


def _identifying(ds: Dataset, done: Deidentified) -> Iterator[str]:
    """Numbers in which an identifier stands, but for those that the pixels prove."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield from _identifying(item, done)
            continue
        number = element.VR in NUMBERS and element.value != done.proven.get(element.keyword)
        if number and identifies(kept_values(element), done.identifiers):
            yield element.keyword


def _needles(text: str, safe: set[str]) -> set[str]:
    """Strings to search for: the whole text, and those of its words that are not safe anyway."""
    if _FIGURES.fullmatch(text):  # the parts of UIDs and decimals are everywhere
        return {text} if len(text) >= SHORTEST and text not in safe else set()
    parts = [word for word in words(text) if word not in safe and len(word) >= SHORTEST]
    return {*parts, text.strip().casefold()} if parts else set()


def _blank(ds: Dataset) -> None:
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                _blank(item)
        elif element.VR in _CHECKED or element.keyword in _PSEUDONYMS:
            element.value = None


def _serialised(ds: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())
