"""Overlay of the video processor: the mask of the field, insets, and text about nobody."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbs.synthetic.mucosa.wall import Array

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlay:
    """A processor's mask and writing, the same on all frames of a video.

    Attributes:
        field: The field of view, bool (size, size).
        picture: Border, insets and text elsewhere, float32 (3, size, size), sRGB 0..1.
    """

    field: Mask
    picture: Array

    def over(self, frame: Array) -> Array:
        """The frame with it laid on."""
        return np.where(self.field, frame, self.picture)


def draw_overlay(size: int, rng: np.random.Generator) -> Overlay:
    """Draw an octagon, a cut circle, or the whole picture; sometimes with insets and text."""
    from PIL import Image, ImageDraw

    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    kind = rng.choice(["octagon", "circle", "whole"], p=[0.6, 0.3, 0.1])
    right = rng.uniform(0, 0.12) if kind != "whole" else 0.0
    if kind == "octagon":
        half, cut = rng.uniform(0.42, 0.5, 2), rng.uniform(0.62, 0.78)
        field = (abs(y) < half[0]) & (abs(x - right) < half[1]) & (abs(y) + abs(x - right) < cut)
    elif kind == "circle":
        field = np.hypot(y, x - right) < rng.uniform(0.45, 0.58)
    else:
        field = np.ones((size, size), bool)
    border = round(float(rng.choice([0, 0, 3, 12, 18])))
    picture = Image.new("RGB", (size, size), (border,) * 3)
    pen = ImageDraw.Draw(picture)
    inset = np.zeros((size, size), bool)
    if kind != "whole" and rng.random() < 0.3:  # a map of the scope's shape
        wide, high = 2 * round(rng.uniform(0.1, 0.14) * size), round(rng.uniform(0.2, 0.3) * size)
        for left, colour in ((0, (45, 180, 140)), (wide // 2, (80, 110, 185))):
            pen.rectangle((left, size - high, left + wide // 2 - 1, size), fill=colour)
        curve = [(wide * (0.3 + 0.1 * math.sin(t / 3)), size - high * (0.15 + 0.06 * t)) for t in range(12)]
        pen.line(curve, fill=(30, 30, 30), width=max(1, size // 160))
        inset[size - high :, :wide] = True
    if kind != "whole" and rng.random() < 0.5:
        lines = [f"ID: {rng.integers(1000, 9999)}", "Sex: Age:", "D.O.B.:"]
        lines += [f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/2020", "Eh:A1 Cm:1", "Comment:"]
        _write(pen, lines, size)
    written = np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255)
    over = (np.abs(written - border / 255).max(0) > 0.1) | inset
    return Overlay(field & ~over, written)


def _write(pen: object, lines: list[str], size: int) -> None:
    """Text down the left side; it may run into the field."""
    from PIL import ImageDraw, ImageFont

    assert isinstance(pen, ImageDraw.ImageDraw)
    height = max(7, size // 36)
    font = ImageFont.load_default(height)
    for number, line in enumerate(lines):
        pen.text((2, 2 + round(1.4 * height * number)), line, fill=(225, 225, 225), font=font)
