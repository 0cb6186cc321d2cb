"""Light on the sensor: exposure, vignetting, shot and read noise, saturated highlights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rbs.degradation.optical.optics import smooth_field
from rbs.degradation.optical.recipe import Stage
from rbs.endoscopy.colour import Frame, to_linear, to_srgb


@dataclass(frozen=True)
class Illumination:
    """Less light, or more, and unevenly: light is multiplied by 2^-stops / (1 + (r / reach)^2)^2.

    The second factor is the law of the fourth power of the cosine, with r / reach the tangent of
    the angle. Light above full scale saturates.

    Attributes:
        stops: Exposure that is missing at the brightest place; negative for too much.
        reach: Distance r at which a quarter of the light is left, in halves of the frame's
            diagonal; infinite for even light.
        centre: Of the light: row and column as shares of height and width.
    """

    stops: float
    reach: float = math.inf
    centre: tuple[float, float] = (0.5, 0.5)
    stage: ClassVar[Stage] = Stage.EXPOSURE

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame under that light; nothing is random."""
        rows, columns = frame.shape[1:]
        down = (np.arange(rows, dtype=np.float32) + 0.5) - self.centre[0] * rows
        right = (np.arange(columns, dtype=np.float32) + 0.5) - self.centre[1] * columns
        unit = self.reach * math.hypot(rows, columns) / 2
        tangent_squared = (down[:, None] / unit) ** 2 + (right[None] / unit) ** 2
        return to_srgb(to_linear(frame) * np.float32(2.0**-self.stops) / (1 + tangent_squared) ** 2)

    def __str__(self) -> str:
        light = f"light {-self.stops:+.1f} stops"
        return light if math.isinf(self.reach) else f"{light}, a quarter of it {self.reach:.2f} off centre"


@dataclass(frozen=True)
class SensorNoise:
    """Shot and read noise of a sensor in linear light, and the gain that follows it.

    With l the light 0..1, N electrons of full well, r of read noise and g = 2^gain_stops,
    y = g (Poisson(N l) + Normal(0, r^2)) / N, so that mean(y) = g l and var(y) = g^2 (l / N + (r /
    N)^2) until y is clipped to 0..1. Noise is white and independent between colours: a frame is
    normally reduced severalfold when it is read, which leaves little of what demosaicing
    correlates.

    Attributes:
        full_well_e: Electrons at full scale at gain 0, for a pixel of the frame.
        read_e: Standard deviation of the read noise, electrons.
        gain_stops: Gain after both.
    """

    full_well_e: float
    read_e: float
    gain_stops: float = 0.0
    stage: ClassVar[Stage] = Stage.SENSOR

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame as the sensor delivers it."""
        electrons = rng.poisson(to_linear(frame) * self.full_well_e).astype(np.float32)
        electrons += np.float32(self.read_e) * rng.standard_normal(frame.shape, np.float32)
        return to_srgb(electrons * np.float32(2.0**self.gain_stops / self.full_well_e))

    def __str__(self) -> str:
        return (
            f"sensor of {self.full_well_e:.0f} e full well, {self.read_e:.1f} e read noise,"
            f" gain {self.gain_stops:+.1f} stops"
        )


@dataclass(frozen=True)
class Specular:
    """Reflections of the lamp on wet mucosa: white Gaussian lobes, clipped at full scale.

    They sit where the frame is bright, with a probability that grows as the square of the light,
    since what faces the lamp is bright. On black a lobe of standard deviation s and peak P
    saturates 2 pi s^2 ln P pixels.

    Attributes:
        number: Of lobes.
        sigma_px: Standard deviation of a lobe, pixels; each is 0.5 to 1.5 times that, and 1 to 3
            times as long as wide in a random direction.
        peak: Light at the middle of a lobe, times full scale.
        wrinkles: Standard deviation of the logarithm of that light, as the film of mucus is never
            smooth; 0 for whole ellipses, which are those of the formula.
    """

    number: int
    sigma_px: float
    peak: float
    wrinkles: float = 1.0
    stage: ClassVar[Stage] = Stage.HIGHLIGHTS

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """The frame with its lobes."""
        light = to_linear(frame)
        grid = np.indices(frame.shape[1:], np.float32)
        film = self.wrinkles * smooth_field(light.shape[1:], 0.5 * self.sigma_px, rng)
        chance = np.cumsum((light.mean(0, dtype=np.float64) ** 2 + 1e-9).ravel())
        places = np.searchsorted(chance, rng.uniform(0, chance[-1], self.number))
        for place in places:
            sigma = self.sigma_px * rng.uniform(0.5, 1.5)
            stretch, angle = math.sqrt(rng.uniform(1, 3)), rng.uniform(0, math.pi)
            row, column = divmod(int(place), frame.shape[2])
            far = math.ceil(sigma * stretch * math.sqrt(2 * math.log(1e3 * self.peak)))  # 0.001 is left
            window = np.s_[max(0, row - far) : row + far + 1, max(0, column - far) : column + far + 1]
            y, x = grid[0][window] - row, grid[1][window] - column
            u = x * math.cos(angle) + y * math.sin(angle)
            v = y * math.cos(angle) - x * math.sin(angle)
            lobe = np.exp(film[window] - ((u / stretch) ** 2 + (v * stretch) ** 2) / (2 * sigma**2))
            light[(slice(None), *window)] += np.float32(self.peak) * lobe
        return to_srgb(light)

    def __str__(self) -> str:
        return f"{self.number} highlights of {self.sigma_px:.1f} px, {self.peak:.1f} x full scale"
