"""DICOM files in, acquisitions out: read study by study, two views of one acquisition together."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from rbs.clinic.checks import check
from rbs.clinic.outcomes import Outputs, Refusal
from rbs.clinic.sources import Source
from rbs.errors import OutputError, RbsError, ScanError
from rbs.scans.acceptance import ONE_FRAME, one_frame_twice
from rbs.scans.censoring import completed, cut_counts
from rbs.scans.dicom.reader import read_nm
from rbs.scans.quality.check import check_quality
from rbs.scans.scan import STANDARD_VELOCITY, Scan, View
from rbs.utils.guard import attempt, concerning

_Result = TypeVar("_Result")

Examine: TypeAlias = Callable[[Source], tuple[Scan, tuple[str, ...]]]
"""Reads a file that may be used, with its warnings, or raises an `RbsError`."""


@dataclass(frozen=True)
class Acquisition:
    """A scan of one file, or of two that hold a view each and were acquired at the same time.

    Attributes:
        files: The scan of each file.
        warnings: Of each file.
    """

    files: tuple[Scan, ...]
    warnings: Mapping[Path, tuple[str, ...]]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files."""
        return tuple(map(path_of, self.files))

    @property
    def scan(self) -> Scan:
        """The views of all files as one scan."""
        return join_views(self.files)

    def frames_of(self, path: Path) -> slice:
        """Frames of `scan` that belong to one of its files."""
        index = self.paths.index(path)
        return slice(None) if len(self.files) == 1 else slice(index, index + 1)

    def partner(self, path: Path) -> Path | None:
        """The file of the opposite view, if there is one."""
        return next((other for other in self.paths if other != path), None)

    def refusals(self, error: RbsError, paths: Iterable[Path]) -> Iterator[Refusal]:
        """An error of the scan, told of each of `paths`."""
        of_scan = error.file == self.paths[0]  # and not of the weights
        return (Refusal(path, concerning(error, path) if of_scan else error) for path in paths)


def acquisitions(
    sources: Iterable[Source], examine: Examine, *, named: bool = True
) -> Iterator[Acquisition | Refusal]:
    """Read files study by study, so that only one study is in memory.

    Args:
        sources: The files.
        examine: Reads one of them.
        named: Whether warnings name files, which may tell who the patient is.

    Yields:
        What was acquired, and why a file cannot be used.
    """
    studies: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        studies[source.study].append(source)
    for study in studies.values():
        scans: list[Scan] = []
        warnings: dict[Path, tuple[str, ...]] = {}
        for source in sorted(study, key=lambda source: source.path):
            result = attempt(source.path, examine, source)
            if isinstance(result, RbsError):
                yield Refusal(source.path, result)
                continue
            scan, warnings[source.path] = result
            scans.append(scan)
        for path, warning in same_instance(scans, named=named).items():
            warnings[path] += (warning,)
        for group in pair_views(scans):
            twice = one_frame_twice([scan.counts[0] for scan in group])
            more = (ONE_FRAME,) if twice else ()
            paths = map(path_of, group)
            yield Acquisition(tuple(group), {path: (*warnings[path], *more) for path in paths})


def examiner(
    trained_on: Mapping[str, Any],
    reading: Mapping[str, Any],
    standard_velocity: float = STANDARD_VELOCITY,
    stated: Mapping[Path, Mapping[str, Any]] = MappingProxyType({}),
) -> Examine:
    """Reader of scans of raw counts, and enough of them, at a known velocity.

    Args:
        trained_on: Provenance of the weights, see `check`.
        reading: Options of `read_nm` for files that do not say all.
        standard_velocity: cm/min of the standard scans.
        stated: Options of single files, by their path.
    """

    def examine(source: Source) -> tuple[Scan, tuple[str, ...]]:
        options = {**reading, **stated.get(source.path, {})}
        scan = read_nm(source.path, content=source.content, **options)
        report = check(scan, standard_velocity=standard_velocity, trained_on=trained_on)
        report.training.require(source.path)
        return scan, (*report.restoring.warnings, *map(str, check_quality(scan)))

    return examine


def results_of(
    sources: Iterable[Source],
    examine: Examine,
    measure: Callable[[Acquisition, str], _Result],
    names: Mapping[Path, str],
) -> Iterator[_Result | Refusal]:
    """Measure what was acquired, study by study.

    Args:
        sources: The files.
        examine: Reads one of them.
        measure: Called with each acquisition and its name.
        names: Name of each file, by its path; that of the file by default.

    Yields:
        The result of each acquisition, or why a file has none.
    """
    for acquired in acquisitions(sources, examine):
        if isinstance(acquired, Refusal):
            yield acquired
            continue
        paths = acquired.paths
        name = " + ".join(names.get(path, path.name) for path in paths)
        result = attempt(paths[0], measure, acquired, name)
        if isinstance(result, RbsError):
            yield from acquired.refusals(result, paths)
        else:
            yield result


