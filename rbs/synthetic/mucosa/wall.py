"""The wall of a colon or a stomach: a tube about a bent axis, its folds and its vessels.

Lengths are mm. A point of the wall has an angle about the axis and a z along it; maps of the wall
are (ANGLES, columns), float32; the angle wraps around, z ends.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

Array = npt.NDArray[np.float32]
Organ = Literal["colon", "stomach"]

ANGLES = 768
"""Rows of the maps; their columns are as far apart along the wall as the rows are around it."""
_STEP, _TAPER, _FINEST = 1.2, 0.975, 0.12
"""Vessels are drawn in steps of some mm, by each of which they taper, until they are this fine,
mm."""


class Wall:
    """A wall and what lies under it.

    Args:
        organ: The colon has crescent folds across and three taeniae; the stomach is wide, with
            ridges along it, and ends.
        rng: Draws it.

    Attributes:
        pitch: Edge of a map's pixel, mm.
        radius: Distance of the wall from the axis, mm.
        blood: Haemoglobin in the path of light, in arbitrary units about 0: vessels and mottling.
        slopes: Of the film of mucus, along the angle and along z, (2, ANGLES, columns).
        residue: Yellow-brown residue on it, 0..1.
    """

    def __init__(self, organ: Organ, rng: np.random.Generator) -> None:
        mean = rng.uniform(14, 22) if organ == "colon" else rng.uniform(30, 42)
        self.pitch = 2 * math.pi * mean / ANGLES
        shape = (ANGLES, next_fast_len(round(160 / self.pitch), real=True))
        angle = np.arange(ANGLES, dtype=np.float32)[:, None] * np.float32(2 * math.pi / ANGLES)
        z = np.arange(shape[1], dtype=np.float32) * np.float32(self.pitch)
        folded = _haustra if organ == "colon" else _rugae
        radius = folded(angle, z[None], mean, rng) + rng.uniform(0.1, 0.3) * noise(shape, 2.6, rng)
        self.radius = np.maximum(radius, 2).astype(np.float32)
        self._axis = _bends(z, mean, rng)
        self.blood = rng.uniform(0.08, 0.2) * noise(shape, 1.9, rng)
        self.blood += rng.uniform(0.3, 1.1) * _vessels(shape, self.pitch, rng)
        film = gaussian_filter(noise(shape, 2.2, rng), rng.uniform(1.5, 2.5), mode="wrap")
        slopes = np.stack(np.gradient(film))
        self.slopes = slopes * np.float32(rng.uniform(0.12, 0.24) / slopes.std())
        soiled = rng.uniform(0.8, 2.5) if rng.random() < 0.3 else 9.0
        film = 0.3 * noise(shape, 1.5, rng) + noise(shape, 3.2, rng)
        self.residue = np.clip(film - np.float32(soiled), 0, 0.8).astype(np.float32)

    @property
    def length(self) -> float:
        """Length of the tube, mm."""
        return self.radius.shape[1] * self.pitch

    def axis(self, z: float) -> Array:
        """The point of the axis at z, (3,)."""
        column = int(np.clip(z / self.pitch, 0, self.radius.shape[1] - 1))
        return np.array([*self._axis[:, column], z], np.float32)

    def locate(self, points: Array) -> tuple[Array, Array, Array]:
        """Row and column on the maps, not rounded, and distance from the axis of points (3, N)."""
        column = np.clip(points[2] * np.float32(1 / self.pitch), 0, self.radius.shape[1] - 1)
        before = column.astype(np.intp)
        part, after = column - before, np.minimum(before + 1, self.radius.shape[1] - 1)
        x, y = (
            place - (1 - part) * along.take(before) - part * along.take(after)
            for place, along in zip(points, self._axis, strict=False)
        )
        row = np.arctan2(y, x) * np.float32(ANGLES / (2 * math.pi))
        return row, column, np.sqrt(x * x + y * y)

    def clearance(self, points: Array, *, smooth: bool = False) -> Array:
        """Distance of points (3, N) from the wall, mm, measured outwards; negative beyond it.

        Args:
            points: Where.
            smooth: Interpolate the map, as slopes need it, instead of taking its nearest pixel.
        """
        row, column, distance = self.locate(points)
        if smooth:
            return interpolated(self.radius, row, column) - distance
        flat = row.astype(np.intp) % ANGLES * self.radius.shape[1] + column.astype(np.intp)
        return self.radius.ravel().take(flat) - distance


def interpolated(field: Array, row: Array, column: Array) -> Array:
    """Values of a map at rows and columns that are not rounded."""
    return map_coordinates(field, (row, column), order=1, mode="grid-wrap", output=np.float32)


def noise(shape: tuple[int, int], slope: float, rng: np.random.Generator) -> Array:
    """Periodic noise of unit variance whose power falls as frequency^-slope, float32."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    transfer = (frequency ** (-slope / 2)).astype(np.float32)
    field = irfft2(rfft2(rng.standard_normal(shape, np.float32)) * transfer, shape)
    return field / field.std()


