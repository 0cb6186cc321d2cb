"""De-identifying a Nuclear Medicine image: DICOM PS3.15 annex E, by a list of what may stay.

Basic Application Level Confidentiality Profile with the options Retain Longitudinal Temporal
Information with Modified Dates, Retain Patient Characteristics and Clean Descriptors. What stands
for an identity follows from it and a secret key, so that the files of a patient and their
references to each other still belong together, in every run with that key. Pixels are not changed.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset, FileDataset
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR
from pydicom.tag import Tag
from pydicom.uid import NuclearMedicineImageStorage, UID_dictionary, generate_uid
from pydicom.valuerep import STR_VR

from rbs.errors import ScanError
from rbs.scans.dicom.deidentify_numbers import NUMBERS, identifiers, identifies, kept_values, values_of
from rbs.scans.dicom.deidentify_rules import (
    CODED,
    EMPTIED,
    KEPT,
    MAY_BE_EMPTY,
    PHRASES,
    REQUIRED,
    TERMS,
    WORDS,
    meaning_of,
    words,
)
from rbs.scans.dicom.modules import code, own_codes, unknown_detector
from rbs.scans.dicom.pixels import LOSSLESS, stored_pixels
from rbs.scans.dicom.reader import WHOLE_BODY, blaming, decoded
from rbs.scans.dicom.texts import text_of
from rbs.scans.dicom.views import ANGLE, VIEW_CODES, name_views
from rbs.scans.scan import Array
from rbs.utils.version import VERSION

METHODS = (
    ("113100", "DCM", "Basic Application Confidentiality Profile"),
    ("113105", "DCM", "Clean Descriptors Option"),
    ("113107", "DCM", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "DCM", "Retain Patient Characteristics Option"),
)
"""Codes of the De-identification Method, DICOM context group CID 7050."""

LONGEST_SHIFT = 3650
"""Days by which a patient's dates are moved back at most; the least is one."""

OLDEST = 89
"""Years of age above which all ages are one, 090Y: of people so old, the age alone may tell who it
is."""

_BYTES = ("OB", "UN")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_SHORT = {
    "DS": re.compile(rf"(?=.{{1,16}}$){_NUMBER.pattern}", re.ASCII),
    "IS": re.compile(r"(?=.{1,12}$)[+-]?\d+", re.ASCII),
}
"""Decimals and whole numbers of no more characters than PS3.5, table 6.2-1, allows."""

_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?", re.ASCII)
_DATE_TIME = re.compile(
    r"(\d{4}(?:\d{2}){0,2})((?:(?<=\d{8})\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?(?:[+-]\d{4})?)", re.ASCII
)
_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}


