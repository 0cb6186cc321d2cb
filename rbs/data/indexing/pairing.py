"""Pairing: files to scans, and rapid scans to standard scans.

Nothing is guessed. Two files are one scan, and two scans a pair, where nothing else would fit;
where more would, they are refused by name, and the user decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from rbs.data.indexing.records import FileRecord, Refusal
from rbs.data.matching import check_together, patient_key
from rbs.data.shared_counts import shared_counts
from rbs.errors import ManifestError
from rbs.scans.acceptance import SAME_VELOCITY
from rbs.scans.scan import STANDARD_VELOCITY, View

ONE_SCAN = timedelta(seconds=60)
"""Two detectors start together. The fastest pass over the smallest child takes two minutes, so two
passes of a camera cannot start within one."""

ONE_VISIT = timedelta(minutes=60)
"""Start to start, rapid and standard scans of one uptake phase: a blood-pool scan of the same day
is another image of the same patient, and no faster version of the delayed scan."""

SAME_LENGTH = 1.2
"""Factor within which two passes cover the same length, run-in and run-out included."""


@dataclass(frozen=True)
class Acquisition:
    """A scan: a file of one or two views, or two files of one view each.

    Attributes:
        records: What its files hold.
        stated: The velocity the user gave, cm/min, where its files state none.
    """

    records: tuple[FileRecord, ...]
    stated: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files."""
        return tuple(record.file for record in self.records)

    @property
    def patient(self) -> str:
        """Key of its patient."""
        return patient_key(self.records[0].patient_id)

    @property
    def velocity(self) -> float | None:
        """Bed velocity, cm/min."""
        return self.records[0].velocity

    @property
    def duration_s(self) -> float | None:
        """Acquisition time, s."""
        return self.records[0].duration_s

    @property
    def started(self) -> datetime | None:
        """Start of the acquisition."""
        return self.records[0].started

    @property
    def simulated(self) -> bool:
        """True if it may be a part of another scan."""
        return any(record.derivation for record in self.records)

    def refused(self, reason: str, remedy: str) -> list[Refusal]:
        """One refusal a file."""
        return [Refusal(file, reason, remedy) for file in self.files]


@dataclass(frozen=True)
class Pair:
    """A standard scan, and the rapid scan that belongs to it if there is one."""

    rapid: Acquisition | None
    standard: Acquisition

    @property
    def by_study_alone(self) -> bool:
        """True if only the study links the two, because a start time is missing."""
        return self.rapid is not None and None in (self.rapid.started, self.standard.started)


def join_views(records: Iterable[FileRecord]) -> tuple[list[Acquisition], list[Refusal]]:
    """Find the one-view files that two detectors wrote of one acquisition.

    They are of one patient, study, velocity and matrix, started within `ONE_SCAN` of each other (or
    state no start), and are one anterior and one posterior file.

    Returns:
        All acquisitions, and the files of those with two files of one view.
    """
    scans: list[Acquisition] = []
    refusals: list[Refusal] = []
    alike: dict[Hashable, list[FileRecord]] = defaultdict(list)
    for record in records:
        if len(record.views) > 1:
            scans.append(Acquisition((record,)))
        else:
            study = patient_key(record.patient_id), record.study or record.file
            alike[study, record.started is None, record.velocity, record.shape].append(record)
    for group in alike.values():
        for together in _started_together(group):
            views = [record.views[0] for record in together]
            if views in ([View.ANTERIOR, View.POSTERIOR], [View.POSTERIOR, View.ANTERIOR]):
                joined = tuple(sorted(together, key=lambda record: record.views))
                scans += [Acquisition(joined)] if _fit_together((), joined) is None else map(_alone, joined)
            elif len(together) == 1:
                scans += map(_alone, together)
            else:
                names = _listed(record.file for record in together)
                reason = f"several files show one view of its acquisition: {names}"
                remedy = "leave one file a view in the folder, the original"
                refusals += [Refusal(record.file, reason, remedy) for record in together]
    return scans, refusals


