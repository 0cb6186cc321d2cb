"""Hot spots that are no bone: extravasation, contamination, and the cut-off top of any."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation, label, maximum_filter, uniform_filter

from rbs.scans.quality.findings import Kind, Suspicion
from rbs.scans.quality.seen import FINE_MM, Seen
from rbs.scans.scan import Array

HALO_MM = 60.0
"""Radius around an injection site whose counts are its own, mm."""

CLEARANCE_MM = 14.0
"""Distance from the body from which on a spot lies outside it, mm."""

NOISE = 4.0
"""Standard deviations of its background that are taken off a spot."""

LARGEST_CM2 = 12.0
"""Area of a drop at half its height; a urine bag is larger."""


def extravasation(seen: Seen) -> Suspicion:
    """Score the share of a view's counts within 60 mm of the brightest spot beside the trunk.

    An injection site of 60 times ordinary bone in a small child holds 15 % of the counts.
    """
    signs = []
    for view, name in enumerate(seen.views):
        image = seen.broad[view]
        away = np.abs(np.arange(image.shape[1]) - seen.axis[:, None]) * seen.spacing[1]
        # A peak of its own: the slope of a hot bladder is none.
        peak = image == maximum_filter(image, [max(round(30 / mm), 3) for mm in seen.spacing])
        beside = np.where(peak & (away > 0.055 * seen.length_mm), image, 0)
        row, column = (int(i) for i in np.unravel_index(beside.argmax(), image.shape))
        y, x = (np.arange(n) for n in image.shape)
        rows, columns = (
            slice(max(at - round(HALO_MM / mm), 0), at + round(HALO_MM / mm) + 1)
            for at, mm in ((row, seen.spacing[0]), (column, seen.spacing[1]))
        )
        part = seen.counts[view, y[rows], :][:, x[columns]]
        excess = max(float(part.sum() - seen.level[view] * part.size), 0.0)
        signs.append((excess / float(seen.counts[view].sum()), view, row, column, name))
    share, view, row, column, name = max(signs)
    return Suspicion(
        Kind.EXTRAVASATION,
        share,
        f"{100 * share:.0f} % of the counts lie in one spot beside the trunk",
        "less than the dose has reached the bones: do not quantify uptake",
        str(name),
        seen.around(view, row, column, HALO_MM),
    )


def contamination(seen: Seen) -> Suspicion | None:
    """Score the hottest small spot outside the body relative to the body, its noise taken off.

    A hand with an injection site is no such spot: the wrist joins it to the body on one side. Nor
    is a drop that is fainter than the body: it cannot be taken for anything.
    """
    spots = [spot for view in range(len(seen.views)) for spot in _spots(seen, view)]
    if not spots:
        return None
    score, view, row, column = max(spots)
    return Suspicion(
        Kind.CONTAMINATION,
        score,
        "a hot spot lies outside the body",
        "look for urine or tracer on clothes, table or collimator, remove it and scan again",
        str(seen.views[view]),
        seen.around(view, row, column, 18),
    )


def _spots(seen: Seen, view: int) -> list[tuple[float, int, int, int]]:
    """Score, view, row and column of the hottest small spots outside the body."""
    fine = seen.fine[view]
    background = uniform_filter(fine, [max(round(70 / mm), 3) for mm in seen.spacing])
    # Variance of Poisson counts behind a Gaussian filter: mean / (4 pi sigma^2).
    variance = (background + 0.02) * np.prod(seen.spacing) / (4 * np.pi * FINE_MM**2)
    excess = (fine - background - NOISE * np.sqrt(variance)) / seen.level[view]
    score = np.where(seen.outside_mm > CLEARANCE_MM, excess, 0)
    found: list[tuple[float, int, int, int]] = []
    for _ in range(4):
        row, column = (int(i) for i in np.unravel_index(score.argmax(), score.shape))
        if score[row, column] <= 0:
            break
        half, _ = label(fine - background > 0.5 * (fine - background)[row, column])
        spot = half == half[row, column]
        area = spot.sum() * np.prod(seen.spacing) / 100
        if area <= LARGEST_CM2 and not _joined(seen, view, row, column):
            found.append((float(score[row, column]), view, row, column))
            break
        score[binary_dilation(spot, iterations=round(20 / seen.spacing[0]))] = 0
    return found


def _joined(seen: Seen, view: int, row: int, column: int) -> bool:
    """True if body comes near the spot on one side: a sector of the ring around it stands out."""
    y, x = np.indices(seen.fine[view].shape)
    down, across = (y - row) * seen.spacing[0], (x - column) * seen.spacing[1]
    distance = np.hypot(down, across)
    ring = (distance > 18) & (distance < 28)
    sector = (np.arctan2(down, across)[ring] // (np.pi / 4)).astype(int) + 4
    values: Array = seen.fine[view][ring]
    means = np.bincount(sector, values, 9) / np.maximum(np.bincount(sector, minlength=9), 1)
    known = np.bincount(sector, minlength=9) > 0
    return bool(means[known].max() - np.median(means[known]) > 0.35 * seen.level[view])


def saturation(seen: Seen) -> Suspicion:
    """Score the pixels at the largest value over the root of the number that nearly reach it."""
    signs = []
    for view, counts in enumerate(seen.counts):
        top = counts.max()
        number, nearly = int((counts == top).sum()), int(((counts >= 0.8 * top) & (counts < top)).sum())
        signs.append((number / np.sqrt(nearly + 1), view, number))
    score, view, number = max(signs)
    top = seen.counts[view].max()
    rows, columns = np.nonzero(seen.counts[view] == top)
    return Suspicion(
        Kind.SATURATION,
        float(score),
        f"{number} pixels hold the largest value, {top:.0f}: higher counts were cut off",
        "export with more bits; do not measure in these pixels",
        str(seen.views[view]),
        seen.box(view, (int(rows.min()), int(rows.max()) + 1), (int(columns.min()), int(columns.max()) + 1)),
    )
