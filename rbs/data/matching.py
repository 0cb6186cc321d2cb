"""Scans that belong together: of one patient, on one matrix, with the same views."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rbs.errors import ManifestError
from rbs.scans.scan import View

_LOOK_ALIKE = str.maketrans("авекмнорстухѕіјαβεηικμνορτυχ", "abekmhopctyxsijabehikmnoptyx")
"""Small Cyrillic and Greek letters whose capitals look like Latin ones."""


def patient_key(identifier: str) -> str:
    """Key of a patient, the same for identifiers that are or look the same to a reader.

    They may differ in case, white space, invisible characters, full-width or composed forms, and
    Latin, Cyrillic or Greek letters that look alike.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", identifier).casefold())
    seen = (c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))
    return "".join(seen).translate(_LOOK_ALIKE)


class ScanHeader(Protocol):
    """Header by which scans are matched: that of a `Scan`, or the record of one."""

    @property
    def patient_id(self) -> str:
        """Identifier of the patient; empty where unknown."""

    @property
    def views(self) -> tuple[View, ...]:
        """One view a frame."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Row and column spacing, mm."""

    @property
    def velocity(self) -> float | None:
        """Bed velocity, cm/min."""


def check_together(
    rapid: Sequence[Path],
    rapids: Sequence[ScanHeader],
    standard: Sequence[Path],
    standards: Sequence[ScanHeader],
) -> None:
    """Refuse files that make no case, by their headers: the counts are not looked at.

    Args:
        rapid: Files of the rapid scan, none or one of each view, or one of both.
        rapids: What they hold.
        standard: Files of the standard scan.
        standards: What they hold.

    Raises:
        ManifestError: Two files (both are named) differ in patient, shape, views, spacing or
            velocity, show the same view of one scan, or the rapid scan is no faster than the
            standard one.
    """
    refuse_two_patients([*rapid, *standard], [scan.patient_id for scan in (*rapids, *standards)])
    for files, scans in ((standard, standards), (rapid, rapids)):
        _refuse_two_scans(files, scans)
    if not rapids:
        return
    refuse_other_grid(rapid[0], rapids[0], standard[0], standards[0], views=False)
    names = [
        ", ".join(sorted(view for scan in scans for view in scan.views)) for scans in (rapids, standards)
    ]
    if names[0] != names[1]:
        raise unlike(rapid[0], standard[0], f"views: {names[0]} and {names[1]}")
    fast, slow = rapids[0].velocity, standards[0].velocity
    if fast is not None and slow is not None and fast <= slow:
        fault = f"at {fast:.4g} cm/min it is no faster than {standard[0]} at {slow:.4g} cm/min"
        remedy = "swap the columns rapid and standard, or correct their velocities"
        raise ManifestError(fault, file=rapid[0], remedy=remedy)


def refuse_two_patients(files: Sequence[Path], patient_ids: Sequence[str]) -> None:
    """Refuse files whose Patient IDs differ; empty ones are unknown.

    Raises:
        ManifestError: They do; both files are named.
    """
    # The IDs themselves are not printed: logs travel further than scans.
    known = [(patient_key(name), file) for file, name in zip(files, patient_ids, strict=True)]
    known = [(patient, file) for patient, file in known if patient]
    for patient, file in known[1:]:
        if patient != known[0][0]:
            raise unlike(known[0][1], file, "patient: their Patient IDs are not the same")


def _refuse_two_scans(files: Sequence[Path], scans: Sequence[ScanHeader]) -> None:
    """Refuse files that are not the views of one scan."""
    for file, scan in zip(files[1:], scans[1:], strict=True):
        refuse_other_grid(files[0], scans[0], file, scan, views=False)
        if scans[0].velocity != scan.velocity:
            raise unlike(files[0], file, f"scan velocity: {scans[0].velocity} and {scan.velocity} cm/min")
    views = [view for scan in scans for view in scan.views]
    if len(set(views)) != len(views):
        fault = f"it and {files[-1]} show the same view"
        raise ManifestError(fault, file=files[0], remedy="join one anterior and one posterior file")


def refuse_other_grid(a: Path, first: ScanHeader, b: Path, second: ScanHeader, *, views: bool = True) -> None:
    """Refuse two scans that do not lie on one grid or do not show the same views.

    Raises:
        ManifestError: They do not; both files are named.
    """
    if first.shape != second.shape:
        raise unlike(a, b, f"shape: {first.shape} and {second.shape} pixels")
    if not np.allclose(first.spacing_mm, second.spacing_mm, rtol=1e-3):
        raise unlike(a, b, f"pixel spacing: {first.spacing_mm} and {second.spacing_mm} mm")
    if views and set(first.views) != set(second.views):
        raise unlike(a, b, f"views: {', '.join(first.views)} and {', '.join(second.views)}")


def unlike(a: Path, b: Path, what: str) -> ManifestError:
    """The error of two files that should be alike and differ in something."""
    return ManifestError(
        f"it and {b} differ in {what}", file=a, remedy="pair files of one patient, matrix and setting"
    )
