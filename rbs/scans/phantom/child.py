"""One phantom child: expected counts, labels and lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, zoom

from rbs.scans.phantom.axial import draw_axial
from rbs.scans.phantom.body import draw_body
from rbs.scans.phantom.canvas import Canvas
from rbs.scans.phantom.growth import Child, Sex, draw_child, expected_counts
from rbs.scans.phantom.limbs import draw_arm, draw_leg, pose
from rbs.scans.phantom.organs import (
    Lesion,
    draw_injection,
    draw_lesions,
    draw_outline,
    draw_urinary,
    soft_tissue,
)
from rbs.scans.phantom.projection import Camera, project
from rbs.scans.scan import View, align

Array = npt.NDArray[np.float32]

ROWS, COLUMNS, SPACING_MM = 1024, 256, 2.26
VIEWS = (View.ANTERIOR, View.POSTERIOR)
UNSCANNED = 1e-6
"""Expected counts of a pixel that the scan did not reach: not 0, to keep Poisson likelihoods finite."""

_PLANES = 8


@dataclass(frozen=True)
class Phantom:
    """A child and what a standard scan of it is expected to hold.

    Attributes:
        child: Whom it stands for.
        expectation: Expected counts at 20 cm/min, float32 (2, rows, columns): anterior, and posterior as a
        camera writes it.
        labels: Region of each pixel, uint8 (2, rows, columns); see `rbs.scans.scan.REGIONS`. Hot lesions
        and the injection
            site are "hot spots" over their full width at half maximum, cold lesions keep the label of
            their bone.
        density: Own planar density of bone and urinary tract in the anterior orientation before
        attenuation and blur,
            float32 (rows, columns), without soft tissue; the femoral diaphysis is 1.
        soft: The same of soft tissue.
        lesions: Foci in bone.
        injected: Whether an injection site shows.
        marks: Landmarks by name, (row, column) in the anterior view.
        scan_length_mm: How far the table travelled.
    """

    child: Child
    expectation: Array
    labels: npt.NDArray[np.uint8]
    density: Array
    soft: Array
    lesions: tuple[Lesion, ...]
    injected: bool
    marks: dict[str, tuple[int, int]]
    scan_length_mm: float


def make_child(age_y: float, sex: Sex, rng: np.random.Generator) -> Phantom:
    """Draw a child and work out what a standard scan expects of it, 1024 x 256 pixels of 2.26 mm.

    Contrast, background, scatter, resolution and counts vary from child to child more widely than on one
    camera, so that
    what is learned holds on another.

    Args:
        age_y: 0.25 to 18 years.
        sex: "F" or "M".
        rng: Source of everything random; equal generators make equal children.

    Raises:
        RbsError: No such age or sex.
    """
    child = draw_child(age_y, sex, rng)
    body = draw_body(child, rng)
    arms, legs = pose(body, rng)
    lowest = max(leg.joints[3][1] for leg in legs) + 0.02 * body.height
    above, below = rng.uniform(25, 90), rng.uniform(25, 90)
    scanned = int(np.ceil((above + lowest + below) / SPACING_MM))
    rows = min(scanned, ROWS)
    top = int(rng.integers(0, min(ROWS - rows, 60) + 1))

    middle = COLUMNS * SPACING_MM / 2 + float(np.clip(rng.normal(0, 9), -20, 20))
    reach = max(body.depth * 0.55, 45)
    depths = np.linspace(-reach, reach, _PLANES)
    canvas = Canvas(
        (rows, COLUMNS), SPACING_MM, (middle, above), depths, _texture((rows, COLUMNS), 10, 0.09, rng)
    )
    lying = canvas.turned((0.0, body.hip), float(np.clip(rng.normal(0, 0.012), -0.03, 0.03)))
    with lying:
        outline = draw_outline(*canvas.grid(), body, arms, legs)
        draw_axial(canvas, body, rng)
        for arm in arms:
            draw_arm(canvas, body, arm, rng)
        for leg in legs:
            draw_leg(canvas, body, leg, rng)
        draw_urinary(canvas, body, rng)
        injected = draw_injection(canvas, arms, rng)
    lesions = draw_lesions(canvas, body, rng)
    per_mm = soft_tissue(
        outline,
        body,
        _texture((rows, COLUMNS), 60, 0.12, rng) * _texture((rows, COLUMNS), 15, 0.06, rng),
        rng,
    )

    camera = Camera(
        SPACING_MM,
        front_mm=body.depth / 2 + rng.uniform(40, 110),
        back_mm=-body.depth / 2 - rng.uniform(45, 85),
        blur=rng.uniform(0.92, 1.2),
        scatter=rng.uniform(0.15, 0.35),
        tail_mm=rng.uniform(65, 95),
    )
    seen = project(canvas.planes, depths, per_mm, outline.front, outline.back, camera)
    seen += np.float32(rng.uniform(0.002, 0.012) * seen.mean())  # room, and what leaks through the septa
    dark = int(rng.integers(0, 12))  # columns beyond the edges of the crystal
    seen[:, :, :dark] = 0
    seen[:, :, COLUMNS - dark :] = 0
    counts = expected_counts(child.weight_kg) * float(np.exp(np.clip(rng.normal(0, 0.18), -0.38, 0.38)))
    seen *= np.float32(2 * counts / seen.sum())

    frame = np.zeros((ROWS, COLUMNS), np.float32)
    expectation = np.full((2, ROWS, COLUMNS), UNSCANNED, np.float32)
    expectation[:, top : top + rows] = np.maximum(seen, UNSCANNED)
    labels = np.zeros((2, ROWS, COLUMNS), np.uint8)
    labels[:, top : top + rows] = canvas.labels
    density, soft = frame.copy(), frame.copy()
    density[top : top + rows] = canvas.planes.sum(axis=0)
    soft[top : top + rows] = per_mm * outline.thickness()
    moved = tuple(Lesion(s.region, s.row + top, s.column, s.depth_mm, s.fwhm_mm, s.contrast) for s in lesions)
    return Phantom(
        child=child,
        expectation=align(expectation, VIEWS),
        labels=align(labels, VIEWS),
        density=density,
        soft=soft,
        lesions=moved,
        injected=injected,
        marks={name: (row + top, column) for name, (row, column) in canvas.marks.items()},
        scan_length_mm=rows * SPACING_MM,
    )


def _texture(shape: tuple[int, int], scale_mm: float, spread: float, rng: np.random.Generator) -> Array:
    """A smooth random factor about 1 whose logarithm has this spread and correlation length."""
    step = max(int(scale_mm / SPACING_MM / 2), 1)
    coarse = tuple(-(-n // step) + 2 for n in shape)
    noise = gaussian_filter(
        rng.standard_normal(coarse, dtype=np.float32), scale_mm / SPACING_MM / step, mode="wrap"
    )
    smooth = zoom(noise / noise.std(), step, order=1)[: shape[0], : shape[1]]
    return np.exp(np.float32(spread) * np.clip(smooth, -2.5, 2.5)).astype(np.float32)
