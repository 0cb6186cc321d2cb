"""Degradation of frames, learned from clean frames and poor frames of other patients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rbs.degradation.learned import DegradationModel, Terms, read_degradation
from rbs.degradation.optical.recipe import Recipe, Stage
from rbs.endoscopy.colour import Frame, Mask
from rbs.errors import CheckpointError, FrameError
from rbs.scans.scan import Array
from rbs.utils.checkpoint import RETRAIN
from rbs.weights.module_file import ModuleFile

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""Place of a whole frame."""


class FrameDegradation(DegradationModel):
    """From clean frames to poor ones, sRGB values 0..1.

    Attributes:
        longest_side: Pixels to which longer frames were reduced before it was trained on them, and
            are to be before it degrades them: blur and noise depend on it. 0 for frames as they
            are.
    """

    shows = "frames"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("side", torch.tensor(-1.0))
        self.side: Tensor

    @property
    def longest_side(self) -> int:
        """See the class."""
        return int(self.side)

    def prepare(self, moments: Array, longest_side: int) -> None:
        """Take what is measured, not trained.

        Args:
            moments: Mean, standard deviation and noise (`noise_of`) of each poor frame, means over
                the colours, (N, 3).
            longest_side: See the class.
        """
        self.side.fill_(longest_side)

    @abstractmethod
    def losses(self, good: Tensor, poor: Tensor, place: Tensor) -> Terms:
        """Terms of the training loss, their sum "total".

        Args:
            good: Crops of clean frames, sRGB 0..1, (B, 3, H, W).
            poor: Crops of poor frames of other patients, (B, 3, H, W).
            place: Top, left, bottom and right of `good` in parts of their frames, (B, 4).
        """

    @abstractmethod
    def degrade(self, good: Tensor, generator: torch.Generator, field: Tensor) -> Tensor:
        """Degrade a whole frame.

        Args:
            good: The clean frame, sRGB 0..1, (1, 3, H, W).
            generator: Source of randomness.
            field: Pixels that show what the camera saw, bool (H, W); the others hold their nearest
                colours.

        Returns:
            The poor frame, (1, 3, H, W).
        """


@dataclass(frozen=True)
class FrameDegrader(ModuleFile[FrameDegradation]):
    """A degradation of frames from a file: a `rbs.degradation.Degrader`, as `Optical` is.

    Attributes:
        field_of_view: Pixels that show what the camera saw, (H, W), which alone are degraded
            (`rbs.degradation.optical.Recipe`); None for all.
    """

    field_of_view: Mask | None = field(default=None, compare=False, repr=False)

    @property
    def longest_side(self) -> int:
        """See `FrameDegradation`."""
        return self.module.longest_side

    def within(self, field_of_view: Mask | None) -> FrameDegrader:
        """The same for frames of another field of view."""
        return replace(self, field_of_view=field_of_view)

    def __call__(self, image: Frame, rng: np.random.Generator, /) -> Frame:
        """Degrade a clean frame, float32 (3, H, W), sRGB 0..1, into multiples of 1/255.

        Raises:
            FrameError: The image is no frame.
        """
        image = np.asarray(image, np.float32)
        if image.ndim != 3 or len(image) != 3:
            fault = f"{self.name} degrades frames (3, H, W), not {image.shape}"
            raise FrameError(fault, remedy="give the colours first")
        if not ((image >= 0) & (image <= 1)).all():
            fault = f"{self.name} degrades values of 0 to 1, not {image.min():.3g} to {image.max():.3g}"
            raise FrameError(fault, remedy="give sRGB values of a clean frame")
        field = np.ones(image.shape[1:], bool) if self.field_of_view is None else self.field_of_view
        return Recipe((_Learned(self.module, field),), self.field_of_view)(image, rng)


@dataclass(frozen=True)
class _Learned:
    """A model as a step of a recipe."""

    model: FrameDegradation
    field: Mask
    stage: ClassVar[Stage] = Stage.SENSOR

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        with torch.inference_mode():
            good = torch.from_numpy(np.ascontiguousarray(frame))[None]
            found = self.model.degrade(good, generator, torch.from_numpy(self.field))
        return found[0].clamp(0, 1).numpy()


def load_frame_degrader(path: str | Path) -> FrameDegrader:
    """Read a degrader of frames from a file of `rbs.degradation.learned.save_degrader`.

    Raises:
        CheckpointError: As `rbs.degradation.learned.read_degradation`, or it was never trained.
    """
    found = read_degradation(path, FrameDegradation)  # type: ignore[type-abstract]
    if found.module.longest_side < 0:
        raise CheckpointError("it was not trained on frames", file=Path(path), remedy=RETRAIN)
    return FrameDegrader(**vars(found))


def noise_of(frame: Frame, field: Mask) -> float:
    """Standard deviation of the noise by the finest wavelets of a frame, mean over the colours.

    Args:
        frame: Values (3, H, W).
        field: Pixels that show what the camera saw, (H, W); only these count.
    """
    from skimage.restoration import estimate_sigma

    # Coefficients of 0 are left out of the median.
    return float(estimate_sigma(np.where(field, frame, 0), average_sigmas=True, channel_axis=0))


def light_of(srgb: Tensor) -> Tensor:
    """Light of encoded values, differentiable (`rbs.endoscopy.colour.to_linear`)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)


def encoded(light: Tensor) -> Tensor:
    """Encoded values of light, differentiable within 0..1 (`rbs.endoscopy.colour.to_srgb`)."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=0.003) ** (1 / 2.4) - 0.055)
