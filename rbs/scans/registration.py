"""Registration of two passes over a moving patient, without interpolation of counts.

Between a rapid and a standard pass a child moves by millimetres: as a whole, and head, trunk and
limbs by themselves. What the standard (fixed) scan shows at x, the rapid (moving) scan shows at x +
u(x); u is estimated here. Raw counts stay where they are: interpolated they would no longer be
Poisson; `warp` moves a smooth restoration onto the other scan, and `whole_pixel_shift` moves counts
by whole pixels.

The estimate is the most probable u given both scans. Counts smoothed by a Gaussian of s pixels and
multiplied by 4 pi s^2 have variance and mean alike, as Poisson counts have, so that Anscombe's
transform gives them unit variance: a for the fixed scan, b for the moving one of exposure p. With
the weighted mean t = (a + sqrt(p) b) / (1 + p), whose noise is independent of that of the
difference d = b / sqrt(p) - a, Gauss-Newton steps solve

    (C^-1 + sum_x w g g' / v) u_next = sum_x w g (g' u - d) / v, g = grad t, v = 4 pi s^2 (1 + 1/p),

summed over the pixels of all views: aligned, they move alike. The weights w (Welsch's) silence
changes other than motion, such as a filling bladder. The prior covariance C holds the shift and
rotation of the whole body and, for its segments, a Gaussian process of correlation length
`REACH_MM`. The evidence, the probability of the scans under each C, decides if anything moved, and
how much the segments did so by themselves.

Lucas & Kanade, IJCAI 1981, 674-679. Evidence: MacKay, Neural Comput. 4 (1992) 415-447. Weights:
Holland & Welsch, Commun. Stat. A6 (1977) 813-827. Smooth displacements as modes of a Gaussian
process: Lüthi et al., IEEE Trans. Pattern Anal. Mach. Intell. 40 (2018) 1860-1873.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.ndimage import gaussian_filter, map_coordinates, minimum_filter, spline_filter

from rbs.errors import ScanError
from rbs.scans.counts import ENOUGH_COUNTS, anscombe
from rbs.scans.scan import Array, Spacing

REACH_MM = 75.0
"""Correlation length of the displacements of segments."""

SMOOTHING_MM = (16.0, 8.0, 5.0)
"""Sigma of the Gaussian before the scans are compared, coarse to fine."""

WHOLE = (5.0, 5.0, 0.01)
"""Prior spread of the whole body's motion: rows and columns in mm, rotation in radians."""

SEGMENTS_MM = (0.5, 1.0, 2.0, 4.0)
"""Prior spreads of the segments' own displacements; the evidence chooses."""

DECISIVE = 7.0
"""Logarithm of the odds, 1000 : 1, at which a simpler motion is given up for one that explains
more."""

BLOCK_MM = (120.0, 90.0)
"""Rows and columns of the blocks in which the residual is measured."""

_STRIDE = 2  # pixels between those compared: smoothed as they are, those between hold nothing new
_CUT = 3.0  # standard deviations at which Welsch's weight has fallen to exp(-1/2)
_STEPS = 4


