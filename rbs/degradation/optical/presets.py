"""Presets: the degradations of a frame, and the ranges their levels are drawn from.

Blurs are in pixels of frames whose longer side is about 320, as the data module reads them. The
sensor is that of a chip on the tip. The gain is that of a camera that controls its brightness: it
makes up for missing light in part (low-light) or whole (denoise), and amplifies the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from rbs.degradation.optical.camera import Illumination, SensorNoise, Specular
from rbs.degradation.optical.optics import Defocus, Haze, Motion
from rbs.degradation.optical.recipe import Recipe, Step
from rbs.degradation.optical.recording import ChromaLoss, Downsampling, Jpeg
from rbs.endoscopy.colour import Frame, Mask
from rbs.errors import RbsError

Preset = Literal["denoise", "deblur", "low-light", "x2", "mixed"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


@dataclass(frozen=True)
class Optical:
    """A preset as one degradation, which draws its steps and their levels anew for every frame.

    Attributes:
        preset: Kind of the degradations.
        field_of_view: Pixels that show what the camera saw, (H, W); see `Recipe`.

    Raises:
        RbsError: There is no such preset.
    """

    preset: Preset
    field_of_view: Mask | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            fault = f"there is no preset '{self.preset}'"
            raise RbsError(fault, remedy=f"name one of {', '.join(PRESETS)}")

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """Degrade a clean frame, float32 (3, H, W), sRGB 0..1, into multiples of 1/255."""
        return self.draw(rng)(frame, rng)

    def draw(self, rng: np.random.Generator) -> Recipe:
        """Steps and levels for one frame."""
        return Recipe(_STEPS[self.preset](rng), self.field_of_view)


def _denoise(rng: np.random.Generator) -> tuple[Step, ...]:
    return _noise(rng, rng.uniform(1.5, 6))


def _deblur(rng: np.random.Generator) -> tuple[Step, ...]:
    return (*_blurs(rng), *_noise(rng, rng.uniform(0, 2)))


def _x2(rng: np.random.Generator) -> tuple[Step, ...]:
    return (Downsampling(),)


def _noise(rng: np.random.Generator, stops: float) -> tuple[Step, ...]:
    """Light that is short by some stops, and a camera that makes up for all of them."""
    return Illumination(stops), _sensor(rng, stops)


def _sensor(rng: np.random.Generator, gain_stops: float) -> SensorNoise:
    return SensorNoise(rng.uniform(4000, 10000), rng.uniform(1, 3), gain_stops)


def _blurs(rng: np.random.Generator) -> tuple[Step, ...]:
    """Out of focus, moving, or now and then both."""
    defocus = Defocus(rng.uniform(1, 4))
    motion = Motion(rng.uniform(4, 16), rng.uniform(0, 180))
    kind = rng.random()
    if kind < 0.2:
        return Defocus(defocus.radius_px / 2), Motion(motion.length_px / 2, motion.angle_deg)
    return (defocus,) if kind < 0.6 else (motion,)


def _low_light(rng: np.random.Generator) -> tuple[Step, ...]:
    """Light that is short and uneven; the gain leaves the picture darker than it should be."""
    stops, dark = rng.uniform(2.5, 5.5), rng.uniform(0.5, 2.5)
    centre = (rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8))
    return Illumination(stops, rng.uniform(0.7, 1.8), centre), _sensor(rng, stops - dark)


def _mixed(rng: np.random.Generator) -> tuple[Step, ...]:
    """Several at once, each milder than alone; at least one."""
    steps: list[Step] = []
    while not steps:
        if rng.random() < 0.25:
            white = rng.uniform(0.25, 0.6)
            steps.append(Haze(rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.7), airlight=(white, white, white)))
        if rng.random() < 0.35:
            blurred = Defocus(rng.uniform(0.7, 2.5)), Motion(rng.uniform(3, 10), rng.uniform(0, 180))
            steps.append(blurred[rng.integers(2)])
        if rng.random() < 0.6:
            missing, dark = rng.uniform(0, 4), max(0.0, rng.uniform(-1, 1.5))
            steps += [Illumination(missing, rng.uniform(0.8, 3)), _sensor(rng, missing - min(missing, dark))]
        if rng.random() < 0.25:
            steps.append(Specular(int(rng.integers(2, 15)), rng.uniform(1, 3), rng.uniform(1.5, 6)))
        if rng.random() < 0.15:
            steps.append(Downsampling())
        if rng.random() < 0.15:
            steps.append(ChromaLoss(int(rng.integers(2, 5))))
        if rng.random() < 0.5:
            steps.append(Jpeg(int(rng.integers(15, 76)), "4:2:0" if rng.random() < 0.7 else "4:4:4"))
    return tuple(steps)


_STEPS: dict[Preset, Callable[[np.random.Generator], tuple[Step, ...]]] = {
    "denoise": _denoise,
    "deblur": _deblur,
    "low-light": _low_light,
    "x2": _x2,
    "mixed": _mixed,
}
