"""Motion between two passes over one child: the pose, and the urine in the bladder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rbs.synthetic.skeleton.body import Body
from rbs.synthetic.skeleton.limbs import Limb

LARGEST_MM = 6.0
"""No part of the skeleton ends up further than this from where the first pass saw it."""


@dataclass(frozen=True)
class Motion:
    """A rigid move of each segment in the plane of the table.

    Attributes:
        shift_mm: Of the whole child towards its left and towards its feet, mm.
        head, arms, legs: Turn of the head about the neck, of each arm about its shoulder and of
            each leg about its hip (right, left), radians, clockwise as seen from the front.
        filling: Activity in the bladder relative to the first pass.
    """

    shift_mm: tuple[float, float] = (0.0, 0.0)
    head: float = 0.0
    arms: tuple[float, float] = (0.0, 0.0)
    legs: tuple[float, float] = (0.0, 0.0)
    filling: float = 1.0

    def pose(self, arms: list[Limb], legs: list[Limb]) -> tuple[list[Limb], list[Limb]]:
        """Arms and legs (right, left) after the turns."""
        return (
            [_turned(limb, angle) for limb, angle in zip(arms, self.arms, strict=True)],
            [_turned(limb, angle) for limb, angle in zip(legs, self.legs, strict=True)],
        )


STILL = Motion()


def draw_motion(body: Body, arms: list[Limb], legs: list[Limb], rng: np.random.Generator) -> Motion:
    """Draw the motion of a child until the second pass, minutes later.

    The whole child shifts by 0-4 mm and the far end of each segment by up to 2 mm more, so that no
    part is more than `LARGEST_MM` away; the bladder fills by a factor of 1.0-1.5.
    """
    way, direction = rng.uniform(0, LARGEST_MM - 2), rng.uniform(0, 2 * np.pi)

    def turn(length: float) -> float:
        return float(rng.uniform(-2, 2) / length)

    def reach(limb: Limb) -> float:
        return float(max(np.hypot(*(joint - limb.joints[0])[:2]) for joint in limb.joints[1:]))

    return Motion(
        shift_mm=(float(way * np.cos(direction)), float(way * np.sin(direction))),
        head=turn(body.head),
        arms=(turn(reach(arms[0])), turn(reach(arms[1]))),
        legs=(turn(reach(legs[0])), turn(reach(legs[1]))),
        filling=float(rng.uniform(1.0, 1.5)),
    )


def _turned(limb: Limb, radians: float) -> Limb:
    c, s = np.cos(radians), np.sin(radians)
    root = limb.joints[0]

    def turn(joint: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, z, y = joint - root
        return root + np.array([c * x - s * z, s * x + c * z, y])

    first, second, third, fourth = (turn(joint) for joint in limb.joints)
    return replace(limb, joints=(first, second, third, fourth))
