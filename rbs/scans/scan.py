"""A whole-body scan: non-negative counts with the geometry and velocity they were acquired with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rbs.errors import ScanError
from rbs.scans.ranges import DURATION, SPACING, VELOCITY

if TYPE_CHECKING:
    from pydicom import Dataset

Array = npt.NDArray[Any]

Spacing = tuple[float, float]
"""Row and column spacing of pixels, mm; 1 of frames."""

STANDARD_VELOCITY = 20.0
"""Bed velocity of a standard whole-body scan, cm/min; restored scans carry the counts of this
velocity."""

REGIONS = (
    *("skull", "spine", "thorax", "pelvis", "arms", "legs"),
    *("growth plates", "urinary tract", "hot spots"),
)
"""Anatomical regions in the order of their label values: label 0 is background and soft tissue,
label k+1 is REGIONS[k]. Labels exclude each other; the later region wins where two overlap (a
growth plate is not "legs", a lesion, labelled "hot spots", is not "spine")."""


class View(StrEnum):
    """Side of the patient that the detector saw."""

    ANTERIOR = "anterior"
    POSTERIOR = "posterior"


@dataclass(frozen=True)
class Box:
    """A part of a frame as stored, in pixels.

    Attributes:
        rows: First row and one past the last.
        columns: First column and one past the last.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    def __str__(self) -> str:
        return f"rows {self.rows[0]}-{self.rows[1] - 1}, columns {self.columns[0]}-{self.columns[1] - 1}"


@dataclass(frozen=True)
class Provenance:
    """Source of a scan.

    Attributes:
        path: The file it was read from.
        sop_instance_uid: Its SOP Instance UID.
        view_rule: The rule that named the views ("ViewCodeSequence", "StartAngle", "option", ...);
            None where nothing did.
        stored_as: The class of the object, the bits of a pixel and the transfer syntax.
        header: The source data set without its pixels; derived objects are written from it.
        frames: Number of each frame in the file, counted from 1; empty where all were read.
    """

    path: Path | None = None
    sop_instance_uid: str | None = None
    view_rule: str | None = None
    stored_as: str | None = None
    header: Dataset | None = field(default=None, repr=False, compare=False)
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scan:
    """One acquisition of one or two views.

    Attributes:
        counts: Non-negative counts, (frames, rows, columns). Integers where acquired, floats where
            estimated.
        views: One view a frame. Posterior frames are as the camera wrote them, not mirrored.
        spacing_mm: Row and column spacing of a pixel, mm.
        velocity: Bed velocity, cm/min; None where the file does not say.
        duration_s: Acquisition time, s; None where the file does not say.
        patient_id: Identifier of the patient.
        cut: Counts from 1 to this number were set to 0 before the scan was read, as some exports
            do: a 0 then means "at most `cut`". 0 where none were. (`rbs.scans.censoring`)
        provenance: Source of the scan.

    Raises:
        ScanError: The parts contradict each other, the counts are negative or not finite, or a
            number lies outside its range (`rbs.scans.ranges`).
    """

    counts: Array
    views: tuple[View, ...]
    spacing_mm: tuple[float, float]
    velocity: float | None = None
    duration_s: float | None = None
    patient_id: str = ""
    cut: int = 0
    provenance: Provenance = field(default_factory=Provenance, compare=False)

    def __post_init__(self) -> None:
        counts, path = self.counts, self.provenance.path
        if counts.ndim != 3 or 0 in counts.shape:
            fault = f"counts have shape {counts.shape}, not (frames, rows, columns)"
            raise ScanError(fault, file=path, remedy="give one image a view")
        if len(self.views) != counts.shape[0] or len(set(self.views)) != len(self.views):
            names = ", ".join(self.views) or "none"
            raise ScanError(
                f"{counts.shape[0]} frames but views: {names}", file=path, remedy="name one view a frame"
            )
        if not np.isfinite(counts).all() or (counts < 0).any():
            raise ScanError("some counts are negative or not finite", file=path, remedy="use raw counts")
        if self.cut and ((counts > 0) & (counts <= self.cut)).any():
            fault = f"it holds counts of {self.cut} or less, although all of them are said to be cut to 0"
            raise ScanError(fault, file=path, remedy="export or recover the counts again")
        numbers = {SPACING: self.spacing_mm, VELOCITY: (self.velocity,), DURATION: (self.duration_s,)}
        for possible, values in numbers.items():
            for value in values:
                if value is not None and value not in possible:
                    stated = f"its {possible.name} is {value:g} {possible.unit}"
                    fault = f"{stated}, outside the {possible} of whole-body scans"
                    raise ScanError(fault, file=path, remedy="correct its header")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.counts.shape[1], self.counts.shape[2]

    def exposure_of(self, velocity: float = STANDARD_VELOCITY) -> float:
        """Exposure of this scan relative to one at `velocity` (cm/min).

        The dwell time is the axial field of view over the velocity, so counts go as 1/velocity: a
        40 cm/min scan holds the exposure 0.5 of a 20 cm/min scan.

        Raises:
            ScanError: The scan does not know its velocity.
        """
        if self.velocity is None:
            fault = "the scan velocity is unknown"
            remedy = "state it with --velocity CM_PER_MIN, or in a manifest's velocity columns"
            raise ScanError(fault, file=self.provenance.path, remedy=remedy)
        return velocity / self.velocity

    def with_counts(self, counts: Array, **changes: Any) -> Scan:
        """The same scan holding other counts, (frames, rows, columns)."""
        return replace(self, counts=counts, **changes)

    def aligned(self) -> Array:
        """Counts as restorers take them: anterior first, the posterior view mirrored onto it.

        Returns:
            float32 counts (views, rows, columns).
        """
        order = np.argsort([view == View.POSTERIOR for view in self.views], kind="stable")
        return align(self.counts[order], tuple(self.views[i] for i in order)).astype(np.float32)

    def from_aligned(self, counts: Array) -> Scan:
        """Undo `aligned`: put estimated (views, rows, columns) counts into the frames of this scan.

        Estimates are not cut, whatever the scan was.
        """
        return self.with_counts(self.unaligned(counts), cut=0)

    def unaligned(self, aligned: Array) -> Array:
        """Bring (views, ..., rows, columns), ordered and mirrored as by `aligned`, into frames."""
        order = np.argsort([view == View.POSTERIOR for view in self.views], kind="stable")
        frames = align(aligned, tuple(self.views[i] for i in order))
        return frames[np.argsort(order)]


def align(frames: Array, views: tuple[View, ...]) -> Array:
    """Mirror the posterior frames of (frames, ..., rows, columns) left-right. Its own inverse."""
    return np.stack(
        [f[..., ::-1] if view == View.POSTERIOR else f for f, view in zip(frames, views, strict=True)]
    )
