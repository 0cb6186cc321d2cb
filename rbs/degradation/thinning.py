"""Binomial thinning of raw counts: the exact simulation of a faster scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rbs.errors import ScanError
from rbs.scans.censoring import cut_counts
from rbs.scans.scan import Array


@dataclass(frozen=True)
class Thinning:
    """Simulation of a faster scan: every count is kept with the same probability.

    Binomial thinning of Poisson counts of mean m gives Poisson counts of mean exposure * m.

    Attributes:
        exposure: Probability to keep a count, 0 to 1: 0.5 turns 20 into 40 cm/min.
    """

    exposure: float

    def __call__(self, counts: Array, rng: np.random.Generator, cut: int = 0) -> Array:
        """Thin acquired whole counts of any shape, of which those up to `cut` were set to 0.

        Returns:
            int32 counts of the same shape, nowhere above `counts`.

        Raises:
            ScanError: As `split`.
        """
        return split(counts, (self.exposure,), rng, cut)[0]


def split(counts: Array, exposures: Sequence[float], rng: np.random.Generator, cut: int = 0) -> list[Array]:
    """Assign every count to one part at most (multinomial); parts are independent Poisson scans.

    A pixel that was cut (`Scan.cut`) cannot be dealt out, but none of its parts can hold more than
    it did. Parts of a cut scan are therefore cut alike: their zeros, too, mean "at most `cut`", and
    what they say is exactly what the parts of the whole scan would have said after such an export.

    Args:
        counts: Acquired whole counts, any shape.
        exposures: Exposure of each part; they sum to at most 1, and counts left over are dropped.
        rng: Source of randomness.
        cut: Counts from 1 to this number were set to 0, and are in the parts.

    Returns:
        One int32 array an exposure, each of the shape of `counts`.

    Raises:
        ScanError: The counts are not whole non-negative numbers, or the exposures exceed 1.
    """
    if any(not 0 <= p <= 1 for p in exposures) or sum(exposures) > 1 + 1e-9:
        fault = f"{tuple(exposures)} are not shares of one scan"
        raise ScanError(fault, remedy="use exposures that sum to at most 1")
    counts = np.asarray(counts)
    if (counts < 0).any() or (counts != np.rint(counts)).any():
        fault = "the counts are not whole non-negative numbers"
        raise ScanError(fault, remedy="thin or split raw acquired counts only")
    rest, left = counts.astype(np.int64), 1.0
    parts = []
    for p in exposures:
        # Given the parts drawn before, this one is binomial with its share of what is left.
        part = rng.binomial(rest, min(1.0, p / left) if left > 0 else 0.0)
        parts.append(cut_counts(part.astype(np.int32), cut))
        rest = rest - part
        left -= p
    return parts
