"""The travel of the table: from head to feet, and each row once."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter

from rbs.scans.counts import END_MM
from rbs.scans.quality.findings import SURE, Kind, Suspicion
from rbs.scans.quality.seen import Seen


def coverage(seen: Seen) -> Suspicion:
    """Score the width of the body, mm, at the first and at the last scanned row."""
    height = seen.counts.shape[1]
    deep = max(round(END_MM / seen.spacing[0]), 1)
    widths = {}
    for end, rows in (("head", slice(0, deep)), ("feet", slice(height - deep, height))):
        profile = seen.broad[:, rows].mean(axis=1)
        body = (profile > 0.35 * seen.level[:, None]).sum(axis=1)
        widths[end] = float(body.mean()) * seen.spacing[1]
    end = max(widths, key=lambda name: widths[name])
    first = 0 if end == "head" else height - deep
    return Suspicion(
        Kind.COVERAGE,
        widths[end],
        f"the scan {'begins' if end == 'head' else 'ends'} where the body is {widths[end]:.0f} mm wide",
        "scan what is missing, and read nothing into its absence",
        place=seen.across(first, first + deep),
    )


def rows(seen: Seen) -> Suspicion | None:
    """Score rows that are empty, written twice, or left out.

    Two rows of counts through the body are never equal, and none is empty. Where rows are left out,
    the body breaks off more sharply than the camera's blur allows: the step between slabs above and
    below a row, less what the slopes on either side foretell, is large against that of other rows.
    On coarse rows anatomy breaks off as sharply, and a break is not looked for.
    """
    first, last = seen.rows
    body = seen.counts[:, first:last]
    counted = body.sum(axis=(0, 2))
    if last - first < 40:
        return None
    empty = np.flatnonzero(counted == 0)
    if empty.size:
        return _rows(
            seen, SURE, f"rows without a count inside the body: {empty.size}", first + empty[[0, -1]]
        )
    # Rows of few counts may be equal by chance.
    full = counted > 50
    for lag in range(1, 33):
        same = np.flatnonzero((counted[lag:] == counted[:-lag]) & full[lag:])
        same = same[(body[:, same + lag] == body[:, same]).all(axis=(0, 2))]
        if same.size:
            fault = f"rows that repeat those {lag} above them: {same.size}"
            return _rows(seen, SURE, fault, first + lag + same[[0, -1]])
    if seen.coarse:
        return None
    score, row = _break(seen)
    return _rows(
        seen,
        score,
        "the body breaks off between two rows, as where rows were left out",
        np.array([row - 1, row]),
    )


def _rows(seen: Seen, score: float, fault: str, ends: np.ndarray) -> Suspicion:
    remedy = "export the scan again; if it was stitched so, do not measure across the seam"
    return Suspicion(Kind.ROWS, score, fault, remedy, place=seen.across(int(ends[0]), int(ends[1]) + 1))


def _break(seen: Seen) -> tuple[float, int]:
    """Score and row of the strongest break between neighbouring slabs of two rows."""
    first, last = seen.rows
    root = gaussian_filter1d(seen.roots_of_slabs(2), 4 / seen.spacing[1], axis=2)
    at = np.arange(max(first, 6), min(last, seen.counts.shape[1] - 6))
    above2, above, below, below2 = (root[:, at + by] for by in (-4, -2, 0, 2))
    step = (below - above) - 0.5 * ((above - above2) + (below2 - below))
    power = (step**2).sum(axis=(0, 2))
    score = power / (median_filter(power, 25, mode="nearest") + np.median(power))
    return float(score.max()), int(at[score.argmax()])
