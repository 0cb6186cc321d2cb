"""Expected counts of the two detectors of a whole-body camera from depth planes of tracer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, zoom

from rbs.synthetic.skeleton.canvas import Tile

Array = npt.NDArray[np.float32]

ATTENUATION_PER_MM = 0.012
"""Broad-beam attenuation of 140 keV in tissue."""

_DISTANCE_MM = (0.0, 50.0, 100.0, 150.0, 200.0, 400.0)
_FWHM_MM = (3.8, 5.2, 7.0, 9.1, 11.2, 19.6)

FWHM_PER_SIGMA = 2.3548


@dataclass(frozen=True)
class Camera:
    """Camera and distances of one acquisition.

    Attributes:
        spacing_mm: Edge of a pixel, mm.
        front_mm: y of the anterior collimator's face, mm.
        back_mm: y of the posterior collimator's face, mm, negative.
        blur: Factor on the nominal resolution.
        scatter: Scattered counts as a fraction of all.
        tail_mm: FWHM of scatter, mm.
        sensitivity: Of each column of the anterior and the posterior view, about 1, (2, columns):
            the moving bed smears the non-uniformity of the field into streaks along the body;
            the table weakens what passes through it.
    """

    spacing_mm: float
    front_mm: float
    back_mm: float
    blur: float = 1.0
    scatter: float = 0.25
    tail_mm: float = 80.0
    sensitivity: Array = field(default_factory=lambda: np.ones((2, 1), np.float32))


@dataclass(frozen=True)
class Attenuator:
    """Something that weakens what lies behind it, as seen by either detector.

    Attributes:
        name: Kind of the metal.
        row: Row of its middle in both views.
        column: Column of its middle in the anterior view.
        depth_mm: y: distance in front of the middle of the trunk, mm.
        tile: The pixels that it lies over.
        transmission: Transmission of 140 keV, float32, on the tile.
    """

    name: str
    row: int
    column: int
    depth_mm: float
    tile: Tile
    transmission: Array

    def weaken(self, seen: Array) -> None:
        """Take its share away from what lies behind it, (rows, columns), in place."""
        seen[self.tile] *= self.transmission


def resolution_mm(distance_mm: float) -> float:
    """System FWHM of a low-energy high-resolution collimator at this distance from its face."""
    return float(np.interp(distance_mm, _DISTANCE_MM, _FWHM_MM))


def project(
    planes: Array,
    depths_mm: npt.NDArray[np.floating],
    soft_per_mm: Array,
    front_mm: Array,
    back_mm: Array,
    camera: Camera,
    attenuators: Sequence[Attenuator] = (),
) -> Array:
    """Expected counts, up to one factor, in the anterior and the (not yet mirrored) posterior view.

    Every plane of bone is weakened by the tissue before it, exp(-mu d), and by any metal before it,
    and blurred for its distance to the collimator; soft tissue from surface to surface contributes
    its integral, (1 - exp(-mu T)) / mu, and metal weakens it as if it lay in its middle.

    Args:
        planes: Planar density, (planes, rows, columns).
        depths_mm: y of the planes.
        soft_per_mm: Density of soft tissue per mm of depth, (rows, columns).
        front_mm: y of the front surface of the body, (rows, columns); below `back_mm` outside the
            body.
        back_mm: y of its back surface.
        camera: The acquisition.
        attenuators: Metal on the child and in it.

    Returns:
        float32 (2, rows, columns).
    """
    inside = front_mm > back_mm
    thick = np.where(inside, front_mm - back_mm, 0).astype(np.float32)
    middle = (np.where(inside, front_mm, 0) + np.where(inside, back_mm, 0)) / 2
    weight = thick.sum()
    centre = float((middle * thick).sum() / weight) if weight else 0.0
    soft = soft_per_mm * (1 - np.exp(-ATTENUATION_PER_MM * thick)) / ATTENUATION_PER_MM
    views = np.empty((2, *soft.shape), np.float32)
    for view, (surface, face, sign) in enumerate(
        ((front_mm, camera.front_mm, 1), (back_mm, camera.back_mm, -1))
    ):
        surface = np.where(inside, surface, 0)

        def weakened(image: Array, y: float, sign: int = sign) -> Array:
            for metal in attenuators:
                if sign * (metal.depth_mm - y) > 0:
                    metal.weaken(image)
            return image

        total = _blur(weakened(soft.copy(), centre), camera, sign * (face - centre))
        for plane, y in zip(planes, depths_mm, strict=True):
            if not plane.any():
                continue
            under = np.clip(sign * (surface - y), 0, thick)
            seen = weakened(plane * np.exp(np.float32(-ATTENUATION_PER_MM) * under), float(y))
            total += _blur(seen, camera, sign * (face - float(y)))
        total += camera.scatter / (1 - camera.scatter) * _tail(total, camera)
        views[view] = total * camera.sensitivity[view]
    return np.maximum(views, 0)


def _blur(plane: Array, camera: Camera, distance_mm: float) -> Array:
    sigma = resolution_mm(max(distance_mm, 0.0)) * camera.blur / FWHM_PER_SIGMA / camera.spacing_mm
    return gaussian_filter(plane, sigma, mode="constant", truncate=3.5)


def _tail(image: Array, camera: Camera) -> Array:
    """The image spread as widely as scatter, computed on pixels four times as large."""
    step = 4
    rows, columns = image.shape
    padded = np.pad(image, ((0, -rows % step), (0, -columns % step)))
    coarse = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).mean(axis=(1, 3))
    sigma = camera.tail_mm / FWHM_PER_SIGMA / camera.spacing_mm / step
    broad = gaussian_filter(coarse, sigma, mode="constant", truncate=3.0)
    return zoom(broad, step, order=1, grid_mode=True, mode="nearest")[:rows, :columns]
