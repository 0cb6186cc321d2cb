"""Which files of a folder are DICOM, and which of those rbs made itself."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from rbs.errors import ScanError
from rbs.scans.dicom_write import RESTORED


def dicom_files(folder: Path) -> list[Path]:
    """Every DICOM file in a folder and the folders below it, sorted; hidden files and DICOMDIR are left out.

    A file counts as DICOM if it ends in .dcm or starts like DICOM: hospital exports often have no suffix.

    Raises:
        ScanError: There is none.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.name.upper() != "DICOMDIR"
        and path.is_file()
        and (path.suffix.lower() == ".dcm" or _starts_like_dicom(path))
    ]
    if not files:
        raise ScanError("there is no DICOM file in this folder", file=folder, remedy="check the path")
    return files


def header_of(path: Path) -> Dataset | None:
    """The data set without its pixels, or None if it cannot be read: reading it whole will say why."""
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError):
        return None


def is_restored(path: Path) -> bool:
    """Whether rbs wrote this file as a restoration, to be left alone when its folder is restored again."""
    codes = getattr(header_of(path), "DerivationCodeSequence", None) or []
    return any((code.get("CodeValue"), code.get("CodingSchemeDesignator")) == RESTORED[:2] for code in codes)


def _starts_like_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(132)
    except OSError:
        return False
    # Files older than part 10 have no preamble: they begin with the first elements of group 0008.
    return start[128:] == b"DICM" or start[:4] in (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00")
