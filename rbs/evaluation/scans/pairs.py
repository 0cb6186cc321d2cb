"""Pairs of a rapid scan and an independent target."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rbs.data.anatomy import read_anatomy
from rbs.data.loading import load_case
from rbs.data.manifest import Case
from rbs.degradation.thinning import split
from rbs.evaluation.pairs import Pair
from rbs.evaluation.scans.metrics import Target, nc_nmse
from rbs.scans.censoring import completed
from rbs.scans.counts import standard_scale
from rbs.scans.registration import Motion, warp, whole_pixel_shift
from rbs.scans.scan import Array, Spacing

if TYPE_CHECKING:
    from rbs.restorers.checkpoint import LoadedRestorer

SIMULATED_EXPOSURE = 0.5
"""Exposure of the rapid scan drawn from the standard scan where none was acquired."""


@dataclass(frozen=True)
class ScanPair(Pair):
    """A rapid scan and its target.

    Attributes:
        patient: Identifier.
        rapid: Raw counts (V, H, W).
        exposure: p, exposure of the rapid scan relative to the standard scan.
        target: A scan independent of it.
        views: The view of each of the V channels.
        motion: How the patient moved from target to rapid scan; None for not at all.
    """

    patient: str
    rapid: Array
    exposure: float
    target: Target
    views: tuple[str, ...] = ("anterior", "posterior")
    motion: Motion | None = None

    @property
    def network_input(self) -> tuple[Array, float]:
        """The rapid scan at standard scale, float32 (V, H, W), and its exposure."""
        return standard_scale(np.asarray(self.rapid, np.float32), self.exposure), self.exposure

    @property
    def spacing_mm(self) -> Spacing:
        """Row and column spacing, mm."""
        return self.target.spacing_mm

    def restored(self, loaded: LoadedRestorer) -> Array:
        """Restoration by a restorer, standard counts (V, H, W)."""
        return loaded.restore(self.rapid, self.exposure)

    def error(self, estimate: Array) -> float:
        """Noise-corrected squared error of an estimate, relative to P²."""
        return nc_nmse(self.to_target(estimate), self.target)

    def to_target(self, estimate: Array, *, raw: bool = False) -> Array:
        """Warp an estimate to the target; a raw one is shifted by whole pixels. See `Pair`."""
        if self.motion is None:
            return estimate
        if raw:
            return whole_pixel_shift(estimate, self.motion, self.target.spacing_mm)[0]
        return warp(estimate, self.motion, self.target.spacing_mm)


def load_pair(case: Case) -> ScanPair:
    """Read a case as a rapid scan and an independent target, and register the two.

    Without an acquired rapid scan, the counts of the standard scan are split, always the same way,
    into a rapid scan and the disjoint remainder that is its target. Counts that an export cut are
    drawn anew in both.

    Raises:
        RbsError: A file of the case cannot be used.
    """
    loaded = load_case(case, register=True)
    counts, target_exposure = loaded.standard, 1.0
    rapid, exposure = loaded.rapid, loaded.exposure
    if rapid is None or exposure is None:
        exposure, target_exposure = SIMULATED_EXPOSURE, 1 - SIMULATED_EXPOSURE
        rng = np.random.default_rng(zlib.crc32(case.patient.encode()))
        parts = split(counts, (exposure, target_exposure), rng, loaded.cut)
        rapid, counts = (completed(part, loaded.cut) for part in parts)
    anatomy = read_anatomy(case.truth)
    truth = loaded.expectation, loaded.labels, anatomy
    target = Target(counts, target_exposure, loaded.spacing_mm, *truth, loaded.cut)
    views = tuple(str(view) for view in loaded.views)
    return ScanPair(case.patient, rapid, exposure, target, views, loaded.motion)
