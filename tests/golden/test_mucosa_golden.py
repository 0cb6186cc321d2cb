"""Drawn mucosa and degradations of a fixed seed keep their numbers: data sets rest on them.

For an intended change of drawn pictures raise `rbs.data.mucosa.FORMAT`, and take over the
numbers the failing test prints. They are statistics, no checksum, because the last digits of a
filter differ between versions of NumPy and SciPy.
"""

from __future__ import annotations

import numpy as np
import pytest

from rbs.degradation.optical import Optical, Preset
from rbs.synthetic.mucosa.video import Video

DRAWN: dict[int, dict[str, float]] = {
    7: {
        "blue": 0.34354,
        "green": 0.40278,
        "instrument": 0.0,
        "polyp": 0.18609,
        "red": 0.42995,
        "sharpness": 0.04357,
        "valid": 0.67491,
    },
    8: {
        "blue": 0.30088,
        "green": 0.41806,
        "instrument": 0.04492,
        "polyp": 0.02333,
        "red": 0.55262,
        "sharpness": 0.04649,
        "valid": 0.77528,
    },
}
HARM: dict[Preset, dict[str, float]] = {
    "deblur": {"error": 0.02241, "mean": 0.51666, "steps": 3.0},
    "denoise": {"error": 0.03941, "mean": 0.50998, "steps": 2.0},
    "low-light": {"error": 0.17677, "mean": 0.3512, "steps": 2.0},
    "mixed": {"error": 0.02479, "mean": 0.51607, "steps": 3.0},
    "x2": {"error": 0.00991, "mean": 0.51244, "steps": 1.0},
}


def drawn(number: int) -> dict[str, float]:
    picture = Video(1, number, 96).draw(1)
    red, green, blue = map(float, picture.frame.mean((1, 2), dtype=float))
    sharpness = float(np.abs(np.diff(picture.frame, axis=2)).mean(dtype=float))
    return {
        "red": red,
        "green": green,
        "blue": blue,
        "sharpness": sharpness,
        "polyp": float(picture.polyp.mean()),
        "instrument": float(picture.instrument.mean()),
        "valid": float(picture.field_of_view.mean()),
    }


def harm(preset: Preset) -> dict[str, float]:
    y, x = np.mgrid[:64, :80] / 9
    planes = np.stack([np.sin(x + y), np.sin(2 * x - y), np.where(x > y, 0.5, -0.5)])
    rng = np.random.default_rng((1, 2, 3))
    recipe = Optical(preset).draw(rng)
    seen = recipe((0.5 + 0.3 * planes).astype(np.float32), rng)
    error = float(np.sqrt(np.mean((seen - 0.5 - 0.3 * planes) ** 2)))
    return {"steps": float(len(recipe.steps)), "mean": float(seen.mean(dtype=float)), "error": error}


@pytest.mark.parametrize("number", DRAWN)
def test_a_drawn_frame_is_the_one_it_was(number: int) -> None:
    assert drawn(number) == pytest.approx(DRAWN[number], rel=5e-3, abs=5e-4)


@pytest.mark.parametrize("preset", HARM)
def test_a_degraded_frame_is_the_one_it_was(preset: Preset) -> None:
    assert harm(preset) == pytest.approx(HARM[preset], rel=2e-3)