class Pseudonyms:
    """Pseudonyms of identities: HMAC-SHA256 of them under a secret key.

    Args:
        key: The key. Who has it can tell whether a pseudonym is that of a known Patient ID; nobody
            else can.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _digest(self, purpose: str, *parts: str) -> bytes:
        return hmac.digest(self._key, "\0".join((purpose, *parts)).encode(), hashlib.sha256)

    def patient(self, *identity: str) -> str:
        """Patient ID of an identity: a P and 16 digits, which no name can be part of."""
        return f"P{int.from_bytes(self._digest('patient', *identity)) % 10**16:016d}"

    def days(self, *identity: str) -> int:
        """Days by which the dates of a patient are moved back, 1 to `LONGEST_SHIFT`."""
        return 1 + int.from_bytes(self._digest("days", *identity)) % LONGEST_SHIFT

    def uid(self, uid: str) -> str:
        """The UID that stands for another."""
        return str(generate_uid(entropy_srcs=[self._digest("uid", uid).hex()]))

    @property
    def fingerprint(self) -> str:
        """By which a key is known again; it does not give the key away."""
        return self._digest("fingerprint").hex()[:16]


@dataclass
class Deidentified:
    """A de-identified object and the account of it.

    Attributes:
        dataset: The object, with its pixels uncompressed.
        actions: What was done to attributes, "removed", "emptied", ..., by their path
            ("PatientAddress", "DetectorInformationSequence > DetectorID", "(0009,1040)"). What is
            not named was kept.
        notes: What a user should know, without any value.
        removed: Path and value of all that must not be in the file. Secret.
        made: Texts that were put in its place or come from dictionaries.
        identifiers: Digits of what identifies the patient, which no number may hold. Secret.
        proven: Numbers that follow from the pixels, whatever identifier they happen to equal.
    """

    dataset: Dataset = field(default_factory=Dataset)
    actions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    removed: list[tuple[str, str]] = field(default_factory=list, repr=False)
    made: list[str] = field(default_factory=list)
    identifiers: frozenset[str] = field(default=frozenset(), repr=False)
    proven: Mapping[str, int] = field(default_factory=dict)


def deidentify(path: Path, pseudonyms: Pseudonyms) -> Deidentified:
    """De-identify a Nuclear Medicine image; equal files and keys give equal objects.

    Args:
        path: The file. It is not changed.
        pseudonyms: What stands for identities.

    Raises:
        ScanError: It cannot be read, is no whole-body NM image, or may show a name in its pixels.
    """
    with blaming(path):
        ds, damaged = decoded(path)
        pixels = _harmless_pixels(ds, path)
        done = Deidentified(actions={element.partition(" ")[0]: "removed" for element in damaged})
        identity = _identity(ds, path, done)
        done.identifiers, done.proven = identifiers(ds), _proven_by(pixels)
        # Views first: the texts that name them are removed. A weak guess is not made to look like a
        # code.
        named = _views(ds, path)
        cleaner = _Cleaner(pseudonyms, pseudonyms.days(*identity), done)
        age = _age_from_birth_date(ds)
        done.dataset = clean = cleaner.clean(ds)
        _code_views(clean, named, done)
        if age and not clean.get("PatientAge"):
            clean.PatientAge = age
            done.actions["PatientAge"] = "computed from the birth date"
        pseudonym = pseudonyms.patient(*identity)
        written: dict[str, Any] = {
            "PatientID": pseudonym,
            "PatientName": f"{pseudonym}^",
            "PatientIdentityRemoved": "YES",
            "DeidentificationMethod": f"rbs {VERSION} deidentify",
            "DeidentificationMethodCodeSequence": [code(*method) for method in METHODS],
            "LongitudinalTemporalInformationModified": "MODIFIED",
        }
        schemes = [str(item.CodingSchemeDesignator) for item in clean.get("DerivationCodeSequence") or []]
        if "99RBS" in schemes:
            written["CodingSchemeIdentificationSequence"] = [own_codes()]
        for keyword, value in written.items():
            setattr(clean, keyword, value)
            done.actions[keyword] = "replaced" if keyword in ds else "written"
            done.made += texts(clean[keyword])
        kind = "i" if clean.PixelRepresentation else "u"
        stored = pixels.astype(f"<{kind}{clean.BitsAllocated // 8}").tobytes()
        vr = "OB" if clean.BitsAllocated == 8 else "OW"
        clean.add_new("PixelData", vr, stored + b"\0" * (len(stored) % 2))
        return done


def texts(element: DataElement) -> Iterator[str]:
    """All texts in an element and the items below it, as far as they can be read."""
    if element.VR == "SQ":
        for item in element.value:
            for inner in item:
                yield from texts(inner)
    elif element.VR in STR_VR:
        yield from map(str, values_of(element.value))
    elif element.VR in _BYTES and isinstance(element.value, bytes) and element.keyword != "PixelData":
        runs = re.findall(rb"[\x20-\x7e\xa0-\xff]{3,}", element.value)
        yield from (run.decode("latin-1").strip() for run in runs)


def _harmless_pixels(ds: FileDataset, path: Path) -> Array:
    """Stored pixels of an image that, by its header, holds no burned-in name."""
    export = "export the camera's own image"
    own_class = ds.get("SOPClassUID") == NuclearMedicineImageStorage
    if ds.get("Modality") != "NM" or "PixelData" not in ds:
        fault = "it is no Nuclear Medicine image, and other objects may show names in their pixels or content"
        raise ScanError(fault, file=path, remedy="leave it out")
    kinds = [str(kind).strip().upper() for kind in values_of(ds.get("ImageType"))]
    other = len(kinds) > 2 and kinds[2] not in WHOLE_BODY
    if other or "TRANSMISSION" in kinds:
        fault = "it is no whole-body emission image, for which alone the list of safe attributes is made"
        raise ScanError(fault, file=path, remedy="leave it out")
    if str(ds.get("BurnedInAnnotation") or "NO").strip().upper() != "NO":
        raise ScanError("its pixels show annotations (BurnedInAnnotation)", file=path, remedy=export)
    photometric = str(ds.get("PhotometricInterpretation") or "MONOCHROME2")
    if ds.get("SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise ScanError("it is a colour picture", file=path, remedy=export)
    if ds.file_meta.TransferSyntaxUID not in LOSSLESS:
        fault = "it is stored in a way that is lossy or cannot be decoded here"
        raise ScanError(fault, file=path, remedy="export it uncompressed (Explicit VR Little Endian)")
    pixels = stored_pixels(ds, path)
    if not own_class and ds.get("CountsAccumulated") != pixels.sum(dtype=np.int64):
        raise ScanError(
            "it is not stored as a Nuclear Medicine image, and its pixels do not sum to CountsAccumulated,"
            " which would show that nothing was drawn into them",
            file=path,
            remedy=export,
        )
    known = str(ds.get("SOPClassUID")) in UID_dictionary
    if not (known and ds.get("SOPInstanceUID") and ds["SOPInstanceUID"].VR == "UI"):
        fault = "it has no SOP Instance UID or no SOP Class UID that DICOM knows"
        raise ScanError(fault, file=path, remedy="export it again")
    return pixels


def _proven_by(pixels: Array) -> dict[str, int]:
    """Numbers that follow from the pixels."""
    total = int(pixels.sum(dtype=np.int64))
    return {"Rows": pixels.shape[1], "Columns": pixels.shape[2], "CountsAccumulated": total}


def _identity(ds: Dataset, path: Path, done: Deidentified) -> tuple[str, ...]:
    """Identity of the patient: Patient ID and its issuer, or else the study."""

    def told(keyword: str) -> str:
        return text_of(ds, keyword).strip().casefold()

    if told("PatientID"):
        return "id", told("PatientID"), told("IssuerOfPatientID")
    if told("StudyInstanceUID"):
        done.notes.append("no Patient ID: the study was taken for a patient of its own")
        return "study", told("StudyInstanceUID")
    fault = "it has neither a Patient ID nor a Study Instance UID, so nobody can tell whose it is"
    raise ScanError(fault, file=path, remedy="export it again")


def _views(ds: Dataset, path: Path) -> dict[int, tuple[str, str, str]]:
    """The code of each detector's view, by its number, where only a text names it."""
    frames = int(ds.get("NumberOfFrames") or 1)
    windows, detectors = values_of(ds.get("EnergyWindowVector")), values_of(ds.get("DetectorVector"))
    kept = [i for i in range(frames) if len(windows) != frames or windows[i] == windows[0]]
    numbers = [detectors[i] if len(detectors) == frames else i + 1 for i in kept]
    header = Dataset()
    header.update({e.tag: e for e in ds if e.keyword != "PixelData"})
    header.DetectorVector = numbers
    try:
        views, rule = name_views(header, len(kept), None, path)
    except ScanError:
        return {}
    if rule in ("ViewCodeSequence", ANGLE):
        return {}
    return {int(number): VIEW_CODES[view] for number, view in zip(numbers, views, strict=True)}


