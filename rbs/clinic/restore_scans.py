"""DICOM in, DICOM out: rapid scans restored to the counts of a standard scan."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

import numpy as np

from rbs.clinic.acquisitions import Acquisition, acquisitions_to_write, path_of
from rbs.clinic.checks import (
    Contradiction,
    check,
    contradictions,
    nothing_to_restore,
)
from rbs.clinic.outcomes import Refusal
from rbs.clinic.sources import Source
from rbs.errors import CheckpointError, RbsError, ScanError, printable
from rbs.inference import strengths
from rbs.inference.censored import filled
from rbs.inference.strengths import DEFAULT, Strength
from rbs.scans.acceptance import SAME_VELOCITY
from rbs.scans.dicom.files import stem_and_suffix
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import Derivation, write_deviation_nm, write_restored_nm
from rbs.scans.facts import facts_of
from rbs.scans.quality.check import check_quality
from rbs.scans.scan import STANDARD_VELOCITY, Scan, View
from rbs.utils.guard import attempt
from rbs.utils.version import VERSION

if TYPE_CHECKING:
    from rbs.inference.load import Loaded
    from rbs.inference.test_time_adaptation import FittedRestorer
    from rbs.restorers.checkpoint import LoadedRestorer
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
        fit: What came of fitting the restorer to the scan, where that was asked for.
        counts: Counts of the rapid scan as acquired.
        expected: The same at standard exposure: counts / exposure, with those that were cut.
        restored: Counts of the restored scan, as its file holds them.
        strength: Of the restoration.
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
    fit: str | None
    counts: float
    expected: float
    restored: float
    strength: Strength
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
            + (f"; {self.fit}" if self.fit else "")
        )
        return "\n".join(map(printable, [line, *(f"  warning: {warning}" for warning in self.warnings)]))


def restore_scan(
    scan: Scan,
    loaded: Loaded,
    standard_velocity: float = STANDARD_VELOCITY,
    *,
    strength: Strength = DEFAULT,
) -> Scan:
    """Restore a rapid scan to standard exposure.

    The restorer is given x = counts / p, p = standard velocity / scan velocity, and both views, the
    posterior one mirrored, where the scan has two. Counts that an export cut are filled in first
    (`rbs.inference.censored.filled`).

    Args:
        scan: Rapid scan of raw counts.
        loaded: The restorer.
        standard_velocity: cm/min whose counts are wanted.
        strength: Decides how much of what was taken for noise is put back.

    Returns:
        The scan with float32 counts at standard exposure and `velocity` = `standard_velocity`, on
        pixels half as wide where the restorer enlarges; the header in its provenance keeps what was
        acquired.

    Raises:
        ScanError: The velocity is unknown, or no faster than the standard.
        CheckpointError: The restorer gave something that is no counts.
    """
    exposure = scan.exposure_of(standard_velocity)
    if exposure * SAME_VELOCITY >= 1:
        reason = nothing_to_restore(standard_velocity / exposure, standard_velocity)
        raise ScanError(reason.fault, file=scan.provenance.path, remedy=reason.remedy)
    loaded = with_facts(loaded, scan)
    scan = filled(scan, loaded, exposure)
    counts = loaded.restore(scan.aligned(), exposure)
    counts = strengths.apply(strength, counts, scan.aligned(), exposure, scan.spacing_mm)
    if not np.isfinite(counts).all():
        raise CheckpointError(f"{loaded.name} gave values that are not finite", remedy="use other weights")
    rows, columns = (mm / loaded.scale for mm in scan.spacing_mm)
    return replace(scan.from_aligned(counts), velocity=standard_velocity, spacing_mm=(rows, columns))


def with_facts(loaded: Loaded, scan: Scan) -> Loaded:
    """The restorer with the facts that the header of a scan states, where it reads them."""
    return loaded.of_child(facts_of(scan.provenance.header)) if reads_facts(loaded) else loaded


def reads_facts(loaded: Loaded) -> TypeGuard[LoadedRestorer]:
    """True for a restorer that reads facts of the child beside the scan."""
    return getattr(getattr(loaded, "restorer", None), "reads_facts", False)


def deviation_of(
    scan: Scan,
    uncertainty: Uncertainty,
    standard_velocity: float = STANDARD_VELOCITY,
    *,
    strength: Strength = DEFAULT,
) -> Scan:
    """Standard deviation of what `restore_scan` makes of a scan, in restored counts.

    Args:
        scan: Rapid scan that may be restored.
        uncertainty: A head and the restorer.
        standard_velocity: cm/min whose counts are wanted.
        strength: Of the restoration.

    Raises:
        CheckpointError: The head gave something that is no deviation.
    """
    exposure = scan.exposure_of(standard_velocity)
    scan = filled(scan, uncertainty.loaded, exposure)
    own = uncertainty.deviation(scan.aligned(), exposure)
    deviation = strengths.deviation(strength, own, scan.aligned(), exposure, scan.spacing_mm)
    if not np.isfinite(deviation).all():
        raise CheckpointError(
            f"{uncertainty.name} gave values that are not finite", remedy="use other weights"
        )
    return replace(scan.from_aligned(deviation), velocity=standard_velocity)


def deviation_file(output: Path) -> Path:
    """File of the standard deviation of a restored one: `child_sd.dcm` beside `child.dcm`."""
    stem, suffix = stem_and_suffix(output)
    return output.with_name(f"{stem}_sd{suffix}")


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
        strength: Decides how much of what was taken for noise is put back.
    """

    loaded: Loaded
    uncertainty: Uncertainty | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    standard_velocity: float = STANDARD_VELOCITY
    strength: Strength = DEFAULT

    def output_name(self, path: Path) -> str:
        """Name of the restoration of a file: its own."""
        return path.name

    def outputs(self, output: Path) -> dict[str, Path]:
        """All files written for a restoration `output`, by what they hold."""
        deviation = {"standard deviation": deviation_file(output)} if self.uncertainty else {}
        return {"restoration": output, **deviation}

    def restore(
        self, outputs: Mapping[Source, Path], existing: Iterable[Source] = ()
    ) -> Iterator[RestoredScan | Refusal]:
        """Restore files; one that must be refused does not stop the others.

        Args:
            outputs: Where each file's restoration goes.
            existing: Files that were restored before. A view whose opposite is among them is
                restored with it, so that the counts do not depend on where a run was interrupted.

        Yields:
            The outcome of each file of `outputs`.

        Raises:
            DiskFullError: There is no room for an output.
        """
        for found in acquisitions_to_write(outputs, existing, self.read, self):
            if isinstance(found, Refusal):
                yield found
            else:
                yield from self._restore(*found)

    def read(self, source: Source) -> tuple[Scan, tuple[str, ...]]:
        """Read a scan that may be restored, with its warnings.

        Raises:
            ScanError: It cannot be read, or must not be restored.
        """
        scan = read_nm(source.path, content=source.content, **self.reading)
        trained_on = self.loaded.provenance
        velocity, scale = self.standard_velocity, self.loaded.scale
        verdict = check(scan, standard_velocity=velocity, trained_on=trained_on, scale=scale).restoring
        verdict.require(source.path)
        missing = facts_of(scan.provenance.header).missing if reads_facts(self.loaded) else ()
        lacking = (f"it states no {', '.join(missing)}: restored without",) if missing else ()
        return scan, (*verdict.warnings, *lacking, *map(str, check_quality(scan)))

    def _restore(
        self, acquired: Acquisition, outputs: Mapping[Path, Path]
    ) -> Iterator[RestoredScan | Refusal]:
        """Restore a scan, or two views together, and write what is in `outputs`."""
        start = time.perf_counter()
        answer = attempt(acquired.paths[0], self._answer, acquired)
        if isinstance(answer, RbsError):
            yield from acquired.refusals(answer, outputs)
            return
        seconds = (time.perf_counter() - start) / len(acquired.files)
        for scan, path in zip(acquired.files, acquired.paths, strict=True):
            if path in outputs:
                own = answer.of(acquired.frames_of(path), scan)
                written = attempt(path, self._write, own, scan, outputs[path], acquired, seconds)
                yield Refusal(path, written) if isinstance(written, RbsError) else written

    def _answer(self, acquired: Acquisition) -> _Answer:
        """Restore a scan and check the result against its counts."""
        rapid, velocity = acquired.scan, self.standard_velocity
        loaded = with_facts(self.loaded, rapid)
        rapid = filled(rapid, loaded, rapid.exposure_of(velocity))
        exposure = rapid.exposure_of(velocity)
        fit = _fitted(self.loaded, rapid, exposure)
        restored = restore_scan(rapid, fit or loaded, velocity, strength=self.strength)
        deviation = None
        if self.uncertainty:
            deviation = deviation_of(rapid, self.uncertainty, velocity, strength=self.strength)
        return _Answer(rapid, restored, deviation, contradictions(rapid, restored, exposure), fit)

    def _write(
        self, answer: _Answer, scan: Scan, output: Path, acquired: Acquisition, seconds: float
    ) -> RestoredScan:
        """Write the restoration of one file, and its deviation."""
        path = path_of(scan)
        fit = answer.fit and answer.fit.fit
        model = f"{(answer.fit or self.loaded).name}, strength {self.strength}"
        short = f"{self.loaded.name.split()[0]}, strength {self.strength}" + (f", {fit.brief}" if fit else "")
        derivation = Derivation(model, VERSION, self.loaded.sha256, short)
        stored = write_restored_nm(output, answer.restored, scan, derivation=derivation)
        if self.uncertainty and answer.deviation:
            _write_deviation(output, answer.deviation, scan, self.uncertainty, derivation)
        own = [str(contradiction) for contradiction in answer.contradictions]
        more = [f"{len(own) - SHOWN} more places like these"] if len(own) > SHOWN else []
        if stored.clipped:
            most = f"{stored.largest:,.0f} counts, the most a file holds"
            more.append(f"pixels clipped at {most}: {stored.clipped:,}")
        return RestoredScan(
            source=path,
            views=scan.views,
            view_rule=scan.provenance.view_rule,
            output=output,
            deviation=deviation_file(output) if self.uncertainty else None,
            fit=str(fit) if fit else None,
            counts=float(scan.counts.sum()),
            expected=float(answer.rapid.counts.sum()) / scan.exposure_of(self.standard_velocity),
            restored=stored.counts,
            strength=self.strength,
            standard_velocity=self.standard_velocity,
            seconds=seconds,
            together_with=acquired.partner(path),
            warnings=(*acquired.warnings[path], *own[:SHOWN], *more),
        )


