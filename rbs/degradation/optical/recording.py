"""Encoded values in a video processor and a recorder: fewer pixels, less colour, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from rbs.degradation.optical.recipe import Stage
from rbs.endoscopy.colour import Frame

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Of red, green and blue, ITU-R BT.601, as JPEG (JFIF) has it."""


@dataclass(frozen=True)
class Downsampling:
    """Half the resolution: means of 2 x 2 pixels, enlarged by bicubic interpolation."""

    stage: ClassVar[Stage] = Stage.SCALING

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame at half its resolution and its own size; nothing is random."""
        return enlarge(halve(frame), frame.shape[1:])

    def __str__(self) -> str:
        return "half the resolution"


@dataclass(frozen=True)
class ChromaLoss:
    """Colour differences at a lower resolution than luma, as analogue video and 4:2:0 leave them.

    Cb and Cr (BT.601) become means of squares and are interpolated again; luma stays,
    except where a colour leaves the gamut of RGB.

    Attributes:
        factor: Edge of the squares, pixels.
    """

    factor: int
    stage: ClassVar[Stage] = Stage.COMPRESSION

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame with less colour resolution; nothing is random."""
        luma = np.tensordot(_LUMA, frame, 1)
        differences = frame[[2, 0]] - luma  # Cb and Cr without their scale, which means keep
        blue, red = luma + _enlarged(_means(differences, self.factor), frame.shape[1:], self.factor)
        green = (luma - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
        return np.stack([red, green, blue]).clip(0, 1).astype(np.float32)

    def __str__(self) -> str:
        return f"colour at 1/{self.factor} of the resolution"


@dataclass(frozen=True)
class Jpeg:
    """JPEG by Pillow, there and back.

    Attributes:
        quality: 1 to 95, on libjpeg's scale.
        subsampling: Of the colour: 4:2:0 halves its resolution both ways, 4:4:4 keeps it.
    """

    quality: int
    subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0"
    stage: ClassVar[Stage] = Stage.COMPRESSION

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame after the codec; nothing is random."""
        from PIL import Image

        file = io.BytesIO()
        pixels = np.round(frame.transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality, subsampling=self.subsampling)
        with Image.open(file) as decoded:
            return np.asarray(decoded, np.float32).transpose(2, 0, 1) / np.float32(255)

    def __str__(self) -> str:
        return f"JPEG {self.quality} ({self.subsampling})"


def halve(frame: Frame) -> Frame:
    """Means of 2 x 2 pixels, (3, ceil(H / 2), ceil(W / 2)); an odd last line is repeated."""
    return _means(frame, 2)


def enlarge(frame: Frame, shape: tuple[int, ...]) -> Frame:
    """A halved frame at its former `shape` (H, W), by bicubic interpolation (Keys, a = -1/2)."""
    return _enlarged(frame, shape, 2).clip(0, 1)


def _means(planes: Frame, factor: int) -> Frame:
    more = [(0, -size % factor) for size in planes.shape[1:]]
    padded = np.pad(planes, [(0, 0), *more], mode="edge")
    count, rows, columns = padded.shape
    squares = padded.reshape(count, rows // factor, factor, columns // factor, factor)
    return squares.mean((2, 4)).astype(np.float32)


def _enlarged(planes: Frame, shape: tuple[int, ...], factor: int) -> Frame:
    from PIL import Image

    def one(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        size = (plane.shape[1] * factor, plane.shape[0] * factor)
        return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))

    return np.stack([one(plane)[: shape[0], : shape[1]] for plane in planes])
