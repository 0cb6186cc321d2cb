"""The build of one child in mm, the activity of its bones, and its outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbs.synthetic.skeleton.growth import Child, head_fraction, hip_fraction, physis_ratio

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Body:
    """Lengths (mm), angles (radians) and planar densities (femoral diaphysis = 1) to draw from.

    Attributes:
        age: Years.
        height: Vertex to sole.
        head: Vertex to chin.
        hip: Vertex to hip joints.
        depth: Front to back of the trunk.
        shoulder, chest, pelvis: Half the breadth between the shoulder joints, of the rib cage,
            between the
        iliac crests.
        bone: Calibre of bones relative to an adult's, for a length of 1 mm.
        maturity: 0 at birth to 1 when growth ends.
        girth: Breadth of the soft parts relative to the median child.
        bend, bow: Sideways offset of the spine's middle and its second harmonic.
        uptake: Planar density by name of the group of bones, of the kidneys, and of the soft tissue
            of the trunk from front to back.
    """

    age: float
    height: float
    head: float
    hip: float
    depth: float
    shoulder: float
    chest: float
    pelvis: float
    bone: float
    maturity: float
    girth: float
    bend: float
    bow: float
    uptake: dict[str, float]

    @property
    def trunk(self) -> float:
        """Chin to hip joints, mm."""
        return self.hip - self.head

    def along(self, t: float) -> float:
        """Height at the fraction t of the way from the chin to the hip joints."""
        return self.head + t * self.trunk

    def midline(self, z: float) -> float:
        """Sideways offset of the spine at z, mm."""
        t = np.clip((z - self.head) / self.trunk, 0, 1)
        return float(self.bend * np.sin(np.pi * t) + self.bow * np.sin(2 * np.pi * t))

    def spine_y(self, z: float) -> float:
        """Depth of the vertebral bodies at z: neck and loin forwards, chest and sacrum back."""
        t = (z - self.head) / self.trunk
        return self.depth * float(
            np.interp(t, (-0.1, 0.1, 0.4, 0.8, 0.92, 1.08), (-0.1, -0.12, -0.27, -0.12, -0.16, -0.3))
        )


def draw_body(child: Child, rng: np.random.Generator) -> Body:
    """A body for this child; two calls with one generator give two different builds."""
    height, age = child.height_cm * 10, child.age_y

    def vary(spread: float) -> float:
        return float(np.exp(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread)))

    maturity = float(np.clip(age / 16, 0, 1))
    # A body of this height and weight: density of water, so that girth goes as the root of weight
    # over height.
    girth = float(
        np.sqrt(
            child.weight_kg / (13.5e-9 * height**3 * np.interp(age, (0.5, 2, 6, 16), (1.95, 1.25, 1.0, 0.92)))
        )
    )
    girth = float(np.clip(girth, 0.85, 1.2))
    physis = physis_ratio(age, child.sex)
    uptake = {
        "spine": rng.uniform(1.7, 2.6),
        "pelvis": rng.uniform(2.1, 3.6),
        "ribs": rng.uniform(0.65, 0.95),
        "sternum": rng.uniform(0.65, 1.1),
        "skull": rng.uniform(0.6, 0.92),
        "face": rng.uniform(1.6, 2.6),
        "shoulder": rng.uniform(0.9, 1.4),
        "diaphysis": 1.0,
        "metaphysis": rng.uniform(1.6, 2.5),
        "epiphysis": rng.uniform(1.1, 1.7),
        "physis": physis * float(np.clip(vary(0.05), 0.94, 1.06)),
        "arm": rng.uniform(0.75, 1.0),
        "hand": rng.uniform(0.7, 1.3),
        "foot": rng.uniform(0.9, 1.6),
        "kidneys": rng.uniform(0.85, 1.7),
        "soft": float(np.exp(np.clip(rng.normal(np.log(0.56), 0.35), np.log(0.25), np.log(1.2)))),
    }
    return Body(
        age=age,
        height=height,
        head=height * head_fraction(age) * float(np.clip(vary(0.02), 0.97, 1.03)),
        hip=height * hip_fraction(age) * vary(0.008),
        depth=height * float(np.interp(age, (0.5, 2, 6, 16), (0.165, 0.145, 0.125, 0.118))) * girth**0.8,
        shoulder=height * 0.098 * vary(0.03),
        chest=height
        * float(np.interp(age, (0.5, 2, 6, 16), (0.094, 0.09, 0.083, 0.08)))
        * girth**0.3
        * vary(0.03),
        pelvis=height
        * float(np.interp(age, (0.5, 16), (0.079, 0.081)))
        * vary(0.03)
        * (1.03 if child.sex == "F" else 1),
        bone=(height / 1750) ** 0.88 * vary(0.05),
        maturity=maturity,
        girth=girth,
        bend=float(rng.normal(0, 0.0028) * height),
        bow=float(rng.normal(0, 0.002) * height),
        uptake=uptake,
    )


class Outline:
    """Front and back surface of the body as depth maps, grown part by part.

    Args:
        x: x of each pixel, mm, (rows, columns); z likewise, in the frame of the body.
        z: z of each pixel, mm.

    Attributes:
        front: y of the front surface, mm; equal to `back` where there is no body.
        back: y of the back surface, mm.
    """

    def __init__(self, x: Array, z: Array) -> None:
        self.x, self.z = x, z
        self.front = np.full(x.shape, -np.inf, np.float32)
        self.back = np.full(x.shape, np.inf, np.float32)

    def thickness(self) -> Array:
        """Tissue from front to back, mm, 0 outside."""
        return np.where(self.front > self.back, self.front - self.back, 0).astype(np.float32)

    def surface(self, pixel: tuple[int, int]) -> float:
        """Depth of the front of the body at a pixel; of all of the body where it lies beside it."""
        y = float(self.front[pixel])
        return y if np.isfinite(y) else float(self.front[np.isfinite(self.front)].max())

    def profile(
        self, z: list[float], middle: list[float], breadth: list[float], depth: list[float], y: list[float]
    ) -> None:
        """Half breadth, half depth, middle x and centre y of a part along z (trunk, head)."""
        rows = self.z[:, self.z.shape[1] // 2]
        reach = (rows.min() <= max(z)) and (rows.max() >= min(z))
        if not reach:
            return

        def at(values: list[float]) -> Array:
            return np.interp(self.z, z, values).astype(np.float32)

        inside = (self.z >= z[0]) & (self.z <= z[-1])
        u = np.abs(self.x - at(middle)) / np.maximum(at(breadth), 1e-3)
        half = at(depth) * np.sqrt(np.clip(1 - u**2.6, 0, 1))
        self._join(inside & (u < 1), at(y), half)

    def limb(
        self, points: list[tuple[float, float, float]], radii: list[float], *, depth: float = 1.0
    ) -> None:
        """A limb along a polyline of (x, z, y) with radii in mm, `depth` times as deep as broad."""
        p = np.asarray(points, np.float32)
        for (ax, az, ay), (bx, bz, by), ra, rb in zip(p[:-1], p[1:], radii[:-1], radii[1:], strict=True):
            dx, dz = bx - ax, bz - az
            rows = np.flatnonzero(
                (self.z.max(axis=1) > min(az, bz) - max(ra, rb))
                & (self.z.min(axis=1) < max(az, bz) + max(ra, rb))
            )
            if not rows.size:
                continue
            part = slice(rows[0], rows[-1] + 1)
            x, z = self.x[part], self.z[part]
            t = np.clip(((x - ax) * dx + (z - az) * dz) / (dx * dx + dz * dz + np.float32(1e-6)), 0, 1)
            radius = np.float32(ra) + np.float32(rb - ra) * t
            u = np.hypot(x - ax - t * dx, z - az - t * dz) / radius
            half = depth * radius * np.sqrt(np.clip(1 - u**2, 0, 1))
            self._join(u < 1, ay + (by - ay) * t, half, part)

    def _join(self, mask: npt.NDArray[np.bool_], y: Array, half: Array, part: slice = slice(None)) -> None:
        np.copyto(self.front[part], np.maximum(self.front[part], y + half), where=mask)
        np.copyto(self.back[part], np.minimum(self.back[part], y - half), where=mask)
