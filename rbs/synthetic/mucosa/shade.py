"""Light of two lamps beside the lens, scattered and reflected by the wall.

Light falls with the inverse square of the distance; mucosa scatters it by Lambert's law, softened
by what wanders under the surface; haemoglobin takes out green and blue (Beer-Lambert); a film of
mucus reflects (Beckmann's distribution of facets).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbs.endoscopy.colour import to_linear
from rbs.synthetic.mucosa.wall import Array

_HAEMOGLOBIN = np.array([0.16, 1.0, 0.85], np.float32)[:, None]
"""Relative extinction of red, green and blue light."""
_DYE = np.array([2.2, 0.55, 0.25], np.float32)[:, None]
"""The same for methylene blue and indigo carmine."""
_LAMPS = np.array([[3.0, 0.5, 0], [-3.0, 0.5, 0]], np.float32)
"""Right of the lens, below it and before it, mm."""


@dataclass(frozen=True)
class Surface:
    """Visible surface, one item a pixel.

    Attributes:
        points: (3, N), mm, in the camera's axes: right, down, ahead.
        normals: (3, N).
        film: Normals of the film of mucus, (3, N).
        albedo: Linear RGB, (3, N).
        gloss: Reflectance of the film, (N,).
        roughness: Slope of its facets, root mean square.
    """

    points: Array
    normals: Array
    film: Array
    albedo: Array
    gloss: Array
    roughness: float


def mucosa_albedo(base: Array, blood: Array, dye: Array) -> Array:
    """Linear RGB (3, N) of mucosa of encoded colour `base` (3,) with blood and dye, (N,)."""
    return to_linear(base)[:, None] * np.exp(-_HAEMOGLOBIN * blood - _DYE * dye)


def radiance(surface: Surface) -> Array:
    """Light towards the camera, linear RGB (3, N), without a scale."""
    seen = np.zeros_like(surface.points)
    distance = np.sqrt((surface.points**2).sum(0))
    view = -surface.points / distance
    for lamp in _LAMPS:
        way = lamp[:, None] - surface.points
        squared = (way**2).sum(0)
        way /= np.sqrt(squared)
        beam = np.maximum(-way[2], 0) / (squared + 9)  # a lamp has a size
        facing = (surface.normals * way).sum(0)
        # Light that has wandered under the surface comes out where none falls in, red light most.
        soft = np.array([0.45, 0.35, 0.3], np.float32)[:, None]
        seen += surface.albedo * (np.maximum(facing + soft, 0) / (1 + soft)) * beam
        half = way + view
        half /= np.sqrt((half**2).sum(0))
        cosine = np.maximum((surface.film * half).sum(0), 1e-3)
        tangent = (1 - cosine**2) / cosine**2 / np.float32(surface.roughness**2)
        facets = np.exp(-tangent) / (4 * np.float32(surface.roughness**2) * cosine**4)
        seen += surface.gloss * facets * beam * (facing > 0)
    # What the walls throw at each other, redder with every turn.
    return seen + 0.03 * surface.albedo**1.5 / (distance**2 + 60)


def exposed(light: Array, mean: float, seen: npt.NDArray[np.bool_]) -> Array:
    """Light scaled by the camera's exposure, with the shoulder of its tone curve, linear RGB 0..1.

    Args:
        light: (3, N).
        mean: Encoded grey of the middle of the picture.
        seen: Pixels that count, bool (N,).
    """
    luma = light.mean(0)[seen]
    level = np.median(luma) ** 0.7 * luma.mean() ** 0.3  # a bright wall close by counts, but not all
    light = light * (to_linear(np.array([mean]))[0] / max(float(level), 1e-12))
    knee = np.float32(0.65)
    return np.where(light < knee, light, knee + (1 - knee) * np.tanh((light - knee) / (1 - knee)))
