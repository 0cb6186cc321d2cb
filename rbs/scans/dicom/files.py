"""Which files of a folder are DICOM, and which of those rbs made itself."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from pydicom import Dataset

from rbs.errors import ScanError
from rbs.scans.dicom.reader import START, decoded, starts_like_dicom
from rbs.scans.dicom.writer import DEVIATION, RESTORED

EXPORTED = ("", ".dcm", ".ima")
"""Suffixes of hospital exports; many have none, or end in the last number of a UID."""

INDEX = "DICOMDIR"


def dicom_files(folder: Path) -> list[Path]:
    """Every DICOM file in a folder and the folders below it, sorted; hidden files and DICOMDIR are left out.

    A file counts as DICOM if it starts like DICOM or is named .dcm or .ima. What is named like an
    export but cannot be read, or is too short to tell, counts too, as do folders that cannot be
    searched: reading them will say what is wrong, and no scan is passed over in silence.

    Raises:
        ScanError: There is none.
    """
    files: list[Path] = []
    closed: list[OSError] = []
    for place, below, names in os.walk(folder, onerror=closed.append):
        below[:] = [name for name in below if not name.startswith(".")]
        files += filter(_may_be_a_scan, (Path(place, name) for name in names))
    files += [Path(error.filename) for error in closed]
    if not files:
        raise ScanError("there is no DICOM file in this folder", file=folder, remedy="check the path")
    return sorted(files)


def dicomdirs(folder: Path) -> list[Path]:
    """The indices of DICOM media in a folder and the folders below it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.name.upper() == INDEX)


def header_of(path: Path) -> Dataset:
    """Study and derivation of a file; empty if it cannot be read: reading it whole will say why."""
    wanted = ["StudyInstanceUID", "DerivationCodeSequence"]
    try:
        with warnings.catch_warnings(action="ignore"):  # as in read_nm
            return decoded(path, stop_before_pixels=True, specific_tags=wanted)[0]
    except Exception:  # a damaged file surfaces in pydicom as nearly any exception there is
        return Dataset()


def is_restored(path: Path) -> bool:
    """Whether rbs wrote this file as a restoration or its uncertainty, to be left alone in its folder."""
    codes = header_of(path).get("DerivationCodeSequence") or []
    own = (RESTORED[:2], DEVIATION[:2])
    return any((code.get("CodeValue"), code.get("CodingSchemeDesignator")) in own for code in codes)


def _may_be_a_scan(path: Path) -> bool:
    if path.name.startswith(".") or path.name.upper() == INDEX:
        return False
    suffix = path.suffix.lower()
    exported = suffix in EXPORTED or suffix[1:].isdecimal()
    try:
        if path.exists() and not path.is_file():  # a pipe, which would not end
            return False
        with path.open("rb") as file:
            start = file.read(START)
    except OSError:
        return exported
    return starts_like_dicom(start) or suffix in EXPORTED[1:] or (exported and len(start) < START)
