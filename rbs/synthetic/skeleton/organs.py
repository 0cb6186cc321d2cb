"""Soft tissue, kidneys, bladder, injection site and drops of urine."""

from __future__ import annotations

import numpy as np

from rbs.synthetic.skeleton.axial import skull_half_breadth
from rbs.synthetic.skeleton.body import Array, Body, Outline
from rbs.synthetic.skeleton.canvas import Canvas
from rbs.synthetic.skeleton.limbs import Limb

SIDES = (-1, 1)


def draw_outline(x: Array, z: Array, body: Body, arms: list[Limb], legs: list[Limb]) -> Outline:
    """Front and back surface of the child on a grid of x and z (rows, columns), mm."""
    outline = Outline(x, z)
    h, d, g = body.height, body.depth, body.girth
    table = -0.5 * d
    w = skull_half_breadth(body)
    head = body.head
    at = np.array([-0.02, 0.03, 0.12, 0.3, 0.5, 0.7, 0.85, 0.95, 1.03]) * head
    skull = np.array([0.0, 0.42, 0.75, 1.03, 1.07, 1.0, 0.83, 0.66, 0.3]) * w
    x0 = body.midline(0)
    outline.profile(list(at), [x0] * 9, list(skull), list(skull * 1.25), [0.0] * 9)
    t = np.array([-0.18, -0.05, 0.06, 0.11, 0.16, 0.24, 0.38, 0.55, 0.7, 0.82, 0.95, 1.03, 1.1, 1.16])
    neck = 0.036 * h * g
    flank, hips = body.chest * 1.1, body.pelvis * 1.17 * g**0.5
    shoulders = 0.6 * body.shoulder, 0.98 * body.shoulder, 1.1 * body.shoulder
    waist = flank * 1.02, flank, flank * 0.95, 0.5 * (flank + hips)
    below = hips, hips * 1.03, hips * 0.9, hips * 0.35
    breadth = np.array([neck, neck, neck * 1.15, *shoulders, *waist, *below])
    half = np.array([0.3, 0.3, 0.33, 0.38, 0.42, 0.46, 0.5, 0.5, 0.48, 0.47, 0.46, 0.42, 0.35, 0.2]) * d
    zs = body.along(0) + t * body.trunk
    outline.profile(
        list(zs), [body.midline(v) for v in zs], list(breadth), list(half), list(table + half * 1.02)
    )
    for arm in arms:
        s, e, wr, tip = arm.joints
        thick = [0.031 * h * g, 0.026 * h * g, 0.017 * h, 0.016 * h]
        outline.limb([tuple(s), tuple(e), tuple(wr), tuple(tip)], thick)
    for leg in legs:
        hip, knee, ankle, toes = leg.joints
        calf, thigh = knee + (ankle - knee) * 0.3, hip + (knee - hip) * 0.22
        thick = [0.054 * h * g, 0.052 * h * g, 0.034 * h * g**0.7, 0.034 * h * g, 0.021 * h]
        outline.limb([tuple(hip), tuple(thigh), tuple(knee), tuple(calf), tuple(ankle)], thick)
        outline.limb([tuple(ankle), tuple(toes)], [0.024 * h, 0.019 * h])
    return outline


def soft_tissue(outline: Outline, body: Body, texture: Array, rng: np.random.Generator) -> Array:
    """Tracer in soft tissue per mm of depth, (rows, columns); the femoral diaphysis has 1.

    It sums to about a third of the mean bone over the trunk, is a little higher over liver,
    mediastinum and the muscle of the thighs, and varies slowly.
    """
    per_mm = np.full(outline.x.shape, body.uptake["soft"] / body.depth, np.float32) * texture
    for place, size, more in (
        ((-0.4 * body.chest, body.along(0.6)), (0.5 * body.chest, 0.12 * body.trunk), rng.uniform(0.0, 0.35)),
        (
            (0.05 * body.chest, body.along(0.4)),
            (0.45 * body.chest, 0.15 * body.trunk),
            rng.uniform(0.0, 0.25),
        ),
        (
            (0.5 * body.chest, body.along(0.58)),
            (0.3 * body.chest, 0.08 * body.trunk),
            rng.choice([0.0, 0.0, 0.0, 0.5]),
        ),
    ):
        r2 = ((outline.x - place[0]) / size[0]) ** 2 + ((outline.z - place[1]) / size[1]) ** 2
        per_mm *= 1 + np.float32(more) * np.exp(-r2)
    # Limbs are thinner than the trunk but not in proportion: muscle is perfused better than the
    # belly's content.
    limbs = 1 + 0.5 * np.clip((outline.z - body.along(1.0)) / (0.15 * body.height), 0, 1)
    return (per_mm * limbs).astype(np.float32)


