"""A degraded frame and what restorations of it are judged by."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rbs.endoscopy.degrade import Preset
    from rbs.endoscopy.manifest import FrameRow
    from rbs.weights import LoadedRestorer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FrameTarget:
    """What an estimate of a frame is judged by.

    Attributes:
        clean: The frame as it should be, float32 (3, H, W), sRGB 0..1.
        valid: False on black borders, insets and burned-in text, bool (H, W).
        lesion: Where a lesion is, bool (H, W); None where nobody has marked any.
    """

    clean: Array
    valid: Array
    lesion: Array | None = None

    @cached_property
    def mask(self) -> Array:
        """The valid pixels of every colour, bool (3, H, W)."""
        return np.broadcast_to(self.valid, self.clean.shape)


@dataclass(frozen=True)
class FramePair:
    """A degraded frame and its target; to restorers and statistics what a `classical.Pair` is for scans.

    Attributes:
        patient: The video or patient, by which statistics go.
        degraded: float32 (3, H, W), sRGB 0..1.
        target: What restorations are judged by.
        degradation: What was done to it, in words; empty for frames that were acquired so.
    """

    patient: str
    degraded: Array
    target: FrameTarget
    degradation: str = ""

    @property
    def seen(self) -> tuple[Array, float]:
        """What restorers are given: the frame, and the exposure of 1 that frames have."""
        return self.degraded, 1.0

    def restored_by(self, loaded: LoadedRestorer) -> Array:
        """What a restorer makes of it, (3, H, W)."""
        return loaded.restore_frame(self.degraded)

    def on_target(self, estimate: Array) -> Array:
        """An estimate in the range of colours; outside the valid area, the clean frame."""
        return np.where(self.target.valid, np.clip(estimate, 0, 1), self.target.clean).astype(np.float32)

    def error(self, estimate: Array) -> float:
        """What peers are tuned by: minus the PSNR of an estimate, dB."""
        from rbs.evaluation.frames.metrics import psnr

        return -psnr(self.on_target(estimate), self.target)


@dataclass(frozen=True)
class Source:
    """How rows of a manifest become pairs.

    Attributes:
        preset: What frames are degraded by that have no low-quality picture; None where all have one.
        longest_side: Longer frames are reduced to this before they are degraded, pixels; None leaves them.
    """

    preset: Preset | None
    longest_side: int | None

    def describe(self) -> dict[str, Any]:
        """For the settings file."""
        return {"preset": self.preset, "longest_side": self.longest_side}

    def target(self, row: FrameRow) -> FrameTarget:
        """Read what restorations of a row are judged by.

        Raises:
            RbsError: A file of the row cannot be used.
        """
        from rbs.endoscopy.frames import read_frame, read_mask, reduced
        from rbs.endoscopy.valid import valid_area

        clean = reduced(read_frame(row.frame), self.longest_side)
        lesion = None
        if row.mask:
            lesion = reduced(read_mask(row.mask)[None].astype(np.float32), self.longest_side)[0] > 0.5
        return FrameTarget(clean, valid_area(clean), lesion)

    def pair(self, row: FrameRow) -> FramePair:
        """Read a row, and degrade it, always the same way, where it has no low-quality picture.

        Raises:
            RbsError: A file of the row cannot be used.
        """
        from rbs.endoscopy.degrade import degraded, enlarge
        from rbs.endoscopy.frames import read_frame, reduced

        target = self.target(row)
        if row.low:
            low = reduced(read_frame(row.low), self.longest_side)
            low = low if low.shape == target.clean.shape else enlarge(low, target.clean.shape[1:])
            return FramePair(row.group, low, target)
        assert self.preset is not None
        low, recipe = degraded(
            target.clean, self.preset, (0, zlib.crc32(row.frame.name.encode())), target.valid
        )
        return FramePair(row.group, low, target, str(recipe))
