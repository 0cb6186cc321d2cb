"""Skull, spine, rib cage, shoulder girdle and pelvis."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from rbs.synthetic.skeleton.body import Body
from rbs.synthetic.skeleton.canvas import ANTERIOR_ONLY, Canvas

SIDES = (-1, 1)


def draw_axial(canvas: Canvas, body: Body, rng: np.random.Generator, *, head_turn: float = 0.0) -> None:
    """Draw the axial skeleton and the girdles, the head turned about the neck by some radians."""
    neck = body.head * 0.9
    with canvas.turned((body.midline(neck), neck), float(rng.normal(0, 0.05)) + head_turn):
        _skull(canvas, body, rng)
        canvas.mark("vertex", (body.midline(0), 0.0, 0.0))
    _spine(canvas, body, rng)
    _ribs(canvas, body, rng)
    _sternum(canvas, body, rng)
    for side in SIDES:
        _girdle(canvas, body, side, rng)
        _pelvis(canvas, body, side, rng)
    _sacrum(canvas, body, rng)


def skull_half_breadth(body: Body) -> float:
    """Half the breadth of the skull, mm."""
    return body.head * float(np.interp(body.age, (0.5, 2, 6, 12, 18), (0.40, 0.39, 0.37, 0.355, 0.34)))


def _vary(rng: np.random.Generator, spread: float) -> float:
    return float(np.exp(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread)))


def _skull(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    h, w, u, face = body.head, skull_half_breadth(body), body.uptake["skull"], body.uptake["face"]
    x0 = body.midline(0)
    # The face grows, the vault hardly does.
    base = h * float(np.interp(body.age, (0.5, 6, 18), (0.71, 0.68, 0.645)))
    drop, front = h - base, 0.85 * w
    # A head lies straight, or looks to one side: the face moves over and narrows.
    looks = float(np.clip(rng.normal(0, 0.06 if rng.random() < 0.8 else 0.35), -0.5, 0.5))
    xf, wf = x0 + np.sin(looks) * 0.65 * w, np.cos(looks) * w
    tube, blob, shell = canvas.tube, canvas.blob, canvas.shell
    shell(
        (x0, 0.5 * base, -0.02 * h), (w, 0.5 * base, 1.15 * w), 0.07 * w + 1.5, u * 0.42, "skull", fade=0.75
    )
    # Below the broadest part the vault tapers into the base: petrous bones, sphenoid, occiput.
    blob((x0, 0.9 * base, -0.3 * w), (0.72 * w, 0.16 * base), u * 0.55, "skull", lesions=False)
    blob((x0, 0.82 * base, -0.95 * w), (0.55 * w, 0.25 * base), u * 0.3, "skull", lesions=False)
    brow = 0.74 * base
    for side in SIDES:
        petrous = (x0 + side * 0.5 * w, 0.93 * base, -0.2 * w)
        blob(petrous, (0.26 * w, 0.1 * w), u * 0.5, "skull", angle=side * -0.3)
        # The orbit is a gap between brow, cheek and nose.
        tube(
            [
                (xf + side * 0.12 * wf, brow + 0.02 * base, front),
                (xf + side * 0.45 * wf, brow - 0.03 * base, 0.95 * front),
                (xf + side * 0.76 * wf, brow + 0.06 * base, 0.6 * front),
                (xf + side * 0.74 * wf, 0.93 * base, 0.6 * front),
            ],
            (0.07 * w, 0.06 * w, 0.07 * w, 0.08 * w),
            face * np.array([0.45, 0.35, 0.4, 0.42]),
            "skull",
            lesions=False,
        )
        tube(
            [
                (xf + side * 0.18 * wf, base + 0.2 * drop, front),
                (xf + side * 0.5 * wf, base + 0.02 * drop, 0.85 * front),
                (xf + side * 0.78 * wf, 0.95 * base, 0.3 * front),
            ],
            (0.17 * w, 0.13 * w, 0.06 * w),
            face * np.array([0.5, 0.5, 0.3]),
            "skull",
        )
        # Half of the mandible: condyle, angle, body, chin.
        tube(
            [
                (xf + side * 0.7 * wf, 0.97 * base, 0.0),
                (xf + side * 0.63 * wf, base + 0.45 * drop, 0.05 * w),
                (xf + side * 0.43 * wf, base + 0.72 * drop, 0.6 * front),
                (xf, base + 0.88 * drop, 1.05 * front),
            ],
            np.array([0.1, 0.11, 0.14, 0.15]) * w,
            face * np.array([0.42, 0.36, 0.36, 0.32]),
            "skull",
        )
    # Nose, sinuses and turbinates, then the jaws with their teeth: one bright block in the middle
    # of the face.
    blob((xf, 0.93 * base, front), (0.17 * wf, 0.16 * base), face * 0.6, "skull")
    upper, lower = (xf, base + 0.3 * drop, 0.9 * front), (xf, base + 0.66 * drop, 0.95 * front)
    blob(upper, (0.42 * wf, 0.36 * drop), face * rng.uniform(0.45, 0.75), "skull", flat=0.2)
    blob(lower, (0.4 * wf, 0.26 * drop), face * rng.uniform(0.3, 0.55), "skull", flat=0.2)
    _sutures(canvas, body, rng, x0, base, w)


def _sutures(canvas: Canvas, body: Body, rng: np.random.Generator, x0: float, base: float, w: float) -> None:
    """Coronal sutures in front, lambdoid ones behind, the sagittal one between; fading with age."""
    u = body.uptake["skull"] * rng.uniform(0.1, 0.28) * (1.2 - body.maturity)
    lines = [
        [(x0, 0.03 * base, 0.35 * w), (x0 + 0.02 * w, 0.08 * base, -0.3 * w), (x0, 0.25 * base, -0.95 * w)]
    ]
    for side in SIDES:
        lines.append(
            [
                (x0, 0.04 * base, 0.2 * w),
                (x0 + side * 0.6 * w, 0.2 * base, 0.55 * w),
                (x0 + side * 0.9 * w, 0.52 * base, 0.4 * w),
            ]
        )
        lines.append(
            [
                (x0, 0.25 * base, -0.95 * w),
                (x0 + side * 0.45 * w, 0.5 * base, -0.95 * w),
                (x0 + side * 0.8 * w, 0.8 * base, -0.6 * w),
            ]
        )
    for line in lines:
        canvas.tube(line, 0.03 * w + 1, u, "skull", lesions=False)


def vertebrae(body: Body) -> list[tuple[str, float, float]]:
    """Name, z of the middle and height with its disc of every vertebra from C1 to L5, mm."""
    sizes = [0.9] * 7 + list(np.linspace(1.0, 1.45, 12)) + list(np.linspace(1.7, 1.9, 5))
    names = [f"C{i}" for i in range(1, 8)] + [f"T{i}" for i in range(1, 13)] + [f"L{i}" for i in range(1, 6)]
    top, bottom = body.head * 0.83, body.along(0.9)
    edges = top + np.concatenate([[0], np.cumsum(sizes)]) / sum(sizes) * (bottom - top)
    return [(n, float(a + b) / 2, float(b - a)) for n, a, b in zip(names, edges[:-1], edges[1:], strict=True)]


def _spine(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    u = body.uptake["spine"]
    column = vertebrae(body)
    breadth = {"C": 0.0105, "T": 0.0108, "L": 0.0155}
    back = 0.11 * body.depth
    # What runs on from vertebra to vertebra: arches, facets and endplates.
    line = [(body.midline(z), z, body.spine_y(z) - 0.5 * back) for _, z, _ in column]
    radii = [breadth[n[0]] * body.height * 0.95 for n, _, _ in column]
    canvas.tube(line, radii, u * 0.38, "spine", flat=0.6, lesions=False)
    lively, trend = 1.0, float(rng.normal(0, 0.12))
    for i, (name, z, tall) in enumerate(column):
        half = breadth[name[0]] * body.height * (1.0 + (0.022 * (i - 13) if name[0] == "T" else 0.0))
        lively = 0.6 * lively + 0.4 * _vary(rng, 0.16)
        grade = u * lively * (1 + trend * (i - 12) / 12) * (0.72 if name[0] == "C" else 1.0)
        x, y = body.midline(z), body.spine_y(z)
        r = tall * 0.41
        reach = max(half - r, 0.1)
        canvas.tube([(x - reach, z, y), (x + reach, z, y)], r, grade * 0.62, "spine", flat=0.75)
        # Pedicles and facets stand out as paired dots, the spinous process as a dot or streak in
        # the midline.
        for side in SIDES:
            pedicle = (x + side * 0.72 * half, z - 0.1 * tall, y - back)
            canvas.blob(pedicle, (0.3 * half, 0.26 * tall), grade * 0.36, "spine", lesions=False)
            if name[0] != "C":
                tip = x + side * half * (1.75 if name[0] == "T" else 1.85)
                wing = [(x + side * 0.8 * half, z, y - back), (tip, z - 0.05 * tall, y - 1.3 * back)]
                canvas.tube(wing, 0.13 * tall, grade * 0.2, "spine", lesions=False)
        canvas.blob(
            (x, z + 0.3 * tall, y - 2 * back), (0.24 * half, 0.4 * tall), grade * 0.4, "spine", lesions=False
        )
        if name == "L3":
            canvas.mark("L3", (x, z, y))


def _ribs(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    thoracic = [(z, tall) for name, z, tall in vertebrae(body) if name[0] == "T"]
    breadth = (0.46, 0.66, 0.79, 0.88, 0.94, 0.98, 1.0, 1.0, 0.98, 0.94, 0.84, 0.66)
    # Where bone gives way to cartilage.
    ends = (2.75, 2.72, 2.72, 2.68, 2.62, 2.55, 2.46, 2.3, 2.15, 1.95, 1.6, 1.15)
    slope = float(np.interp(body.age, (0.5, 3, 10), (0.6, 0.85, 1.0))) * rng.uniform(0.9, 1.15)
    radius = (4.9 * body.bone + 0.7) * rng.uniform(0.9, 1.1)
    for side in SIDES:
        for i, (z, tall) in enumerate(thoracic):
            u = body.uptake["ribs"] * _vary(rng, 0.08)
            w = body.chest * breadth[i] * _vary(rng, 0.012)
            deep = body.depth * 0.4 * (0.6 + 0.4 * breadth[i])
            drop = slope * body.trunk * (0.085 + 0.012 * min(i, 7)) * (0.75 if i == 0 else 1.0)
            a = np.linspace(0.18, ends[i], 16 if i < 10 else 10)
            x0 = body.midline(z)
            x = x0 + side * (0.1 * w * np.exp(-a * 3) + w * np.sin(a) ** 0.85)
            y = body.spine_y(z) * 0.35 - deep * np.cos(a)
            fall = z - 0.25 * tall + drop * ((1 - np.cos(a)) / 2) ** 1.05
            dense = np.interp(a, (0.2, 0.6, 1.6, 2.7), (1.15, 1.0, 0.92, 1.0)) * u
            # Costochondral junctions.
            beads = 1 + 0.75 * (1 - body.maturity) * np.clip(1 - (a[-1] - a) / 0.15, 0, 1)
            canvas.tube(np.stack([x, fall, y], axis=1), radius, dense * beads, "thorax", flat=0.35)
            if i == 6 and side == 1:
                canvas.mark("rib 7", (x[8], fall[8], y[8]))


def _sternum(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    u, y = body.uptake["sternum"], 0.4 * body.depth
    top, bottom = body.along(0.185), body.along(0.185 + 0.3 * rng.uniform(0.92, 1.08))
    x, half = body.midline(top) * 0.5, 0.0115 * body.height * rng.uniform(0.9, 1.1)
    length = bottom - top
    manubrium = [
        (x - 1.7 * half, top + 0.02 * length, y),
        (x + 1.7 * half, top + 0.02 * length, y),
        (x + half, top + 0.27 * length, y),
        (x - half, top + 0.27 * length, y),
    ]
    canvas.plate(manubrium, u * 1.05, "thorax", rim=1.25, rim_mm=4, views=ANTERIOR_ONLY)
    # Sternebrae are apart in the young and one bone in the grown.
    gap = 0.09 * (1 - body.maturity)
    edges = np.linspace(0.3, 0.95, 5)
    for a, b in pairwise(edges):
        r = half * _vary(rng, 0.05)
        z0, z1 = top + length * (a + gap / 2) + r * 0.6, top + length * (b - gap / 2) - r * 0.6
        piece = [(x, min(z0, z1), y), (x, max(z0, z1), y)]
        canvas.tube(piece, r, u * _vary(rng, 0.12), "thorax", flat=0.7, views=ANTERIOR_ONLY)
    xiphoid = (x, bottom + 0.03 * length, y)
    canvas.blob(xiphoid, (0.6 * half, 0.07 * length), u * 0.6, "thorax", views=ANTERIOR_ONLY, lesions=False)
    for side in SIDES:
        joint = (x + side * 1.75 * half, top + 0.03 * length, y)  # sternoclavicular
        canvas.blob(joint, (0.6 * half, 0.55 * half), u * 0.7, "thorax", views=ANTERIOR_ONLY, lesions=False)


def _girdle(canvas: Canvas, body: Body, side: int, rng: np.random.Generator) -> None:
    u, s, d = body.uptake["shoulder"], body.shoulder, body.depth
    z = body.along(0.19)
    lift = float(rng.normal(0, 0.012)) * body.trunk
    acromion = (side * s * 1.02, z - 0.035 * body.trunk + lift, -0.05 * d)
    r = 5.2 * body.bone + 0.4
    canvas.tube(
        [
            (side * 0.17 * s, z + 0.005 * body.trunk, 0.38 * d),
            (side * 0.42 * s, z - 0.018 * body.trunk + 0.3 * lift, 0.36 * d),
            (side * 0.75 * s, z - 0.045 * body.trunk + 0.8 * lift, 0.1 * d),
            acromion,
        ],
        (1.25 * r, r, r, 1.2 * r),
        (u * 1.15, u * 0.75, u * 0.75, u * 1.1),
        "thorax",
    )
    top, low = z + 0.015 * body.trunk + lift, z + 0.29 * body.trunk + lift
    inner = 0.43 * s
    blade = [
        (side * inner, top, -0.42 * d),
        (side * 0.85 * s, top + 0.045 * body.trunk, -0.25 * d),
        (side * 0.88 * s, top + 0.085 * body.trunk, -0.25 * d),
        (side * 0.64 * s, low, -0.4 * d),
        (side * 0.52 * s, low + 0.006 * body.trunk, -0.43 * d),
        (side * (inner - 0.03 * s), top + 0.1 * body.trunk, -0.45 * d),
    ]
    canvas.plate(blade, u * 0.42, "thorax", rim=1.3, rim_mm=6 * body.bone + 2)
    canvas.tube([blade[2], blade[3]], 4.5 * body.bone + 0.5, u * 0.2, "thorax", lesions=False)
    ridge = [(side * inner, top + 0.06 * body.trunk, -0.47 * d), (side * 0.75 * s, top, -0.36 * d), acromion]
    canvas.tube(ridge, 1.1 * r, u * 0.42, "thorax")
    canvas.blob(
        (side * 0.87 * s, top + 0.05 * body.trunk, -0.15 * d), (1.1 * r, 2.2 * r), u * 0.9, "thorax", flat=0.5
    )
    coracoid = (side * 0.78 * s, top + 0.015 * body.trunk, 0.1 * d)
    canvas.blob(coracoid, (1.2 * r, 1.1 * r), u * 0.6, "thorax", lesions=False)


def _pelvis(canvas: Canvas, body: Body, side: int, rng: np.random.Generator) -> None:
    u, p, t, d = body.uptake["pelvis"] * _vary(rng, 0.03), body.pelvis, body.trunk, body.depth
    k = p / 140  # pelvis relative to an adult's of 280 mm
    hip = body.hip
    # The blade is seen obliquely: thin in the middle, dense at the crest, the sacroiliac joint and
    # the acetabular roof.
    blade = [
        (side * 0.27 * p, hip - 0.085 * t, -0.34 * d),
        (side * 0.31 * p, hip - 0.165 * t, -0.35 * d),
        (side * 0.46 * p, hip - 0.215 * t, -0.3 * d),
        (side * 0.7 * p, hip - 0.235 * t, -0.12 * d),
        (side * 0.93 * p, hip - 0.2 * t, 0.08 * d),
        (side * 0.97 * p, hip - 0.145 * t, 0.25 * d),
        (side * 0.84 * p, hip - 0.085 * t, 0.27 * d),
        (side * 0.79 * p, hip - 0.03 * t, 0.1 * d),
        (side * 0.5 * p, hip + 0.0 * t, 0.0),
        (side * 0.41 * p, hip - 0.05 * t, -0.15 * d),
    ]
    canvas.plate(blade, u * 0.55, "pelvis", rim=1.25, rim_mm=14 * k + 2)
    crest = [
        (side * 0.46 * p, hip - 0.208 * t, -0.3 * d),
        (side * 0.7 * p, hip - 0.226 * t, -0.12 * d),
        (side * 0.91 * p, hip - 0.193 * t, 0.08 * d),
        (side * 0.945 * p, hip - 0.148 * t, 0.25 * d),
    ]
    canvas.tube(crest, 6.5 * k + 1, u * (0.3 + 0.12 * (1 - body.maturity)), "pelvis", flat=0.4)
    canvas.tube(
        [
            (side * 0.33 * p, hip - 0.17 * t, -0.36 * d),
            (side * 0.27 * p, hip - 0.11 * t, -0.36 * d),
            (side * 0.245 * p, hip - 0.065 * t, -0.34 * d),
        ],
        (6 * k + 1, 6.5 * k + 1, 5 * k + 1),
        u * rng.uniform(0.62, 0.85),
        "pelvis",
    )
    roof = [
        (side * p * (0.62 + 0.19 * np.cos(a)), hip - 0.005 * t - 0.165 * p * np.sin(a), 0.04 * d)
        for a in np.linspace(0.1, 2.9, 9)
    ]
    canvas.tube(roof, 6 * k + 1, u * 0.62, "pelvis", flat=0.5)
    # Ilium, pubis and ischium meet in the triradiate cartilage, lively until it closes at 12 to 15
    # years.
    open_ = float(np.interp(body.age, (0.5, 4, 11, 15), (0.35, 0.5, 0.6, 0.0)))
    for angle in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6):
        canvas.tube(
            [
                (side * 0.6 * p, hip + 0.015 * p, 0.0),
                (side * (0.6 + 0.1 * np.cos(angle)) * p, hip + (0.015 - 0.1 * np.sin(angle)) * p, 0.02 * d),
            ],
            3 * k + 1,
            body.uptake["physis"] * 0.25 * open_,
            "pelvis",
            lesions=False,
        )
    # Pubis and ischium ring the obturator foramen; between them the ischiopubic synchondrosis of
    # the young.
    ring = [
        (side * 0.56 * p, hip + 0.06 * p, 0.08 * d),
        (side * 0.3 * p, hip + 0.13 * p, 0.26 * d),
        (side * 0.085 * p, hip + 0.24 * p, 0.33 * d),
        (side * 0.1 * p, hip + 0.36 * p, 0.3 * d),
        (side * 0.27 * p, hip + 0.52 * p, 0.0),
        (side * 0.445 * p, hip + 0.57 * p, -0.22 * d),
        (side * 0.57 * p, hip + 0.36 * p, -0.2 * d),
        (side * 0.57 * p, hip + 0.12 * p, -0.1 * d),
    ]
    thick = np.array([9, 7, 9, 6, 6, 10, 10, 9]) * k + 1
    dense = u * np.array([0.6, 0.5, 0.62, 0.45, 0.45 + 0.4 * (1 - body.maturity), 0.62, 0.6, 0.62])
    canvas.tube(ring, thick, dense, "pelvis", flat=0.5)


def _sacrum(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    u, p, t, d = body.uptake["pelvis"], body.pelvis, body.trunk, body.depth
    top, x = body.along(0.9), body.midline(body.along(0.9))
    base = [
        (x - 0.36 * p, top + 0.01 * t, -0.24 * d),
        (x + 0.36 * p, top + 0.01 * t, -0.24 * d),
        (x + 0.25 * p, top + 0.09 * t, -0.36 * d),
        (x + 0.07 * p, top + 0.185 * t, -0.38 * d),
        (x - 0.07 * p, top + 0.185 * t, -0.38 * d),
        (x - 0.25 * p, top + 0.09 * t, -0.36 * d),
    ]
    canvas.plate(base, u * 0.5, "pelvis", rim=1.15, rim_mm=5)
    for i in range(5):
        z, half = top + t * (0.022 + 0.036 * i), p * (0.2 - 0.032 * i)
        bar = [(x - 0.6 * half, z, -0.3 * d), (x + 0.6 * half, z, -0.3 * d)]
        canvas.tube(bar, 0.015 * t, u * 0.3 * _vary(rng, 0.12), "pelvis", flat=0.7)
    coccyx = [(x, top + 0.19 * t, -0.38 * d), (x, top + 0.235 * t, -0.3 * d)]
    canvas.tube(coccyx, 0.035 * p, u * 0.3, "pelvis", lesions=False)
