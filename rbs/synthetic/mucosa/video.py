"""A video: one wall, a camera that moves along it, and the recording of the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbs.degradation.optical import Defocus, Illumination, Jpeg, Recipe, SensorNoise
from rbs.endoscopy.colour import Frame, to_linear, to_srgb
from rbs.synthetic.mucosa.camera import Channel, Path, Pose, rays
from rbs.synthetic.mucosa.overlay import draw_overlay
from rbs.synthetic.mucosa.scene import FAR, Instrument, Scene, make_polyp, unit
from rbs.synthetic.mucosa.shade import Surface, exposed, mucosa_albedo, radiance
from rbs.synthetic.mucosa.wall import ANGLES, Array, Organ, Wall, interpolated

Mask = npt.NDArray[np.bool_]

_MUCOSA = ((0.96, 0.67, 0.51), (0.96, 0.60, 0.46), (0.95, 0.69, 0.43), (0.91, 0.66, 0.54))
"""Encoded colours of mucosa without the blood of its vessels: pale, red, yellow, grey."""
_RESIDUE = np.array([0.72, 0.56, 0.18], np.float32)
_SHEATHS = ((0.65, 0.65, 0.62), (0.30, 0.42, 0.60), (0.10, 0.10, 0.11))
"""Encoded colours of instruments: white, blue, black."""


@dataclass(frozen=True)
class Picture:
    """A drawn frame and its truth.

    Attributes:
        frame: float32 (3, size, size), sRGB 0..1, multiples of 1/255.
        polyp: Pixels of polyps, (size, size).
        instrument: Pixels of an instrument.
        field_of_view: Pixels of the camera's picture: no border, inset or text.
    """

    frame: Frame
    polyp: Mask
    instrument: Mask
    field_of_view: Mask


class Video:
    """Frames of one examination: the same wall, camera and processor.

    Args:
        seed: Of the collection.
        number: Of the video; the two decide everything.
        size: Height and width of a frame, pixels.

    Attributes:
        scene: The wall and its polyps.
    """

    def __init__(self, seed: int, number: int, size: int) -> None:
        self._seeds = (seed, number)
        rng = np.random.default_rng(self._seeds)
        organ: Organ = "colon" if rng.random() < 0.8 else "stomach"
        wall = Wall(organ, rng)
        self._path = Path.drawn(wall.length, rng)
        at = [(self._path.z, self._path.angle)] if rng.random() < 0.75 else []
        if at and rng.random() < 0.2:
            at.append((self._path.z + rng.uniform(5, 20), self._path.angle + rng.uniform(0.5, 1.5)))
        self.scene = Scene(wall, [make_polyp(wall, z, angle, rng) for z, angle in at])
        self._channel = Channel.drawn(self._path.distance, rng) if rng.random() < 0.25 else None
        # How it looks.
        self._colour = (_MUCOSA[rng.integers(4)] + rng.normal(0, 0.025, 3)).clip(0, 1).astype(np.float32)
        self._sheath = np.array(_SHEATHS[rng.integers(3)], np.float32)
        self._dye = rng.uniform(0.4, 1.5) if at and rng.random() < 0.2 else 0.0
        self._roughness, self._gloss = rng.uniform(0.05, 0.09), rng.uniform(0.02, 0.1)
        # The camera and its processor; even a clean frame is a little soft, noisy and compressed.
        self._rays = rays(size, math.radians(rng.uniform(58, 72)))
        self._brightness = rng.uniform(0.38, 0.56)
        gain = rng.uniform(0, 1.5)
        steps = Defocus(rng.uniform(0.6, 0.9)), Illumination(gain), SensorNoise(12000, 2, gain)
        jpeg = Jpeg(int(rng.integers(88, 96)))
        self._overlay = draw_overlay(size, rng)
        self._camera = Recipe((*steps, jpeg), self._overlay.field)

    def draw(self, number: int) -> Picture:
        """Frame `number` of the video, from 0."""
        field = self._overlay.field
        pose = self._path.pose(self.scene, number)
        instrument = self._channel.instrument(pose, number) if self._channel else None
        ways = pose.axes.T @ self._rays
        far = self.scene.trace(pose.origin, ways, instrument)
        points = pose.origin[:, None] + far * ways
        tool, owner = np.zeros(far.size, bool), self.scene.owner(points)
        if instrument is not None:
            tool = instrument.distance(points) < self.scene.distance(points)
        owner[tool | (far >= FAR)] = 0

        light = radiance(self._surface(points, far, owner, tool, pose, instrument))
        light[:, far >= FAR] = 0
        light = exposed(light, self._brightness, field.ravel() & ~tool)
        seen = self._overlay.over(to_srgb(light).reshape(3, *field.shape))
        frame = self._camera(seen, np.random.default_rng((*self._seeds, number)))
        polyp, held = (owner > 0).reshape(field.shape), tool.reshape(field.shape)
        return Picture(frame, polyp & field, held & field, field)

    def _surface(
        self,
        points: Array,
        far: Array,
        owner: npt.NDArray[np.int8],
        tool: Mask,
        pose: Pose,
        instrument: Instrument | None,
    ) -> Surface:
        """The surface at points (3, N) so far from the camera, of wall, polyps and instrument."""
        wall, polyps = self.scene.wall, self.scene.polyps
        row, column, _ = wall.locate(points)
        for number, polyp in enumerate(polyps, start=1):  # a polyp wears another piece of the maps
            on = owner == number
            row[on], column[on] = polyp.unrolled(points[:, on]) / np.float32(wall.pitch) + 157 * number
        angle = row * np.float32(2 * math.pi / ANGLES)
        around = np.stack([-np.sin(angle), np.cos(angle), np.zeros_like(angle)])
        # What is finer than a pixel at its distance is left out, or it would twinkle.
        near = 1 / (1 + (far / 25) ** 2)
        film = near * interpolated(wall.slopes[0], row, column) * around
        film[2] += near * interpolated(wall.slopes[1], row, column)
        normals = self.scene.normals(points)
        normals, film = unit(normals + 0.15 * film), unit(normals + film)

        blood, dye = interpolated(wall.blood, row, column), np.zeros_like(far)
        for number, polyp in enumerate(polyps, start=1):
            blood += (polyp.redness + blood) * (owner == number)  # its mottling is stronger, too
            squared = ((points - polyp.base[:, None]) ** 2).sum(0) / (2 * polyp.radii[0]) ** 2
            dye += np.float32(self._dye) * np.exp(-squared) * (owner != number)
        albedo = mucosa_albedo(self._colour, np.maximum(blood, -0.3), dye)
        residue = interpolated(wall.residue, row, column) * (owner == 0)
        albedo += residue * (to_linear(_RESIDUE)[:, None] - albedo)
        gloss = np.full(far.shape, self._gloss, np.float32)
        if instrument is not None:
            on = points[:, tool]
            normals[:, tool] = film[:, tool] = instrument.normals(on)
            metal = instrument.from_tip(on) < instrument.metal
            albedo[:, tool] = np.where(metal, np.float32(0.2), to_linear(self._sheath)[:, None])
            gloss[tool] = np.where(metal, 0.5, 0.06)
        return Surface(
            pose.sees(points), pose.axes @ normals, pose.axes @ film, albedo, gloss, self._roughness
        )
