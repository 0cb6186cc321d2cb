"""Measurements of a scan that several checks share: body, level, length."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rbs.scans.acceptance import MIN_COUNTS
from rbs.scans.body import smooth
from rbs.scans.counts import anscombe
from rbs.scans.scan import Array, Box, Scan, View, align

FINE_MM, BROAD_MM = 4.0, 9.0
"""Standard deviations of the Gaussian filters, mm: as the collimator's blur, and wide enough for
0.3 counts a pixel."""

COARSE_MM = 3.2
"""Pixel size beyond which the signs of noise and of rows were found in half of the clean scans."""

WHOLE_BODY_MM = 500.0, 150.0
"""Length and width of a scan below which it shows no whole body, mm."""

BODY_MM, MOST_BODY = 250.0, 0.9
"""Length of the body, mm, and share of the frame that it fills, beyond which it is none."""


@dataclass(frozen=True)
class Seen:
    """A scan, cut to the rows and columns that hold counts, the posterior view mirrored.

    Attributes:
        scan: The scan as read.
        counts: Counts of the anterior and then the posterior view in the anterior orientation,
            float64 (views, rows, columns), without empty margins.
        views: Their names.
        top: Row of the frame that is the first of `counts`.
        left: Column of the anterior frame that is the first of `counts`.
    """

    scan: Scan
    counts: Array
    views: tuple[View, ...]
    top: int
    left: int

    @property
    def spacing(self) -> tuple[float, float]:
        """Row and column spacing, mm."""
        return self.scan.spacing_mm

    @property
    def coarse(self) -> bool:
        """True for pixels so wide that signs between neighbours show anatomy rather than faults."""
        return max(self.spacing) > COARSE_MM

    @cached_property
    def fine(self) -> Array:
        """Counts behind a Gaussian filter of `FINE_MM`."""
        return smooth(self.counts, FINE_MM, self.spacing)

    @cached_property
    def broad(self) -> Array:
        """Counts behind a Gaussian filter of `BROAD_MM`."""
        return smooth(self.counts, BROAD_MM, self.spacing)

    @cached_property
    def level(self) -> Array:
        """Counts a pixel of ordinary body in each view, (views,)."""
        return np.array([np.median(view[view >= view.mean()]) for view in self.broad])

    @cached_property
    def held(self) -> Array:
        """`broad`, held down to three times `level`, so that hot spots weigh no more than bone."""
        return np.minimum(self.broad, 3 * self.level[:, None, None])

    @cached_property
    def body(self) -> Array:
        """The body in each view, bool: above a quarter of `level`, as in `rbs.scans.body`."""
        return self.broad > 0.25 * self.level[:, None, None]

    @cached_property
    def silhouette(self) -> Array:
        """The largest part of the body in either view, holes filled, bool (rows, columns)."""
        from scipy.ndimage import binary_closing, binary_fill_holes, label

        parts, count = label(binary_closing(self.body.any(axis=0), iterations=3))
        if not count:
            return np.zeros(self.counts.shape[1:], bool)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        return np.asarray(binary_fill_holes(parts == sizes.argmax()))

    @cached_property
    def outside_mm(self) -> Array:
        """Distance of each pixel from the silhouette, mm; 0 inside."""
        from scipy.ndimage import distance_transform_edt

        return np.asarray(distance_transform_edt(~self.silhouette, sampling=self.spacing))

    @cached_property
    def rows(self) -> tuple[int, int]:
        """First row of the body and one past its last, in `counts`."""
        there = np.flatnonzero(self.silhouette.any(axis=1))
        return (int(there[0]), int(there[-1]) + 1) if there.size else (0, len(self.silhouette))

    @property
    def length_mm(self) -> float:
        """Length of the body, mm."""
        return (self.rows[1] - self.rows[0]) * self.spacing[0]

    @cached_property
    def axis(self) -> Array:
        """Column of the middle of the silhouette in each row of `counts`, smoothed; (rows,)."""
        from scipy.ndimage import gaussian_filter1d

        columns = np.arange(self.silhouette.shape[1])
        size = self.silhouette.sum(axis=1)
        known = np.flatnonzero(size)
        if not known.size:
            return np.full(len(size), columns.mean())
        middle = self.silhouette[known] @ columns / size[known]
        whole = np.interp(np.arange(len(size)), known, middle)
        return np.asarray(gaussian_filter1d(whole, 40 / self.spacing[0], mode="nearest"))

    def roots_of_slabs(self, rows: int) -> Array:
        """Roots 2 sqrt(n + 3/8) of the counts n of slabs of rows, one starting at every row."""
        sums = np.cumsum(self.counts, axis=1)
        sums = np.concatenate([np.zeros_like(sums[:, :1]), sums], axis=1)
        return anscombe(sums[:, rows:] - sums[:, :-rows])

    def box(self, view: int, rows: tuple[int, int], columns: tuple[int, int]) -> Box:
        """The place in the stored frame of a view that is this part of `counts`."""
        height, width = self.counts.shape[1:]
        first, end = max(columns[0], 0) + self.left, min(columns[1], width) + self.left
        if self.views[view] == View.POSTERIOR:
            first, end = self.scan.shape[1] - end, self.scan.shape[1] - first
        return Box((max(rows[0], 0) + self.top, min(rows[1], height) + self.top), (first, end))

    def around(self, view: int, row: int, column: int, mm: float) -> Box:
        """The square of this half edge about a pixel of `counts`, in the stored frame."""
        down, across = (max(round(mm / step), 1) for step in self.spacing)
        return self.box(view, (row - down, row + down + 1), (column - across, column + across + 1))

    def across(self, first: int, end: int) -> Box:
        """Rows of `counts` over the whole width of the stored frames."""
        return Box((first + self.top, end + self.top), (0, self.scan.shape[1]))


def see(scan: Scan) -> Seen | None:
    """Prepare a scan for the checks; None where it holds too few counts, or no whole body."""
    order = np.argsort([view == View.POSTERIOR for view in scan.views], kind="stable")
    views = tuple(scan.views[i] for i in order)
    counts = align(scan.counts[order], views).astype(np.float64)
    rows, columns = (np.flatnonzero(counts.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if counts.sum(axis=(1, 2)).min() < MIN_COUNTS:
        return None
    size = ((there[-1] - there[0]) * mm for there, mm in zip((rows, columns), scan.spacing_mm, strict=True))
    if any(mm < least for mm, least in zip(size, WHOLE_BODY_MM, strict=True)):
        return None
    cut = counts[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    seen = Seen(scan, cut, views, int(rows[0]), int(columns[0]))
    is_body = seen.length_mm > BODY_MM and seen.silhouette.mean() < MOST_BODY
    return seen if is_body else None
