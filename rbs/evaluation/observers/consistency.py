"""Does a restoration agree with the very counts it was made from? A check that needs no truth.

If the restoration T is the expectation of a standard scan, the rapid scan R is Poisson with mean
pT. In blocks of some 18 mm, with r and m the sums of R and pT over a block, the deviance

    d(r, m) = 2 (r ln(r/m) - (r - m))

has an expectation that is known for every m (1 from about 10 counts on, more near 1 count, less
below). So Σd / ΣE[d|m] is 1 for the truth, above 1 for what contradicts the counts, and z = sign(r
- m) sqrt(d) maps where. Blocks with |z| > 4 that touch are one cluster, worth a look at the rapid
  scan.

A method that smooths R has seen R: T follows its noise in part, and the ratio falls below 1 (to 0
for R/p itself). A small ratio is therefore no merit; only a large one is a fault. Nor does
agreement prove that a focus is real: what R's noise suggests agrees with R.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rbs.scans.counts import block_sums, poisson_deviance
from rbs.scans.scan import Array

BLOCK_MM = 18.0
FLAGGED = 4.0
LEAST_MEAN = 1e-3
"""Counts expected in a block at least: a restoration of 0 is not infinitely wrong where one count
fell."""
_TABLE_END = 200.0


@dataclass(frozen=True)
class Cluster:
    """Neighbouring blocks that contradict the counts in the same direction.

    Attributes:
        view: Index of the view.
        row: Row of the centre, pixels.
        column: Column of the centre, pixels.
        blocks: How many.
        z: That of the block furthest out; positive where the restoration has too little.
        counted: Counts of the rapid scan in them.
        expected: Counts the restoration expects in them.
    """

    view: int
    row: float
    column: float
    blocks: int
    z: float
    counted: float
    expected: float


@dataclass(frozen=True)
class Consistency:
    """Agreement of a restoration with its rapid scan.

    Attributes:
        blocks: How many were compared.
        deviance: Σd.
        expected: ΣE[d|m], its expectation if the restoration were the truth.
        spread: Its standard deviation likewise.
        z: Signed root of the deviance of each block, (V, rows of blocks, columns of blocks).
        clusters: Those with |z| > 4, the furthest out first.
    """

    blocks: int
    deviance: float
    expected: float
    spread: float
    z: Array
    clusters: tuple[Cluster, ...]

    @property
    def ratio(self) -> float:
        """Deviance over its expectation: 1 for the truth."""
        return self.deviance / self.expected


def check_consistency(
    rapid: Array, estimate: Array, exposure: float, spacing_mm: tuple[float, float]
) -> Consistency:
    """Compare a restoration with the rapid scan it was made from.

    Args:
        rapid: R, raw counts (V, H, W), never interpolated.
        estimate: T, standard counts (V, H, W), on the grid of the rapid scan.
        exposure: p, exposure of the rapid scan relative to the standard one.
        spacing_mm: Row and column spacing, mm.
    """
    size = max(1, round(BLOCK_MM / spacing_mm[0])), max(1, round(BLOCK_MM / spacing_mm[1]))
    r = block_sums(rapid, *size)
    m = np.maximum(exposure * block_sums(estimate, *size), LEAST_MEAN)
    d = poisson_deviance(r, m)
    mean, variance = deviance_moments(m)
    z = np.sign(r - m) * np.sqrt(d)
    return Consistency(
        blocks=d.size,
        deviance=float(d.sum()),
        expected=float(mean.sum()),
        spread=float(np.sqrt(variance.sum())),
        z=z,
        clusters=_clusters(z, r, m, size),
    )


def deviance_moments(expected: Array) -> tuple[Array, Array]:
    """Mean and variance of the deviance of Poisson counts of these means.

    From the Poisson sums up to a mean of 200, and those of 200 beyond: 1 and 2 within half a
    percent.
    """
    means, first, second = _moments()
    at = np.minimum(expected, _TABLE_END)
    return np.interp(at, means, first), np.interp(at, means, second)


@lru_cache(maxsize=1)
def _moments() -> tuple[Array, Array, Array]:
    from scipy.stats import poisson

    means = np.geomspace(LEAST_MEAN / 10, _TABLE_END, 600)
    counts = np.arange(500.0)[:, None]
    weights = poisson.pmf(counts, means)
    d = poisson_deviance(counts, means)
    first = (weights * d).sum(axis=0)
    return means, first, (weights * d**2).sum(axis=0) - first**2


def _clusters(z: Array, r: Array, m: Array, size: tuple[int, ...]) -> tuple[Cluster, ...]:
    from scipy.ndimage import label

    found = []
    touching = np.zeros((3, 3, 3), dtype=bool)
    touching[1] = True  # diagonal neighbours too, but not across views
    for sign in (1, -1):
        numbers, count = label(sign * z > FLAGGED, structure=touching)
        for number in range(1, count + 1):
            inside = numbers == number
            view, rows, columns = (places.mean() for places in np.nonzero(inside))
            found.append(
                Cluster(
                    view=int(view),
                    row=float((rows + 0.5) * size[0] - 0.5),
                    column=float((columns + 0.5) * size[1] - 0.5),
                    blocks=int(inside.sum()),
                    z=float(sign * np.abs(z[inside]).max()),
                    counted=float(r[inside].sum()),
                    expected=float(m[inside].sum()),
                )
            )
    return tuple(sorted(found, key=lambda cluster: -abs(cluster.z)))