def state_velocities(
    scans: Sequence[Acquisition], rapid_velocity: float | None, standard_velocity: float | None
) -> tuple[list[Acquisition], list[Refusal]]:
    """Give the scans of one patient that state no velocity the one they must have.

    All passes of a visit cover the same patient, so velocity times duration is the same: of the
    velocities given, that one which alone gives this length.

    Returns:
        The scans whose velocity is known now, and the files of the others.
    """
    given = [velocity for velocity in (rapid_velocity, standard_velocity) if velocity is not None]
    known: list[Acquisition] = []
    refusals: list[Refusal] = []
    for scan in scans:
        if scan.velocity is not None:
            known.append(scan)
            continue
        fits = [velocity for velocity in given if _fits(velocity, scan, scans, given)]
        if len(fits) == 1:
            records = tuple(replace(record, velocity=fits[0]) for record in scan.records)
            known.append(Acquisition(records, stated=fits[0]))
        elif not given:
            remedy = "state --standard-velocity or --rapid-velocity CM_PER_MIN, or both"
            refusals += scan.refused("the scan velocity is unknown", remedy)
        else:
            reason = "the scan velocity is unknown, and the durations of its visit do not settle it"
            remedy = (
                "state both velocities, or write its line into the manifest yourself, with its velocities"
            )
            refusals += scan.refused(reason, remedy)
    return known, refusals


def pair(
    scans: Sequence[Acquisition], rapid_velocity: float | None, standard_velocity: float | None
) -> tuple[list[Pair], list[Refusal]]:
    """Pair the rapid and standard scans of one patient.

    A scan faster than the standard velocity is rapid (if a rapid velocity is given: a scan of that
    one), any other standard. A rapid scan is paired with the one standard scan that fits, and no
    other rapid scan may fit that one: same matrix, spacing and views, started within `ONE_VISIT` of
    each other (or, where a start is not stated, of one study), no count in both. Of several that
    fit, the one at the standard velocity is taken if it is alone in that.

    Args:
        scans: Scans with velocities.
        rapid_velocity: Velocity of rapid scans, cm/min; None if any that is faster than the
            standard.
        standard_velocity: Velocity of standard scans, cm/min; None for `STANDARD_VELOCITY`.

    Returns:
        Pairs, and standard scans without a rapid one; and the files of all others.
    """
    normal = standard_velocity or STANDARD_VELOCITY
    standards: list[Acquisition] = []
    rapids: list[Acquisition] = []
    for scan in scans:
        (standards if (scan.velocity or 0) <= SAME_VELOCITY * normal else rapids).append(scan)
    refusals: list[Refusal] = []
    fits: dict[Acquisition, list[Acquisition]] = {}
    for rapid in rapids:
        if rapid_velocity is not None and not _same_velocity(rapid, rapid_velocity):
            reason = f"it is faster than a standard scan, but no rapid one: {rapid.velocity:.4g} cm/min"
            refusals += rapid.refused(reason, "nothing, or leave --rapid-velocity out to take any")
            continue
        near = [standard for standard in standards if _in_one_visit(rapid, standard)]
        faults = {standard: _misfit(rapid, standard) for standard in near}
        fitting = [standard for standard, fault in faults.items() if fault is None]
        exact = [standard for standard in fitting if _same_velocity(standard, normal)]
        fits[rapid] = exact if len(exact) == 1 else fitting
        if not fitting:
            refusals += rapid.refused(*_why_alone(rapid, standards, faults))
    pairs = []
    for rapid, fitting in fits.items():
        rivals = [other for other in fits if set(fits[other]) & set(fitting)]
        if len(fitting) == 1 and len(rivals) == 1:
            pairs.append(Pair(rapid, fitting[0]))
        elif len(fitting) > 1:
            reason = f"its standard scan may be any of {_listed(s.files[0] for s in fitting)}"
            refusals += rapid.refused(reason, "leave one of them in the folder, or write its line yourself")
        elif fitting:
            names = _listed(rival.files[0] for rival in rivals)
            reason = f"its standard scan is that of another rapid scan too: {names}"
            remedy = "leave one in the folder, say which by --rapid-velocity, or write its line yourself"
            refusals += rapid.refused(reason, remedy)
    paired = {scan for two in pairs for scan in (two.rapid, two.standard)}
    used = [scan for scan in paired if scan is not None]
    for standard in sorted((s for s in standards if s not in paired), key=lambda s: (s.simulated, s.files)):
        near = [scan for scan in used if _in_one_visit(scan, standard)]
        if fault := next(filter(None, (_shared(standard, scan) for scan in near)), None):
            refusals += standard.refused(fault, "nothing: its counts are in the manifest already")
        else:
            used.append(standard)
            pairs.append(Pair(None, standard))
    return pairs, refusals


