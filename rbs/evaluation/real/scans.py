"""Slow real scans, and the faster scans that are thinned from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rbs.degradation.thinning import split
from rbs.errors import RbsError, ScanError, printable
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.censoring import completed
from rbs.scans.dicom.files import dicom_files
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import Scan, View
from rbs.utils.guard import attempt


@dataclass(frozen=True)
class Speed:
    """Speed of a simulated scan.

    Attributes:
        value: Bed velocity, cm/min, or how many times as fast as the slow scan.
        relative: True for the latter.
    """

    value: float
    relative: bool = False

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{self.value:g} times as fast" if self.relative else f"{self.value:g} cm/min"

    def share(self, velocity: float) -> float:
        """Share of the counts of a scan at `velocity` (cm/min) that is left at this speed."""
        return 1 / self.value if self.relative else velocity / self.value


@dataclass(frozen=True)
class RealScan:
    """A slow scan of raw counts.

    Attributes:
        name: Name in tables.
        scan: The scan; its velocity is known.
    """

    name: str
    scan: Scan

    @property
    def velocity(self) -> float:
        """Bed velocity, cm/min."""
        assert self.scan.velocity is not None  # checked in read_scans
        return self.scan.velocity

    @property
    def views(self) -> tuple[View, ...]:
        """Views in the order of aligned arrays: anterior first."""
        return tuple(sorted(self.scan.views))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of counts, views, spacing, velocity and cut: all that decides a result."""
        counts = np.ascontiguousarray(self.scan.aligned(), dtype="<i4")
        facts = [counts.shape, self.views, self.scan.spacing_mm, repr(self.velocity), self.scan.cut or ""]
        return hashlib.sha256(" ".join(map(str, facts)).encode() + counts.tobytes()).hexdigest()

    def speeds(self, speeds: Iterable[Speed]) -> list[Speed]:
        """Those of the speeds that are faster than the scan."""
        return [speed for speed in speeds if speed.share(self.velocity) < 1]

    def pair(self, speed: Speed, draw: int) -> ScanPair:
        """A rapid scan thinned from this one, and all other counts, which are independent of it.

        Counts that an export cut are drawn anew in both, see `rbs.scans.censoring`.

        Args:
            speed: Speed of the rapid scan.
            draw: Seed. It is mixed with the counts and the speed, so that no two scans share their
                random numbers and the order of files does not matter.
        """
        share, cut = speed.share(self.velocity), self.scan.cut
        mixed = hashlib.sha256(f"{self.digest} {share!r} {draw}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(mixed[:16], "big"))
        parts = split(self.scan.aligned(), (share, 1 - share), rng, cut)
        rapid, rest = (completed(part, cut) for part in parts)
        exposure = self.scan.exposure_of()
        target = Target(rest, (1 - share) * exposure, self.scan.spacing_mm, cut=cut)
        return ScanPair(self.name, rapid, share * exposure, target, self.views)


def read_scans(
    paths: Sequence[Path],
    speeds: Sequence[Speed],
    *,
    views: Sequence[str] | None = None,
    energy_window: int | None = None,
    velocity: float | None = None,
) -> tuple[list[RealScan], list[RbsError]]:
    """Read slow scans from files and folders; a file that cannot be used does not stop the others.

    Args:
        paths: DICOM files, and folders of them.
        speeds: Speeds to simulate; a scan as fast as all of them is refused.
        views: Views of the frames of files that do not name them.
        energy_window: Energy window to read, counted from 1, of files with several.
        velocity: Bed velocity, cm/min, of files that do not state it.

    Returns:
        The scans, sorted by name, and the reasons why others were refused.
    """
    # Draws are mixed with them, so that their type must not matter.
    views = tuple(map(View, views)) if views else None
    scans: dict[Path, Scan] = {}
    refused: list[RbsError] = []
    digests: dict[str, Path] = {}
    for path in paths:
        files = attempt(path, dicom_files, path) if path.is_dir() else [path]
        if isinstance(files, RbsError):
            refused.append(files)
            continue
        for file in files:
            if file in scans:
                continue
            try:
                scan = read_nm(file, views=views, energy_window=energy_window, velocity=velocity)
                _refuse_too_fast(file, scan, speeds)
                digest = RealScan("", scan).digest
                if digest in digests:
                    fault = f"it holds the same counts as {digests[digest]}"
                    raise ScanError(fault, file=file, remedy="name each scan once")
            except RbsError as error:
                refused.append(error)
                continue
            scans[file], digests[digest] = scan, file
    names = short_names(list(scans))
    found = [RealScan(name, scan) for name, scan in zip(names, scans.values(), strict=True)]
    return sorted(found, key=lambda scan: scan.name), refused


def short_names(files: Sequence[Path]) -> list[str]:
    """Names of files for tables: the last parts of their paths, as few as tell them apart."""
    for length in (1, 2, 3):
        names = [printable("/".join(file.with_suffix("").parts[-length:])) for file in files]
        if len(set(names)) == len(names):
            return names
    return [printable(str(file)) for file in files]


def _refuse_too_fast(file: Path, scan: Scan, speeds: Sequence[Speed]) -> None:
    """Refuse a scan of unknown velocity, and one at least as fast as every speed."""
    if scan.velocity is None:
        remedy = "state it with --from-velocity CM_PER_MIN"
        raise ScanError("the scan velocity is unknown", file=file, remedy=remedy)
    if not RealScan("", scan).speeds(speeds):
        asked = ", ".join(speed.label for speed in speeds)
        fault = f"it was acquired at {scan.velocity:.1f} cm/min, which is no slower than {asked}"
        raise ScanError(fault, file=file, remedy="ask for a faster one with --velocities or --times")