def _code_views(clean: Dataset, named: dict[int, tuple[str, str, str]], done: Deidentified) -> None:
    if not named:
        return
    items = list(clean.get("DetectorInformationSequence") or [])
    items += [unknown_detector() for _ in range(len(items), max(named))]
    for number, view in named.items():
        items[number - 1].ViewCodeSequence = [code(*view)]
        done.made.append(view[2])
    clean.DetectorInformationSequence = items
    done.actions["DetectorInformationSequence > ViewCodeSequence"] = "coded from a text"


def _age_from_birth_date(ds: Dataset) -> str | None:
    """Age at the study, in months below two years, then in years; None if the dates do not tell."""
    born, seen = _day(str(ds.get("PatientBirthDate") or "")), _day(str(ds.get("StudyDate") or ""))
    if born is None or seen is None or seen < born:
        return None
    months = 12 * (seen.year - born.year) + seen.month - born.month - (seen.day < born.day)
    return f"{months:03d}M" if months < 24 else f"{min(months // 12, OLDEST + 1):03d}Y"


def _day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:])) if _DATE.fullmatch(text) else None
    except ValueError:
        return None


def _may_have(element: DataElement) -> bool:
    """True for as many values as the dictionary allows: numbers too many may spell a name."""
    most = dictionary_VM(element.tag).rpartition("-")[2]
    return not most.isdecimal() or int(most) >= element.VM


