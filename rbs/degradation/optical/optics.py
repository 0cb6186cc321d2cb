"""Light before the sensor: smoke in the lumen, a lens out of focus, a moving tip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2

from rbs.degradation.optical.recipe import Stage
from rbs.endoscopy.colour import Frame, to_linear, to_srgb


@dataclass(frozen=True)
class Haze:
    """Smoke, steam or a fogged lens: atmospheric scattering in linear light, I = J t + A (1 - t).

    Transmission is t = exp(-d) with an optical depth d of log-normal smooth patches. Koschmieder
    1924; for pictures Narasimhan & Nayar, IJCV 2002;48:233.

    Attributes:
        depth: Mean optical depth over the frame; 0.7 halves the contrast.
        patchiness: Standard deviation of the logarithm of the optical depth; 0 is even haze.
        patch: Correlation length of the patches, share of the frame's longer side.
        airlight: Light A scattered by the smoke itself, linear RGB 0..1.
    """

    depth: float
    patchiness: float = 0.5
    patch: float = 0.15
    airlight: tuple[float, float, float] = (0.45, 0.45, 0.47)
    stage: ClassVar[Stage] = Stage.AIR

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame seen through it."""
        shape = frame.shape[1:]
        patches = np.exp(self.patchiness * smooth_field(shape, self.patch * max(shape), rng))
        transmission = np.exp(-self.depth * patches / patches.mean())
        airlight = np.array(self.airlight, np.float32)[:, None, None]
        return to_srgb(to_linear(frame) * transmission + airlight * (1 - transmission))

    def __str__(self) -> str:
        return f"haze of optical depth {self.depth:.2f}, patchiness {self.patchiness:.2f}"


@dataclass(frozen=True)
class Defocus:
    """A lens out of focus by geometric optics: every point becomes a disc, in linear light.

    Its transfer function is 2 J1(2 pi r f) / (2 pi r f), zero first at f = 0.610 / r.

    Attributes:
        radius_px: Radius r of the disc, pixels of the frame.
    """

    radius_px: float
    stage: ClassVar[Stage] = Stage.LENS

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame out of focus; nothing is random."""
        return _convolved(frame, disc(self.radius_px))

    def __str__(self) -> str:
        return f"defocus of {self.radius_px:.1f} px radius"


@dataclass(frozen=True)
class Motion:
    """A tip in even motion while the shutter is open: every point becomes a line of light.

    Attributes:
        length_px: Length of the line, pixels of the frame.
        angle_deg: Direction, degrees from the columns' axis towards the rows' (clockwise as seen).
    """

    length_px: float
    angle_deg: float
    stage: ClassVar[Stage] = Stage.LENS

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame smeared; nothing is random."""
        return _convolved(frame, line(self.length_px, self.angle_deg))

    def __str__(self) -> str:
        return f"motion of {self.length_px:.1f} px at {self.angle_deg:.0f} degrees"


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


def disc(radius_px: float) -> Frame:
    """Share of each pixel that a centred disc covers, summing to 1, float32 (2n + 1, 2n + 1)."""
    parts = 16  # subpixels along a pixel's edge
    n = max(0, math.ceil(radius_px - 0.5))
    at = (np.arange((2 * n + 1) * parts) + 0.5) / parts - (n + 0.5)
    inside = np.hypot(at[:, None], at[None]) <= radius_px
    cover = inside.reshape(2 * n + 1, parts, 2 * n + 1, parts).sum((1, 3))
    return (cover / cover.sum()).astype(np.float32)


def line(length_px: float, angle_deg: float) -> Frame:
    """A centred line laid on the pixels bilinearly, summing to 1, float32 (2n + 1, 2n + 1)."""
    n = math.ceil(length_px / 2) + 1
    steps = max(1, math.ceil(16 * length_px))
    along = ((np.arange(steps) + 0.5) / steps - 0.5) * length_px
    angle = math.radians(angle_deg)
    kernel = np.zeros((2 * n + 1, 2 * n + 1))
    row, column = n + along * math.sin(angle), n + along * math.cos(angle)
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    down, right = row - top, column - left
    for r, c, weight in (
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ):
        np.add.at(kernel, (r, c), weight)
    return (kernel / steps).astype(np.float32)


def _convolved(frame: Frame, kernel: Frame) -> Frame:
    """Light convolved with a point's image; beyond the edges the frame is mirrored."""
    n = kernel.shape[0] // 2
    light = np.pad(to_linear(frame), ((0, 0), (n, n), (n, n)), mode="symmetric")
    rows, columns = light.shape[1:]
    shape = next_fast_len(rows, real=True), next_fast_len(columns, real=True)
    # What wraps around falls into the margin.
    seen = irfft2(rfft2(light, shape) * rfft2(kernel, shape), shape)
    return to_srgb(seen[:, 2 * n : rows, 2 * n : columns])
