"""Encoded values and light: the sRGB transfer function."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.float32]
"""(3, H, W), gamma-encoded sRGB values 0..1."""
Mask = npt.NDArray[np.bool_]
"""(H, W)."""


def in_8_bits(frame: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Encoded values, clipped to 0..1, as whole numbers of eight bits."""
    return np.rint(255 * np.clip(frame, 0, 1)).astype(np.uint8)


def from_8_bits(frame: npt.NDArray[np.integer]) -> Frame:
    """Encoded values 0..1 of whole numbers of eight bits."""
    return frame.astype(np.float32) / np.float32(255)


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
