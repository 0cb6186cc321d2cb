"""The DICOM files of a folder, and those of them that rbs made itself."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset, Sequence

from rbs.errors import RbsError, ScanError
from rbs.scans.dicom.quiet import quiet
from rbs.scans.dicom.reader import START, decoded, starts_like_dicom
from rbs.scans.dicom.writer import DEVIATION, RESTORED
from rbs.utils.files import regular_files, require_regular

EXPORTED = ("", ".dcm", ".ima")
"""Suffixes of hospital exports; many have none, or end in the last number of a UID."""

INDEX = "DICOMDIR"


def stem_and_suffix(file: Path) -> tuple[str, str]:
    """The name of an export in two parts; what follows the last dot of a UID is no suffix."""
    suffix = file.suffix if file.suffix.lower() in EXPORTED else ""
    return file.name.removesuffix(suffix), suffix


def dicom_files(folder: Path) -> list[Path]:
    """DICOM files in a folder and those below it, sorted, without hidden files and DICOMDIR.

    A file counts as DICOM if it starts like DICOM or is named .dcm or .ima. What is named like an
    export but cannot be read, or is too short to tell, counts too, as do folders that cannot be
    searched: reading them will say what is wrong, and no scan is passed over in silence. Links to
    folders are followed, each folder once.

    Raises:
        ScanError: There is none.
    """
    files, closed = regular_files(folder)
    files = sorted([*filter(may_be_a_scan, files), *closed])
    if not files:
        raise ScanError("there is no DICOM file in this folder", file=folder, remedy="check the path")
    return files


def dicomdirs(folder: Path) -> list[Path]:
    """The indices of DICOM media in a folder and the folders below it, sorted."""
    return [path for path in regular_files(folder)[0] if path.name.upper() == INDEX]


def header_of(path: Path, content: bytes | None = None) -> Dataset:
    """Class, instance, study and derivation of a file; empty where reading it says what is wrong.

    Args:
        path: The file.
        content: Its bytes, where they were read before; the file is not opened then.
    """
    wanted = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "DerivationCodeSequence"]
    try:
        with quiet():
            return decoded(path, content, stop_before_pixels=True, specific_tags=wanted)[0]
    except Exception:  # a damaged file surfaces in pydicom as nearly any exception there is
        return Dataset()


def is_restored(path: Path) -> bool:
    """True for a file that rbs wrote as a restoration or its uncertainty."""
    return derived_by_rbs(header_of(path))


def derived_by_rbs(header: Dataset) -> bool:
    """True for the header of a restoration or its uncertainty that rbs wrote."""
    codes = header.get("DerivationCodeSequence")
    own = (RESTORED[:2], DEVIATION[:2])
    return isinstance(codes, Sequence) and any(
        (code.get("CodeValue"), code.get("CodingSchemeDesignator")) in own for code in codes
    )


def may_be_a_scan(path: Path) -> bool:
    """True for a file that starts like DICOM, or is named like an export and shows no content."""
    if path.name.startswith(".") or path.name.upper() == INDEX:
        return False
    suffix = path.suffix.lower()
    exported = suffix in EXPORTED or suffix[1:].isdecimal()
    try:
        require_regular(path)
        with path.open("rb") as file:
            start = file.read(START)
    except RbsError:
        return False
    except OSError:
        return exported
    return starts_like_dicom(start) or suffix in EXPORTED[1:] or (exported and len(start) < START)
