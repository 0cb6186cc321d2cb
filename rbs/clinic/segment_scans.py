"""Scans in, label maps out: the regions of the skeleton, by a segmenter."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from rbs.clinic.acquisitions import (
    Acquisition,
    acquisitions_to_write,
    complete_counts,
    examiner,
    join_views,
)
from rbs.clinic.label_formats import FORMATS, LabelFormat
from rbs.clinic.outcomes import Refusal
from rbs.clinic.sources import Source
from rbs.errors import CheckpointError, RbsError, ScanError, printable
from rbs.scans.counts import scanned_ends
from rbs.scans.dicom.writer import Derivation
from rbs.scans.regions import BONES, label_of
from rbs.scans.scan import REGIONS, STANDARD_VELOCITY, Array, Scan, View
from rbs.utils.guard import attempt
from rbs.utils.version import VERSION

if TYPE_CHECKING:
    from rbs.inference.segmentation import AnySegmenter

CUT_MM = 20.0
"""Width of a region at the ends of a scan from which it is cut off, mm."""


@dataclass(frozen=True)
class Segmented:
    """A scan of one or two views with its regions.

    Attributes:
        name: Its patient in a manifest, or its file below IN.
        scan: The scan; of two files of a view each both together.
        files: The scan of each of its files.
        probabilities: Of background and regions, aligned, float32 (V, 1 + K, H, W).
        labels: The most probable of them, aligned, uint8 (V, H, W): k + 1 for `REGIONS[k]`.
        segmenter: Name of what found the regions.
        warnings: What to look at before using them.
    """

    name: str
    scan: Scan
    files: tuple[Scan, ...]
    probabilities: Array
    labels: Array
    segmenter: str
    warnings: tuple[str, ...] = ()

    @property
    def views(self) -> tuple[View, ...]:
        """The view of each of the V channels."""
        return tuple(sorted(self.scan.views))  # "anterior" before "posterior", as `Scan.aligned`


class Report(Protocol):
    """A table or a page of all segmented scans.

    Attributes:
        file: Name of its file.
    """

    file: ClassVar[str]

    def add(self, segmented: Segmented) -> Sequence[str]:
        """Take in a scan; its doubts, as clauses.

        Raises:
            RbsError: What is known of it does not fit: it is refused.
        """

    def write(self, folder: Path) -> None:
        """Write it to its file in the folder of the label maps.

        Raises:
            RbsError: It cannot be written, or nothing was taken in.
        """


@dataclass(frozen=True)
class SegmentedFile:
    """One file segmented and written.

    Attributes:
        source: The scan.
        views: What it shows.
        view_rule: The rule that named the views.
        output: The label map.
        pixels: Pixels of each region that is there, over its views.
        seconds: Time to segment it; shared between the two files of a pair.
        together_with: The file of the opposite view it was segmented with.
        warnings: What to look at before using it.
    """

    source: Path
    views: tuple[View, ...]
    view_rule: str | None
    output: Path
    pixels: Mapping[str, int]
    seconds: float
    together_with: Path | None
    warnings: tuple[str, ...]

    outcome: ClassVar[str] = "segmented"
    error: ClassVar[None] = None

    def __str__(self) -> str:
        pair = f", with {self.together_with.name}" if self.together_with else ""
        line = (
            f"{self.source.name} ({', '.join(self.views)} from {self.view_rule}{pair}): "
            f"{', '.join(self.pixels)}; {self.seconds:.1f} s -> {self.output}"
        )
        return "\n".join(map(printable, [line, *(f"  warning: {warning}" for warning in self.warnings)]))


def segment_scan(
    files: Sequence[Scan],
    loaded: AnySegmenter,
    standard_velocity: float = STANDARD_VELOCITY,
    *,
    name: str = "",
) -> Segmented:
    """Find the regions of a scan.

    Counts that an export cut are drawn anew first.

    Args:
        files: Raw counts at any velocity: a scan, or two of a view each (`pair_views`).
        loaded: The segmenter.
        standard_velocity: cm/min of your standard scans, by which exposures are stated.
        name: Of the scan.

    Raises:
        ScanError: Its velocity is unknown, it holds no counts, or it shows no region.
        CheckpointError: The segmenter gave values that are no probabilities.
    """
    scan = join_views(files)
    whole, exposure = complete_counts(scan), scan.exposure_of(standard_velocity)
    probabilities = loaded.probabilities(whole.aligned(), exposure, scan.spacing_mm)
    if not np.isfinite(probabilities).all():
        raise CheckpointError(f"{loaded.name} gave values that are not finite", remedy="use other weights")
    labels = probabilities.argmax(axis=1).astype(np.uint8)
    if not labels.any():
        remedy = "look at it: is it a bone scan, and not empty?"
        raise ScanError("it shows no region of the skeleton", file=scan.provenance.path, remedy=remedy)
    doubts = tuple(_coverage_doubts(scan, labels))
    return Segmented(name, scan, tuple(files), probabilities, labels, loaded.name, doubts)


def _coverage_doubts(scan: Scan, labels: Array) -> Iterator[str]:
    """Name the regions of a whole body that are not in a scan, or not wholly.

    A region is cut off where it is wider than `CUT_MM` in the first or the last rows that were
    scanned (`scanned_ends`).
    """
    there = {name: labels == label_of(name) for name in BONES}
    if absent := [name for name, mask in there.items() if not mask.any()]:
        yield f"not scanned, or not found: {', '.join(absent)}"
    ends = scanned_ends(scan.counts, scan.spacing_mm[0])
    for end, rows in zip(("first", "last"), ends, strict=True):
        wide = {name: mask[:, rows].any(axis=1).sum(axis=1).max() for name, mask in there.items()}
        if cut := [name for name, pixels in wide.items() if pixels * scan.spacing_mm[1] > CUT_MM]:
            yield f"cut off at the {end} scanned row, and not scanned beyond: {', '.join(cut)}"


def segment_acquisition(
    acquired: Acquisition, loaded: AnySegmenter, standard_velocity: float, name: str
) -> Segmented:
    """Find the regions of what was acquired, by `segment_scan`, with the warnings of its files."""
    found = segment_scan(acquired.files, loaded, standard_velocity, name=name)
    warnings = dict.fromkeys(w for path in acquired.paths for w in acquired.warnings[path])
    return replace(found, warnings=(*warnings, *found.warnings))


@dataclass(frozen=True)
class ScanSegmenter:
    """Segmenting DICOM files, study by study.

    Two one-view files of a study that show opposite views in the same geometry at the same velocity
    are segmented together.

    Attributes:
        loaded: The segmenter.
        form: Format of the label maps.
        reading: Options of `read_nm` for files that do not say all: views, energy_window, velocity.
        stated: The same of single files, by their path.
        names: Name of each file, by its path; that of the file by default.
        standard_velocity: cm/min of the standard scans.
        reports: Tables and pages of all scans.
    """

    loaded: AnySegmenter
    form: LabelFormat = FORMATS["seg"]
    reading: Mapping[str, Any] = field(default_factory=dict)
    stated: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    names: Mapping[Path, str] = field(default_factory=dict)
    standard_velocity: float = STANDARD_VELOCITY
    reports: Sequence[Report] = ()

    def segment(
        self, outputs: Mapping[Source, Path], existing: Iterable[Source] = ()
    ) -> Iterator[SegmentedFile | Refusal]:
        """Segment files; one that must be refused does not stop the others.

        Args:
            outputs: Where the label map of each file goes.
            existing: Files that were segmented before. A view whose opposite is among them is
                segmented with it, so that its regions do not depend on where a run was interrupted.

        Yields:
            The outcome of each file of `outputs`.

        Raises:
            DiskFullError: There is no room for an output.
        """
        examine = examiner(self.loaded.provenance, self.reading, self.standard_velocity, self.stated)
        for found in acquisitions_to_write(outputs, existing, examine, self.form):
            if isinstance(found, Refusal):
                yield found
            else:
                yield from self._segment(*found)

    def _segment(
        self, acquired: Acquisition, outputs: Mapping[Path, Path]
    ) -> Iterator[SegmentedFile | Refusal]:
        """Segment a scan, write the label maps of `outputs`, and report on it."""
        first = acquired.paths[0]
        name = self.names.get(first, first.name)
        start = time.perf_counter()
        segmented = attempt(first, segment_acquisition, acquired, self.loaded, self.standard_velocity, name)
        seconds = (time.perf_counter() - start) / len(acquired.files)
        if isinstance(segmented, RbsError):
            yield from acquired.refusals(segmented, outputs)
            return
        frames = segmented.scan.unaligned(segmented.labels)
        reported: list[str] | RbsError | None = None
        for scan, path in zip(acquired.files, acquired.paths, strict=True):
            if path not in outputs:
                continue
            written = attempt(path, self._write, frames[acquired.frames_of(path)], scan, outputs[path])
            if isinstance(written, RbsError):
                yield Refusal(path, written)
                continue
            if reported is None:
                reported = attempt(first, self._report, segmented)
            if isinstance(reported, RbsError):
                outputs[path].unlink()
                yield Refusal(path, reported)
                continue
            yield SegmentedFile(
                source=path,
                views=scan.views,
                view_rule=scan.provenance.view_rule,
                output=outputs[path],
                pixels=written,
                seconds=seconds,
                together_with=acquired.partner(path),
                warnings=(*segmented.warnings, *reported),
            )

    def _report(self, segmented: Segmented) -> list[str]:
        """The doubts of all reports."""
        return [doubt for report in self.reports for doubt in report.add(segmented)]

    def _write(self, labels: Array, scan: Scan, output: Path) -> dict[str, int]:
        derivation = Derivation(self.loaded.name, VERSION, self.loaded.sha256)
        self.form.write(output, labels, scan, derivation)
        sizes = np.bincount(labels.ravel(), minlength=len(REGIONS) + 1)[1:]
        return {name: int(size) for name, size in zip(REGIONS, sizes, strict=True) if size}