def _shortened(number: float, vr: str) -> str:
    """A number as the standard would write it, since more digits could spell a name."""
    if vr == "DS" and math.isfinite(number):
        return f"{number:.10g}"
    if vr == "IS" and number.is_integer() and abs(number) < 2**31:
        return str(int(number))
    raise _Unsafe


class _Unsafe(Exception):
    """A value that must not stay."""


class _Cleaner:
    """Copies what may stay of a data set into a new one, and keeps account of the rest."""

    def __init__(self, pseudonyms: Pseudonyms, days: int, done: Deidentified) -> None:
        self.pseudonyms, self.shift, self.done = pseudonyms, timedelta(days), done

    def clean(self, ds: Dataset, above: str = "") -> Dataset:
        clean = Dataset()
        for element in ds:
            if element.keyword == "PixelData":
                continue
            path = above + (element.keyword or str(element.tag))
            try:
                action = self._element(element, clean, path)
            except _Unsafe:
                action = "emptied"
                clean.add_new(element.tag, dictionary_VR(element.tag).split(" or ")[0], None)
            if action:
                self.done.actions[path] = action
                if element.VR != "SQ" or action == "removed":
                    self.done.removed += [(path, text) for text in texts(element)]
        for keyword, stand_in in REQUIRED.items():
            if above and keyword in ds and keyword not in clean:
                setattr(clean, keyword, stand_in)
                self.done.actions[above + keyword] = "replaced"
        return clean

    def _element(self, element: DataElement, clean: Dataset, path: str) -> str:
        """Put into `clean` what may stay of an element; return what was done, "" if nothing."""
        keyword = element.keyword
        value: Any
        if keyword in EMPTIED or keyword == "PatientAge":
            value = self._age(element) if keyword == "PatientAge" else None
            clean.add_new(element.tag, dictionary_VR(element.tag), value)
            return "" if (value or "") == (element.value or "") else "cleaned" if value else "emptied"
        if keyword in CODED and element.VR == "SQ":
            value = [item for item in (self._code(item, f"{path} > ") for item in element.value) if item]
            if not value and element.value and keyword not in MAY_BE_EMPTY:
                return "removed"
        elif keyword in KEPT and element.VR == "SQ":
            value = [self.clean(item, f"{path} > ") for item in element.value]
        elif keyword in KEPT or keyword in TERMS or keyword in WORDS:
            if element.VR not in dictionary_VR(element.tag).split(" or ") or not _may_have(element):
                raise _Unsafe
            if element.VR in NUMBERS and element.value != self.done.proven.get(keyword):
                self._refuse_identifier(kept_values(element), path)
            values = [self._value(element, value) for value in values_of(element.value)]
            value = values[0] if len(values) == 1 else values or None
        elif keyword in PHRASES:
            found = PHRASES[keyword].search(str(element.value))
            if found is None:
                return "removed"
            value = "".join(group for group in found.groups() if group)
            self._refuse_identifier([re.sub(r"[0-9a-f]{64}", "", value)], path)
            self.done.made += re.findall(r"[0-9a-f]{64}|\d+", value)
        else:
            return "removed"
        clean.add_new(element.tag, element.VR, value)
        same = element.VR == "SQ" or values_of(value) == values_of(element.value)
        if same:
            return ""
        if value is None:
            return "emptied"
        return {"UI": "remapped", "DA": "shifted", "DT": "shifted"}.get(element.VR, "cleaned")

    def _refuse_identifier(self, values: Sequence[object], path: str) -> None:
        if identifies(values, self.done.identifiers):
            self.done.notes.append(f"an identifier stood in {path}, which was emptied")
            raise _Unsafe

    def _value(self, element: DataElement, value: Any) -> Any:
        """One value as it may stay, or its replacement."""
        keyword, vr, text = element.keyword, element.VR, str(value).strip()
        if keyword in TERMS:
            if text in TERMS[keyword]:
                return value
            if keyword == "ImageType":  # its other values keep their places
                return ""
            raise _Unsafe
        if keyword in WORDS:
            if not text.isascii() or not set(words(text)) <= WORDS[keyword]:
                raise _Unsafe
            return value
        if vr == "UI":
            if text in UID_dictionary:
                return value
            if keyword.endswith("ClassUID"):
                raise _Unsafe
            return self.pseudonyms.uid(text)
        if vr == "DA":
            return self._shifted(text)
        if vr == "DT":
            parts = _DATE_TIME.fullmatch(text)
            if parts is None:
                raise _Unsafe
            # Of an incomplete date the first day it may mean is shifted, and as much of it given.
            given = parts[1]
            return self._shifted(given + "0101"[len(given) - 4 :])[: len(given)] + parts[2]
        if vr == "TM" and _TIME.fullmatch(text):
            return value
        if vr in _SHORT and (_SHORT[vr].fullmatch(text) or not text):
            return value
        if vr in _SHORT and _NUMBER.fullmatch(text):
            return _shortened(float(text), vr)
        if vr == "AT" and dictionary_has_tag(Tag(value)):
            return value
        if vr in ("US", "SS", "UL", "SL", "FL", "FD") and isinstance(value, int | float):
            return value
        raise _Unsafe

    def _shifted(self, day: str) -> str:
        known = _day(day)
        try:
            if known is None:
                raise _Unsafe
            return (known - self.shift).strftime("%Y%m%d").zfill(8)
        except OverflowError as error:
            raise _Unsafe from error

    def _age(self, element: DataElement) -> str | None:
        parts = _AGE.fullmatch(str(element.value or ""))
        if parts is None:
            return None
        if int(parts[1]) / _A_YEAR[parts[2]] > OLDEST + 1:
            self.done.notes.append(f"an age above {OLDEST} years is given as {OLDEST + 1:03d}Y")
            return f"{OLDEST + 1:03d}Y"
        return str(element.value)

    def _code(self, item: Dataset, above: str) -> Dataset | None:
        """A code with the meaning of the dictionary; None of an unknown one."""
        value, scheme = (str(item.get(k) or "").strip() for k in ("CodeValue", "CodingSchemeDesignator"))
        meaning = meaning_of(value, scheme)
        if meaning is None:
            self.done.actions[f"{above}CodeValue"] = "removed"
            self.done.removed += [(above + e.keyword, text) for e in item for text in texts(e)]
            return None
        rest = deepcopy(item)
        for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"):
            if keyword in rest:
                del rest[keyword]
        known = code(value, scheme, meaning)
        known.update(self.clean(rest, above))
        told = str(item.get("CodeMeaning") or "")
        if told != meaning:
            self.done.actions[f"{above}CodeMeaning"] = "cleaned"
            self.done.removed.append((f"{above}CodeMeaning", told))
        self.done.made += [value, scheme, meaning]
        return known
