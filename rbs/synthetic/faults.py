"""Faults of whole-body scans, injected into phantoms.

Each function takes the scan that a phantom would give, holding expected counts (both views as the
camera writes them), and returns counts drawn with one fault in them. Severities are drawn from
ranges in which a physicist would want to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from scipy.ndimage import distance_transform_edt, gaussian_filter, shift, zoom

from rbs.scans.body import body_mask
from rbs.scans.quality.findings import Kind
from rbs.scans.scan import Array, Scan, View

FIELD_MM = 400.0
"""Axial field of view of a camera, mm: the length that one moment of the scan contributes to."""


def draw(expected: Scan, rng: Generator) -> Scan:
    """A clean scan: Poisson counts."""
    return expected.with_counts(rng.poisson(expected.counts.astype(np.float64)).astype(np.int32))


def motion_within(expected: Scan, rng: Generator) -> Scan:
    """A shift by 15-45 mm sideways at 20-80 % of the body; the bed moves in steps: a seam."""
    return _moved(expected, rng, 0.0)


def motion_under_way(expected: Scan, rng: Generator) -> Scan:
    """The same with a bed that moves on: over one field of view both poses are seen at once."""
    return _moved(expected, rng, FIELD_MM)


def motion_between(expected: Scan, rng: Generator) -> Scan:
    """Views one after the other, the patient 12-40 mm away in any direction in the second."""
    view = int(rng.integers(len(expected.views)))
    mm, angle = rng.uniform(12, 40), rng.uniform(0, 2 * np.pi)
    by = mm * np.sin(angle) / expected.spacing_mm[0], mm * np.cos(angle) / expected.spacing_mm[1]
    counts = expected.counts.copy()
    counts[view] = _shifted(counts[view], by)
    return draw(expected.with_counts(counts), rng)


def extravasation(expected: Scan, rng: Generator) -> Scan:
    """20-60 % of all counts of a view in one arm: a spot of 20-50 mm and its scatter."""
    row, column = _beside(expected, rng)
    fwhm, share = rng.uniform(20, 50), rng.uniform(0.2, 0.6)
    spot = 0.75 * _spot(expected, row, column, fwhm) + 0.25 * _spot(expected, row, column, 90)
    return draw(_with(expected, spot, share / (1 - share) * _total(expected)), rng)


def saturation(expected: Scan, rng: Generator) -> Scan:
    """Bladder 3-20 times hotter, cut off at 30-80 % of its peak, at 255 or at 4095."""
    counts = expected.counts.astype(np.float64)
    for view in counts:
        row, column = _bladder(view)
        hot = np.zeros_like(view)
        hot[row, column] = 1
        hot = gaussian_filter(hot, rng.uniform(10, 16) / expected.spacing_mm[0])
        view += hot / hot.max() * view.max() * rng.uniform(3, 20)
    scan = draw(expected.with_counts(counts), rng)
    top = counts.max()
    limits = [limit for limit in (255, 1023, 4095) if 0.2 * top < limit < 0.8 * top]
    return scan.with_counts(
        np.minimum(scan.counts, round(limits[0] if limits else rng.uniform(0.3, 0.8) * top))
    )


def velocity(expected: Scan, rng: Generator) -> Scan:
    """A header in the wrong unit: mm/s for cm/min and the other way, a decimal place lost."""
    factor = float(rng.choice([6, 1 / 6, 10, 1 / 10]))
    scan = draw(expected, rng)
    return replace(scan, velocity=(scan.velocity or 20.0) * factor, duration_s=None)


def uniformity(expected: Scan, rng: Generator) -> Scan:
    """A weak photomultiplier: 30-70 % of the counts missing in a stripe of 40-75 mm."""
    view = int(rng.integers(len(expected.views)))
    x = np.arange(expected.shape[1]) * expected.spacing_mm[1]
    seen = np.flatnonzero(expected.counts[view].sum(axis=0) > 0.15 * expected.counts[view].sum(axis=0).max())
    at, wide = rng.uniform(seen[0], seen[-1]) * expected.spacing_mm[1], rng.uniform(40, 75)
    dip = 1 - rng.uniform(0.3, 0.7) * np.exp(-4 * np.log(2) * ((x - at) / wide) ** 2)
    counts = expected.counts.copy()
    counts[view] *= dip.astype(np.float32)
    return draw(expected.with_counts(counts), rng)


def window(expected: Scan, rng: Generator) -> Scan:
    """An off-peak window: 45-75 % of the counts scattered, and the resolution worse by 4-8 mm."""
    counts = expected.counts.astype(np.float64)
    share, worse = rng.uniform(0.45, 0.75), rng.uniform(4, 8) / 2.355
    pixels = np.array([0, *(1 / mm for mm in expected.spacing_mm)])
    primary = gaussian_filter(counts, worse * pixels)
    scattered = gaussian_filter(counts, rng.uniform(80, 140) / 2.355 * pixels)
    return draw(expected.with_counts((1 - share) * primary + share * scattered), rng)


def metal(expected: Scan, rng: Generator) -> Scan:
    """Metal of 25-60 mm on trunk or head that lets 5-40 % through to one head."""
    view = int(rng.integers(len(expected.views)))
    body = body_mask(expected.counts, expected.spacing_mm)[view]
    rows = np.flatnonzero(body.any(axis=1))
    upper = np.arange(expected.shape[0])[:, None] < rows[0] + 0.55 * (rows[-1] - rows[0])
    deep = distance_transform_edt(body, sampling=expected.spacing_mm) > 25
    row, column = rng.choice(np.argwhere(deep & upper))
    y, x = np.indices(expected.shape)
    high, wide = rng.uniform(25, 60, 2) / 2
    away = ((y - row) * expected.spacing_mm[0] / high) ** 2 + (
        (x - column) * expected.spacing_mm[1] / wide
    ) ** 2
    cover = gaussian_filter((away < 1).astype(np.float64), 3.0 / expected.spacing_mm[0])
    counts = expected.counts.copy()
    counts[view] *= (1 - (1 - rng.uniform(0.05, 0.4)) * cover).astype(counts.dtype)
    return draw(expected.with_counts(counts), rng)


def contamination(expected: Scan, rng: Generator) -> Scan:
    """A drop of 8-25 mm, 35-80 mm outside the body, as bright as 2-20 times ordinary body."""
    body = body_mask(expected.counts, expected.spacing_mm).max(axis=0)
    lit = expected.counts.sum(axis=0) > 1e-4
    away = distance_transform_edt(~body, sampling=expected.spacing_mm)
    row, column = rng.choice(np.argwhere((away > 35) & (away < 80) & lit))
    fwhm, bright = rng.uniform(8, 25), float(np.exp(rng.uniform(np.log(2), np.log(20))))
    level = np.median(expected.counts[0][body])
    size = np.hypot(fwhm, 10)
    sigma2 = size**2 / 5.545 / np.prod(expected.spacing_mm)
    return draw(
        _with(expected, _spot(expected, int(row), int(column), size), bright * level * 2 * np.pi * sigma2),
        rng,
    )


def coverage(expected: Scan, rng: Generator) -> Scan:
    """The scan begins or ends inside the body: 8-40 % of it missing at the head or the feet."""
    body = body_mask(expected.counts, expected.spacing_mm).any(axis=(0, 2))
    rows = np.flatnonzero(body)
    part = int(rng.uniform(0.08, 0.4) * (rows[-1] - rows[0]))
    counts = expected.counts.copy()
    if rng.random() < 0.5:
        counts[:, : rows[0] + part] = 0
    else:
        counts[:, rows[-1] - part :] = 0
    return draw(expected.with_counts(counts), rng)


def swapped(expected: Scan, rng: Generator) -> Scan:
    """Each view under the name of the other."""
    return replace(draw(expected, rng), views=expected.views[::-1])


def mirrored(expected: Scan, rng: Generator) -> Scan:
    """One view flipped left to right."""
    scan = draw(expected, rng)
    counts, view = scan.counts.copy(), int(rng.integers(len(scan.views)))
    counts[view] = counts[view, :, ::-1].copy()
    return scan.with_counts(counts)


def filtered(expected: Scan, rng: Generator) -> Scan:
    """Smoothed by 0.4-1.2 pixels, in half to the noise of raw pixels rescaled; or resampled."""
    counts = draw(expected, rng).counts.astype(np.float64)
    if rng.random() < 0.3:
        factor = rng.uniform(0.8, 1.25)
        size = counts.shape[1:]
        counts = zoom(counts, (1, factor, factor), order=1)
        counts, old = np.zeros((len(counts), *size)), counts
        part = tuple(slice(0, min(a, b)) for a, b in zip(size, old.shape[1:], strict=True))
        counts[(slice(None), *part)] = old[(slice(None), *part)]
    else:
        sigma = rng.uniform(0.4, 1.2)
        counts = gaussian_filter(counts, (0, sigma, sigma))
        if rng.random() < 0.5:
            from rbs.scans.counts import dispersion_index

            counts = counts / dispersion_index(counts)
    return expected.with_counts(np.rint(counts).astype(np.int32))


def head(expected: Scan, rng: Generator) -> Scan:
    """30-60 % of the counts of one head are there."""
    counts, view = expected.counts.copy(), int(rng.integers(len(expected.views)))
    counts[view] *= np.float32(rng.uniform(0.3, 0.6))
    return draw(expected.with_counts(counts), rng)


def rows_empty(expected: Scan, rng: Generator) -> Scan:
    """2-12 rows of the body without counts."""
    scan = draw(expected, rng)
    counts, rows = scan.counts.copy(), _some_rows(expected, rng, 2, 12)
    counts[:, rows] = 0
    return scan.with_counts(counts)


def rows_twice(expected: Scan, rng: Generator) -> Scan:
    """2-12 rows of the body written twice; what follows moves down."""
    scan = draw(expected, rng)
    rows = _some_rows(expected, rng, 2, 12)
    order = np.concatenate([np.arange(rows.stop), np.arange(rows.start, expected.shape[0])])
    return scan.with_counts(scan.counts[:, order[: expected.shape[0]]])


def rows_left_out(expected: Scan, rng: Generator) -> Scan:
    """8-24 rows of the body left out; what follows moves up."""
    scan = draw(expected, rng)
    rows = _some_rows(expected, rng, 8, 24)
    lost = rows.stop - rows.start
    counts = np.pad(scan.counts, ((0, 0), (0, lost), (0, 0)))
    return scan.with_counts(np.delete(counts, rows, axis=1))


FAULTS: Mapping[Kind, tuple[Callable[[Scan, Generator], Scan], ...]] = MappingProxyType(
    {
        Kind.MOTION: (motion_within, motion_under_way),
        Kind.BETWEEN: (motion_between,),
        Kind.EXTRAVASATION: (extravasation,),
        Kind.SATURATION: (saturation,),
        Kind.VELOCITY: (velocity,),
        Kind.UNIFORMITY: (uniformity,),
        Kind.WINDOW: (window,),
        Kind.METAL: (metal,),
        Kind.CONTAMINATION: (contamination,),
        Kind.COVERAGE: (coverage,),
        Kind.SWAPPED: (swapped,),
        Kind.MIRRORED: (mirrored,),
        Kind.FILTERED: (filtered,),
        Kind.HEAD: (head,),
        Kind.ROWS: (rows_empty, rows_twice, rows_left_out),
    }
)
"""The faults of each kind."""


def _moved(expected: Scan, rng: Generator, dwell_mm: float) -> Scan:
    body = np.flatnonzero(body_mask(expected.counts, expected.spacing_mm).any(axis=(0, 2)))
    at = body[0] + rng.uniform(0.2, 0.8) * (body[-1] - body[0])
    mm = rng.uniform(15, 45) * rng.choice([-1, 1])
    length = max(dwell_mm / expected.spacing_mm[0], 1e-6)
    after = np.clip((np.arange(expected.shape[0]) - at) / length + 0.5, 0, 1)[:, None]
    counts = expected.counts.astype(np.float64)
    for view, name in zip(counts, expected.views, strict=True):
        sign = -1 if name == View.POSTERIOR else 1
        view[:] = (1 - after) * view + after * _shifted(view, (0.0, sign * mm / expected.spacing_mm[1]))
    return draw(expected.with_counts(counts), rng)


def _some_rows(expected: Scan, rng: Generator, least: int, most: int) -> slice:
    """Rows inside the body, 20 from its ends."""
    body = np.flatnonzero(body_mask(expected.counts, expected.spacing_mm).any(axis=(0, 2)))
    size = int(rng.integers(least, most + 1))
    first = int(rng.integers(body[0] + 20, body[-1] - 20 - size))
    return slice(first, first + size)


def _shifted(view: Array, by: tuple[float, float]) -> Array:
    return np.maximum(shift(view.astype(np.float64), by, order=1, mode="nearest"), 0)


def _total(expected: Scan) -> float:
    return float(expected.counts.sum()) / len(expected.views)


def _bladder(view: Array) -> tuple[int, int]:
    row, column = np.unravel_index(gaussian_filter(view, 4).argmax(), view.shape)
    return int(row), int(column)


def _beside(expected: Scan, rng: Generator) -> tuple[int, int]:
    """A place in an arm, in the anterior orientation."""
    body = body_mask(expected.counts, expected.spacing_mm)
    anterior = expected.views.index(View.ANTERIOR) if View.ANTERIOR in expected.views else 0
    rows = np.flatnonzero(body[anterior].any(axis=1))
    row = int(rows[0] + rng.uniform(0.33, 0.45) * (rows[-1] - rows[0]))
    across = np.flatnonzero(body[anterior, row])
    inward = round(15 / expected.spacing_mm[1])
    column = int(across[0] + inward if rng.random() < 0.5 else across[-1] - inward)
    return row, column


def _spot(expected: Scan, row: int, column: int, fwhm: float) -> Array:
    """A Gaussian of sum 1."""
    y, x = np.indices(expected.shape)
    r2 = ((y - row) * expected.spacing_mm[0]) ** 2 + ((x - column) * expected.spacing_mm[1]) ** 2
    spot = np.exp(-4 * np.log(2) * r2 / fwhm**2)
    return spot / spot.sum()


def _with(expected: Scan, spot: Array, counts: float) -> Scan:
    """The scan with an additional spot, given in the anterior orientation, in both views."""
    more = np.stack([spot[:, ::-1] if view == View.POSTERIOR else spot for view in expected.views])
    return expected.with_counts(expected.counts + counts * more)
