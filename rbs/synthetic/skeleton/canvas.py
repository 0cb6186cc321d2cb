"""Drawing bones in millimetres onto coronal depth planes.

Coordinates of a point are (x, z, y) in mm: x towards the patient's left, which is the right of an
anterior image; z from the vertex of the head downwards; y towards the front, 0 in the middle of the
trunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rbs.scans.scan import REGIONS

Array = npt.NDArray[np.float32]
Point = Sequence[float] | npt.NDArray[np.floating]
Points = Sequence[Point] | npt.NDArray[np.floating]
Tile = tuple[slice, slice]
LABEL = {name: value for value, name in enumerate(REGIONS, start=1)}
BOTH = (0, 1)
ANTERIOR_ONLY = (0,)


@dataclass(frozen=True)
class Site:
    """A place in a bone where a lesion may sit.

    Attributes:
        region: Of the bone.
        x, z, y: Placed position, mm.
        radius: Of a long bone there, mm; 0 in a bone that has no length.
        angle: Direction of a long bone in the coronal plane, radians from x towards z.
    """

    region: str
    x: float
    z: float
    y: float
    radius: float = 0.0
    angle: float = 0.0


class Canvas:
    """Depth planes of planar tracer density and the labels of both views.

    Args:
        shape: Rows and columns.
        spacing_mm: Edge of a pixel, mm.
        origin_mm: Distance of the body axis from the left edge and of the vertex from the upper
            edge, mm.
        depths_mm: y of the planes, ascending and evenly spaced, mm.
        texture: Factor on the density, (rows, columns), about 1.

    Attributes:
        planes: Planar density on each depth plane, float32 (planes, rows, columns), femoral
            diaphysis = 1.
        labels: Region of each pixel, uint8 (2, rows, columns): anterior, and posterior not yet
            mirrored.
        sites: Places for lesions.
        marks: Named landmarks, (row, column), not rounded; 0 is the middle of the first pixel.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        spacing_mm: float,
        origin_mm: tuple[float, float],
        depths_mm: npt.NDArray[np.floating],
        texture: Array,
    ) -> None:
        self.spacing = spacing_mm
        self.depths = depths_mm.astype(np.float32)
        self.texture = texture
        self.planes = np.zeros((len(depths_mm), *shape), np.float32)
        self.labels = np.zeros((2, *shape), np.uint8)
        self.sites: list[Site] = []
        self.marks: dict[str, tuple[float, float]] = {}
        self.x = ((np.arange(shape[1]) + 0.5) * spacing_mm - origin_mm[0]).astype(np.float32)
        self.z = ((np.arange(shape[0]) + 0.5) * spacing_mm - origin_mm[1]).astype(np.float32)
        self._matrix = np.eye(2)
        self._shift = np.zeros(2)

    @contextmanager
    def turned(self, pivot: tuple[float, float], radians: float) -> Iterator[None]:
        """Draw everything inside turned about `pivot` (x, z), clockwise as seen from the front."""
        saved = self._matrix, self._shift
        c, s = np.cos(radians), np.sin(radians)
        turn = np.array([[c, -s], [s, c]])
        about = np.asarray(pivot)
        self._matrix, self._shift = saved[0] @ turn, saved[0] @ (about - turn @ about) + saved[1]
        yield
        self._matrix, self._shift = saved

    def place(self, points: Points) -> npt.NDArray[np.float64]:
        """Points (n, 3) after the turns in force."""
        placed = np.array(points, float).reshape(-1, 3)
        placed[:, :2] = placed[:, :2] @ self._matrix.T + self._shift
        return placed

    def pixel(self, x: float, z: float) -> tuple[int, int]:
        """Row and column of a placed point, kept inside the image."""
        row, column = (z - self.z[0]) / self.spacing, (x - self.x[0]) / self.spacing
        return int(np.clip(round(row), 0, len(self.z) - 1)), int(np.clip(round(column), 0, len(self.x) - 1))

    def grid(self) -> tuple[Array, Array]:
        """Coordinates x and z (rows, columns), mm, of every pixel under the current turns."""
        x, z = self.x[None, :] - self._shift[0], self.z[:, None] - self._shift[1]
        back = np.linalg.inv(self._matrix).astype(np.float32)
        across, down = (a * x + b * z for a, b in back)
        return across.astype(np.float32), down.astype(np.float32)

    def mark(self, name: str, point: Point) -> None:
        """Remember where a landmark is."""
        x, z = self.place([point])[0, :2]
        self.marks[name] = (float(z - self.z[0]) / self.spacing, float(x - self.x[0]) / self.spacing)

    def tube(
        self,
        points: Points,
        radii: float | Sequence[float] | npt.NDArray[np.floating],
        uptake: float | Sequence[float] | npt.NDArray[np.floating],
        region: str,
        *,
        flat: float = 0.5,
        blunt: bool = False,
        instead: bool = False,
        views: tuple[int, ...] = BOTH,
        lesions: bool = True,
    ) -> None:
        """Draw a bone along a polyline; radius, density and depth are linear between its points.

        Args:
            points: (n, 3), mm.
            radii: One or n, mm.
            uptake: Planar density on the axis, one or n.
            region: Its label.
            flat: 1 for a density that is the same across the bone, 0 for that of a solid cylinder.
            blunt: Cut off square at both ends rather than rounded.
            instead: Replace what lies on the same pixels rather than add to it.
            views: Views in which it is labelled.
            lesions: Let lesions sit in it.
        """
        r, u = np.broadcast_to(radii, len(points)), np.broadcast_to(uptake, len(points))
        drawn = self._capsules(points, r, u, blunt)
        if drawn is None:
            return
        tile, signed, radius, depth, density = drawn
        if lesions:
            p = self.place(points)
            ways = np.gradient(p[:, :2], axis=0)
            self.sites += [
                Site(region, q[0], q[1], q[2], float(v), float(np.arctan2(way[1], way[0])))
                for q, v, way in zip(p, r, ways, strict=True)
            ]
        across = np.sqrt(np.clip(1 - ((signed + radius) / radius) ** 2, 0, 1))
        edge = np.clip(0.5 - signed / self.spacing, 0, 1)
        if instead:
            self.planes[:, tile[0], tile[1]] *= 1 - edge
        self._deposit(tile, density, edge, flat + (1 - flat) * across, depth, region, views)

    def covered(self, points: Points, radius: float) -> tuple[Tile, Array] | None:
        """Pixels under a bar of this radius, mm, along a polyline (n, 3), and their covered share.

        None where it lies outside the image.
        """
        drawn = self._capsules(points, np.full(len(points), radius), np.zeros(len(points)), blunt=False)
        if drawn is None:
            return None
        return drawn[0], np.clip(0.5 - drawn[1] / self.spacing, 0, 1).astype(np.float32)

    def blob(
        self,
        centre: Point,
        axes: tuple[float, float],
        uptake: float,
        region: str,
        *,
        angle: float = 0.0,
        flat: float = 0.4,
        views: tuple[int, ...] = BOTH,
        lesions: bool = True,
    ) -> None:
        """An ellipsoid: half axes along x and z before it is turned by `angle` radians, mm."""
        tile, radius, p = self._ellipse(centre, axes, angle)
        if tile is None:
            return
        if lesions:
            self.sites.append(Site(region, p[0], p[1], p[2]))
        edge = np.clip(0.5 - (radius - 1) * min(axes) / self.spacing, 0, 1)
        across = np.sqrt(np.clip(1 - radius**2, 0, 1))
        depth = np.full_like(radius, p[2])
        self._deposit(
            tile, np.full_like(radius, uptake), edge, flat + (1 - flat) * across, depth, region, views
        )

    def shell(
        self,
        centre: Point,
        axes: tuple[float, float, float],
        wall: float,
        uptake: float,
        region: str,
        *,
        fade: float = 0.0,
    ) -> None:
        """A hollow ellipsoid with half axes along x, z and y.

        `uptake` is the density of one wall met head-on; towards the lower end the share `fade` of
        it is lost.
        """
        tile, radius, p = self._ellipse(centre, axes[:2], 0.0)
        if tile is None:
            return
        inside = 1 - wall / min(axes[:2])
        outer = np.sqrt(np.clip(1 - radius**2, 0, 1))
        inner = inside * np.sqrt(np.clip(1 - (radius / inside) ** 2, 0, 1))
        # A rim would be brighter still; bone there is thinner.
        walls = np.clip((outer - inner) / (1 - inside), 0, 2.4)
        edge = np.clip(0.5 - (radius - 1) * min(axes[:2]) / self.spacing, 0, 1)
        low = np.clip((self.z[tile[0]][:, None] - p[1]) / axes[1], 0, 1)
        walls = walls * (1 - fade * low**2)
        for side in (1, -1):
            depth = p[2] + side * axes[2] * (outer + inner) / 2
            self._deposit(tile, np.full_like(radius, uptake), edge, walls, depth, region, BOTH)
            self.sites.append(
                Site(region, p[0] + axes[0] * 0.5 * side, p[1] - axes[1] * 0.4, p[2] + side * axes[2] * 0.7)
            )

    def plate(
        self,
        outline: Points,
        uptake: float,
        region: str,
        *,
        rim: float = 1.0,
        rim_mm: float = 6.0,
        views: tuple[int, ...] = BOTH,
    ) -> None:
        """Draw a flat bone in a polygon (n, 3), its rim `rim` times as dense over `rim_mm`."""
        p = self.place(outline)
        tile = self._tile(p[:, :2] - 2, p[:, :2] + 2)
        if tile is None:
            return
        x, z = self.x[tile[1]][None, :], self.z[tile[0]][:, None]
        distance = np.full((z.size, x.size), np.inf, np.float32)
        within = np.zeros(distance.shape, bool)
        weights, depth = np.zeros_like(distance), np.zeros_like(distance)
        for (ax, az, ay), (bx, bz, _) in zip(p, np.roll(p, -1, axis=0), strict=True):
            dx, dz = bx - ax, bz - az
            t = np.clip(((x - ax) * dx + (z - az) * dz) / (dx * dx + dz * dz + 1e-6), 0, 1)
            distance = np.minimum(distance, np.hypot(x - ax - t * dx, z - az - t * dz).astype(np.float32))
            crosses = (az > z) != (bz > z)
            within ^= crosses & (x < ax + dx * (z - az) / (dz if abs(dz) > 1e-6 else 1e-6))
            weight = 1 / ((x - ax) ** 2 + (z - az) ** 2 + 100)
            weights, depth = weights + weight, depth + weight * ay
        signed = np.where(within, -distance, distance)
        profile = 1 + (rim - 1) * np.exp(-((distance / rim_mm) ** 2))
        edge = np.clip(0.5 - signed / self.spacing, 0, 1)
        middle = p.mean(axis=0)
        self.sites.append(Site(region, middle[0], middle[1], middle[2]))
        self._deposit(tile, np.full_like(distance, uptake), edge, profile, depth / weights, region, views)

    def hot(self, at: Point, fwhm_mm: tuple[float, float], peak: float, angle: float = 0.0) -> None:
        """Add a Gaussian focus of peak density `peak`, labelled a hot spot inside its half maximum.

        Args:
            at: Placed centre (x, z, y), mm.
            fwhm_mm: Along `angle` and across it.
            peak: Planar density.
            angle: Radians from x towards z.
        """
        tile, profile = self._focus(at, fwhm_mm, angle)
        for plane, weight in zip(self.planes, self._hat(np.float32(at[2])), strict=True):
            if weight > 0:
                plane[tile] += np.float32(peak * weight) * profile
        self.labels[:, tile[0], tile[1]][:, profile >= 0.5] = LABEL["hot spots"]
        self.labels[:, *self.pixel(at[0], at[1])] = LABEL["hot spots"]

    def cold(self, at: Point, fwhm_mm: float, contrast: float) -> None:
        """Reduce the density around a placed point (x, z, y), down to `contrast` times itself."""
        tile, profile = self._focus(at, (fwhm_mm, fwhm_mm), 0.0)
        for plane, weight in zip(self.planes, self._hat(np.float32(at[2])), strict=True):
            if weight > 0:
                plane[tile] *= 1 - np.float32(1 - contrast) * profile

    def _focus(self, at: Point, fwhm_mm: tuple[float, float], angle: float) -> tuple[Tile, Array]:
        """A Gaussian of peak 1 on the tile that holds it; an empty tile outside the image."""
        reach = np.full((1, 2), 2.5 * max(fwhm_mm))
        here = np.array([[at[0], at[1]]])
        tile = self._tile(here - reach, here + reach) or (slice(0, 0), slice(0, 0))
        dx, dz = self.x[tile[1]][None, :] - np.float32(at[0]), self.z[tile[0]][:, None] - np.float32(at[1])
        along, across = dx * np.cos(angle) + dz * np.sin(angle), dz * np.cos(angle) - dx * np.sin(angle)
        r2 = (along / fwhm_mm[0]) ** 2 + (across / fwhm_mm[1]) ** 2
        return tile, np.exp(-4 * np.log(2) * r2).astype(np.float32)

    def _capsules(
        self, points: Points, radii: npt.NDArray[np.floating], uptake: npt.NDArray[np.floating], blunt: bool
    ) -> tuple[Tile, Array, Array, Array, Array] | None:
        """Tile; its distance from the surface (negative inside), radius, depth and density."""
        p, r, u = self.place(points), radii.astype(float), uptake.astype(float)
        tile = self._tile(p[:, :2] - r[:, None], p[:, :2] + r[:, None])
        if tile is None:
            return None
        x, z = self.x[tile[1]][None, :], self.z[tile[0]][:, None]
        best = np.full((z.size, x.size), np.inf, np.float32)
        depth, density, radius = np.zeros_like(best), np.zeros_like(best), np.ones_like(best)
        for i in range(len(p) - 1):
            (ax, az, ay), (bx, bz, by) = (map(np.float32, p[i]), map(np.float32, p[i + 1]))
            dx, dz = bx - ax, bz - az
            along = ((x - ax) * dx + (z - az) * dz) / (dx * dx + dz * dz + np.float32(1e-6))
            t = np.clip(along, 0, 1)
            here = (np.float32(r[i]) + np.float32(r[i + 1] - r[i]) * t).astype(np.float32)
            signed = np.hypot(x - ax - t * dx, z - az - t * dz) - here
            if blunt and i == 0:
                signed = np.maximum(signed, -along * np.hypot(dx, dz))
            if blunt and i == len(p) - 2:
                signed = np.maximum(signed, (along - 1) * np.hypot(dx, dz))
            closer = signed < best
            np.copyto(best, signed, where=closer)
            np.copyto(radius, here, where=closer)
            np.copyto(depth, ay + (by - ay) * t, where=closer)
            np.copyto(density, np.float32(u[i]) + np.float32(u[i + 1] - u[i]) * t, where=closer)
        return tile, best, radius, depth, density

    def _tile(self, low: npt.NDArray[np.floating], high: npt.NDArray[np.floating]) -> Tile | None:
        """Rows and columns from the least `low` to the greatest `high` (n, 2); None outside."""
        (x0, z0), (x1, z1) = low.min(axis=0) - self.spacing, high.max(axis=0) + self.spacing
        c = np.clip(np.searchsorted(self.x, (x0, x1)), 0, len(self.x))
        r = np.clip(np.searchsorted(self.z, (z0, z1)), 0, len(self.z))
        return (slice(r[0], r[1]), slice(c[0], c[1])) if r[0] < r[1] and c[0] < c[1] else None

    def _ellipse(
        self, centre: Point, axes: tuple[float, float], angle: float
    ) -> tuple[Tile | None, Array, npt.NDArray[np.float64]]:
        """Tile, normalised radius on it (1 on the ellipse) and placed centre."""
        p = self.place([centre])[0]
        reach = np.full((1, 2), max(axes))
        tile = self._tile(p[None, :2] - reach, p[None, :2] + reach)
        if tile is None:
            return None, np.zeros((0, 0), np.float32), p
        angle = angle + float(np.arctan2(self._matrix[1, 0], self._matrix[0, 0]))
        dx, dz = self.x[tile[1]][None, :] - p[0], self.z[tile[0]][:, None] - p[1]
        along, across = dx * np.cos(angle) + dz * np.sin(angle), dz * np.cos(angle) - dx * np.sin(angle)
        return tile, np.hypot(along / axes[0], across / axes[1]).astype(np.float32), p

    def _hat(self, y: npt.NDArray[np.float32] | np.float32) -> npt.NDArray[np.float32]:
        """Share of each plane in density at depth y: linear between the two nearest planes."""
        step = self.depths[1] - self.depths[0]
        y = np.clip(y, self.depths[0], self.depths[-1])
        planes = self.depths.reshape(-1, *([1] * np.ndim(y)))
        return np.clip(1 - np.abs(y - planes) / step, 0, 1).astype(np.float32)

    def _deposit(
        self,
        tile: Tile,
        uptake: Array,
        edge: npt.NDArray[np.floating],
        profile: npt.NDArray[np.floating],
        depth: npt.NDArray[np.floating],
        region: str,
        views: tuple[int, ...],
    ) -> None:
        density = (uptake * edge * profile * self.texture[tile]).astype(np.float32)
        weights = self._hat(depth.astype(np.float32))
        for plane, weight in zip(self.planes, weights, strict=True):
            if weight.any():
                plane[tile] += weight * density
        solid = np.where(edge >= 0.5, np.uint8(LABEL[region]), np.uint8(0))
        for view in views:
            np.maximum(self.labels[view][tile], solid, out=self.labels[view][tile])
