"""Between the patient and the crystal: uniformity of the field, energy window, metal."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter1d, uniform_filter

from rbs.scans.counts import block_sums
from rbs.scans.dicom.reader import TC_99M_KEV
from rbs.scans.dicom.reader import energy_window as header_window
from rbs.scans.quality.findings import Kind, Suspicion
from rbs.scans.quality.seen import Seen
from rbs.scans.scan import Array

OFF_CENTRE = 0.06
"""Distance of a window's middle from the photopeak, relative to it, that no protocol wants."""

USUAL_HALO = 0.05
"""Largest ratio of counts beside the body to those in it, of 60 clean scans."""

BLOCK_MM, SMOOTH_MM = 20.0, 8.0
ALONE = 0.6
"""Weight of a hole that the other view could not be asked about."""


def uniformity(seen: Seen) -> Suspicion | None:
    """Score a stripe of columns that counts too little all along the body, in standard errors.

    The bed moves along the columns, so a weak photomultiplier makes a stripe. The double ratio
    A(c) P(m) / (A(m) P(c)) of both views at column c and at its mirror image m about the body's
    axis cancels what differs between front and back and what differs between left and right; its
    mean along the rows leaves the field. In one view a stripe looks like a lively leg.
    """
    if len(seen.views) < 2:
        return None
    step = max(round(BLOCK_MM / seen.spacing[0]), 1)
    blocks = gaussian_filter1d(block_sums(seen.counts, step, 1), SMOOTH_MM / seen.spacing[1], axis=2)
    columns = np.arange(blocks.shape[2])
    rows = np.arange(blocks.shape[1]) * step + step // 2
    opposite = 2 * seen.axis[rows, None] - columns
    other = np.stack(
        [
            [np.interp(at, columns, line, 0, 0) for at, line in zip(opposite, view, strict=True)]
            for view in blocks
        ]
    )
    lit = (np.minimum(blocks, other) > 0.25 * step * seen.level[:, None, None]).all(axis=0)
    number = lit.sum(axis=0)
    if number.max() <= 6:
        return None
    logs = np.log(np.maximum(blocks, 1e-3) / np.maximum(other, 1e-3))
    signal = np.clip(logs[0] - logs[1], -1, 1)
    weight = np.where(lit, np.minimum(blocks.sum(axis=0), np.median(blocks.sum(axis=0)[lit])), 0)
    whole = np.maximum(weight.sum(axis=0), 1e-9)
    mean = (weight * signal).sum(axis=0) / whole
    spread = (weight * (signal - mean) ** 2).sum(axis=0) / whole
    z = np.where(number > 6, np.abs(mean) / np.sqrt((spread + 0.05**2) / np.maximum(number, 1)), 0)
    at = int(z.argmax())
    # A stripe at c in one view looks like one at m in the other, or like too much on the far side.
    opposed = int(np.clip(np.median(opposite[:, at]), 0, len(columns) - 1))
    each = [float((weight * log).sum(axis=0)[at] / whole[at]) for log in logs]
    view = int(np.abs(each).argmax())
    column = at if each[view] < 0 else opposed
    wide = round(25 / seen.spacing[1])
    return Suspicion(
        Kind.UNIFORMITY,
        float(z[at]),
        f"a stripe along the scan lacks {100 * (1 - np.exp(-abs(mean[at]))):.0f} % of the counts",
        "run the daily flood; look for a weak photomultiplier or a missing uniformity correction",
        str(seen.views[view]),
        seen.box(view, seen.rows, (column - wide, column + wide + 1)),
    )


def energy_window(seen: Seen) -> Suspicion:
    """Score scatter beside the body, and the distance of the window in the header from the peak.

    Off the photopeak most counts have been scattered: the body has a halo. Both signs are taken in
    units of what clean scans reach.
    """
    beside = (seen.outside_mm > 25) & (seen.outside_mm < 60)
    beside[: seen.rows[0]] = beside[seen.rows[1] :] = False
    halo = 0.0
    if beside.any():
        halo = float(
            np.mean([np.median(view[beside]) / np.median(view[seen.silhouette]) for view in seen.broad])
        )
    limits = header_window(seen.scan.provenance.header)
    off = 0.0 if limits is None else abs((limits[0] + limits[1]) / 2 / TC_99M_KEV - 1)
    if limits is not None and off / OFF_CENTRE > halo / USUAL_HALO:
        fault = f"the energy window of {limits[0]:g} to {limits[1]:g} keV is not centred on {TC_99M_KEV} keV"
    else:
        fault = f"beside the body there are {100 * halo:.0f} % of the counts in it: scatter"
    return Suspicion(
        Kind.WINDOW,
        max(halo / USUAL_HALO, off / OFF_CENTRE),
        fault,
        "peak the camera; set a window of 15 to 20 % on 140 keV",
    )


def metal(seen: Seen) -> Suspicion | None:
    """Score a hole inside the body that the other view does not have, in standard deviations.

    Counts in a square are compared with those around it, in the same view and as the other view
    has them there; one view alone with those around and on the other side.
    """
    signs = []
    # Gaps between limbs and trunk show in both views; what is left of them are its edges.
    inside = seen.body.any(axis=0) if len(seen.views) == 2 else seen.silhouette
    core = binary_erosion(inside, iterations=max(round(10 / seen.spacing[0]), 1))
    held = np.minimum(seen.counts, 3 * seen.level[:, None, None] + 6)
    for edge in (16.0, 28.0):
        size = [max(round(edge / mm), 2) for mm in seen.spacing]
        ring = [round(60 / mm) for mm in seen.spacing]
        area = float(np.prod(size))
        within = np.stack([uniform_filter(view, size) for view in held]) * area
        share = uniform_filter(inside.astype(float), ring)
        around = (
            np.stack([uniform_filter(view * inside, ring) for view in held]) / np.maximum(share, 0.2) * area
        )
        for view in range(len(seen.views)):
            if len(seen.views) == 2:
                own = within[1 - view] / np.maximum(around[1 - view], 1e-6)
            else:
                own = _other_side(seen, within[view]) / np.maximum(around[view], 1e-6)
            expected = around[view] * np.minimum(own, 1)
            sigma = np.sqrt(expected + (0.15 * expected) ** 2 + 4)
            z = np.where(core, (expected - within[view]) / sigma, 0)
            row, column = (int(i) for i in np.unravel_index(z.argmax(), z.shape))
            passed = within[view][row, column] / max(expected[row, column], 1e-9)
            signs.append((float(z[row, column]), passed, view, row, column))
    score, passed, view, row, column = max(signs)
    return Suspicion(
        Kind.METAL,
        score * (1 if len(seen.views) == 2 else ALONE),
        f"a hole lets {100 * passed:.0f} % of the counts through that are around it",
        "look for jewellery, buckles, coins or implants, and read no cold lesion into it",
        str(seen.views[view]),
        seen.around(view, row, column, 22),
    )


def _other_side(seen: Seen, image: Array) -> Array:
    """An image mirrored about the body's axis, row by row."""
    columns = np.arange(image.shape[1])
    return np.stack(
        [np.interp(2 * at - columns, columns, line) for at, line in zip(seen.axis, image, strict=True)]
    )
