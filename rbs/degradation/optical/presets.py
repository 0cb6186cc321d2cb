"""Presets: which degradations a frame gets, and the ranges their levels are drawn from.

Blurs are in pixels of frames whose longer side is about 320, as the data module reads them. The
sensor is that of a chip on the tip, and the gain that of a camera which keeps up the brightness by
itself: what light is missing it makes up for in part (low-light) or whole (denoise), and amplifies
the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from rbs.degradation.optical.camera import Illumination, SensorNoise, Specular
from rbs.degradation.optical.optics import Defocus, Haze, Motion
from rbs.degradation.optical.recipe import Recipe
from rbs.degradation.optical.recording import ChromaLoss, Halved, Jpeg
from rbs.endoscopy.colour import Degradation, Frame, Mask
from rbs.errors import RbsError

Preset = Literal["denoise", "deblur", "low-light", "x2", "mixed"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


def degraded(
    frame: Frame, preset: Preset, seed: Sequence[int], valid: Mask | None = None
) -> tuple[Frame, Recipe]:
    """A frame degraded by a preset: the same seed makes the same picture.

    Args:
        frame: Clean frame, float32 (3, H, W), sRGB 0..1.
        preset: What to draw.
        seed: Numbers of 0 or more that decide everything random, such as (seed, case, deal).
        valid: Where the frame shows what the camera saw, (H, W); see `Recipe`.

    Returns:
        The degraded frame, float32 (3, H, W), multiples of 1/255; and what was done to it.

    Raises:
        RbsError: There is no such preset.
    """
    rng = np.random.default_rng(np.random.SeedSequence(list(seed)))
    recipe = draw(preset, rng)
    return recipe(frame, rng, valid), recipe


def draw(preset: Preset, rng: np.random.Generator) -> Recipe:
    """Levels for one frame.

    Raises:
        RbsError: There is no such preset.
    """
    if preset not in PRESETS:
        raise RbsError(f"there is no preset '{preset}'", remedy=f"name one of {', '.join(PRESETS)}")
    if preset == "denoise":
        return Recipe(_noise(rng, rng.uniform(1.5, 6)))
    if preset == "deblur":
        return Recipe((*_blurs(rng), *_noise(rng, rng.uniform(0, 2))))
    if preset == "low-light":
        return Recipe(_low_light(rng))
    if preset == "x2":
        return Recipe((Halved(),))
    return _mixed(rng)


def _noise(rng: np.random.Generator, stops: float) -> tuple[Degradation, ...]:
    """Light that is short by some stops, and a camera that makes up for all of them."""
    return Illumination(stops), _sensor(rng, stops)


def _sensor(rng: np.random.Generator, gain_stops: float) -> SensorNoise:
    return SensorNoise(rng.uniform(4000, 10000), rng.uniform(1, 3), gain_stops)


def _blurs(rng: np.random.Generator) -> tuple[Degradation, ...]:
    """Out of focus, moving, or now and then both."""
    defocus = Defocus(rng.uniform(1, 4))
    motion = Motion(rng.uniform(4, 16), rng.uniform(0, 180))
    kind = rng.random()
    if kind < 0.2:
        return Defocus(defocus.radius_px / 2), Motion(motion.length_px / 2, motion.angle_deg)
    return (defocus,) if kind < 0.6 else (motion,)


def _low_light(rng: np.random.Generator) -> tuple[Degradation, ...]:
    """Light that is short and uneven; the gain leaves the picture darker than it should be."""
    stops, dark = rng.uniform(2.5, 5.5), rng.uniform(0.5, 2.5)
    centre = (rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8))
    return Illumination(stops, rng.uniform(0.7, 1.8), centre), _sensor(rng, stops - dark)


def _mixed(rng: np.random.Generator) -> Recipe:
    """Several at once, each milder than alone; at least one."""
    steps: list[Degradation] = []
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
            steps.append(Halved())
        if rng.random() < 0.15:
            steps.append(ChromaLoss(int(rng.integers(2, 5))))
        if rng.random() < 0.5:
            steps.append(Jpeg(int(rng.integers(15, 76)), "4:2:0" if rng.random() < 0.7 else "4:4:4"))
    return Recipe(tuple(steps))
