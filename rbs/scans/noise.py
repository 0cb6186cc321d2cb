"""The test of raw counts: Poisson noise, independent from pixel to pixel, at every count level.

Smoothing takes noise from single pixels and leaves it in sums of neighbours; scaling raises both.
Together they give pixels any noise, but never pixels and sums at once. So the noise is looked at in
pixels, in 2x2 and in 4x4 sums, each at levels of the mean a factor of 2 wide: the index of
dispersion of raw counts is 1 everywhere.

**Spread of an index.** With d^2 and m the squared contrast and the mean of a block
(`rbs.scans.counts.block_contrasts`), the index of a level is sum(d^2) / sum(m). For Poisson counts
of mean l the fourth cumulant of d is l / 4, so that Var(d^2) = 2 l^2 + l / 4, and Cov(d^2, m) =
Var(m) = l / 4: the discreteness cancels, and Var(d^2 - m) = 2 l^2 at any mean. Overlapping blocks,
one pixel apart, have contrasts correlated by -1/2 along either axis, their squares by 1/4: their
number counts for 1 / (1 + 2/4)^2 = 4/9 of it. Within a factor of 2, mean(l^2) is at most 9/8 of
mean(l)^2. The standard error of the index of N blocks is at most sqrt(2 x 9/4 x 9/8 / N).

**Histogram.** Whatever the anatomy, raw counts are a mixture of Poisson counts: n! h(n), with h(n)
the pixels of n counts, are moments of the distribution of exp(-l) l^n and hence log-convex:
n h(n)^2 <= (n + 1) h(n - 1) h(n + 1). Scaled and mapped integers leave gaps and doubled numbers,
which are far from it even where their noise is right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation, find_objects, label

from rbs.scans.counts import ENOUGH_COUNTS, ENOUGH_PIXELS, block_contrasts
from rbs.scans.scan import Array, Box

STANDARD_ERRORS = 4.0
"""Deviation, in standard errors, that chance may bring: 1 in 16 000, for some thirty indices a
view. What follows is granted beyond it."""

_LOWEST, _LEVELS = -4, 14
"""Levels of the mean, counts a pixel: 2^_LOWEST and up, each twice the one before."""

_ENOUGH_BLOCKS = 100
"""Blocks, and expected coincidences of two counts in a block, without which a level says
nothing."""

_MANY_BLOCKS = 1000
"""2x2 sums in all levels together from which too much noise is told from anatomy: in a smaller
picture one bright organ may be half of them."""

_BRIGHT, _BRIGHT_ERRORS = 2.0, 3.5
"""Counts from which a weak smoothing shows that is rounded to whole counts, and the standard errors
granted to all such levels together."""

_MOST_ERROR = 0.12
"""Standard error of the index of all levels with which it says nothing."""

_FAINT_SUM = 8.0
"""Counts of a 4x4 sum up to which its noise may not exceed its mean: above, organs and bones, as
wide as the block, have contrasts of their own."""

_SATURATED = 5
"""Pixels that share the largest count where it is a limit, of the camera or of a picture; they are
also twice as many as those of one count less."""

_MOST_COUNTED = 4096
"""Counts up to which the histogram is looked at."""

_TOLD_APART, _ENOUGH_OF_A_LINE = 3, 30
"""Counts of which two neighbours are seldom the same (one pair in six at most), and pairs of them
in two lines without which these are not compared."""

_BAND = 64
"""Rows looked at together."""

_TILE = 16
"""Edge, pixels, of the tiles that may be left out."""

_OUTLYING = (2.0, 8.0)
"""Index, and excess in standard errors, of a tile that is no part of the body: a hot pixel, an
injection site."""

_STEEP = 25
"""Squared contrast over the level of a block that is steep, five standard deviations."""

_MOST_TILES = 0.015
"""Share of tiles that may be left out."""


@dataclass(frozen=True)
class _Limits:
    """Deviations beyond `STANDARD_ERRORS`.

    Attributes:
        low: Least index of pixels and sums. Nothing but processing makes noise too small.
        high: Largest index of pixels: some anatomy remains in the contrasts.
        sums: Largest index of 2x2 sums, over levels, of which the median is meant: anatomy shows at
            some levels, smoothing at all.
        faint_sums: Largest index of 4x4 sums of up to `_FAINT_SUM` counts.
        rare: Least root of h(n - 1) h(n + 1), relative to the bound of the module's docstring.
        bright: Least index of all pixels of levels from `_BRIGHT` on.
        lowest: Mean counts a pixel from which the noise is judged.
        chance: Standard errors by which the index of all levels may miss `low` and `high`.
        uneven: Largest logarithm of the ratio of the index of one level to that of all.
        taken: Counts a pixel by which the noise may exceed the mean where nothing was cut.
    """

    low: float
    high: float
    sums: float
    faint_sums: float
    rare: float
    bright: float
    lowest: float = 0.0
    chance: float = STANDARD_ERRORS
    uneven: float = np.inf
    taken: float = np.inf


_ACQUIRED = _Limits(low=0.98, high=1.1, sums=1.2, faint_sums=1.7, rare=0.95, bright=1.0, taken=0.25)
# JPEG adds noise of its own, most of all there is below one count, and moves some counts by one.
_RECOVERED = _Limits(
    low=0.97,
    high=1.18,
    sums=1.25,
    faint_sums=1.7,
    rare=0.8,
    bright=0.95,
    lowest=1,
    chance=2,
    uneven=0.1,
    taken=0.45,
)


@dataclass(frozen=True)
class Noise:
    """The noise of one frame.

    Attributes:
        dispersion: Noise variance over mean, 1 for raw counts; NaN where too few counts tell it.
        error: Its standard error by chance.
        fault: What no raw counts are like, as a clause; empty where nothing is.
        excess: Regions where counts vary far more than Poisson counts do, hot pixels and injection
            sites. They are left out where the noise would be faulty with them.
    """

    dispersion: float
    error: float = float("nan")
    fault: str = ""
    excess: tuple[Box, ...] = ()

    @property
    def unknown(self) -> bool:
        """True if there are too few counts to tell."""
        return bool(np.isnan(self.dispersion))


@dataclass(frozen=True)
class _Indices:
    """Sums over the blocks of each level, (levels,)."""

    blocks: Array
    squares: Array
    means: Array

    @property
    def error(self) -> Array:
        return np.sqrt(2 * 9 / 4 * 9 / 8 / np.maximum(self.blocks, 1))


def lowest_level(cut: int) -> float:
    """Mean counts a pixel from which a cut of the counts up to `cut` leaves the noise as it is.

    Zeros in place of the counts 1 to k raise the variance over the mean of Poisson counts by 3 % at
    a mean of k + 4 sqrt(k) + 1, to within 0.4 counts for k up to 10, and by less above it.
    """
    return cut + 4 * np.sqrt(cut) + 1 if cut else 0.0


def examine(counts: Array, *, cut: int = 0, recovered: bool = False) -> Noise:
    """Judge whether a frame holds raw counts.

    Args:
        counts: Whole counts (rows, columns).
        cut: The highest count that was cut to 0. Levels that it reaches (`lowest_level`) are not
            judged.
        recovered: True for counts recovered from a picture.
    """
    if counts.sum() < ENOUGH_COUNTS or counts.size < ENOUGH_PIXELS or min(counts.shape) < 4:
        return Noise(float("nan"))
    limits = _RECOVERED if recovered else _ACQUIRED
    histogram = np.bincount(np.minimum(counts, _MOST_COUNTED).ravel().astype(np.intp))
    noise = _judge(counts, histogram, cut, limits, None)
    # A blanked area of a picture has a border of which nothing need be said.
    outlying = _outlying_tiles(counts) if noise.fault or not recovered else None
    if outlying is None:
        return noise
    excess = _regions(counts, outlying)
    if noise.fault:
        noise = _judge(counts, histogram, cut, limits, ~binary_dilation(outlying, np.ones((3, 3))))
    return noise if noise.fault else replace(noise, excess=excess)


def _judge(counts: Array, histogram: Array, cut: int, limits: _Limits, tiles: Array | None) -> Noise:
    """Judge the blocks in some of the tiles (tile rows, tile columns), or all."""
    top = counts.max()
    full, next_to_full = (counts == top).sum(), (counts == top - 1).sum()
    most = top / 2 if full >= max(_SATURATED, 2 * next_to_full) else np.inf
    frame, blank = counts.astype(np.float32), blank_pixels(counts)
    lowest = max(limits.lowest, lowest_level(cut))
    levels = {}
    for side in (1, 2, 4):
        if min(frame.shape) >= 4:
            levels[side] = _indices(frame, blank, side, lowest, most, tiles)
        rows, columns = (n - n % 2 for n in frame.shape)
        corners = [(slice(i, rows, 2), slice(j, columns, 2)) for i in (0, 1) for j in (0, 1)]
        frame = np.add.reduce([frame[corner] for corner in corners])
        blank = np.minimum.reduce([blank[corner] for corner in corners])
    pixels = levels[1]
    weight = 1 / (pixels.means / np.maximum(pixels.blocks, 1) + 1)
    shares = weight * pixels.means
    if not _told(pixels).any():
        return Noise(float("nan"))
    index = float((weight * pixels.squares).sum() / shares.sum())
    error = float(np.sqrt(((shares * pixels.error) ** 2).sum()) / shares.sum())
    chance = limits.chance * error
    if not limits.low - chance <= index <= limits.high + chance:
        return Noise(index, error, f"the noise variance is {index:.2g} times its mean")
    if error > _MOST_ERROR:
        return Noise(float("nan"))
    fault = (
        _repeated_lines(counts)
        or _rare_count(histogram, cut, limits)
        or _odd_level(pixels, index, cut, limits)
        or _shared_noise(levels, index, limits)
    )
    return Noise(index, error, fault)


def blank_pixels(counts: Array) -> Array:
    """The level from which each pixel is blank, float32 (rows, columns); infinite elsewhere.

    A square of n x n pixels without counts is a blanked area, no chance, where the level around it
    is 16 / n^2 or more: Poisson counts bring it once in 10^7. Squares of side 2, 3 and 4 are looked
    for.
    """
    empty = counts == 0
    blank = np.full(counts.shape, np.inf, dtype=np.float32)
    for side in (2, 3, 4):
        empty = empty[:-1] & empty[1:]
        empty = empty[:, :-1] & empty[:, 1:]
        inside = np.zeros(counts.shape, dtype=bool)
        rows, columns = empty.shape
        for i in range(side):
            for j in range(side):
                inside[i : i + rows, j : j + columns] |= empty
        blank[inside] = 16 / side**2
    return blank


def beside_blanks(blank: Array) -> Array:
    """The level from which each block, as of `block_contrasts`, lies in or beside a blank area."""
    rows = np.minimum(np.minimum(blank[:-3], blank[1:-2]), np.minimum(blank[2:-1], blank[3:]))
    return np.minimum(np.minimum(rows[:, :-3], rows[:, 1:-2]), np.minimum(rows[:, 2:-1], rows[:, 3:]))


def _indices(
    sums: Array, blank: Array, side: int, lowest: float, most: float, tiles: Array | None
) -> _Indices:
    """The sums over the blocks of each level of the sums over side x side pixels."""
    total = np.zeros((3, _LEVELS + 1))
    for first in range(0, len(sums) - 3, _BAND):  # in pieces that stay in the cache
        band = slice(first, first + _BAND + 3)
        squares, means, levels = block_contrasts(sums[band])
        levels /= side**2
        # The exponent of a float is its level; level 0 is below all.
        which = np.clip(np.frexp(np.maximum(levels, 1e-9))[1] - _LOWEST, 0, _LEVELS)
        which[(levels < lowest) | (levels > most) | (levels >= beside_blanks(blank[band]))] = 0
        if tiles is not None:
            rows, columns = (np.arange(n) + 1.5 for n in which.shape)
            at = ((axis * side / _TILE).astype(int) for axis in (rows + first, columns))
            which[~tiles[np.ix_(*at)]] = 0
        which = which.ravel()
        for row, weights in enumerate((None, squares.ravel(), means.ravel())):
            total[row] += np.bincount(which, weights, _LEVELS + 1)
    return _Indices(*total[:, 1:])


def _told(levels: _Indices) -> Array:
    """The levels with enough blocks, and enough counts in them."""
    # Two counts in one block: (4 l)^2 / 2 of N blocks.
    coincidences = 8 * levels.means**2 / np.maximum(levels.blocks, 1)
    return (levels.blocks >= _ENOUGH_BLOCKS) & (coincidences >= _ENOUGH_BLOCKS)


def _repeated_lines(counts: Array) -> str:
    """The fault of rows or columns that repeat the one before, as where nearest pixels enlarge."""
    for lines, name in ((counts, "rows"), (counts.T, "columns")):
        one, other = lines[:-1], lines[1:]
        told = np.maximum(one, other) >= _TOLD_APART
        number = told.sum(axis=1)
        same = ((one == other) & told).sum(axis=1)
        if ((number >= _ENOUGH_OF_A_LINE) & (same > 0.6 * number)).any():
            return f"some {name} repeat the one before"
    return ""


def _rare_count(histogram: Array, cut: int, limits: _Limits) -> str:
    """The fault of a histogram that no mixture of Poisson counts has."""
    # The largest count may be a limit.
    n = np.arange(cut + 2, len(histogram) - 2)
    below, here, above = (histogram[n + i].astype(np.float64) for i in (-1, 0, 1))
    least, found = here * np.sqrt(n / (n + 1)), np.sqrt(below * above)
    # Of the root of a product, by the variances of its factors; and one pixel where there is none.
    z = (limits.rare * least - found) / np.sqrt(here + (below + above) / 4 + 1)
    if n.size == 0 or z.max() <= 5:
        return ""
    worst = int(z.argmax())
    rare = n[worst] + (1 if above[worst] < below[worst] else -1)
    return f"too few pixels have {rare} counts"


def _odd_level(pixels: _Indices, index: float, cut: int, limits: _Limits) -> str:
    """The fault of the noise of pixels at one level."""
    told = _told(pixels)
    means = pixels.means[told] / pixels.blocks[told]
    indices, chance = pixels.squares[told] / pixels.means[told], STANDARD_ERRORS * pixels.error[told]
    uneven = np.abs(np.log(np.maximum(indices, 1e-3) / index)) > limits.uneven + chance
    off = np.maximum(indices - limits.high, limits.low - indices) > chance
    if (off | uneven).any():
        worst = int(np.where(off | uneven, np.abs(indices - index), -1).argmax())
        return f"the noise variance at {means[worst]:.2g} counts is {indices[worst]:.2g} times its mean"
    bright = means >= _BRIGHT
    if bright.any():
        total = pixels.means[told][bright].sum()
        value = pixels.squares[told][bright].sum() / total
        error = np.sqrt(((pixels.means * pixels.error)[told][bright] ** 2).sum()) / total
        if value + _BRIGHT_ERRORS * error < limits.bright:
            return f"the noise variance from {_BRIGHT:g} counts on is {value:.2g} times its mean"
    weight = np.where(means >= 1, 1 / means**2, 0)
    number = pixels.blocks[told]
    taken = (weight * (pixels.squares - pixels.means)[told]).sum() / max(1e-9, (weight * number).sum())
    spread = np.sqrt(((weight * pixels.means[told] * pixels.error[told]) ** 2).sum())
    spread /= max(1e-9, (weight * number).sum())
    if cut == 0 and taken > limits.taken + limits.chance * spread:
        # Counts from which k were taken vary as if they were k more.
        return f"the noise is that of {taken:.1f} more counts a pixel"
    return ""


def _shared_noise(levels: dict[int, _Indices], index: float, limits: _Limits) -> str:
    """The fault of sums whose noise is not that of their pixels."""
    for side, sums in levels.items():
        told = _told(sums)
        if side == 1 or not told.any():
            continue
        indices, error = sums.squares[told] / sums.means[told], sums.error[told]
        least = (indices + STANDARD_ERRORS * error).min()
        if least < limits.low:
            return f"the noise variance of {side}x{side} sums is {least:.2g} times their mean"
        if side == 2:
            if sums.blocks[told].sum() < _MANY_BLOCKS:
                continue
            order = np.argsort(indices)
            share = np.cumsum(sums.blocks[told][order])
            middle = order[np.searchsorted(share, share[-1] / 2)]
            value, most = indices[middle], limits.sums
        else:
            faint = sums.means[told] / sums.blocks[told] <= _FAINT_SUM
            if not faint.any():
                continue
            middle = np.flatnonzero(faint)[(indices - STANDARD_ERRORS * error)[faint].argmax()]
            value, most = indices[middle], limits.faint_sums
        if value - STANDARD_ERRORS * error[middle] > most * index:
            return f"neighbouring pixels share noise ({value:.2g} times the mean in {side}x{side} sums)"
    return ""


def _outlying_tiles(counts: Array) -> Array | None:
    """Tiles (tile rows, tile columns) of counts too variable for a body; None if none or many."""
    frame = counts.astype(np.float32)
    bands = (block_contrasts(frame[i : i + _BAND + 3]) for i in range(0, len(frame) - 3, _BAND))
    if not any((squares > _STEEP * (levels + 1)).any() for squares, _, levels in bands):
        return None
    squares, means, levels = block_contrasts(frame)
    weight = 1 / (levels + 1)
    rows, columns = ((np.arange(n) + 1.5) // _TILE for n in squares.shape)
    shape = tuple(-(-n // _TILE) for n in counts.shape)
    which = (rows.astype(int)[:, None] * shape[1] + columns.astype(int)).ravel()
    noise, mean, variance = (
        np.bincount(which, part.ravel(), shape[0] * shape[1]).reshape(shape)
        for part in (weight * squares, weight * means, 2 * 9 / 4 * (weight * levels) ** 2)
    )
    ratio, errors = _OUTLYING
    outlying = (noise > ratio * mean) & (noise - mean > errors * np.sqrt(variance + 0.1))
    return outlying if 0 < outlying.sum() <= max(1, _MOST_TILES * outlying.size) else None


def _regions(counts: Array, outlying: Array) -> tuple[Box, ...]:
    """Boxes of the outlying blocks in each cluster of outlying tiles, in pixels."""
    squares, _, levels = block_contrasts(counts.astype(np.float64))
    clusters, _ = label(outlying, np.ones((3, 3)))
    wide = np.kron(clusters, np.ones((_TILE, _TILE), int))
    steep = np.zeros(wide.shape, bool)  # the pixels of steep blocks
    blocks = squares > _STEEP * (levels + 1)
    for i in (1, 2):
        for j in (1, 2):
            steep[i : i + squares.shape[0], j : j + squares.shape[1]] |= blocks
    return tuple(
        Box((box[0].start, box[0].stop), (box[1].start, box[1].stop))
        for box in find_objects(np.where(steep, wide, 0))
        if box is not None
    )
