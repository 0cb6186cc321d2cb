"""Views of the frames of a Nuclear Medicine file, by the first rule that tells."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset

from rbs.errors import ScanError, printable
from rbs.scans.scan import View

VIEW_CODES = {
    View.ANTERIOR: ("399321004", "SCT", "Anterior projection"),
    View.POSTERIOR: ("399001007", "SCT", "Posterior projection"),
}
"""DICOM context group CID 26, Nuclear Medicine Projections: value, scheme, meaning."""

_VIEW_OF_CODE = {code[0]: view for view, code in VIEW_CODES.items()} | {
    # The same concepts in SNOMED-RT, which files older than 2017 use.
    "G-5215": View.ANTERIOR,
    "G-5216": View.POSTERIOR,
}
_OPPOSITE = {View.ANTERIOR: View.POSTERIOR, View.POSTERIOR: View.ANTERIOR}
_TEXT_VRS = {"CS", "LO", "LT", "SH", "ST", "UC", "UT"}
_ANTERIOR = re.compile(r"(?<![a-z])ant(?:erior)?(?![a-z])", re.IGNORECASE)
_POSTERIOR = re.compile(r"(?<![a-z])post(?:erior)?(?![a-z])", re.IGNORECASE)
_AFTER = re.compile(
    # "post" that means after: "3 h post injection", "post void".
    r"\d\s*(?:h|hrs?|hours?|min|mins|minutes?)\.?[\s_-]*post(?![a-z])"
    r"|(?<![a-z])post[\s_-]*(?:inj|void|op|surg|therap|treat|dos|chemo|mict|admin|p\.?i)[a-z]*",
    re.IGNORECASE,
)
UNNAMED = "nothing in the header says which view a frame shows"
ANGLE = "StartAngle"
"""The last rule, and the weakest."""

_ANGLE_TOLERANCE = 20.0
"""Degrees by which a head may be off the vertical."""

_LONGEST_NAME = 64
"""Bytes up to which an element of unknown type may be a name: the longest text of VR LO."""

_LOG = logging.getLogger("rbs")
_Named = list[View | None]


def name_views(
    header: Dataset, frames: int, option: tuple[View, ...] | None, path: Path
) -> tuple[tuple[View, ...], str]:
    """View of each frame and the rule that told: code, its meaning, names, start angle, or option.

    Where a rule names one of two frames, the other is the opposite view; a rule that names both
    alike tells nothing. The option names what the header leaves unsaid; only over the start angle,
    which cameras count differently, it wins.

    Raises:
        ScanError: No rule tells, or the option contradicts the header or does not fit the frames.
    """
    views, rule = _from_header(header, frames) or (None, "")
    if option is None:
        if views is None:
            raise ScanError(UNNAMED, file=path, remedy=how_to_name(frames))
        if rule == ANGLE:
            doubt = "%s: %s by StartAngle alone, which some cameras count from the front; --view corrects it"
            _LOG.warning(doubt, printable(path), ", ".join(views))
        return views, rule
    if views and rule != ANGLE:
        # In a folder the option is meant for the silent files; that another one disagrees must not
        # go unseen.
        if len(option) == frames and option != views:
            fault = f"its {rule} says {', '.join(views)}, but {', '.join(option)} was given"
            raise ScanError(fault, file=path, remedy="give no view for this file, or correct its header")
        return views, rule
    if len(option) != frames or len(set(option)) != frames:
        fault = f"{frames} frames but views named: {', '.join(option) or 'none'}"
        raise ScanError(fault, file=path, remedy="name one view a frame, each once")
    if views and views != option:
        told = ", ".join(option), ", ".join(views)
        _LOG.warning("%s: %s as given, though StartAngle says %s", printable(path), *told)
    return option, "option"


def how_to_name(frames: int) -> str:
    """Remedy where nothing names the views."""
    if frames == 2:
        return "name them in frame order, as --view anterior --view posterior"
    return "name it with --view anterior or --view posterior"


def _from_header(header: Dataset, frames: int) -> tuple[tuple[View, ...], str] | None:
    detectors = _detectors(header, frames)
    if views := _complete([_of_codes(item) for item in detectors]):
        return views, "ViewCodeSequence"
    if views := _complete([_of_meanings(item) for item in detectors]):
        return views, "ViewCodeSequence meaning"
    for rule, texts in _names(header, detectors, frames):
        if views := _complete([_of_text(text) for text in texts]):
            return views, rule
    if views := _complete([_of_angle(item) for item in detectors]):
        return views, ANGLE
    return None


def _complete(named: _Named) -> tuple[View, ...] | None:
    """Fill in the opposite view; None unless every frame then has a view of its own."""
    if len(named) == 2 and named.count(None) == 1:
        known = next(view for view in named if view is not None)
        named = [view or _OPPOSITE[known] for view in named]
    views = tuple(view for view in named if view is not None)
    return views if views and len(views) == len(named) == len(set(views)) else None


def _detectors(header: Dataset, frames: int) -> list[Dataset]:
    """The DetectorInformationSequence item of each frame, empty where there is none."""
    items = header.get("DetectorInformationSequence") or []
    vector = [int(v) for v in np.atleast_1d(header.get("DetectorVector") or [])]
    if len(vector) != frames:
        vector = list(range(1, frames + 1))
    return [items[v - 1] if 1 <= v <= len(items) else Dataset() for v in vector]


def _of_codes(detector: Dataset) -> View | None:
    codes = [str(code.get("CodeValue") or "") for code in detector.get("ViewCodeSequence") or []]
    return next((_VIEW_OF_CODE[code] for code in codes if code in _VIEW_OF_CODE), None)


def _of_meanings(detector: Dataset) -> View | None:
    meanings = [str(code.get("CodeMeaning") or "") for code in detector.get("ViewCodeSequence") or []]
    return _of_text(" ".join(meanings))


def _of_text(text: str) -> View | None:
    text = _AFTER.sub(" ", text)
    anterior, posterior = bool(_ANTERIOR.search(text)), bool(_POSTERIOR.search(text))
    if anterior == posterior:
        return None
    return View.ANTERIOR if anterior else View.POSTERIOR


def _of_angle(detector: Dataset) -> View | None:
    angle = detector.get("StartAngle")
    if angle is None or angle == "":
        return None
    # "Zero degrees is referenced to the origin at the patient's back": DICOM PS3.3, table C.8-11.
    off = float(angle) % 360
    if min(off, 360 - off) <= _ANGLE_TOLERANCE:
        return View.POSTERIOR
    return View.ANTERIOR if abs(off - 180) <= _ANGLE_TOLERANCE else None


def _names(header: Dataset, detectors: list[Dataset], frames: int) -> Iterator[tuple[str, list[str]]]:
    """Texts that may name the views, one a frame, and the rule; equal texts tell nothing."""
    for keyword in ("ImageID", "SeriesDescription"):
        if frames == 1 and header.get(keyword):
            yield keyword, [str(header.get(keyword))]
    inside = [" ".join(str(e.value) for e in item if e.VR in _TEXT_VRS and e.value) for item in detectors]
    yield "detector text", inside
    for element in header:
        if not element.tag.is_private or not element.value:
            continue
        if element.VR == "SQ":
            texts = [" ".join(str(e.value) for e in item if e.VR in _TEXT_VRS) for item in element.value]
        elif element.VR in _TEXT_VRS:
            texts = [element.value] if isinstance(element.value, str) else [str(v) for v in element.value]
        elif element.VR == "UN" and isinstance(element.value, bytes) and len(element.value) <= _LONGEST_NAME:
            # In an implicit VR file every private element is of unknown type, pictures and tables
            # as well.
            text = element.value.decode("latin-1").strip(" \0")
            texts = text.split("\\") if text.isprintable() else []
        else:
            continue
        if len(texts) == frames:
            yield f"private name {element.tag}", texts