def acquisitions_to_write(
    outputs: Mapping[Source, Path], existing: Iterable[Source], examine: Examine, names: Outputs
) -> Iterator[tuple[Acquisition, dict[Path, Path]] | Refusal]:
    """Read files of which something is made.

    Args:
        outputs: Where that of each file goes.
        existing: Files of which it was made before. A view whose opposite is among them is read
            with it, so that the result does not depend on where a run was interrupted.
        examine: Reads a file.
        names: Names of all files that are written for an output.

    Yields:
        What was acquired, with the outputs to be written of it by their files; and why a file of
        `outputs` has none.
    """
    targets = {source.path: output for source, output in outputs.items()}
    studies = {source.study for source in outputs}
    beside = [source for source in existing if source.study in studies]
    for found in acquisitions([*outputs, *beside], examine):
        if isinstance(found, Refusal):
            if found.source in targets:
                yield found
            continue
        wanted = {path: targets[path] for path in found.paths if path in targets}
        for path, output in list(wanted.items()):
            if taken := next((f for f in names.outputs(output).values() if os.path.lexists(f)), None):
                remedy = "choose another or remove it"
                yield Refusal(path, OutputError("the output exists already", file=taken, remedy=remedy))
                del wanted[path]
        if wanted:
            yield found, wanted


def same_instance(scans: Iterable[Scan], *, named: bool = True) -> dict[Path, str]:
    """Warnings of files that share an SOP Instance UID, which is to be unique."""
    alike: dict[str, list[Path]] = defaultdict(list)
    for scan in scans:
        if uid := scan.provenance.sop_instance_uid:
            alike[uid].append(path_of(scan))

    def others(paths: Iterable[Path], path: Path) -> str:
        return ", ".join(other.name for other in paths if other != path) if named else "another file"

    return {
        path: f"its SOP Instance UID is also that of {others(paths, path)}: keep one of them"
        for paths in alike.values()
        if len(paths) > 1
        for path in paths
    }


def pair_views(scans: Iterable[Scan]) -> list[list[Scan]]:
    """Find the one-view scans that two detectors acquired at the same time.

    Returns:
        Groups of one scan, or of an anterior and a posterior one-view scan. Where more than one of
        a view would fit, each is left alone: a view of another pass must not lend its anatomy.
    """
    alike: dict[Hashable, list[Scan]] = defaultdict(list)
    groups = []
    for scan in scans:
        if len(scan.views) == 1:
            alike[acquisition_key(scan)].append(scan)
        else:
            groups.append([scan])
    for group in alike.values():
        group = sorted(group, key=lambda scan: scan.views)
        pair = [scan.views[0] for scan in group] == [View.ANTERIOR, View.POSTERIOR]
        groups.extend([group] if pair else [[scan] for scan in group])
    return groups


def join_views(group: Sequence[Scan]) -> Scan:
    """The scan of a group of `pair_views`: itself, or the two views of an acquisition as one."""
    if len(group) == 1:
        return group[0]
    cut = max(scan.cut for scan in group)
    both = np.concatenate([cut_counts(scan.counts, cut) for scan in group])
    return replace(group[0], counts=both, views=(group[0].views[0], group[1].views[0]), cut=cut)


def complete_counts(scan: Scan) -> Scan:
    """The scan with counts that an export cut drawn anew (`rbs.scans.censoring.completed`).

    Raises:
        ScanError: It holds no counts.
    """
    if not scan.counts.any():
        raise ScanError("it holds no counts", file=scan.provenance.path, remedy="acquire or export it again")
    return scan.with_counts(completed(scan.counts, scan.cut), cut=0)


def acquisition_key(scan: Scan) -> Hashable:
    """Key that the two views of one acquisition share."""
    header: Any = scan.provenance.header
    study = str(getattr(header, "StudyInstanceUID", None) or scan.provenance.path)
    started = str(getattr(header, "AcquisitionDate", "")), str(getattr(header, "AcquisitionTime", ""))[:6]
    spacing = tuple(round(mm, 3) for mm in scan.spacing_mm)
    return study, scan.patient_id, started, scan.counts.shape, spacing, round(scan.velocity or 0, 1)


def path_of(scan: Scan) -> Path:
    """The file of a scan that was read from one."""
    assert scan.provenance.path is not None, "a scan read from a file knows the file"
    return scan.provenance.path
