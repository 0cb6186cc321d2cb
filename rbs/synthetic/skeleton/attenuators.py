"""Metal on a child and in it: cold spots of no disease."""

from __future__ import annotations

import numpy as np

from rbs.synthetic.skeleton.body import Body, Outline
from rbs.synthetic.skeleton.canvas import Canvas
from rbs.synthetic.skeleton.limbs import Limb, Vector
from rbs.synthetic.skeleton.projection import Attenuator


def draw_attenuators(
    canvas: Canvas, body: Body, outline: Outline, arms: list[Limb], legs: list[Limb], rng: np.random.Generator
) -> tuple[Attenuator, ...]:
    """Clothing or jewellery on one child in eight, an implant in one of 25."""
    worn = str(rng.choice(["", *_WORN], p=[0.875] + [0.025] * 5))
    implanted = str(rng.choice(["", "port", "rods", "plate"], p=[0.96, 0.015, 0.01, 0.015]))
    side, passes = (1 if rng.random() < 0.5 else -1), rng.uniform(0.3, 0.75)
    away, size = rng.normal(0, 1, 2), rng.uniform(0.8, 1.25)
    metal: list[tuple[str, list[Vector], float]] = []
    for line in _worn(worn, body, arms[(side + 1) // 2], away):
        for point in line:  # it lies on the skin
            point[2] = outline.surface(canvas.pixel(*canvas.place([point])[0, :2]))
        metal.append((worn, line, _WORN[worn] * size))
    for line, radius in _implanted(implanted, body, legs[(side + 1) // 2], side, size):
        metal.append((implanted, line, radius))
    drawn = []
    for name, line, radius in metal:
        # A bar needs two ends; a disc is one whose ends meet.
        covered = canvas.covered([*line, line[-1]], radius)
        if covered is None:
            continue
        tile, share = covered
        x, z, y = canvas.place([np.mean(line, axis=0)])[0]
        row, column = canvas.pixel(x, z)
        transmission = (1 - np.float32(1 - passes) * share).astype(np.float32)
        drawn.append(Attenuator(name, row, column, float(y), tile, transmission))
    return tuple(drawn)


_WORN = {"button": 8.0, "buckle": 13.0, "pendant": 7.0, "earrings": 4.0, "bracelet": 4.0}
"""Their radii, mm."""


def _worn(name: str, body: Body, arm: Limb, away: Vector) -> list[list[Vector]]:
    """Bars from point to point; their depth is still to be found."""

    def at(x: float, z: float) -> Vector:
        return np.array([x, z, 0.0])

    middle = body.midline(body.along(0.3))
    if name == "button":
        return [[at(middle + 4 * away[0], body.along(0.98) + 8 * away[1])]]
    if name == "buckle":
        belt = body.along(0.92)
        return [[at(middle - 14 + 4 * away[0], belt + 6 * away[1]), at(middle + 14, belt)]]
    if name == "pendant":
        return [[at(middle + 10 * away[0], body.along(0.3) + 10 * away[1])]]
    if name == "earrings":
        return [[at(ear * 0.4 * body.head, 0.62 * body.head)] for ear in (-1, 1)]
    if name == "bracelet":
        wrist = arm.joints[2]
        return [[at(wrist[0] - 14, wrist[1]), at(wrist[0] + 14, wrist[1])]]
    return []


def _implanted(name: str, body: Body, leg: Limb, side: int, size: float) -> list[tuple[list[Vector], float]]:
    """Bars and their radii, mm: a port at the collar bone, rods on the spine, a femoral plate."""
    if name == "port":
        return [([np.array([side * 0.45 * body.chest, body.along(0.32), 0.42 * body.depth])], 13.0 * size)]
    if name == "rods":
        heights = [body.along(t) for t in (0.3, 0.5, 0.7, 0.88)]
        behind, apart = 0.15 * body.depth, 14 * body.bone
        return [
            ([np.array([body.midline(z) + rod * apart, z, body.spine_y(z) - behind]) for z in heights], 3.5)
            for rod in (-1, 1)
        ]
    if name == "plate":
        hip, knee = leg.joints[0], leg.joints[1]
        outer = np.array([side * 12 * body.bone, 0, 0])
        return [([hip + t * (knee - hip) + outer for t in (0.3, 0.7)], 6.0 * size * body.bone)]
    return []