def _alone(record: FileRecord) -> Acquisition:
    return Acquisition((record,))


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(str(file) for file in sorted(files))


def _started_together(records: Sequence[FileRecord]) -> Iterator[list[FileRecord]]:
    """Group records by start within `ONE_SCAN`; all of them have a start time, or none."""
    group: list[FileRecord] = []
    for record in sorted(records, key=lambda record: (record.started or datetime.min, record.file)):
        first = group[0].started if group else None
        if first is not None and record.started is not None and record.started - first > ONE_SCAN:
            yield group
            group = []
        group.append(record)
    yield group


def _fits(velocity: float, scan: Acquisition, scans: Sequence[Acquisition], given: Sequence[float]) -> bool:
    """True if a velocity gives a scan without one the length of the other scans of its visit."""
    for other in scans:
        if other is scan or not _in_one_visit(scan, other) or not (scan.duration_s and other.duration_s):
            continue
        lengths = [v * other.duration_s for v in ([other.velocity] if other.velocity else given)]
        if all(max(x / y, y / x) > SAME_LENGTH for x in [velocity * scan.duration_s] for y in lengths):
            return False
    return True


def _in_one_visit(a: Acquisition, b: Acquisition) -> bool:
    if a.started is not None and b.started is not None:
        return abs(a.started - b.started) <= ONE_VISIT
    return a.records[0].study == b.records[0].study != ""


def _same_velocity(scan: Acquisition, velocity: float) -> bool:
    return 1 / SAME_VELOCITY <= (scan.velocity or 0) / velocity <= SAME_VELOCITY


def _fit_together(rapid: Sequence[FileRecord], standard: Sequence[FileRecord]) -> ManifestError | None:
    try:
        check_together([f.file for f in rapid], rapid, [f.file for f in standard], standard)
    except ManifestError as error:
        return error
    return None


def _misfit(rapid: Acquisition, standard: Acquisition) -> tuple[str, str] | None:
    """Why two scans are no pair and what to do: by the very rules training will apply."""
    if error := _fit_together(rapid.records, standard.records):
        return error.fault, error.remedy or ""
    if fault := _shared(rapid, standard):
        return fault, "give the folder an independent standard scan, such as what `rbs thin --remainder` left"
    return None


def _shared(a: Acquisition, b: Acquisition) -> str | None:
    """Reason why two scans share counts, for which their counts are read again."""
    if a.records[0].shape != b.records[0].shape:
        return None
    return shared_counts(*([record.scan() for record in scan.records] for scan in (a, b)))


def _why_alone(
    rapid: Acquisition, standards: Sequence[Acquisition], faults: dict[Acquisition, tuple[str, str] | None]
) -> tuple[str, str]:
    for fault in faults.values():
        if fault is not None:
            return fault
    if standards:
        minutes = int(ONE_VISIT.total_seconds() / 60)
        return (
            f"no standard scan of its patient is of the same visit (started within {minutes} minutes of it)",
            "write its line yourself if one belongs to it all the same",
        )
    velocity = f"{rapid.velocity:.4g} cm/min"
    return (
        f"it is a rapid scan ({velocity}) and its patient has no standard scan",
        f"add the standard scan; if {velocity} is your standard, say so by --standard-velocity",
    )
