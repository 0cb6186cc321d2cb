"""The camera in each frame: its place, its direction and the direction of each of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rbs.synthetic.mucosa.scene import Instrument, Scene, unit
from rbs.synthetic.mucosa.wall import Array

_ROOM = 4.0
"""Half the width of an endoscope's tip, mm, about."""


@dataclass(frozen=True)
class Pose:
    """A camera.

    Attributes:
        origin: Its place, (3,), mm.
        axes: Its right, down and ahead, rows of (3, 3).
    """

    origin: Array
    axes: Array

    def sees(self, points: Array) -> Array:
        """Points (3, N) in its axes."""
        return self.axes @ (points - self.origin[:, None])


@dataclass(frozen=True)
class Path:
    """Motion of a camera through a video, aimed at the first polyp, or else along the tube.

    Attributes:
        z: Of its target, mm.
        angle: Of the target about the axis of the tube.
        distance: From the target in the first frame, mm.
        step: Added distance in every further frame, mm.
        tilt: Between its view and the axis of the tube.
        roll: About its view.
        pace, phase: Of its sway, three each: sideways, up and down, to and fro; radians a frame,
            radians.
    """

    z: float
    angle: float
    distance: float
    step: float
    tilt: float
    roll: float
    pace: Array
    phase: Array

    @classmethod
    def drawn(cls, length: float, rng: np.random.Generator) -> Path:
        """One through a tube of some length, mm."""
        return cls(
            z=rng.uniform(0.35, 0.55) * length,
            angle=rng.uniform(0, 2 * math.pi),
            distance=rng.uniform(10, 32),
            step=rng.uniform(-1.2, 1.2),
            tilt=math.radians(rng.uniform(10, 70)),
            roll=rng.uniform(0, 2 * math.pi),
            pace=rng.uniform(0.3, 0.9, 3).astype(np.float32),
            phase=rng.uniform(0, 2 * math.pi, 3).astype(np.float32),
        )

    def pose(self, scene: Scene, number: int) -> Pose:
        """The camera in frame `number`, from 0."""
        sway = np.sin(self.pace * number + self.phase)
        inwards = -np.array([math.cos(self.angle), math.sin(self.angle), 0], np.float32)
        travelled = number * self.step
        if scene.polyps:
            target = scene.polyps[0].head
            back = math.sin(self.tilt) * inwards - np.array([0, 0, math.cos(self.tilt)], np.float32)
            origin = target + (self.distance + travelled + 2 * sway[2]) * back
        else:
            ahead = scene.wall.axis(self.z + travelled + 15)
            target = ahead - 0.6 * self.tilt * float(scene.wall.radius.mean()) * inwards
            origin = scene.wall.axis(self.z + travelled - self.distance)
        axis = scene.wall.axis(float(origin[2]))
        for _ in range(8):
            if scene.distance(origin[:, None])[0] > _ROOM:
                break
            origin = 0.75 * origin + 0.25 * axis
        ahead = unit(target - origin)
        aside = unit(np.cross(ahead, [math.cos(self.roll), math.sin(self.roll), 0.1]))
        ahead = unit(ahead + 0.12 * sway[0] * aside + 0.12 * sway[1] * np.cross(ahead, aside))
        right = unit(np.cross(ahead, np.cross(aside, ahead)))
        axes = np.stack([right, np.cross(ahead, right), ahead])
        return Pose(origin.astype(np.float32), axes.astype(np.float32))


@dataclass(frozen=True)
class Channel:
    """The working channel and what comes out of it, in the axes of the camera.

    Attributes:
        start: Its opening, (3,), mm.
        end: Tip of the instrument, (3,), mm.
        radius: Of the instrument, mm.
        metal: Length of its metal tip, mm.
    """

    start: Array
    end: Array
    radius: float
    metal: float

    @classmethod
    def drawn(cls, distance: float, rng: np.random.Generator) -> Channel:
        """One below the lens, its instrument on its way to something at some distance, mm."""
        side = rng.uniform(0.2, 0.8) * math.pi
        start = np.array([7 * math.cos(side), 7 * math.sin(side), 1], np.float32)
        end = np.array([*rng.normal(0, 2, 2), rng.uniform(0.5, 0.9) * distance], np.float32)
        return cls(start, end, radius=rng.uniform(0.6, 1.2), metal=rng.uniform(1, 5))

    def instrument(self, pose: Pose, number: int) -> Instrument:
        """The instrument in frame `number`."""
        sway = np.float32(2 * math.sin(0.7 * number))
        end = self.end + sway * np.array([1, 0.5, 1], np.float32)
        start, end = (pose.origin + pose.axes.T @ place for place in (self.start, end))
        return Instrument(start, end, self.radius, self.metal)


def rays(size: int, half_angle: float) -> Array:
    """Ways of all pixels in the camera's axes, unit vectors (3, size * size), float32.

    The lens maps angles in proportion: a pixel r half-diagonals off the middle looks r x half_angle
    aside.
    """
    y, x = (np.indices((size, size)).reshape(2, -1) + 0.5) / size * 2 - 1
    radius = np.hypot(x, y)
    angle = radius / math.sqrt(2) * half_angle
    sine = np.sin(angle) / np.maximum(radius, 1e-9)
    return np.stack([x * sine, y * sine, np.cos(angle)]).astype(np.float32)
