"""One phantom child: expected counts, labels and lesions."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, shift, zoom

from rbs.scans.scan import View, align
from rbs.synthetic.skeleton.attenuators import draw_attenuators
from rbs.synthetic.skeleton.axial import draw_axial
from rbs.synthetic.skeleton.body import Body, draw_body
from rbs.synthetic.skeleton.canvas import Canvas
from rbs.synthetic.skeleton.disease import Disease, Lesion, draw_disease, draw_lesions
from rbs.synthetic.skeleton.growth import Child, Sex, draw_child, expected_counts
from rbs.synthetic.skeleton.limbs import Limb, draw_arm, draw_leg, pose
from rbs.synthetic.skeleton.motion import STILL, Motion, draw_motion
from rbs.synthetic.skeleton.organs import (
    draw_contamination,
    draw_injection,
    draw_outline,
    draw_urinary,
    soft_tissue,
)
from rbs.synthetic.skeleton.projection import Attenuator, Camera, project

Array = npt.NDArray[np.float32]

ROWS, COLUMNS, SPACING_MM = 1024, 256, 2.26
VIEWS = (View.ANTERIOR, View.POSTERIOR)
UNSCANNED = 1e-6
"""Expected counts of a pixel that the scan did not reach: not 0, to keep Poisson likelihoods
finite."""
_PLANES = 8


@dataclass(frozen=True)
class Phantom:
    """A child and the expectation of a standard scan of it.

    Attributes:
        child: Whom it stands for.
        expectation: Expected counts at 20 cm/min, float32 (2, rows, columns): anterior, and
            posterior as a camera writes it.
        labels: Region of each pixel, uint8 (2, rows, columns); see `rbs.scans.scan.REGIONS`. Hot
            lesions, the injection site and drops of urine are "hot spots" over their full width at
            half maximum, cold lesions keep the label of their bone.
        density: Own planar density of bone and urinary tract in the anterior orientation before
            attenuation and blur, float32 (rows, columns), without soft tissue; the femoral
            diaphysis of a healthy leg is 1.
        soft: The same of soft tissue.
        disease: Disease of whole bones.
        lesions: Foci in bone, those that were scanned.
        injected: True where tracer was left at the injection.
        contaminated: True where drops of urine lie on skin or clothes.
        attenuators: Metal on the child and in it.
        marks: Landmarks by name, (row, column) in the anterior view, not rounded; those that were
            scanned.
        motion: How the child had moved since the first pass.
        partial: True where only a part of the body was scanned.
        scan_length_mm: Travel of the table.
    """

    child: Child
    expectation: Array
    labels: npt.NDArray[np.uint8]
    density: Array
    soft: Array
    disease: Disease
    lesions: tuple[Lesion, ...]
    injected: bool
    contaminated: bool
    attenuators: tuple[Attenuator, ...]
    marks: dict[str, tuple[float, float]]
    motion: Motion
    partial: bool
    scan_length_mm: float


def make_child(
    age_y: float,
    sex: Sex,
    rng: np.random.Generator,
    farther_mm: float = 0.0,
    lesions: int | None = None,
    camera: Callable[[Camera], Camera] | None = None,
) -> Phantom:
    """Draw a child and the expectation of its standard scan, 1024 x 256 pixels of 2.26 mm.

    Contrast, background, scatter, resolution and counts vary from child to child more widely than
    on one camera, so that what is learned holds on another.

    Args:
        age_y: 0.25 to 18 years.
        sex: "F" or "M".
        rng: Source of everything random; equal generators make equal children.
        farther_mm: Added distance of both collimators from the child.
        lesions: Number of its lesions; None draws it (`rbs.synthetic.skeleton.disease`).
        camera: Another camera of the same pixels in place of the one drawn; child and total counts
            are the same.

    Raises:
        RbsError: No such age or sex.
    """
    return _see(_draw_subject(age_y, sex, rng), rng, farther_mm, lesions=lesions, another=camera)[0]


def make_passes(
    age_y: float, sex: Sex, rng: np.random.Generator, moves: np.random.Generator, farther_mm: float = 0.0
) -> tuple[Phantom, Phantom]:
    """Draw the child of `make_child`, and the same child after it has moved, under one camera.

    Args:
        age_y: 0.25 to 18 years.
        sex: "F" or "M".
        rng: Source of everything random about the child.
        moves: Source of its motion between the passes.
        farther_mm: Added distance of both collimators from the child.

    Raises:
        RbsError: No such age or sex.
    """
    subject = _draw_subject(age_y, sex, rng)
    again = deepcopy(rng)
    first, settled = _see(subject, rng, farther_mm)
    motion = draw_motion(subject.body, subject.arms, subject.legs, moves)
    second, _ = _see(subject, again, farther_mm, motion, settled)
    return first, second


@dataclass(frozen=True)
class _Subject:
    """A child on the table."""

    child: Child
    disease: Disease
    body: Body
    arms: list[Limb]
    legs: list[Limb]


@dataclass(frozen=True)
class _Field:
    """Field of a scan, and the place of the child in it.

    Attributes:
        rows: From above the head to below the feet.
        scanned: Those of them that were scanned.
        top: Row of the image of the first scanned one.
        origin_mm: Distance of the body axis from the left edge and of the vertex from the upper
            edge.
        tilt: Radians, clockwise as seen from the front.
    """

    rows: int
    scanned: slice
    top: int
    origin_mm: tuple[float, float]
    tilt: float


@dataclass(frozen=True)
class _FirstPass:
    """Results of the first pass that hold in the second: densities of bones, counts a unit."""

    bones: tuple[float, ...]
    counts: np.float32


def _draw_subject(age_y: float, sex: Sex, rng: np.random.Generator) -> _Subject:
    child = draw_child(age_y, sex, rng)
    body = draw_body(child, rng)
    arms, legs = pose(body, rng)
    disease = draw_disease(rng)
    return _Subject(child, disease, *disease.affect(body, arms, legs))


def _draw_field(subject: _Subject, rng: np.random.Generator) -> _Field:
    """Draw the field: 6 % of children are not scanned from head to toe, 15 % lie to one side."""
    body = subject.body
    lowest = max(leg.joints[3][1] for leg in subject.legs) + 0.02 * body.height
    above, below = rng.uniform(25, 90), rng.uniform(25, 90)
    rows = min(int(np.ceil((above + lowest + below) / SPACING_MM)), ROWS)
    part, at = rng.random(), rng.random()
    first, last = 0, rows
    if part < 0.03:  # from the head to somewhere between the hips and the knees
        last = int((above + body.hip + (0.04 + 0.2 * at) * body.height) / SPACING_MM)
    elif part < 0.06:  # from the loins to the feet
        first = int((above + body.hip - (0.02 + 0.1 * at) * body.height) / SPACING_MM)
    top = int(rng.random() * min(ROWS - (last - first), 60))
    usual, far = float(np.clip(rng.normal(0, 9), -20, 20)), rng.uniform(-55, 55)
    aside = usual if rng.random() < 0.85 else far
    straight, askew = float(np.clip(rng.normal(0, 0.012), -0.03, 0.03)), rng.uniform(-0.1, 0.1)
    tilt = straight if rng.random() < 0.9 else askew
    origin = (COLUMNS * SPACING_MM / 2 + aside, above)
    return _Field(rows, slice(first, last), top, origin, tilt)


def _draw_camera(body: Body, rng: np.random.Generator, farther_mm: float) -> Camera:
    streaks = gaussian_filter(rng.standard_normal((2, COLUMNS)), (0, 10), mode="reflect")
    streaks *= rng.uniform(0.003, 0.012) / streaks.std()
    sensitivity = 1 + streaks
    x = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * SPACING_MM
    beyond = np.abs(x) - rng.uniform(380, 450) / 2
    sensitivity[1] *= 1 - rng.uniform(0.04, 0.12) * np.clip(0.5 - beyond / 12, 0, 1)  # the table
    return Camera(
        SPACING_MM,
        front_mm=body.depth / 2 + rng.uniform(40, 110) + farther_mm,
        back_mm=-body.depth / 2 - rng.uniform(45, 85) - farther_mm,
        blur=rng.uniform(0.92, 1.4),
        scatter=rng.uniform(0.15, 0.35),
        tail_mm=rng.uniform(65, 95),
        sensitivity=sensitivity.astype(np.float32),
    )


def _see(
    subject: _Subject,
    rng: np.random.Generator,
    farther_mm: float,
    motion: Motion = STILL,
    first: _FirstPass | None = None,
    lesions: int | None = None,
    another: Callable[[Camera], Camera] | None = None,
) -> tuple[Phantom, _FirstPass]:
    """One pass: draw the child as it lies after `motion` and project it.

    Two passes with equal generators draw the same child, so that nothing drawn here may depend on
    `motion`.
    """
    child, body = subject.child, subject.body
    field = _draw_field(subject, rng)
    rows = field.rows
    arms, legs = motion.pose(subject.arms, subject.legs)

    def texture(scale_mm: float, spread: float) -> Array:
        """It belongs to the child and moves along."""
        drawn = _texture((rows, COLUMNS), scale_mm, spread, rng)
        by = np.array(motion.shift_mm[::-1]) / SPACING_MM
        return shift(drawn, by, order=1, mode="nearest") if by.any() else drawn

    reach = max(body.depth * 0.55, 45)
    depths = np.linspace(-reach, reach, _PLANES)
    origin = (field.origin_mm[0] + motion.shift_mm[0], field.origin_mm[1] + motion.shift_mm[1])
    canvas = Canvas((rows, COLUMNS), SPACING_MM, origin, depths, texture(10, 0.09))
    with canvas.turned((0.0, body.hip), field.tilt):
        outline = draw_outline(*canvas.grid(), body, arms, legs)
        draw_axial(canvas, body, rng, head_turn=motion.head)
        for arm in arms:
            draw_arm(canvas, body, arm, rng)
        for leg in legs:
            draw_leg(canvas, body, leg, rng)
        for limbs, names in ((arms, ("shoulder", "elbow", "wrist")), (legs, ("hip", "knee", "ankle"))):
            for limb in limbs:
                for name, joint in zip(names, limb.joints, strict=False):
                    canvas.mark(f"{name} {limb.side:+d}", joint)
        draw_urinary(canvas, body, rng, filling=motion.filling)
        injected = draw_injection(canvas, arms, rng)
        contaminated = draw_contamination(canvas, body, outline, rng)
        attenuators = draw_attenuators(canvas, body, outline, arms, legs, rng)
    found, bones = draw_lesions(canvas, body, rng, None if first is None else first.bones, lesions)
    per_mm = soft_tissue(outline, body, texture(60, 0.12) * texture(15, 0.06), rng)

    camera = _draw_camera(body, rng, farther_mm)
    camera = camera if another is None else another(camera)
    seen = project(canvas.planes, depths, per_mm, outline.front, outline.back, camera, attenuators)
    seen += np.float32(rng.uniform(0.002, 0.012) * seen.mean())  # room, and what leaks through the septa
    dark = int(rng.integers(0, 12))  # columns beyond the edges of the crystal
    seen[:, :, :dark] = 0
    seen[:, :, COLUMNS - dark :] = 0
    counts = expected_counts(child.weight_kg) * float(np.exp(np.clip(rng.normal(0, 0.18), -0.38, 0.38)))
    a_unit = np.float32(2 * counts / seen.sum()) if first is None else first.counts

    def framed(image: npt.NDArray[Any], nothing: float = 0) -> npt.NDArray[Any]:
        """The scanned rows of (..., rows, columns) where the image has them."""
        part = image[..., field.scanned, :]
        frame = np.full((*image.shape[:-2], ROWS, COLUMNS), nothing, image.dtype)
        frame[..., field.top : field.top + part.shape[-2], :] = part
        return frame

    down = field.top - field.scanned.start

    def scanned(row: float, column: float) -> bool:
        return field.scanned.start <= row < field.scanned.stop and dark <= column < COLUMNS - dark

    phantom = Phantom(
        child=child,
        expectation=align(framed(np.maximum(seen * a_unit, UNSCANNED), UNSCANNED), VIEWS),
        labels=align(framed(canvas.labels), VIEWS),
        density=framed(canvas.planes.sum(axis=0)),
        soft=framed(per_mm * outline.thickness()),
        disease=subject.disease,
        lesions=tuple(replace(one, row=one.row + down) for one in found if scanned(one.row, one.column)),
        injected=injected,
        contaminated=contaminated,
        attenuators=tuple(
            replace(one, row=one.row + down) for one in attenuators if scanned(one.row, one.column)
        ),
        marks={
            name: (row + down, column) for name, (row, column) in canvas.marks.items() if scanned(row, column)
        },
        motion=motion,
        partial=field.scanned != slice(0, rows),
        scan_length_mm=(field.scanned.stop - field.scanned.start) * SPACING_MM,
    )
    return phantom, _FirstPass(bones, a_unit)


def _texture(shape: tuple[int, int], scale_mm: float, spread: float, rng: np.random.Generator) -> Array:
    """A smooth random factor about 1 whose logarithm has this spread and correlation length."""
    step = max(int(scale_mm / SPACING_MM / 2), 1)
    coarse = tuple(-(-n // step) + 2 for n in shape)
    noise = gaussian_filter(
        rng.standard_normal(coarse, dtype=np.float32), scale_mm / SPACING_MM / step, mode="wrap"
    )
    smooth = zoom(noise / noise.std(), step, order=1)[: shape[0], : shape[1]]
    return np.exp(np.float32(spread) * np.clip(smooth, -2.5, 2.5)).astype(np.float32)