@dataclass(frozen=True)
class _Answer:
    """A restored scan, or two views restored together, before it is written.

    Attributes:
        rapid: The scan as it was restored: counts that were cut are filled in.
        restored: The restoration.
        deviation: Its standard deviation, where that was asked for.
        contradictions: Places where the restoration contradicts the counts.
        fit: The restorer of this scan, where it was fitted to it.
    """

    rapid: Scan
    restored: Scan
    deviation: Scan | None
    contradictions: Sequence[Contradiction]
    fit: FittedRestorer | None

    def of(self, frames: slice, scan: Scan) -> _Answer:
        """The part of it that belongs to one file."""
        restored, deviation = self.restored, self.deviation
        velocity, spacing = restored.velocity, restored.spacing_mm
        own = replace(scan, counts=restored.counts[frames], velocity=velocity, spacing_mm=spacing, cut=0)
        sd = deviation and replace(own, counts=deviation.counts[frames])
        rapid = replace(scan, counts=self.rapid.counts[frames], cut=0)
        here = [found for found in self.contradictions if found.view in scan.views]
        return _Answer(rapid, own, sd, here, self.fit)


def _fitted(loaded: Loaded, scan: Scan, exposure: float) -> FittedRestorer | None:
    """The restorer fitted to a scan, where that was asked for; no PyTorch otherwise."""
    if "adapted" not in loaded.provenance:
        return None
    from rbs.inference.fits import camera_of
    from rbs.inference.test_time_adaptation import AdaptingRestorer

    assert isinstance(loaded, AdaptingRestorer)
    return loaded.fitted(scan.aligned(), exposure, camera_of(scan))


def _write_deviation(
    restored: Path, deviation: Scan, source: Scan, uncertainty: Uncertainty, of: Derivation
) -> None:
    """Write the deviation beside the restored file, or neither of the two."""
    derivation = Derivation(
        model=f"{uncertainty.name} of {of.model}",
        short=f"{uncertainty.name.split()[0]} of {of.short}",
        version=VERSION,
        weight_hash=f"{uncertainty.sha256}, of weights sha256 {uncertainty.loaded.sha256}",
    )
    try:
        write_deviation_nm(deviation_file(restored), deviation, source, derivation=derivation)
    except RbsError:
        restored.unlink()
        raise
