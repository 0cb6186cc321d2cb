"""A scan as it was read, its fitness for use, and the check of its restoration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import find_objects, label

from rbs.errors import ScanError, printable
from rbs.scans.acceptance import ONE_FRAME, SAME_VELOCITY, one_frame_twice, too_few_counts
from rbs.scans.counts import on_pixels_of, poisson_deviance
from rbs.scans.dicom.reader import TC_99M_KEV, energy_window, from_picture, positive_number
from rbs.scans.dicom.views import UNNAMED, how_to_name
from rbs.scans.noise import Noise, examine
from rbs.scans.scan import STANDARD_VELOCITY, Array, Scan

if TYPE_CHECKING:
    from pydicom import Dataset

LONGEST = 2.0
"""Largest ratio of the length covered in the scan time to the stated length; run-in and run-out
take some, too."""

ENLARGED_FROM_MM = 3.5
"""Least spacing of scans that are enlarged: 128 columns over a field of 450 mm and more."""

BLOCK = 16
"""Edge, in pixels, of the blocks the consistency check compares."""

MAX_Z = 4.0
"""Deviation, in standard deviations of the rapid counts, from which a block counts as contradicting
them."""


@dataclass(frozen=True)
class Reason:
    """Why a scan is not fit.

    Attributes:
        fault: What is wrong.
        remedy: What to do about it.
    """

    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fault}; {self.remedy}"


@dataclass(frozen=True)
class Verdict:
    """Fitness of a scan for a purpose.

    Attributes:
        fit: Whether it may be used.
        reasons: Why it may not; empty if fit.
        warnings: What makes the outcome doubtful.
        notes: What to know all the same.
    """

    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fit(self) -> bool:
        """True if nothing speaks against it."""
        return not self.reasons

    def require(self, file: Path | None) -> None:
        """Refuse an unfit scan.

        Raises:
            ScanError: It is not fit; the message gives all reasons and remedies.
        """
        if not self.fit:
            faults = ", and ".join(reason.fault for reason in self.reasons)
            remedies = ", and ".join(dict.fromkeys(reason.remedy for reason in self.reasons))
            raise ScanError(faults, file=file, remedy=remedies)


@dataclass(frozen=True)
class AcceptanceReport:
    """A scan as it was understood. Holds nothing that names the patient.

    Attributes:
        file: The file it was read from.
        views: Name of each view, in frame order; "frame 1" and so on where nothing names them.
        view_rule: The rule that named them.
        stored_as: Class of the object, bits of a pixel, transfer syntax.
        rows: Rows of a frame.
        columns: Columns of a frame.
        spacing_mm: Row and column spacing, mm.
        velocity: Bed velocity, cm/min.
        duration_s: Acquisition time, s.
        counts: Counts of each view.
        counts_stated: Counts of all views as the camera states them (CountsAccumulated).
        counts_per_pixel: Mean counts per pixel of each view, over the whole frame.
        cut: Counts up to this number were set to 0 before the scan was read; 0 where none were.
        dispersion: Noise dispersion index of each view, 1 for raw counts; None where too few tell
            it.
        energy_window_kev: Lower and upper limit of the energy window.
        restoring: Fit to be restored.
        training: Fit to train on.
    """

    file: Path | None
    views: tuple[str, ...]
    view_rule: str | None
    stored_as: str | None
    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    velocity: float | None
    duration_s: float | None
    counts: tuple[int, ...]
    counts_stated: int | None
    counts_per_pixel: tuple[float, ...]
    cut: int
    dispersion: tuple[float | None, ...]
    energy_window_kev: tuple[float, float] | None
    restoring: Verdict
    training: Verdict

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["file"] = None if self.file is None else str(self.file)
        for purpose in ("restoring", "training"):
            values[purpose] = {"fit": not values[purpose]["reasons"], **values[purpose]}
        return values

    def __str__(self) -> str:
        height, width = self.rows * self.spacing_mm[0] / 10, self.columns * self.spacing_mm[1] / 10
        spacing = " x ".join(f"{mm:.2f}" for mm in self.spacing_mm)
        limits = self.energy_window_kev
        window = "not stated" if limits is None else f"{limits[0]:.1f} to {limits[1]:.1f} keV"
        named_by = f"from {self.view_rule}" if self.view_rule else "named by nothing in the header"
        rows = [
            ("stored as", self.stored_as or "not stored yet"),
            ("views", f"{', '.join(self.views)} ({named_by})"),
            ("size", f"{self.rows} x {self.columns} pixels of {spacing} mm: {height:.0f} x {width:.0f} cm"),
            ("velocity", _stated(self.velocity, "{:.1f} cm/min")),
            ("duration", _stated(self.duration_s, "{:.0f} s")),
            ("counts", _per_view(self.views, [f"{n:,}" for n in self.counts])),
            ("", self._sum_stated()),
            ("counts per pixel", _per_view(self.views, [f"{n:.2f}" for n in self.counts_per_pixel])),
            *([("counts cut", f"a pixel of 0 means at most {self.cut}")] if self.cut else []),
            (
                "dispersion index",
                _per_view(self.views, [_stated(n, "{:.2f}", "(too few counts)") for n in self.dispersion])
                + " (noise variance / mean; raw counts: 1)",
            ),
            ("energy window", window),
        ]
        for purpose, verdict in (("restoring", self.restoring), ("training", self.training)):
            rows.append((f"fit for {purpose}", "yes" if verdict.fit else "no"))
            rows += [("", f"because {reason}") for reason in verdict.reasons]
            rows += [("", f"warning: {warning}") for warning in verdict.warnings]
            rows += [("", f"note: {note}") for note in verdict.notes]
        lines = [str(self.file or "scan"), *(f"  {name:<18}{value}" for name, value in rows)]
        return "\n".join(map(printable, lines))

    def _sum_stated(self) -> str:
        if self.counts_stated is None:
            return "CountsAccumulated is not stated, so nothing vouches for them"
        agree = self.counts_stated == sum(self.counts)
        return f"CountsAccumulated says {'the same' if agree else f'{self.counts_stated:,}'}"


def check(
    scan: Scan,
    *,
    standard_velocity: float = STANDARD_VELOCITY,
    trained_on: Mapping[str, Any] | None = None,
    scale: int = 1,
) -> AcceptanceReport:
    """Say what was understood of a scan and what it is fit for.

    Args:
        scan: The scan as read.
        standard_velocity: Velocity restored scans shall have, cm/min.
        trained_on: Provenance of the weights that would restore it. Warns where it holds the ranges
            "spacing_mm", "counts_per_pixel" or "exposure" as (lowest, highest) and the scan lies
            outside, or names the "noise_filter" of filtered training scans.
        scale: Rows and columns of the restoration per row and column of the scan.
    """
    frames, rows, columns = scan.counts.shape
    counts = scan.counts.reshape(frames, -1).sum(axis=1)
    rule, header = scan.provenance.view_rule, scan.provenance.header
    whole = np.rint(scan.counts).astype(np.int64)
    noises = [examine(frame, cut=scan.cut, recovered=from_picture(header)) for frame in whole]
    unnamed = rule is None and header is not None
    names = tuple(f"frame {n}" if unnamed else str(view) for n, view in enumerate(scan.views, start=1))
    shared = tuple(_faults(scan, names, noises))
    if unnamed:
        shared = (Reason(UNNAMED, how_to_name(frames)), *shared)
    restoring = shared
    if scan.velocity is not None and scan.velocity <= SAME_VELOCITY * standard_velocity:
        restoring += (nothing_to_restore(scan.velocity, standard_velocity),)
    if scale > 1 and min(scan.spacing_mm) < ENLARGED_FROM_MM:
        restoring += (_fine_already(scan),)
    window = energy_window(header)
    doubts = (*_steep_sources(names, noises), *_doubts(scan, window))
    cut = f"counts up to {scan.cut} were set to 0 before it was read"
    alone = "one view only: it is restored alone, unless its folder holds the opposite view too"
    return AcceptanceReport(
        file=scan.provenance.path,
        views=names,
        view_rule=rule,
        stored_as=scan.provenance.stored_as,
        rows=rows,
        columns=columns,
        spacing_mm=scan.spacing_mm,
        velocity=scan.velocity,
        duration_s=scan.duration_s,
        counts=tuple(int(n) for n in counts),
        counts_stated=_counts_stated(header),
        counts_per_pixel=tuple(float(n) / (rows * columns) for n in counts),
        cut=scan.cut,
        dispersion=tuple(None if noise.unknown else noise.dispersion for noise in noises),
        energy_window_kev=window,
        restoring=Verdict(
            restoring,
            warnings=(*doubts, *unlike_training(scan, standard_velocity, trained_on or {})),
            notes=((alone,) if frames == 1 else ()) + ((f"{cut}; they are estimated",) if scan.cut else ()),
        ),
        training=Verdict(
            shared,
            warnings=doubts,
            notes=(*_training_notes(scan.velocity, standard_velocity), *([cut] if scan.cut else [])),
        ),
    )


def nothing_to_restore(velocity: float, standard: float) -> Reason:
    """Why a scan no faster than the standard is refused; velocities in cm/min."""
    velocities = f"{velocity:.1f} cm/min is no faster than the standard {standard:g} cm/min"
    return Reason(
        f"there is nothing to restore: {velocities}",
        "restore rapid scans only, or state your --standard-velocity",
    )


def _fine_already(scan: Scan) -> Reason:
    """Why a scan of a fine matrix is not enlarged."""
    spacing = " x ".join(f"{mm:.2f}" for mm in scan.spacing_mm)
    wide = f"those of {ENLARGED_FROM_MM} mm and more"
    fault = f"its pixels of {spacing} mm are fine already, and --scale 2 is for {wide}"
    return Reason(fault, "restore it without --scale 2")


def _faults(scan: Scan, names: tuple[str, ...], noises: list[Noise]) -> Iterator[Reason]:
    if scan.velocity is None:
        yield Reason("the scan velocity is unknown", "state it with --velocity CM_PER_MIN")
    for view, noise in zip(names, noises, strict=True):
        if noise.fault:
            yield Reason(
                f"{_the(view)} holds no raw counts: {noise.fault} "
                "(smoothed, rescaled or exported as a picture)",
                "export the raw counts",
            )
    for fault in too_few_counts(scan, [_the(view) for view in names]):
        yield Reason(fault, "acquire or export it again")


def _the(view: str) -> str:
    return view if view.startswith("frame") else f"the {view} view"


def _steep_sources(names: tuple[str, ...], noises: list[Noise]) -> Iterator[str]:
    for view, noise in zip(names, noises, strict=True):
        for region in noise.excess:
            yield f"{_the(view)} has a hot pixel or another steep source at {region}"


def _doubts(scan: Scan, window: tuple[float, float] | None) -> Iterator[str]:
    if one_frame_twice(scan.counts):
        yield ONE_FRAME
    if window is not None and not window[0] <= TC_99M_KEV <= window[1]:
        limits = f"of {window[0]:g} to {window[1]:g} keV"
        yield f"the energy window {limits} does not hold the {TC_99M_KEV:g} keV of Tc-99m: is it a bone scan?"
    length = _number(scan.provenance.header, "ScanLength")
    if length and scan.velocity and scan.duration_s:
        moved = scan.velocity / 60 * scan.duration_s * 10
        if moved > LONGEST * length:
            moves = f"{scan.velocity:.4g} cm/min for {scan.duration_s:.0f} s are {moved / 10:.0f} cm"
            yield f"{moves}, but ScanLength is {length / 10:.0f} cm: does ScanVelocity hold mm/s, as it must?"


def unlike_training(scan: Scan, standard_velocity: float, trained_on: Mapping[str, Any]) -> Iterator[str]:
    """In what a scan differs from those that weights were trained on.

    Args:
        scan: The scan as read.
        standard_velocity: Velocity of standard scans, cm/min.
        trained_on: Provenance of the weights, see `check`.
    """
    if trained_on.get("noise_filter"):
        yield "the weights were trained on scans filtered before export, whose noise raw counts do not have"
    measured: dict[str, tuple[str, Any]] = {
        "spacing_mm": ("pixels of {} mm", scan.spacing_mm),
        "counts_per_pixel": ("{} counts per pixel", scan.counts.mean(axis=(1, 2))),
    }
    if scan.velocity is not None:
        measured["exposure"] = ("{} of the standard counts", [scan.exposure_of(standard_velocity)])
    for key, (phrase, values) in measured.items():
        limits = trained_on.get(key)
        if not (isinstance(limits, list | tuple) and len(limits) == 2):
            continue
        low, high = (float(limit) for limit in limits)
        # Differences of a few per cent are rounding in the header, not another kind of scan.
        outside = [float(value) for value in values if not 0.98 * low <= value <= 1.02 * high]
        if outside:
            yield (
                f"{phrase.format(f'{outside[0]:.2f}')} is outside what the weights were trained on "
                f"({low:.2f} to {high:.2f})"
            )


def _training_notes(velocity: float | None, standard: float) -> Iterator[str]:
    if velocity is None:
        return
    if velocity > SAME_VELOCITY * standard:
        yield "it can only be the rapid half of a pair: it is faster than the standard"
    elif velocity < standard / SAME_VELOCITY:
        yield f"it is slower than the standard: thin it first, with rbs thin --velocity {standard:g}"


def _counts_stated(header: Dataset | None) -> int | None:
    number = _number(header, "CountsAccumulated")
    return None if number is None else int(number)


def _number(header: Dataset | None, keyword: str) -> float | None:
    return None if header is None else positive_number(header.get(keyword))


def _stated(value: float | None, form: str, otherwise: str = "not stated") -> str:
    return otherwise if value is None else form.format(value)


def _per_view(views: tuple[str, ...], values: list[str]) -> str:
    return ", ".join(f"{view} {value}" for view, value in zip(views, values, strict=True))


@dataclass(frozen=True)
class Contradiction:
    """A cluster of blocks where the restored counts do not explain the rapid ones.

    Attributes:
        view: Name of the view.
        rows: First and one past the last row, in pixels of the frame as stored.
        columns: First and one past the last column.
        blocks: Number of blocks in the cluster.
        z: The largest deviation in it, in standard deviations; negative where the restoration holds
            too much.
    """

    view: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    blocks: int
    z: float

    def __str__(self) -> str:
        kind = "more counts than" if self.z < 0 else "fewer counts than"
        return (
            f"{self.view} rows {self.rows[0]}-{self.rows[1] - 1}, "
            f"columns {self.columns[0]}-{self.columns[1] - 1}: "
            f"restored {kind} the rapid scan supports (z = {-self.z:+.1f}, {self.blocks} blocks)"
        )


def poisson_z(observed: Array, expected: Array) -> Array:
    """Signed root of the Poisson deviance; standard normal if `observed` ~ Poisson(`expected`)."""
    return np.sign(observed - expected) * np.sqrt(poisson_deviance(observed, expected))


def contradictions(rapid: Scan, restored: Scan, exposure: float) -> list[Contradiction]:
    """Find where the rapid counts are no plausible Poisson draw from the restored ones.

    A check that needs no reference: over blocks of 16 x 16 pixels the rapid counts R must look like
    a draw from exposure * T, T the restored counts. It finds what a restorer dropped or invented,
    not finer texture.

    Args:
        rapid: The scan as acquired.
        restored: The same scan at standard exposure, which may have finer pixels.
        exposure: Exposure of the rapid scan over the standard one.

    Returns:
        Clusters of touching blocks with |z| > 4 on the same side, the largest deviation first.
    """
    found = []
    # Half a count a block: an estimate that rounds air to zero is not contradicted by a single
    # stray count.
    estimate = on_pixels_of(restored.counts, rapid.counts)
    expected = np.maximum(exposure * _blocks(estimate), 0.5)
    for view, z in zip(rapid.views, poisson_z(_blocks(rapid.counts), expected), strict=True):
        for flagged in (z > MAX_Z, z < -MAX_Z):
            clusters, _ = label(flagged, structure=np.ones((3, 3)))
            for number, box in enumerate(find_objects(clusters), start=1):
                values = z[clusters == number]
                spans = [
                    (side.start * BLOCK, min(side.stop * BLOCK, size))
                    for side, size in zip(box, rapid.counts.shape[1:], strict=True)
                ]
                worst = float(values[np.abs(values).argmax()])
                found.append(Contradiction(str(view), spans[0], spans[1], values.size, worst))
    return sorted(found, key=lambda cluster: -abs(cluster.z))


def _blocks(counts: Array) -> Array:
    """Sums over blocks of (frames, rows, columns); they may be smaller at the lower right edges."""
    sums = np.add.reduceat(counts.astype(np.float64), range(0, counts.shape[1], BLOCK), axis=1)
    return np.add.reduceat(sums, range(0, counts.shape[2], BLOCK), axis=2)
