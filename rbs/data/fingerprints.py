"""Fingerprints of scan files, by which the same patient or the same counts are known again.

A manifest is checked by them: what was trained on must not be tested on, under whatever name.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rbs.data.residuals import Sketch, alike, sketch_of
from rbs.utils.files import require_regular

_TAGS = (
    *("PatientID", "StudyInstanceUID", "SOPInstanceUID", "PixelData"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "CountsAccumulated"),
    0x60000102,  # bit position of an overlay within the pixels
)


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a file by its header and by its counts.

    Attributes:
        file: The file.
        patient_id: Patient ID; empty without one.
        study: Study Instance UID; empty without one.
        instance: SOP Instance UID; empty without one.
        sketches: Of each frame.
    """

    file: Path
    patient_id: str = ""
    study: str = ""
    instance: str = ""
    sketches: tuple[Sketch, ...] = ()


def fingerprint(file: Path, *, counts: bool = True) -> Fingerprint:
    """Read the identity of a DICOM file; empty where it cannot be read: loading it says why.

    Args:
        file: The file.
        counts: Whether to sketch its counts, too.
    """
    from rbs.scans.dicom.pixels import stored_pixels
    from rbs.scans.dicom.quiet import quiet
    from rbs.scans.dicom.reader import decoded
    from rbs.scans.dicom.texts import text_of

    found = Fingerprint(file)
    try:
        require_regular(file)
        with quiet():
            header, _ = decoded(file, specific_tags=list(_TAGS), stop_before_pixels=not counts)
            found = Fingerprint(
                file,
                text_of(header, "PatientID").strip(),
                str(header.get("StudyInstanceUID") or ""),
                str(header.get("SOPInstanceUID") or ""),
            )
            frames = stored_pixels(header, file) if counts else ()
    except Exception as error:  # a damaged file surfaces in pydicom as nearly any exception there is
        logging.getLogger("rbs").debug("%s: no fingerprint (%s)", file, type(error).__name__)
        return found
    return replace(found, sketches=tuple(map(sketch_of, frames)))


def same_counts(sketches: Sequence[Sequence[Sketch]]) -> Iterator[tuple[int, int]]:
    """Pairs of files, by their places, that hold the same counts or a good part of them.

    Args:
        sketches: Those of the frames of each file.
    """
    holder: dict[str, int] = {}
    for place, frames in enumerate(sketches):
        for digest in {frame.digest for frame in frames} - {""}:
            first = holder.setdefault(digest, place)
            if first != place:
                yield first, place
    places = [place for place, frames in enumerate(sketches) for _ in frames]
    for first, second in alike([frame for frames in sketches for frame in frames]):
        if places[first] != places[second]:
            yield places[first], places[second]
