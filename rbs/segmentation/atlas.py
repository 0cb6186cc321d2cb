r"""Label propagation: one labelled scan, the atlas, registered to scans without labels.

Children of 1 and of 15 years differ in size and shape, so every scan is first laid on a frame of
its body, whose length is `BODY` rows. There an affine map and a smooth displacement u are found
together, coarse to fine, for many scans at once. With a and b the square roots of smoothed counts
of scan and atlas, and m_a and m_b their body outlines, the map phi minimises

.. math::
    1 - \mathrm{LNCC}(a, b \circ \phi) + 4 \langle (m_a - m_b \circ \phi)^2 \rangle
    + w \langle |D^2 u|^2 \rangle .

LNCC, the local normalised cross-correlation, sees bones whatever their uptake. The bending energy
of the displacement leaves every affine map free. Both views of a scan move alike, as they do in the
camera.

Free-form deformations: Rueckert et al., IEEE Trans. Med. Imaging 18 (1999) 712-721. LNCC descended
for a batch of scans: Balakrishnan et al., IEEE Trans. Med. Imaging 38 (2019) 1788-1800.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from rbs.errors import ScanError
from rbs.scans.body import body_mask
from rbs.scans.counts import ENOUGH_COUNTS, scanned_ends
from rbs.scans.scan import Array

BODY = 256
"""Rows of the frame that the length of the body fills."""

MARGIN = 16
"""Rows of the frame above and below the body."""

COLUMNS = 144
"""Columns of the frame, with the body in the middle."""

SMOOTHING_MM = 4.0
"""Least sigma of the Gaussian before a scan is sampled on its frame."""

CUT_MM = 100.0
"""Width of the body at the ends of a scan above which it does not show all of it, mm."""

LEVELS = ((4, 32, 60), (2, 16, 60), (1, 8, 20))
"""Coarse to fine: side of the blocks that are averaged, pixels between control points of the
displacement, both in pixels of the frame, and iterations."""

BENDING = 30.0
"""Weight w of the bending energy."""

_RATE = 0.006  # of Adam; the frame is 2 wide
_WINDOW = 9  # side of the window of LNCC, blocks
_QUIET = 3e-3  # variance of a window below which nothing is followed: noise of the background
_PART = 0.003  # share of the outline below which what lies apart is no hand or foot


@dataclass(frozen=True)
class Body:
    """A scan on the frame of its body.

    Attributes:
        roots: Square roots of smoothed counts relative to their mean in the body, (V, rows,
            columns).
        outline: The body, 0 to 1, (V, rows, columns).
        corner: Row and column of the scan, pixels, that the first pixel of the frame shows.
        step: Rows and columns of the scan from one pixel of the frame to the next.
    """

    roots: Tensor
    outline: Tensor
    corner: tuple[float, float]
    step: tuple[float, float]


def body_of(counts: Array, spacing_mm: tuple[float, float]) -> Body:
    """Lay a scan on the frame of its body.

    Args:
        counts: Aligned counts at any exposure, (V, H, W).
        spacing_mm: Row and column spacing.

    Raises:
        ScanError: The scan holds next to nothing.
    """
    mask = body_mask(counts, spacing_mm)
    if counts.sum() < ENOUGH_COUNTS or not mask.any():
        raise ScanError(f"it holds fewer than {ENOUGH_COUNTS} counts", remedy="leave the scan out")
    parts, _ = ndimage.label(mask.any(axis=0))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    rows, columns = np.nonzero((sizes > _PART * sizes.sum())[parts])
    pixel_mm = (rows.max() + 1 - rows.min()) * spacing_mm[0] / BODY
    step = pixel_mm / spacing_mm[0], pixel_mm / spacing_mm[1]
    corner = float(rows.min() - MARGIN * step[0]), float(np.median(columns) - COLUMNS / 2 * step[1])
    sigma = (0.0, *(max(SMOOTHING_MM, 0.6 * pixel_mm) / size for size in spacing_mm))
    smoothed = ndimage.gaussian_filter(counts.astype(np.float32), sigma)
    level = (smoothed * mask).sum((1, 2)) / np.maximum(mask.sum((1, 2)), 1)
    roots = np.sqrt(smoothed / np.maximum(level, 1e-6)[:, None, None]).astype(np.float32)
    outline = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    at = _pixels(BODY + 2 * MARGIN, COLUMNS) * _column(step) + _column(corner)
    return Body(sample(torch.from_numpy(roots), at), sample(torch.from_numpy(outline), at), corner, step)


def is_cut_off(counts: Array, spacing_mm: tuple[float, float]) -> bool:
    """True for a scan that begins or ends within the body, whose length it does not show.

    Args:
        counts: Aligned counts at any exposure, (V, H, W).
        spacing_mm: Row and column spacing.
    """
    wide = body_mask(counts, spacing_mm).any(axis=0).sum(axis=1) * spacing_mm[1]
    return any((wide[rows] > CUT_MM).any() for rows in scanned_ends(counts, spacing_mm[0]))


def register(atlas: Body, scans: Sequence[Body]) -> Tensor:
    """Find what pixel of the atlas shows what a pixel of a scan shows.

    Args:
        atlas: The atlas.
        scans: Scans of the same views. The memory is in proportion to their number, 16 take 1 GB.

    Returns:
        phi, float32 (B, 2, rows, columns): row and column of the frame of the atlas, for each pixel
        of the frame of a scan.
    """
    fixed, outlines = torch.stack([s.roots for s in scans]), torch.stack([s.outline for s in scans])
    moving = torch.cat([atlas.roots, atlas.outline])[None]
    number, _, rows, columns = fixed.shape
    size = _column((rows, columns))
    places = (2 * _pixels(rows, columns) + 1) / size - 1
    affine = torch.zeros(number, 2, 3, requires_grad=True)
    controls: list[Tensor] = []
    for side, spacing, iterations in LEVELS:
        points = torch.zeros(number, 2, rows // spacing + 1, columns // spacing + 1, requires_grad=True)
        controls.append(points)
        optimiser = torch.optim.Adam([affine, *controls], lr=_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, iterations)
        a, m = F.avg_pool2d(fixed, side), F.avg_pool2d(outlines, side)
        images = F.avg_pool2d(moving, side).expand(number, -1, -1, -1)
        near = F.max_pool2d(torch.maximum(m, images[:, m.shape[1] :]), _WINDOW, 1, _WINDOW // 2)
        at = F.avg_pool2d(places[None], side)[0]
        for _ in range(iterations):
            u = _displacement(controls, at.shape[1:])
            b, n = _sampled(images, _moved(affine, at) + u).chunk(2, dim=1)
            bending = _bending(u) * (at.shape[1] / 2) ** 2
            loss = 1 - _lncc(a, b, near) + 4 * (m - n).square().mean((1, 2, 3)) + BENDING * bending
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        phi = _moved(affine, places) + _displacement(controls, (rows, columns))
    return ((phi + 1) * size - 1) / 2


def places_of(phi: Tensor, atlas: Body, scan: Body, shape: tuple[int, int]) -> Tensor:
    """Row and column of the atlas, pixels (2, H, W), for each pixel of a scan.

    Args:
        phi: Of the scan, from `register`, (2, rows, columns).
        atlas: The atlas.
        scan: The scan.
        shape: Rows and columns of the scan.
    """
    at = (_pixels(*shape) - _column(scan.corner)) / _column(scan.step)
    return sample(phi, at, "border") * _column(atlas.step) + _column(atlas.corner)


def carry_labels(labels: Array, places: Tensor) -> Array:
    """Labels of the atlas (V, h, w) at places (2, H, W): those of the greatest bilinear weight."""
    classes = int(labels.max()) + 1
    hot = F.one_hot(torch.from_numpy(labels.astype(np.int64)), classes).permute(0, 3, 1, 2).float()
    weights = sample(hot.flatten(0, 1), places).unflatten(0, (-1, classes))
    found: Array = weights.argmax(dim=1).to(torch.uint8).numpy()
    return found


def sample(images: Tensor, places: Tensor, beyond: str = "zeros") -> Tensor:
    """Bilinear values (C, H, W) of images (C, h, w) at rows and columns (2, H, W), in pixels."""
    relative = (2 * places + 1) / _column(images.shape[1:]) - 1
    return _sampled(images[None], relative[None].float(), beyond)[0]


def _sampled(images: Tensor, places: Tensor, beyond: str = "zeros") -> Tensor:
    """Bilinear values of (B, C, h, w) at places (B, 2, H, W), -1 to 1 from edge to edge."""
    return F.grid_sample(images, places.flip(1).permute(0, 2, 3, 1), padding_mode=beyond, align_corners=False)


def _pixels(rows: int, columns: int) -> Tensor:
    """Row and column of every pixel, (2, rows, columns)."""
    grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack(grid).float()


def _column(pair: Sequence[float]) -> Tensor:
    return torch.tensor(pair, dtype=torch.float32)[:, None, None]


def _moved(affine: Tensor, at: Tensor) -> Tensor:
    """Places moved by x + A x + t, for matrices [A t] (B, 2, 3)."""
    turned = torch.einsum("bij,jhw->bihw", affine[..., :2], at)
    return at + turned + affine[..., 2, None, None]


def _displacement(controls: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Sum of cubic interpolations between control points, (B, 2, H, W)."""
    layers = [F.interpolate(c, tuple(shape), mode="bicubic", align_corners=True) for c in controls]
    return torch.stack(layers).sum(dim=0)


def _bending(u: Tensor) -> Tensor:
    """Mean squared second differences of u, (B,)."""
    down, across = u.diff(n=2, dim=2), u.diff(n=2, dim=3)
    terms = (down, 1), (across, 1), (u.diff(dim=2).diff(dim=3), 2)
    return torch.stack([times * term.square().mean((1, 2, 3)) for term, times in terms]).sum(dim=0)


def _lncc(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Local normalised cross-correlation in windows, weighted mean over pixels and views, (B,)."""

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, _WINDOW, 1, _WINDOW // 2)

    mean_a, mean_b = mean(a), mean(b)
    cross = mean(a * b) - mean_a * mean_b
    spread_a, spread_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    correlation = cross / ((spread_a.clamp(min=0) + _QUIET) * (spread_b.clamp(min=0) + _QUIET)).sqrt()
    return (correlation * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