def draw_urinary(canvas: Canvas, body: Body, rng: np.random.Generator, *, filling: float = 1.0) -> None:
    """Draw kidneys and bladder; `filling` is the bladder's activity relative to the first pass."""
    h, d = body.height, body.depth
    size = h * float(np.interp(body.age, (0.5, 6, 16), (0.042, 0.035, 0.031)))
    for side in SIDES:
        if rng.random() < 0.03:
            continue  # one kidney only
        u = body.uptake["kidneys"] * float(np.exp(np.clip(rng.normal(0, 0.12), -0.24, 0.24)))
        at = (
            side * 0.55 * body.chest * rng.uniform(0.92, 1.08),
            body.along(0.69 + (0.02 if side < 0 else 0)),
            -0.26 * d,
        )
        canvas.blob(
            at, (0.5 * size, size), u * 0.9, "urinary tract", angle=side * -0.22, flat=0.5, lesions=False
        )
        pelvis, extra = (at[0] - side * 0.15 * size, at[1], at[2] + 0.03 * d), u * rng.uniform(0.05, 0.6)
        canvas.blob(pelvis, (0.2 * size, 0.4 * size), extra, "urinary tract", lesions=False)
    # Mostly small after voiding, now and then full; the fuller, the more it holds.
    u = float(np.exp(np.clip(rng.normal(np.log(6.5), 0.8), np.log(2), np.log(40))))
    wide = 0.017 * h * (0.75 + 0.35 * rng.random() + 0.12 * np.log(u)) * filling ** (1 / 3)
    u *= filling ** (1 / 3)  # more urine of the same activity: broader and deeper alike
    at = (rng.normal(0, 0.04) * body.pelvis, body.hip - 0.2 * wide + 0.08 * body.pelvis, 0.18 * d)
    canvas.blob(at, (wide, wide * rng.uniform(0.6, 0.95)), u, "urinary tract", flat=0.25, lesions=False)


def draw_injection(canvas: Canvas, arms: list[Limb], rng: np.random.Generator) -> bool:
    """Leave tracer at the injection in 30 % of children: hand, wrist or crook of the elbow."""
    if rng.random() >= 0.3:
        return False
    arm = arms[int(rng.integers(2))]
    _, elbow, wrist, tips = arm.joints
    at = elbow if rng.random() < 0.35 else wrist + (tips - wrist) * rng.uniform(0.0, 0.45)
    x, z, y = canvas.place([at])[0]
    wide, peak = rng.uniform(6, 16), float(np.exp(rng.uniform(np.log(5), np.log(60))))
    canvas.hot((x, z, y + 8), (wide, wide), peak)
    return True


def draw_contamination(canvas: Canvas, body: Body, outline: Outline, rng: np.random.Generator) -> bool:
    """Dry drops of urine on skin or clothes of 6 % of children, between navel and thighs."""
    wet = rng.random() < 0.06
    for drop in range(3):
        at = (rng.uniform(-0.8, 0.8) * body.pelvis, body.hip + rng.uniform(-0.3, 1.1) * body.pelvis, 0.0)
        size, longer = rng.uniform(8, 18), rng.uniform(1, 2.5)
        peak, angle = float(np.exp(rng.uniform(np.log(0.7), np.log(10)))), rng.uniform(0, np.pi)
        if wet and rng.random() < 1 / (1 + drop):
            x, z, _ = canvas.place([at])[0]
            canvas.hot((x, z, outline.surface(canvas.pixel(x, z))), (size * longer, size), peak, angle)
    return wet