@dataclass(frozen=True)
class Motion:
    """Displacement u: what the fixed scan shows at x, the moving scan shows at x + u(x).

    Attributes:
        kind: "none" where nothing moved as far as can be told (u is 0), "rigid" where the body
            moved as a whole, "segments" where its parts moved by themselves as well.
        shift_mm: Shift of the whole body at `centre_mm`, towards higher rows and columns.
        angle: Its rotation, radians; positive turns rows (down) towards columns (right).
        centre_mm: Point about which it turns, rows and columns from the first pixel.
        bumps: Motion of the segments, (2, m, n): weights of Gaussians of sigma `REACH_MM`, half
            that far apart.
        sd_mm: Expected error of |u|, its median over the body (square root of the posterior
            variance).
        log_odds: Evidence for "rigid" over "none" and for "segments" over "rigid", natural
            logarithms.
    """

    kind: Literal["none", "rigid", "segments"]
    shift_mm: tuple[float, float]
    angle: float
    centre_mm: tuple[float, float]
    bumps: Array
    sd_mm: float
    log_odds: tuple[float, float]

    def field(
        self, shape: tuple[int, int], spacing_mm: Spacing, top: int = 0, left: int = 0, step: int = 1
    ) -> Array:
        """Displacement on a grid of pixels, mm.

        Args:
            shape: Rows and columns of the grid.
            spacing_mm: Row and column spacing of a pixel.
            top: Row of the scan where the grid begins.
            left: Column likewise.
            step: Pixels from one point of the grid to the next.

        Returns:
            float64 (2, rows, columns): towards higher rows, towards higher columns.
        """
        z = (top + step * np.arange(shape[0])) * spacing_mm[0]
        x = (left + step * np.arange(shape[1])) * spacing_mm[1]
        u = _rigid(z, x, self.centre_mm, (*self.shift_mm, self.angle))
        if self.kind == "segments":
            down, across = (_gaussians(at, n) for at, n in zip((z, x), self.bumps.shape[1:], strict=True))
            u += np.stack([down @ weights @ across.T for weights in self.bumps])
        return u


@dataclass(frozen=True)
class Residual:
    """Displacement left between two scans, measured block by block without a prior.

    Attributes:
        blocks_mm: Centres of the blocks that hold enough to measure, (n, 2).
        left_mm: Displacement left in each, (n, 2).
        sd_mm: Standard error of |left|, (n,).
        median_mm: Median of |left| over the blocks; NaN without any.
        p95_mm: Its 95th percentile.
        floor_median_mm: The median that counting noise alone would give.
        floor_p95_mm: The 95th percentile likewise.
    """

    blocks_mm: Array
    left_mm: Array
    sd_mm: Array
    median_mm: float
    p95_mm: float
    floor_median_mm: float
    floor_p95_mm: float


