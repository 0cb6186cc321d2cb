"""DICOM in, DICOM out: rapid scans restored to the counts of a standard scan."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rbs.clinic.checks import check, contradictions, nothing_to_restore
from rbs.clinic.outcomes import Refusal
from rbs.clinic.sources import Source
from rbs.errors import CheckpointError, OutputError, RbsError, ScanError
from rbs.inference import residual
from rbs.inference.censored import filled
from rbs.scans.acceptance import SAME_VELOCITY
from rbs.scans.censoring import cut_counts
from rbs.scans.dicom.files import EXPORTED
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import Derivation, write_deviation_nm, write_restored_nm
from rbs.scans.scan import STANDARD_VELOCITY, Scan, View
from rbs.utils.version import VERSION

if TYPE_CHECKING:
    from rbs.inference.load import Loaded
    from rbs.restorers.uncertainty import Uncertainty

SHOWN = 3
"""Contradictions listed for one scan; the rest are counted."""


@dataclass(frozen=True)
class RestoredScan:
    """One file restored and written.

    Attributes:
        source: The rapid scan.
        views: What it shows.
        view_rule: The rule that named the views.
        output: The restored scan.
        deviation: Its standard deviation, where that was asked for.
        counts: Counts of the rapid scan as acquired.
        expected: The same at standard exposure: counts / exposure, with those that were cut.
        restored: Counts of the restored scan, as its file holds them.
        standard_velocity: cm/min the restored counts belong to.
        seconds: Time to restore and check it; shared between the two files of a pair.
        together_with: The file of the opposite view it was restored with.
        warnings: What to look at before using it.
    """

    source: Path
    views: tuple[View, ...]
    view_rule: str | None
    output: Path
    deviation: Path | None
    counts: float
    expected: float
    restored: float
    standard_velocity: float
    seconds: float
    together_with: Path | None
    warnings: tuple[str, ...]

    outcome: ClassVar[str] = "restored"
    error: ClassVar[None] = None

    def __str__(self) -> str:
        pair = f", with {self.together_with.name}" if self.together_with else ""
        bias = 100 * (self.restored / self.expected - 1)
        line = (
            f"{self.source.name} ({', '.join(self.views)} from {self.view_rule}): "
            f"{self.counts:,.0f} counts in, {self.restored:,.0f} out at {self.standard_velocity:g} cm/min "
            f"(bias {bias:+.1f} %{pair}), {self.seconds:.1f} s -> {self.output}"
            + (f" and {self.deviation.name}" if self.deviation else "")
        )
        return "\n".join([line, *(f"  warning: {warning}" for warning in self.warnings)])


def restore_scan(
    scan: Scan, loaded: Loaded, standard_velocity: float = STANDARD_VELOCITY, *, keep_faint: bool = False
) -> Scan:
    """Restore a rapid scan to standard exposure.

    The restorer is given x = counts / p, p = standard velocity / scan velocity, and both views, the
    posterior one mirrored, where the scan has two. Counts that an export cut are filled in first
    (`rbs.inference.censored.filled`).

    Args:
        scan: Rapid scan of raw counts.
        loaded: The restorer.
        standard_velocity: cm/min whose counts are wanted.
        keep_faint: Whether half of what was taken for noise is put back (`rbs.inference.residual`).

    Returns:
        The scan with float32 counts at standard exposure and `velocity` = `standard_velocity`; the
        header in its provenance keeps what was acquired.

    Raises:
        ScanError: The velocity is unknown, or no faster than the standard.
        CheckpointError: The restorer gave something that is no counts.
    """
    exposure = scan.exposure_of(standard_velocity)
    if exposure * SAME_VELOCITY >= 1:
        reason = nothing_to_restore(standard_velocity / exposure, standard_velocity)
        raise ScanError(reason.fault, file=scan.provenance.path, remedy=reason.remedy)
    scan = filled(scan, loaded, exposure)
    counts = loaded.restore(scan.aligned(), exposure)
    if keep_faint:
        counts = residual.keep_faint(counts, scan.aligned(), exposure, scan.spacing_mm)
    if not np.isfinite(counts).all():
        raise CheckpointError(f"{loaded.name} gave values that are not finite", remedy="use other weights")
    return replace(scan.from_aligned(counts), velocity=standard_velocity)


def deviation_of(scan: Scan, uncertainty: Uncertainty, standard_velocity: float = STANDARD_VELOCITY) -> Scan:
    """Standard deviation of what `restore_scan` makes of a scan, in restored counts.

    Args:
        scan: Rapid scan that may be restored.
        uncertainty: A head and the restorer.
        standard_velocity: cm/min whose counts are wanted.

    Raises:
        CheckpointError: The head gave something that is no deviation.
    """
    exposure = scan.exposure_of(standard_velocity)
    scan = filled(scan, uncertainty.loaded, exposure)
    deviation = uncertainty.deviation(scan.aligned(), exposure)
    if not np.isfinite(deviation).all():
        raise CheckpointError(
            f"{uncertainty.name} gave values that are not finite", remedy="use other weights"
        )
    return replace(scan.from_aligned(deviation), velocity=standard_velocity)


def deviation_file(output: Path) -> Path:
    """File of the standard deviation of a restored one: `child_sd.dcm` beside `child.dcm`."""
    # What follows the last dot of a UID is no suffix.
    suffix = output.suffix if output.suffix.lower() in EXPORTED else ""
    return output.with_name(f"{output.name.removesuffix(suffix)}_sd{suffix}")


@dataclass(frozen=True)
class ScanRestorer:
    """Restoring DICOM files, study by study, so that only one study is in memory.

    Two one-view files of a study that show opposite views in the same geometry at the same velocity
    are restored together.

    Attributes:
        loaded: The restorer.
        uncertainty: Its head; beside every restored file goes then a `deviation_file`.
        reading: Options of `read_nm` for files that do not say all: views, energy_window, velocity.
        standard_velocity: cm/min whose counts are wanted.
        keep_faint: Whether half of what was taken for noise is put back (`rbs.inference.residual`).

    Raises:
        ValueError: `uncertainty` with `keep_faint`, of which it knows nothing.
    """

    loaded: Loaded
    uncertainty: Uncertainty | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    standard_velocity: float = STANDARD_VELOCITY
    keep_faint: bool = False

    def __post_init__(self) -> None:
        if self.uncertainty and self.keep_faint:
            raise ValueError("the uncertainty is of what the weights restore, not of what is put back")

    def output_name(self, path: Path) -> str:
        """Name of the restoration of a file: its own."""
        return path.name

    def outputs(self, output: Path) -> dict[str, Path]:
        """All files written for a restoration `output`, by what they hold."""
        deviation = {"standard deviation": deviation_file(output)} if self.uncertainty else {}
        return {"restoration": output, **deviation}

    def restore(self, outputs: Mapping[Source, Path]) -> Iterator[RestoredScan | Refusal]:
        """Restore files; one that must be refused does not stop the others.

        Args:
            outputs: Where each file's restoration goes.

        Yields:
            The outcome of each file.
        """
        targets = {source.path: output for source, output in outputs.items()}
        studies: dict[str, list[Source]] = defaultdict(list)
        for source in outputs:
            studies[source.study].append(source)
        for sources in studies.values():
            scans: list[Scan] = []
            doubts: dict[Path, tuple[str, ...]] = {}
            for source in sources:
                try:
                    scan, doubts[source.path] = self._read(source, targets[source.path])
                    scans.append(scan)
                except RbsError as error:
                    yield Refusal(source.path, error)
            for group in pair_views(scans):
                yield from self._restore_group(group, doubts, targets)

    def _read(self, source: Source, output: Path) -> tuple[Scan, tuple[str, ...]]:
        """Read a scan that may be restored, with its warnings, or refuse it."""
        for file in self.outputs(output).values():
            if file.exists():
                raise OutputError(
                    "the output exists already", file=file, remedy="choose another or remove it"
                )
        scan = read_nm(source.path, content=source.content, **self.reading)
        trained_on = self.loaded.provenance
        verdict = check(scan, standard_velocity=self.standard_velocity, trained_on=trained_on).restoring
        verdict.require(source.path)
        return scan, verdict.warnings

    def _restore_group(
        self, group: list[Scan], doubts: Mapping[Path, tuple[str, ...]], outputs: Mapping[Path, Path]
    ) -> Iterator[RestoredScan | Refusal]:
        start = time.perf_counter()
        rapid = group[0]
        if len(group) == 2:
            cut = max(scan.cut for scan in group)
            both = np.concatenate([cut_counts(scan.counts, cut) for scan in group])
            rapid = replace(rapid, counts=both, views=(group[0].views[0], group[1].views[0]), cut=cut)
        paths = [_path(scan) for scan in group]
        velocity = self.standard_velocity
        exposure = rapid.exposure_of(velocity)
        try:
            rapid = filled(rapid, self.loaded, exposure)
            restored = restore_scan(rapid, self.loaded, velocity, keep_faint=self.keep_faint)
            deviation = self.uncertainty and deviation_of(rapid, self.uncertainty, velocity)
        except RbsError as error:
            yield from (Refusal(path, error) for path in paths)
            return
        found = contradictions(rapid, restored, exposure)
        seconds = (time.perf_counter() - start) / len(group)
        model = self.loaded.name + (residual.SUFFIX if self.keep_faint else "")
        derivation = Derivation(model=model, version=VERSION, weight_hash=self.loaded.sha256)
        for index, (scan, path) in enumerate(zip(group, paths, strict=True)):
            own_frames = slice(None) if len(group) == 1 else slice(index, index + 1)
            result = replace(scan, counts=restored.counts[own_frames], velocity=velocity, cut=0)
            try:
                stored = write_restored_nm(outputs[path], result, scan, derivation=derivation)
                if self.uncertainty and deviation:
                    of_it = replace(result, counts=deviation.counts[own_frames])
                    _write_deviation(outputs[path], of_it, scan, self.uncertainty)
            except RbsError as error:
                yield Refusal(path, error)
                continue
            own = [str(contradiction) for contradiction in found if contradiction.view in scan.views]
            more = [f"{len(own) - SHOWN} more places like these"] if len(own) > SHOWN else []
            if stored.clipped:
                most = f"{stored.largest:,.0f} counts, the most a file holds"
                more.append(f"pixels clipped at {most}: {stored.clipped:,}")
            yield RestoredScan(
                source=path,
                views=scan.views,
                view_rule=scan.provenance.view_rule,
                output=outputs[path],
                deviation=deviation_file(outputs[path]) if self.uncertainty else None,
                counts=float(scan.counts.sum()),
                expected=float(rapid.counts[own_frames].sum()) / exposure,
                restored=stored.counts,
                standard_velocity=velocity,
                seconds=seconds,
                together_with=paths[1 - index] if len(group) == 2 else None,
                warnings=(*doubts[path], *own[:SHOWN], *more),
            )


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
            alike[_acquisition(scan)].append(scan)
        else:
            groups.append([scan])
    for group in alike.values():
        group = sorted(group, key=lambda scan: scan.views)
        pair = [scan.views[0] for scan in group] == [View.ANTERIOR, View.POSTERIOR]
        groups.extend([group] if pair else [[scan] for scan in group])
    return groups


def _acquisition(scan: Scan) -> Hashable:
    """Key that the two views of one acquisition share."""
    header: Any = scan.provenance.header
    study = str(getattr(header, "StudyInstanceUID", None) or scan.provenance.path)
    started = str(getattr(header, "AcquisitionDate", "")), str(getattr(header, "AcquisitionTime", ""))[:6]
    spacing = tuple(round(mm, 3) for mm in scan.spacing_mm)
    return study, scan.patient_id, started, scan.counts.shape, spacing, round(scan.velocity or 0, 1)


def _write_deviation(restored: Path, deviation: Scan, source: Scan, uncertainty: Uncertainty) -> None:
    """Write the deviation beside a restored file, or neither of the two."""
    derivation = Derivation(
        model=f"{uncertainty.name} of {uncertainty.loaded.name}",
        version=VERSION,
        weight_hash=f"{uncertainty.sha256}, of weights sha256 {uncertainty.loaded.sha256}",
    )
    try:
        write_deviation_nm(deviation_file(restored), deviation, source, derivation=derivation)
    except RbsError:
        restored.unlink()
        raise


def _path(scan: Scan) -> Path:
    assert scan.provenance.path is not None, "a scan read from a file knows the file"
    return scan.provenance.path
