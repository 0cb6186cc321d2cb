"""Pairs of a degraded and a clean frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rbs.data.endoscopy import PIXEL, LoadedFrame, load_frame
from rbs.degradation.optical import Optical, Preset
from rbs.endoscopy.colour import from_8_bits
from rbs.evaluation.endoscopy.metrics import FrameTarget, psnr
from rbs.evaluation.pairs import Pair
from rbs.scans.scan import Array, Spacing

if TYPE_CHECKING:
    from rbs.data.frames_manifest import FrameRow
    from rbs.restorers.checkpoint import LoadedRestorer

SEED, WHOLE = 0, 2
"""With a frame's place in its split, the seed by which `EndoscopyDataModule` degrades whole frames,
unless it is told otherwise: what is scored here is what trainings are validated and tested by."""


@dataclass(frozen=True)
class FramePair(Pair):
    """A degraded frame and its target.

    Attributes:
        patient: The video or patient, by which statistics go.
        degraded: float32 (3, H, W), sRGB 0..1.
        target: Reference of the metrics.
        degradation: What was done to it, in words; empty for frames that were acquired so.
    """

    patient: str
    degraded: Array
    target: FrameTarget
    degradation: str = ""

    @property
    def network_input(self) -> tuple[Array, float]:
        """The degraded frame, and the exposure of 1 that frames have."""
        return self.degraded, 1.0

    @property
    def spacing_mm(self) -> Spacing:
        """1: pixels of frames have no size."""
        return PIXEL

    def restored(self, loaded: LoadedRestorer) -> Array:
        """Restoration by a restorer, (3, H, W)."""
        return loaded.restore_frame(self.degraded)

    def to_target(self, estimate: Array, *, raw: bool = False) -> Array:
        """Clip an estimate to 0..1 and fill it with the clean frame outside the valid area."""
        return np.where(self.target.valid, np.clip(estimate, 0, 1), self.target.clean).astype(np.float32)

    def error(self, estimate: Array) -> float:
        """Minus the PSNR of an estimate, dB."""
        return -psnr(self.to_target(estimate), self.target)


@dataclass(frozen=True)
class Source:
    """Rule by which rows of a manifest become pairs.

    Attributes:
        preset: What frames are degraded by that have no low-quality picture; None where all have
            one.
        longest_side: Longer frames are reduced to this before they are degraded, pixels; None
            leaves them.
    """

    preset: Preset | None
    longest_side: int | None

    def describe(self) -> dict[str, Any]:
        """For the settings file."""
        return {"preset": self.preset, "longest_side": self.longest_side}

    def target(self, row: FrameRow) -> FrameTarget:
        """Read the target of a row.

        Raises:
            RbsError: A file of the row cannot be used.
        """
        return _target(load_frame(row, self.longest_side))

    def pair(self, row: FrameRow, place: int) -> FramePair:
        """Read a row; degrade it, unless it is, as validation and test of a training do.

        Args:
            row: The row.
            place: Its place in its split.

        Raises:
            RbsError: A file of the row cannot be used.
        """
        loaded = load_frame(row, self.longest_side)
        target = _target(loaded)
        if loaded.low is not None:
            return FramePair(row.group, from_8_bits(loaded.low), target)
        assert self.preset is not None
        rng = np.random.default_rng((SEED, WHOLE, place))
        recipe = Optical(self.preset, target.valid).draw(rng)
        return FramePair(row.group, recipe(target.clean, rng), target, str(recipe))


def _target(loaded: LoadedFrame) -> FrameTarget:
    lesion = None if loaded.labels is None else loaded.labels[0] > 0
    return FrameTarget(from_8_bits(loaded.clean), loaded.valid[0], lesion)