def estimate_motion(fixed: Array, moving: Array, spacing_mm: Spacing, *, segments: bool = True) -> Motion:
    """Find how the patient moved from one scan to the other.

    Finds shifts of any size that leave most of the body in both scans, rotations of a few degrees,
    and segments that moved by up to some 10 mm among themselves.

    Args:
        fixed: Raw counts, aligned (V, H, W): the standard scan.
        moving: Raw counts of the same views at any exposure: the rapid scan.
        spacing_mm: Row and column spacing.
        segments: Let parts of the body move by themselves.

    Raises:
        ScanError: The scans differ in shape, or one holds next to nothing.
    """
    _check(fixed, moving)
    levels = [_Views(fixed, moving, spacing_mm, sigma) for sigma in SMOOTHING_MM]
    views = levels[-1]
    whole = _Model(levels[0], segments=False)
    parameters = np.array([*levels[0].offset(), 0.0])
    for level in levels:
        for _ in range(_STEPS):
            parameters = _posterior(*whole.equations(level, parameters), whole.scale(anywhere=True)).mean
    rigid = _posterior(*whole.equations(views, parameters), whole.scale())

    model = _Model(views, segments=segments)
    parameters = np.pad(parameters, (0, model.size - 3))
    for _ in range(_STEPS if segments else 0):
        parameters = _posterior(*model.equations(views, parameters), model.scale(2.0)).mean
    information, target = model.equations(views, parameters)
    tried = {spread: _posterior(information, target, model.scale(spread)) for spread in SEGMENTS_MM}
    spread, found = max(tried.items(), key=lambda item: item[1].evidence)
    alone = _posterior(information[:3, :3], target[:3], whole.scale())
    log_odds = rigid.evidence, found.evidence - alone.evidence
    if log_odds[1] > DECISIVE:
        for _ in range(_STEPS // 2):
            found = _posterior(*model.equations(views, found.mean), model.scale(spread))
        return model.motion("segments", found.mean, model.sd_mm(views, found), log_odds)
    sd = whole.sd_mm(views, rigid)
    if log_odds[0] > DECISIVE:
        return whole.motion("rigid", rigid.mean, sd, log_odds)
    return whole.motion("none", np.zeros(3), sd, log_odds)


def residual_misalignment(
    fixed: Array, moving: Array, spacing_mm: Spacing, motion: Motion | None = None
) -> Residual:
    """Displacement left after a motion, by another estimator: block by block, without a prior.

    Displacement that the motion misses, too small to be certain of or too local for its prior,
    shows as a median or 95th percentile above the floor. Blocks in which counting noise alone
    exceeds a pixel are not measured. Where the motion was estimated from these very counts it has
    followed some of their noise, so a perfect one stays somewhat below the floor.

    Args:
        fixed: As for `estimate_motion`.
        moving: As for `estimate_motion`.
        spacing_mm: Row and column spacing.
        motion: Motion to subtract; None measures the scans as they are.

    Raises:
        ScanError: The scans differ in shape, or one holds next to nothing.
    """
    _check(fixed, moving)
    views = _Views(fixed, moving, spacing_mm, SMOOTHING_MM[-1])
    known = np.zeros((2, len(views.z), len(views.x)))
    if motion is not None:
        known = motion.field(known.shape[1:], spacing_mm, _STRIDE // 2, _STRIDE // 2, _STRIDE)
    rows = (views.z // BLOCK_MM[0]).astype(int)
    columns = (views.x // BLOCK_MM[1]).astype(int)

    def by_block(image: Array) -> Array:
        return np.add.reduceat(
            np.add.reduceat(image, np.unique(rows, return_index=True)[1], axis=-2),
            np.unique(columns, return_index=True)[1],
            axis=-1,
        )

    # Blocks that know nothing get next to no precision instead of a singular matrix.
    least = 1e-4 * np.eye(2)
    left = np.zeros((2, rows[-1] + 1, columns[-1] + 1))
    for _ in range(_STEPS):
        tensor, pull = views.equations(known + left[:, rows[:, None], columns])
        zz, zx, xx = by_block(tensor)
        information = np.moveaxis(np.array([[zz, zx], [zx, xx]]), (0, 1), (-2, -1)) + least
        covariance = np.linalg.inv(information)
        left += np.moveaxis((covariance @ np.moveaxis(by_block(pull), 0, -1)[..., None])[..., 0], -1, 0)
    deviation = np.sqrt(np.trace(covariance, axis1=-2, axis2=-1))
    seen = deviation < min(spacing_mm)
    middles = [(np.arange(n) + 0.5) * b for n, b in zip(seen.shape, BLOCK_MM, strict=True)]
    centres = np.stack(np.meshgrid(*middles, indexing="ij"))
    lengths = np.hypot(*left[:, seen])
    noise = np.random.default_rng(0).standard_normal((1000, int(seen.sum()), 2, 1))
    floor = np.linalg.norm(np.linalg.cholesky(covariance[seen]) @ noise, axis=(-2, -1))

    def quantile(values: Array, share: float) -> float:
        return float(np.quantile(values, share)) if values.size else float("nan")

    return Residual(
        blocks_mm=centres[:, seen].T,
        left_mm=left[:, seen].T,
        sd_mm=deviation[seen],
        median_mm=quantile(lengths, 0.5),
        p95_mm=quantile(lengths, 0.95),
        floor_median_mm=quantile(floor, 0.5),
        floor_p95_mm=quantile(floor, 0.95),
    )


def warp(image: Array, motion: Motion, spacing_mm: Spacing) -> Array:
    """Lay a smooth image on the fixed scan: `image` at x + u(x), by cubic splines.

    Not for counts, nor for anything with their noise: interpolating averages it away. Beyond the
    border the outermost pixels go on. Counts a pixel are taken along as they are, which conserves
    the total where parts move rigidly.

    Args:
        image: Aligned estimate on the grid of the moving scan, (V, H, W).
        motion: From the fixed to the moving scan.
        spacing_mm: Row and column spacing.

    Returns:
        Non-negative, of the shape and dtype of `image`; `image` itself where nothing moved.
    """
    if motion.kind == "none":
        return image
    u = motion.field(image.shape[1:], spacing_mm) / np.asarray(spacing_mm)[:, None, None]
    return warp_by(image, u)


def warp_by(image: Array, displacement: Array) -> Array:
    """As `warp`, by displacements in pixels, down and right, (2, H, W)."""
    at = np.indices(image.shape[1:]) + displacement
    # From float64: the spline's overshoot beside nothing is cut off, the rest is exact where
    # nothing moves.
    views = [map_coordinates(view.astype(np.float64), at, order=3, mode="nearest") for view in image]
    return np.maximum(np.stack(views), 0).astype(image.dtype)


def whole_pixel_shift(counts: Array, motion: Motion, spacing_mm: Spacing) -> tuple[Array, Array]:
    """Shift counts onto the fixed scan by whole pixels: every pixel keeps its counts unmixed.

    Undoes the shift of the whole body to within half a pixel; its rotation and the motion of
    segments stay.

    Args:
        counts: Aligned counts of the moving scan, (V, H, W).
        motion: From the fixed to the moving scan.
        spacing_mm: Row and column spacing.

    Returns:
        The moved counts, zero where the moving scan does not reach, and bool (H, W), true where it
        does.
    """
    down, across = (round(shift / size) for shift, size in zip(motion.shift_mm, spacing_mm, strict=True))
    rows, columns = counts.shape[1:]
    moved, known = np.zeros_like(counts), np.zeros((rows, columns), bool)

    def overlap(size: int, shift: int) -> tuple[slice, slice]:
        return slice(max(0, -shift), max(0, size - max(0, shift))), slice(
            max(0, shift), max(0, size + min(0, shift))
        )

    (to_z, from_z), (to_x, from_x) = overlap(rows, down), overlap(columns, across)
    moved[:, to_z, to_x] = counts[:, from_z, from_x]
    known[to_z, to_x] = True
    return moved, known


class _Views:
    """Two scans smoothed and stabilised, and what their difference says of a displacement.

    Args:
        fixed: Raw counts (V, H, W).
        moving: Raw counts (V, H, W).
        spacing_mm: Row and column spacing.
        sigma_mm: Smoothing.
    """

    def __init__(self, fixed: Array, moving: Array, spacing_mm: Spacing, sigma_mm: float) -> None:
        # Of pixels coarser than usual: smoothed by less than two, the scan is sampled too sparsely
        # here.
        sigma_mm = max(sigma_mm, 2 * max(spacing_mm))
        sigma = [sigma_mm / size for size in spacing_mm]
        self.spacing_mm, self.sigma_mm = spacing_mm, sigma_mm
        self.pooled = 4 * np.pi * sigma[0] * sigma[1]  # pixels that one smoothed pixel stands for

        def smooth(counts: Array) -> Array:
            return self.pooled * gaussian_filter(counts.astype(np.float32), (0, *sigma))

        pooled = smooth(fixed)
        self.exposure = float(moving.sum(dtype=np.float64) / fixed.sum(dtype=np.float64))
        self.fixed = anscombe(pooled)
        self.moving = anscombe(smooth(moving))
        self.splines = np.stack([spline_filter(view, order=3, output=np.float32) for view in self.moving])
        rows, columns = (np.arange(_STRIDE // 2, size, _STRIDE) for size in fixed.shape[1:])
        self.rows, self.columns = rows, columns
        self.z, self.x = rows * spacing_mm[0], columns * spacing_mm[1]
        self.around = (1, *(2 * int(np.ceil(s / _STRIDE)) + 1 for s in sigma))
        body = pooled.sum(axis=0)
        self.body = (body > body.mean())[rows[:, None], columns]
        # The edge of the field of view does not move, and would hold back a body that crosses it.
        self.seen = [_extent((fixed + moving).sum(axis=(0, 2 - axis)), 2 * sigma[axis]) for axis in (0, 1)]

    def offset(self) -> Array:
        """The shift of the whole image, rows and columns in mm, to a few pixels."""
        from skimage.registration import phase_cross_correlation

        # The views beside each other share one shift; half of the grid is enough to begin with.
        fixed, moving = (
            np.concatenate([view - view.min() for view in views[:, ::4, ::4]], axis=1)
            for views in (self.fixed, self.moving)
        )
        shift, _, _ = phase_cross_correlation(fixed, moving, normalization=None)
        return -4 * np.asarray(shift) * self.spacing_mm

    def equations(self, u: Array) -> tuple[Array, Array]:
        """The normal equations of every compared pixel, summed over views.

        Args:
            u: Displacement (2, z, x), mm.

        Returns:
            Information about u (3, z, x): zz, zx, xx, 1/mm²; and pull towards a better u (2, z, x),
            1/mm.
        """
        p = self.exposure
        at = np.stack(
            [self.rows[:, None] + u[0] / self.spacing_mm[0], self.columns + u[1] / self.spacing_mm[1]]
        )
        a = self.fixed[:, self.rows[:, None], self.columns]
        b = np.stack(
            [map_coordinates(view, at, order=3, prefilter=False, mode="nearest") for view in self.splines]
        )
        inside = np.ones(u.shape[1:], bool)
        for place, (low, high) in zip((self.rows[:, None], self.columns, *at), self.seen * 2, strict=True):
            inside &= (place >= low) & (place <= high)
        mean, difference = (a + np.sqrt(p) * b) / (1 + p), b / np.sqrt(p) - a
        gz = np.gradient(mean, self.z[1] - self.z[0], axis=1)
        gx = np.gradient(mean, self.x[1] - self.x[0], axis=2)
        # Slopes that noise alone would show say nothing: they are shrunk by their signal's share of
        # their energy.
        noise = 1 / ((1 + p) * self.sigma_mm**2)
        real = np.maximum(0, 1 - 3 * noise / np.maximum(gz**2 + gx**2, 1e-12))
        gz, gx = real * gz, real * gx
        known = (real > 0) & inside
        spread = np.sqrt(1 + 1 / p)
        weight = known.astype(np.float32)
        scale = spread
        for _ in range(2 if known.any() else 0):
            # Counts of the body may differ by more than the exposure: by decay, or by uptake
            # of the bladder.
            gain = (weight * difference * mean).sum() / (weight * mean**2).sum()
            left = difference - gain * mean
            scale = max(spread, 1.4826 * float(np.median(np.abs(left[known]))))
            # Around a filling bladder runs a ring where the change passes for noise: it is silenced
            # with it.
            weight = known * minimum_filter(np.exp(-0.5 * (left / (_CUT * scale)) ** 2), self.around)
            difference = left
        weight = weight * (_STRIDE**2 / (self.pooled * spread**2))
        information = np.stack([(weight * g * h).sum(axis=0) for g, h in ((gz, gz), (gz, gx), (gx, gx))])
        return information, -np.stack([(weight * g * difference).sum(axis=0) for g in (gz, gx)])


class _Model:
    """Displacements as a sum of a few shapes: motion of the whole body, and modes of its segments.

    Parameters are shift (rows and columns, mm) and angle (radians), then the weights of the modes
    along rows and along columns. A mode is a product of one along the rows and one along the
    columns, so that no matrix grows with the image.

    Args:
        views: Gives the grid and the centre of the body, about which it turns.
        segments: Include modes.
    """

    def __init__(self, views: _Views, *, segments: bool) -> None:
        z, x = np.nonzero(views.body)
        self.z, self.x = views.z, views.x
        self.centre = (float(self.z[z].mean()), float(self.x[x].mean()))
        self.roots = [_root(at) if segments else np.zeros((0, 0)) for at in (self.z, self.x)]
        self.down, self.across = (
            _gaussians(at, len(root)) @ root for at, root in zip((self.z, self.x), self.roots, strict=True)
        )
        self.modes = self.down.shape[1] * self.across.shape[1]
        self.size = 3 + 2 * self.modes

    def scale(self, segments_mm: float = 1.0, *, anywhere: bool = False) -> Array:
        """Prior spread of the parameters; with `anywhere` the whole body may have moved far."""
        return np.array([*((1e3, 1e3, 0.1) if anywhere else WHOLE), *np.full(2 * self.modes, segments_mm)])

    def bumps(self, parameters: Array) -> Array:
        """Weights of the Gaussians that the modes are made of, (2, m, n)."""
        weights = parameters[3:].reshape(2, self.down.shape[1], self.across.shape[1])
        return np.stack([self.roots[0] @ w @ self.roots[1].T for w in weights])

    def motion(
        self,
        kind: Literal["none", "rigid", "segments"],
        parameters: Array,
        sd_mm: float,
        log_odds: tuple[float, float],
    ) -> Motion:
        """The parameters as a motion."""
        down, across, angle = map(float, parameters[:3])
        return Motion(kind, (down, across), angle, self.centre, self.bumps(parameters), sd_mm, log_odds)

    def field(self, parameters: Array) -> Array:
        """Displacement on the grid of the views, (2, z, x), mm."""
        weights = parameters[3:].reshape(2, self.down.shape[1], self.across.shape[1])
        apart = np.stack([self.down @ w @ self.across.T for w in weights])
        return _rigid(self.z, self.x, self.centre, parameters) + apart

    def equations(self, views: _Views, parameters: Array) -> tuple[Array, Array]:
        """Information about the parameters, and information times the parameters it suggests."""
        (zz, zx, xx), (pull_z, pull_x) = views.equations(self.field(parameters))
        turns = self._turns(parameters[2])

        def onto_modes(image: Array) -> Array:
            return (self.down.T @ image @ self.across).ravel()

        along = _squares(self.down), _squares(self.across)
        shape = (self.down.shape[1],) * 2 + (self.across.shape[1],) * 2

        def between_modes(image: Array) -> Array:
            products = (along[0].T @ image @ along[1]).reshape(shape)
            return products.transpose(0, 2, 1, 3).reshape(self.modes, self.modes)

        weighted = np.stack([zz * turns[0] + zx * turns[1], zx * turns[0] + xx * turns[1]])
        information = np.empty((self.size, self.size))
        information[:3, :3] = np.einsum("aizx,ajzx->ij", weighted, turns)
        information[:3, 3:] = [[*onto_modes(weighted[0, i]), *onto_modes(weighted[1, i])] for i in range(3)]
        information[3:, :3] = information[:3, 3:].T
        a, b, c = (between_modes(image) for image in (zz, zx, xx))
        information[3:, 3:] = np.block([[a, b], [b, c]])
        whole = np.einsum("azx,aizx->i", np.stack([pull_z, pull_x]), turns)
        pull = np.array([*whole, *onto_modes(pull_z), *onto_modes(pull_x)])
        return information, information @ parameters + pull

    def sd_mm(self, views: _Views, posterior: _Posterior) -> float:
        """Median over the body of the expected error of |u|."""
        z, x = np.nonzero(views.body)
        every = max(1, len(z) // 500)
        z, x = z[::every], x[::every]
        modes = (self.down[z, :, None] * self.across[x, None]).reshape(len(z), -1)
        none = np.zeros_like(modes)
        turns = self._turns(posterior.mean[2])[:, :, z, x]
        rows = np.hstack([turns[0].T, modes, none]), np.hstack([turns[1].T, none, modes])
        return float(np.sqrt(np.median(sum(posterior.variance(jacobian) for jacobian in rows))))

    def _turns(self, angle: float) -> Array:
        """Derivatives of u by shift and angle, (2, 3, z, x)."""
        z, x = np.meshgrid(self.z - self.centre[0], self.x - self.centre[1], indexing="ij")
        one, none = np.ones_like(z), np.zeros_like(z)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array([[one, none, -sin * z - cos * x], [none, one, cos * z - sin * x]])


@dataclass(frozen=True)
class _Posterior:
    """Gaussian posterior of the parameters.

    Attributes:
        mean: Their mean.
        evidence: Log evidence of its prior, against the certainty that they are zero.
        scale: Their prior spread.
        factor: Cholesky factor of the precision in units of `scale`.
    """

    mean: Array
    evidence: float
    scale: Array
    factor: Array

    def variance(self, jacobian: Array) -> Array:
        """Variance of quantities with derivatives `jacobian` (n, parameters)."""
        return np.square(solve_triangular(self.factor, (jacobian * self.scale).T, lower=True)).sum(axis=0)


def _posterior(information: Array, target: Array, scale: Array) -> _Posterior:
    """Solve a linear Gaussian problem with prior spreads `scale` about zero."""
    factor = cholesky(np.eye(len(scale)) + information * scale[:, None] * scale, lower=True)
    mean = scale * cho_solve((factor, True), scale * target)
    return _Posterior(mean, float(target @ mean / 2 - np.log(np.diag(factor)).sum()), scale, factor)


def _rigid(z: Array, x: Array, centre: tuple[float, float], parameters: Array | tuple[float, ...]) -> Array:
    """Displacement (2, z, x), mm, of a shift and a rotation about `centre`."""
    down, across, angle = parameters[:3]
    z, x = z[:, None] - centre[0], x - centre[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([(cos - 1) * z - sin * x + down, sin * z + (cos - 1) * x + across])


def _gaussians(at: Array, count: int) -> Array:
    """Gaussians `REACH_MM` / 2 apart from -`REACH_MM` on, at points in mm: (points, count)."""
    centres = REACH_MM * (np.arange(count) / 2 - 1)
    return np.exp(-((at[:, None] - centres) ** 2) / (2 * REACH_MM**2))


def _root(at: Array) -> Array:
    """Transform of the m Gaussians over `at` into independent modes of unit spread, (m, modes).

    The Gaussians are the prior covariance; modes of less than a thousandth of the largest variance
    are left out.
    """
    count = int(np.ceil(2 * at[-1] / REACH_MM)) + 5
    nodes = REACH_MM * (np.arange(count) / 2 - 1)
    variances, vectors = np.linalg.eigh(_gaussians(nodes, count))
    kept = variances > 1e-3 * variances[-1]
    return vectors[:, kept] / np.sqrt(variances[kept])


def _extent(counts: Array, margin: float) -> tuple[float, float]:
    """First and last place with counts, less a margin at either end."""
    filled = np.flatnonzero(counts)
    return filled[0] + margin, filled[-1] - margin


def _squares(modes: Array) -> Array:
    """Products of every two columns, (points, n²)."""
    return (modes[:, :, None] * modes[:, None]).reshape(len(modes), -1)


def _check(fixed: Array, moving: Array) -> None:
    if fixed.shape != moving.shape or fixed.ndim != 3:
        fault = f"the scans have shapes {fixed.shape} and {moving.shape}"
        raise ScanError(fault, remedy="register scans of one matrix and one set of views")
    if min(fixed.sum(), moving.sum()) < ENOUGH_COUNTS:
        raise ScanError(
            f"one of the scans holds fewer than {ENOUGH_COUNTS} counts", remedy="register whole scans"
        )
