"""Encoded values and light: the sRGB transfer function, and what every degradation has in common."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.float32]
"""(3, H, W), gamma-encoded sRGB values 0..1."""
Mask = npt.NDArray[np.bool_]
"""(H, W)."""


class Stage(IntEnum):
    """Where on its way a picture is degraded, in the order light travels."""

    AIR = 1
    LENS = 2
    EXPOSURE = 3
    SENSOR = 4
    HIGHLIGHTS = 5
    SCALING = 6
    COMPRESSION = 7


class Degradation(Protocol):
    """One step: a frozen dataclass of physical parameters whose text says what and how much."""

    stage: ClassVar[Stage]

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame after it, float32 (3, H, W), sRGB 0..1; `rng` decides what is random."""


def to_linear(srgb: npt.NDArray[np.floating]) -> Frame:
    """Light of encoded values 0..1, float32 0..1 of the same shape.

    IEC 61966-2-1: v / 12.92 up to 0.04045, ((v + 0.055) / 1.055)^2.4 above.
    """
    v = np.asarray(srgb, np.float32)
    return np.where(v <= 0.04045, v / np.float32(12.92), ((v + np.float32(0.055)) / np.float32(1.055)) ** 2.4)


def to_srgb(linear: npt.NDArray[np.floating]) -> Frame:
    """Encoded values of light, float32 0..1 of the same shape; light outside 0..1 is clipped.

    IEC 61966-2-1: 12.92 l up to 0.0031308, 1.055 l^(1/2.4) - 0.055 above.
    """
    light = np.clip(np.asarray(linear, np.float32), 0, 1)
    power = 1 + np.float32(1.055) * (light ** np.float32(1 / 2.4) - 1)  # so that 1 stays 1 exactly
    return np.where(light <= 0.0031308, np.float32(12.92) * light, power)


def smooth_field(shape: tuple[int, int], correlation_px: float, rng: np.random.Generator) -> Frame:
    """A stationary Gaussian random field of zero mean and unit variance, float32 (H, W).

    Args:
        shape: Rows and columns; the field goes on periodically beyond them.
        correlation_px: Standard deviation of the Gaussian that smooths white noise, pixels.
        rng: Draws the noise.
    """
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    transfer = np.exp(-2 * (np.pi * correlation_px) ** 2 * (rows**2 + columns**2))
    transfer /= np.sqrt(np.mean(transfer**2))
    half = transfer[:, : shape[1] // 2 + 1]
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * half
    return np.fft.irfft2(spectrum, shape).astype(np.float32)
