"""The scene before the camera: the wall, polyps, an instrument, and the end of sight.

Surfaces are distance fields in mm, found by marching along lines of sight (sphere tracing, Hart,
The Visual Computer 1996;12:527); polyps flow into the wall by a smooth minimum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbs.synthetic.mucosa.wall import ANGLES, Array, Wall

FAR = 150.0
"""Sight ends here, mm: the dark of the lumen."""
_FILLET = 1.2
"""Distance over which a polyp and the wall flow into each other, mm."""


@dataclass(frozen=True)
class Polyp:
    """A sessile or pedunculated polyp.

    Attributes:
        base: Its root in the wall, (3,), mm.
        head: Middle of its head, (3,), mm.
        radii: Of the head along three axes, the last one along the stalk, mm.
        axes: Those axes, rows of (3, 3).
        stalk: Radius of the stalk, mm; 0 for a sessile one.
        lobes: Middle and radius of each of its lobes on those axes in units of the radii, rows of
            (n, 4).
        redness: Of its colour beside the wall's, in units of `Wall.blood`.
    """

    base: Array
    head: Array
    radii: Array
    axes: Array
    stalk: float
    lobes: Array
    redness: float

    def distance(self, points: Array) -> Array:
        """Lower bound on the distance of points (3, N) from its surface, mm; negative inside."""
        middle, length = np.float32(0.5) * (self.head + self.base), _length(self.head - self.base)
        found = _length(points - middle[:, None]) - (length / 2 + 1.3 * self.radii.max())
        near = found < _FILLET  # only there the shape is worth its while
        found[near] = self._shape(points[:, near])
        return found

    def _shape(self, points: Array) -> Array:
        at = self.axes @ (points - self.head[:, None])
        at /= self.radii[:, None]
        least = self.radii.min()
        found = (_length(at - self.lobes[0, :3, None]) - self.lobes[0, 3]) * least
        for lobe in self.lobes[1:]:
            found = _smaller(found, (_length(at - lobe[:3, None]) - lobe[3]) * least, 0.12 * least)
        if self.stalk:
            stalk = _length(_off_rod(points, self.base, self.head)) - np.float32(self.stalk)
            found = _smaller(found, stalk, 1.0)
        return found.astype(np.float32)

    def unrolled(self, points: Array) -> Array:
        """Points (3, N) of its surface laid flat by their way from the top, mm, (2, N)."""
        at = self.axes @ (points - self.head[:, None])
        across = np.maximum(np.hypot(at[0], at[1]), 1e-6)
        return at[:2] / across * np.arctan2(across, at[2]) * self.radii.mean()


@dataclass(frozen=True)
class Instrument:
    """A catheter with a metal tip.

    Attributes:
        start: Its visible begin, (3,), mm.
        end: Its tip, (3,), mm.
        radius: mm.
        metal: Length of the metal at its tip, mm.
    """

    start: Array
    end: Array
    radius: float
    metal: float

    def distance(self, points: Array) -> Array:
        """Distance of points (3, N) from its surface, mm; negative inside."""
        return _length(_off_rod(points, self.start, self.end)) - np.float32(self.radius)

    def normals(self, points: Array) -> Array:
        """Unit vectors out of it at points of its surface, (3, N)."""
        return unit(_off_rod(points, self.start, self.end))

    def from_tip(self, points: Array) -> Array:
        """Distance of points (3, N) behind the tip, mm, (N,)."""
        return unit(self.start - self.end) @ (points - self.end[:, None])


@dataclass(frozen=True)
class Scene:
    """All that one video shows."""

    wall: Wall
    polyps: Sequence[Polyp]

    def distance(self, points: Array, *, smooth: bool = False) -> Array:
        """Approximate distance of points (3, N) from tissue, mm, never far too large."""
        found = 0.55 * self.wall.clearance(points, smooth=smooth)
        for polyp in self.polyps:
            found = _smaller(found, polyp.distance(points), _FILLET)
        return found

    def trace(self, origin: Array, ways: Array, instrument: Instrument | None) -> Array:
        """Distance along each ray from `origin` to a surface, mm, float32 (N,); FAR without one.

        Args:
            origin: The camera, (3,), mm.
            ways: Unit vectors, (3, N).
            instrument: Another obstacle; None without one.
        """
        met = np.full(ways.shape[1], FAR, np.float32)
        active = np.arange(ways.shape[1])
        far = np.full(active.size, 0.5, np.float32)
        for _ in range(70):
            points = origin[:, None] + far * ways[:, active]
            free = self.distance(points)
            if instrument is not None:
                free = np.minimum(free, instrument.distance(points))
            near = np.abs(free) < 0.002 * far  # a step too far is taken back
            met[active[near]] = far[near]
            going = ~near & (far < FAR)
            if not going.any():
                break
            active, far = active[going], (far + free)[going]
        else:
            met[active] = far  # grazing a fold
        return met

    def normals(self, points: Array) -> Array:
        """Unit vectors out of the tissue at points of its surface, (3, N)."""
        corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
        slopes = sum(
            corner[:, None] * self.distance(points + 0.3 * corner[:, None], smooth=True) for corner in corners
        )
        return unit(np.asarray(slopes, np.float32))

    def owner(self, points: Array) -> npt.NDArray[np.int8]:
        """Number of the polyp at points (3, N), from 1; 0 for the wall, int8 (N,)."""
        nearest, owner = 0.55 * self.wall.clearance(points, smooth=True), np.zeros(points.shape[1], np.int8)
        for number, polyp in enumerate(self.polyps, start=1):
            distance = polyp.distance(points)
            owner[distance < nearest] = number
            nearest = np.minimum(nearest, distance)
        return owner


def make_polyp(wall: Wall, z: float, angle: float, rng: np.random.Generator) -> Polyp:
    """A polyp on the wall at z and an angle about the axis; two of three are sessile."""
    outwards = np.array([math.cos(angle), math.sin(angle), 0], np.float32)
    row, column = int(angle / (2 * math.pi) * ANGLES) % ANGLES, int(z / wall.pitch)
    base = wall.axis(z) + outwards * wall.radius[row, column]
    size = float(np.exp(rng.uniform(math.log(2), math.log(8))))
    into = unit(-outwards + np.array([*rng.normal(0, 0.25, 2), rng.normal(0, 0.3)], np.float32))
    if rng.random() < 0.65:
        radii = size * np.array([rng.uniform(0.9, 1.3), 1, rng.uniform(0.5, 0.9)])
        stalk, head = 0.0, base + into * radii[2] * rng.uniform(0.2, 0.6)
    else:
        radii = size * np.array([rng.uniform(0.9, 1.1), 1, rng.uniform(0.8, 1.2)])
        stalk, head = size * rng.uniform(0.25, 0.45), base + into * size * rng.uniform(1.4, 2.4)
    across = unit(np.cross(into, rng.standard_normal(3)).astype(np.float32))
    axes = np.stack([across, np.cross(into, across), into]).astype(np.float32)
    return Polyp(
        base=base.astype(np.float32),
        head=head.astype(np.float32),
        radii=radii.astype(np.float32),
        axes=axes,
        stalk=stalk,
        lobes=_lobes(rng),
        redness=rng.uniform(-0.25, 0.6),
    )


def _lobes(rng: np.random.Generator) -> Array:
    """One, or a cluster."""
    if rng.random() < 0.5:
        return np.array([[0, 0, 0, 1]], np.float32)
    middles = rng.standard_normal((int(rng.integers(3, 8)), 3))
    middles *= rng.uniform(0.35, 0.65, (len(middles), 1)) / np.linalg.norm(middles, axis=1, keepdims=True)
    return np.c_[middles, rng.uniform(0.4, 0.65, len(middles))].astype(np.float32)


def _off_rod(points: Array, start: Array, end: Array) -> Array:
    """From the nearest point between start and end to points, (3, N)."""
    way = end - start
    off = points - start[:, None]
    return off - (way @ off / (way @ way)).clip(0, 1) * way[:, None]


def _smaller(one: Array, other: Array, width: float) -> Array:
    """The smaller of two distances, with a fillet of some mm where they meet."""
    overlap = np.maximum(width - np.abs(one - other), 0) / width
    return np.minimum(one, other) - overlap**2 * np.float32(width / 4)


def unit(vectors: Array) -> Array:
    """Vectors (3, ...) of length 1."""
    return vectors / _length(vectors)


def _length(vectors: Array) -> Array:
    return np.sqrt((vectors * vectors).sum(0))
