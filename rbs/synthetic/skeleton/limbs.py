"""Arms, legs and their growth plates, from a pose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbs.synthetic.skeleton.body import Body
from rbs.synthetic.skeleton.canvas import Canvas

SIDES = (-1, 1)
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limb:
    """Joints of one arm or one leg, (x, z, y) in mm.

    Attributes:
        side: -1 on the patient's right, 1 on the left.
        joints: Shoulder, elbow, wrist, finger tips; or hip, knee, ankle, toes.
        lively: Factor on all its bones.
        plates: Factor on its growth plates: humerus, radius, ulna; or hip, distal femur, proximal
            and distal tibia.
    """

    side: int
    joints: tuple[Vector, Vector, Vector, Vector]
    lively: float = 1.0
    plates: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    def uptake(self, body: Body) -> dict[str, float]:
        """Planar density by name of the group of bones in this limb."""
        return {name: value * self.lively for name, value in body.uptake.items()}


def pose(body: Body, rng: np.random.Generator) -> tuple[list[Limb], list[Limb]]:
    """Arms and legs of a child on its back, arms beside it, never quite straight."""
    h, d = body.height, body.depth
    arms, legs = [], []
    spread, together = rng.uniform(0.1, 0.26), float(rng.normal(0.015, 0.025))
    for side in SIDES:
        shoulder = np.array([side * body.shoulder, body.along(0.215) + rng.normal(0, 0.006) * h, -0.05 * d])
        out = spread + rng.normal(0, 0.03)
        elbow = _step(
            shoulder, h * float(np.interp(body.age, (0.5, 16), (0.172, 0.186))), out, side, -0.25 * d
        )
        bend = rng.uniform(-0.32, 0.02) + (out - 0.1) * -0.5
        wrist = _step(
            elbow, h * float(np.interp(body.age, (0.5, 16), (0.132, 0.146))), out + bend, side, -0.22 * d
        )
        tips = _step(wrist, 0.105 * h, out + bend + rng.normal(0, 0.15), side, -0.2 * d)
        arms.append(Limb(side, (shoulder, elbow, wrist, tips)))

        leg = h - body.hip
        hip = np.array([side * 0.62 * body.pelvis, body.hip, 0.02 * d])
        open_ = together + rng.normal(0.0, 0.015) + float(np.interp(body.age, (0.5, 2, 5), (0.16, 0.07, 0.0)))
        # Infants flex and spread.
        frog = float(np.interp(body.age, (0.5, 1.5, 4), (0.2, 0.12, 0.0))) * rng.uniform(0.4, 1.2)
        knee = _step(hip, 0.475 * leg, open_ + frog - 0.02, side, -0.12 * d)
        ankle = _step(knee, 0.455 * leg, open_ - frog * 0.9 + 0.01, side, -0.3 * d)
        foot = 0.15 * h * rng.uniform(0.35, 0.7)  # pointing up, so foreshortened
        toes = _step(ankle, foot, rng.uniform(0.05, 0.6), side, -0.3 * d + 0.09 * h)
        legs.append(Limb(side, (hip, knee, ankle, toes)))
    return arms, legs


def _step(start: Vector, length: float, angle: float, side: int, y: float) -> Vector:
    """The next joint: `length` mm on, `angle` radians outwards, at the depth y."""
    return np.array([start[0] + side * length * np.sin(angle), start[1] + length * np.cos(angle), y])


def draw_arm(canvas: Canvas, body: Body, arm: Limb, rng: np.random.Generator) -> None:
    """Humerus, radius, ulna and hand of one arm."""
    shoulder, elbow, wrist, tips = arm.joints
    b, up, e = body.bone, arm.uptake(body), _ossified(body)
    u, meta = up["arm"], up["metaphysis"]
    along, across = _axes(shoulder, elbow)
    head = shoulder + along * 3 * b
    canvas.blob(head - across * arm.side * 3 * b, (20 * b * e, 19 * b * e), up["epiphysis"] * 0.85, "arms")
    neck = shoulder + along * 22 * b
    _shaft(
        canvas, neck, elbow - along * 14 * b, (20, 9.5, 17), b, (u * meta * 0.95, u * 0.92, u * 1.25), "arms"
    )
    _plate(canvas, neck, along, across, 20 * b, up["physis"] * 0.7 * arm.plates[0], b)
    condyles = [elbow - across * 19 * b - along * 6 * b, elbow + across * 19 * b - along * 6 * b]
    canvas.tube(condyles, 8 * b, u * 1.35, "arms", flat=0.4)
    along, across = _axes(elbow, wrist)
    lateral = across * _outwards(across, arm.side)
    radius_and_ulna = ((lateral, (8, 6, 13), 0.0), (-lateral, (12, 6, 7), 4.0))
    for (place, thick, tail), plate in zip(radius_and_ulna, arm.plates[1:], strict=False):
        start, end = elbow + place * 9 * b + along * (8 - tail) * b, wrist + place * 10 * b - along * 12 * b
        _shaft(canvas, start, end, thick, b, (u * 1.2, u * 0.8, u * meta * 0.85), "arms")
        _plate(canvas, end, along, across, thick[2] * b, up["physis"] * 0.62 * plate, b)
        size = (thick[2] * b * e, 5 * b * e)
        canvas.blob(end + along * 7 * b, size, u * 1.1, "arms", angle=_tilt(across), lesions=False)
    _hand(canvas, body, wrist, tips, up["hand"] * u, rng)


def draw_leg(canvas: Canvas, body: Body, leg: Limb, rng: np.random.Generator) -> None:
    """Femur, patella, tibia, fibula and foot of one leg."""
    hip, knee, ankle, toes = leg.joints
    b, up, side, e = body.bone, leg.uptake(body), leg.side, _ossified(body)
    d, meta = up["diaphysis"], up["metaphysis"]
    lean = np.array([side * 0.58, 0.8, -0.2])  # the neck runs outwards and down
    canvas.blob(hip, (23 * b * e, 23 * b * e), up["epiphysis"] * 0.9, "legs")
    along, across = _axes(hip, knee)
    trochanter = hip + lean * 56 * b
    start = hip + lean * 17 * b
    shaft = _between(hip + lean * 52 * b, knee - along * 26 * b)
    canvas.tube([start, trochanter], (15 * b, 17 * b), (meta * 1.05, d * 1.35), "legs", flat=0.4)
    place = trochanter + across * _outwards(across, side) * 9 * b - along * 8 * b
    canvas.blob(place, (11 * b, 17 * b), up["epiphysis"], "legs", angle=_tilt(across), lesions=False)
    _shaft(canvas, shaft(0.0), shaft(1.0), (17, 12.5, 33), b, (d * 1.3, d, meta), "legs", arch=side * 5 * b)
    canvas.mark(f"femoral diaphysis {side:+d}", shaft(0.5) + np.array([side * 5 * b, 0, 0]))
    canvas.mark(f"femoral metaphysis {side:+d}", shaft(0.96))
    axis, uptake = lean / np.linalg.norm(lean[:2]), up["physis"] * 0.55 * leg.plates[0]
    _plate(canvas, start, axis, _normal(lean), 17 * b, uptake, b, instead=False)
    plates = [(shaft(1.0) + along * 2 * b, along, across, 35 * b, up["physis"] * leg.plates[1])]
    canvas.mark(f"distal femoral physis {side:+d}", shaft(1.0) + along * 2 * b)
    for wing in (-1, 1):
        place, size = knee - along * 10 * b + across * wing * 17 * b * e, (18 * b * e, 15 * b * e)
        canvas.blob(place, size, up["epiphysis"] * 0.8, "legs", angle=_tilt(across))
    if body.age > 3:
        place, size = knee - along * 14 * b + np.array([0, 0, 35 * b]), (17 * b * e, 18 * b * e)
        canvas.blob(place, size, up["epiphysis"] * 0.25, "legs", lesions=False)

    along, across = _axes(knee, ankle)
    canvas.blob(
        knee + along * 9 * b, (34 * b * e, 8 * b * e), up["epiphysis"] * 0.95, "legs", angle=_tilt(across)
    )
    shaft = _between(knee + along * 19 * b, ankle - along * 17 * b)
    plates.append((shaft(0) - along * 2 * b, along, across, 33 * b, up["physis"] * 0.85 * leg.plates[2]))
    _shaft(canvas, shaft(0), shaft(1), (31, 11.5, 21), b, (meta * 0.97, d * 0.95, meta * 0.85), "legs")
    plates.append((shaft(1) + along * 2 * b, along, across, 22 * b, up["physis"] * 0.65 * leg.plates[3]))
    place, size = ankle - along * 7 * b, (21 * b * e, 8 * b * e)
    canvas.blob(place, size, up["epiphysis"] * 0.9, "legs", angle=_tilt(across), lesions=False)
    outer = across * _outwards(across, side)
    head, malleolus = knee + outer * 35 * b + along * 28 * b, ankle + outer * 25 * b - along * 4 * b
    _shaft(canvas, head, malleolus, (8, 5, 8.5), b, (d * 0.95, d * 0.55, d), "legs")
    for place, axis, breadth, half, uptake in plates:  # last: nothing of the same limb lies over them
        _plate(canvas, place, axis, breadth, half, uptake, b)
    _foot(canvas, body, ankle, toes, up["foot"], rng)


def _foot(
    canvas: Canvas, body: Body, ankle: Vector, toes: Vector, u: float, rng: np.random.Generator
) -> None:
    """Talus, heel bone and its apophysis behind it, the tarsus, and five rays."""
    b = body.bone
    along, across = _axes(ankle, toes)
    length = float(np.linalg.norm((toes - ankle)[:2]))
    tilt = _tilt(across)
    heel = ankle + along * 10 * b + np.array([0, 0, -25 * b])
    canvas.blob(ankle + along * 4 * b, (20 * b, 17 * b), u * 0.95, "legs", angle=tilt)
    canvas.blob(heel, (20 * b, 20 * b), u * 0.9, "legs", angle=tilt)
    growing = float(np.interp(body.age, (4, 8, 13, 16), (0.0, 1.0, 1.0, 0.0)))
    canvas.blob(heel + along * 6 * b, (16 * b, 5 * b), u * 0.8 * growing, "legs", angle=tilt, lesions=False)
    canvas.blob(
        ankle + 0.36 * (toes - ankle), (22 * b, 0.15 * length), u * 0.8, "legs", angle=tilt, lesions=False
    )
    root = ankle + 0.42 * (toes - ankle)
    canvas.blob(root + 0.07 * (toes - ankle), (25 * b, 0.09 * length), u, "legs", angle=tilt)
    _rays(canvas, body, root, toes, u * 0.8, "legs", rng, narrow=1.0)


def _hand(
    canvas: Canvas, body: Body, wrist: Vector, tips: Vector, u: float, rng: np.random.Generator
) -> None:
    """Draw two rows of carpals, more of them bone with every year, and five rays, often edge-on."""
    along, across = _axes(wrist, tips)
    length, b = float(np.linalg.norm((tips - wrist)[:2])), body.bone
    narrow = 0.35 if rng.random() < 0.4 else 1.0
    ossified = float(np.interp(body.age, (0.5, 3, 7, 12), (0.35, 0.6, 0.85, 1.0)))
    for place, count in ((0.07, 3), (0.16, 4)):
        for across_by in np.linspace(-1, 1, count):
            canvas.blob(
                wrist + along * place * length + across * across_by * 16 * b * narrow,
                (7.5 * b * ossified, 7 * b * ossified),
                u * (1.25 if narrow == 1 else 0.6),
                "arms",
                flat=0.3,
                lesions=across_by == 0 or count == 4,
            )
    _rays(canvas, body, wrist, tips, u, "arms", rng, narrow=narrow)


def _rays(
    canvas: Canvas,
    body: Body,
    root: Vector,
    tip: Vector,
    uptake: float,
    region: str,
    rng: np.random.Generator,
    *,
    narrow: float,
) -> None:
    """Draw five rays of a hand or foot, livelier at their joints; edge-on they overlap."""
    along, across = _axes(root, tip)
    length, b = float(np.linalg.norm((tip - root)[:2])), body.bone
    for finger, reach in zip(np.linspace(-1, 1, 5), (0.72, 0.95, 1.0, 0.95, 0.82), strict=True):
        start = root + along * 0.24 * length + across * finger * 17 * b * narrow
        end = root + along * reach * length * rng.uniform(0.96, 1.02) + across * finger * 30 * b * narrow
        at = _between(start, end)
        canvas.tube(
            [at(0), at(0.08), at(0.42), at(0.5), at(0.58), at(0.8), at(1)],
            np.array([5, 4.5, 4, 5, 4, 3.6, 3]) * b,
            uptake * np.array([1.15, 0.8, 0.8, 1.3, 0.7, 0.7, 0.6]),
            region,
            lesions=False,
        )


def _shaft(
    canvas: Canvas,
    start: Vector,
    end: Vector,
    radii: tuple[float, float, float],
    bone: float,
    uptake: tuple[float, float, float],
    region: str,
    *,
    arch: float = 0.0,
) -> None:
    """Draw a long bone with livelier ends: radii (adult mm) and densities of start, middle, end."""
    t = np.array([0, 0.035, 0.08, 0.15, 0.25, 0.5, 0.75, 0.85, 0.92, 0.965, 1.0])
    flare = np.array([1, 0.82, 0.55, 0.26, 0.07, 0, 0.07, 0.26, 0.55, 0.82, 1.0])
    side = np.where(t < 0.5, 0, 2)
    r = radii[1] + (np.array(radii)[side] - radii[1]) * flare
    u = uptake[1] + (np.array(uptake)[side] - uptake[1]) * flare**0.8
    points = start + (end - start) * t[:, None]
    points[:, 0] += arch * np.sin(np.pi * t)
    canvas.tube(points, r * bone, u, region, flat=0.55, blunt=True)


def _plate(
    canvas: Canvas,
    at: Vector,
    along: Vector,
    across: Vector,
    half: float,
    uptake: float,
    bone: float,
    *,
    instead: bool = True,
) -> None:
    """A growth plate: a thin, slightly wavy disc met edge-on, at least two pixels thick.

    It takes the place of the ends of the bone that it parts; not in the hip, where the pelvis lies
    over it.
    """
    thick = max(2.9 * bone**0.5, 2.5)
    wave = 0.06 * half
    points = [
        at + across * half * k + along * wave * w
        for k, w in ((-0.92, -1), (-0.45, 0.6), (0, -0.3), (0.45, 0.6), (0.92, -1))
    ]
    canvas.tube(points, thick, uptake, "growth plates", flat=0.9, instead=instead, lesions=False)


def _ossified(body: Body) -> float:
    """Share of an epiphysis that is bone."""
    return float(np.interp(body.age, (0.5, 2, 7, 14), (0.4, 0.6, 0.88, 1.0)))


def _axes(start: Vector, end: Vector) -> tuple[Vector, Vector]:
    """Unit vectors along and across a bone in the coronal plane."""
    along = np.array([end[0] - start[0], end[1] - start[1], 0.0])
    along /= np.linalg.norm(along)
    return along, _normal(along)


def _normal(along: Vector) -> Vector:
    across = np.array([-along[1], along[0], 0.0])
    return across / np.linalg.norm(across)


def _tilt(across: Vector) -> float:
    return float(np.arctan2(across[1], across[0]))


def _outwards(across: Vector, side: int) -> float:
    return 1.0 if across[0] * side > 0 else -1.0


def _between(start: Vector, end: Vector) -> Callable[[float], Vector]:
    """The point at a fraction of the way."""
    return lambda t: start + (end - start) * t