def _slow(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Unit-variance noise of a few waves around the wall and along it."""
    coarse = gaussian_filter(rng.standard_normal((48, shape[1] // 16 + 1)), 3.5, mode="wrap")
    wide = zoom(coarse / coarse.std(), (shape[0] / 48, 16), order=1, mode="grid-wrap", grid_mode=True)
    return wide[:, : shape[1]].astype(np.float32)


def _haustra(angle: Array, z: Array, mean: float, rng: np.random.Generator) -> Array:
    """Crescent folds every one or two centimetres, between three taeniae."""
    first, length = rng.uniform(0, 2 * math.pi), float(z[0, -1])
    shape = (angle.size, z.size)
    radius = mean * (1 - 0.06 * np.cos(3 * (angle - first)) + 0.05 * _slow(shape, rng))
    height, at = rng.uniform(0.12, 0.4), rng.uniform(3, 12)
    while at < length:
        middle = first + 2 * math.pi / 3 * int(rng.integers(3)) + rng.normal(0, 0.3)
        off = (angle - middle + math.pi) % (2 * math.pi) - math.pi
        crescent = np.exp(-((np.abs(off) / rng.uniform(1.0, 2.0)) ** 4))
        ridge_at = at + rng.normal(0, 1.5) * np.cos(angle - rng.uniform(0, 2 * math.pi))
        ridge = np.exp(-((np.abs(z - ridge_at) / rng.uniform(2.0, 3.8)) ** 1.8))
        radius -= mean * height * rng.uniform(0.6, 1.2) * crescent * ridge
        at += rng.uniform(7, 20)
    return radius


def _rugae(angle: Array, z: Array, mean: float, rng: np.random.Generator) -> Array:
    """Winding ridges along a sac that narrows to the pylorus."""
    wound = _slow((angle.size, z.size), rng)
    end = z[0, -1] * rng.uniform(0.5, 0.8)
    sac = mean * np.sqrt(np.clip(1 - (z / end) ** 4, 0, 1))
    ridges = (0.5 + 0.5 * np.cos(int(rng.integers(7, 13)) * angle + 1.5 * wound)) ** 2
    return sac - rng.uniform(0.01, 0.1) * mean * ridges * (1 + 0.5 * np.roll(wound, 200, 0))


def _bends(z: Array, mean: float, rng: np.random.Generator) -> Array:
    """X and y of the axis, (2, columns)."""
    turns = rng.uniform(0.3, 1.0, (2, 1)) * mean
    waves, phases = rng.uniform(70, 140, (2, 1)), rng.uniform(0, 2 * math.pi, (2, 1))
    return (turns * np.sin(2 * math.pi * z / waves + phases)).astype(np.float32)


def _vessels(shape: tuple[int, int], pitch: float, rng: np.random.Generator) -> Array:
    """Two layers of trees whose branches thin out, 0..1: wide and blurred ones, and fine ones."""
    deep = gaussian_filter(_trees(shape, pitch, 9, 1.3, rng), 0.4 / pitch, mode=("wrap", "nearest"))
    fine = gaussian_filter(_trees(shape, pitch, 30, 0.5, rng), 0.1 / pitch, mode=("wrap", "nearest"))
    return np.maximum(np.float32(0.8) * deep, fine).astype(np.float32)


def _trees(
    shape: tuple[int, int], pitch: float, trees: int, width_mm: float, rng: np.random.Generator
) -> Array:
    """Random walks from random places that taper and branch, the darker the wider, 0..1."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", shape[::-1])
    pen = ImageDraw.Draw(picture)
    tips = [
        (rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), rng.uniform(0, 2 * math.pi), width_mm)
        for _ in range(trees)
    ]
    while tips:
        x0, y0, angle, width = tips.pop()
        steps = math.ceil(math.log(_FINEST / width) / math.log(_TAPER))
        angles = angle + rng.normal(0, 0.25, steps).cumsum()
        x = x0 + np.r_[0, np.cos(angles).cumsum()] * (_STEP / pitch)
        y = y0 + np.r_[0, np.sin(angles).cumsum()] * (_STEP / pitch)
        widths = width * _TAPER ** np.arange(steps)
        for start in range(0, steps, 8):
            piece = slice(start, start + 9)
            ink, thick = round(255 * min(1, 0.3 + widths[start])), max(1, round(widths[start] / pitch))
            once = y[piece] - shape[0] * (y[start] // shape[0])
            for shift in (-shape[0], 0, shape[0]):  # the wall is round
                if once.min() + shift < shape[0] and once.max() + shift >= 0:
                    points = np.stack([x[piece], once + shift], axis=1)
                    pen.line(points.ravel().tolist(), fill=ink, width=thick)
        for fork in np.flatnonzero(rng.random(steps) < 0.1):
            if 0.7 * widths[fork] > 1.5 * _FINEST:
                turn = rng.choice((-1, 1)) * rng.uniform(0.5, 1.1)
                tips.append((x[fork + 1], y[fork + 1], angles[fork] + turn, 0.7 * widths[fork]))
    return np.asarray(picture, np.float32) / np.float32(255)
