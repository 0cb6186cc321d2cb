"""Binomial thinning of raw counts: the exact simulation of a faster scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rbs.errors import ScanError
from rbs.scans.scan import Array


def thin(counts: Array, fraction: float, rng: np.random.Generator) -> Array:
    """Simulate a faster scan: keep every count with probability `fraction`.

    Binomial thinning of Poisson counts of mean m gives Poisson counts of mean fraction * m.

    Args:
        counts: Acquired whole counts, any shape.
        fraction: Share to keep, 0 to 1: 0.5 turns 20 into 40 cm/min.
        rng: Source of randomness.

    Returns:
        int32 counts of the same shape, nowhere above `counts`.

    Raises:
        ScanError: The counts are not whole non-negative numbers, or the fraction is outside 0 to 1.
    """
    return split(counts, (fraction,), rng)[0]


def split(counts: Array, fractions: Sequence[float], rng: np.random.Generator) -> list[Array]:
    """Deal every count to one part at most (multinomial): the parts are independent Poisson scans.

    Args:
        counts: Acquired whole counts, any shape.
        fractions: Share of each part; they sum to at most 1, and what they leave is dropped.
        rng: Source of randomness.

    Returns:
        One int32 array a fraction, each of the shape of `counts`.

    Raises:
        ScanError: The counts are not whole non-negative numbers, or the fractions are no shares of
            1.
    """
    if any(not 0 <= p <= 1 for p in fractions) or sum(fractions) > 1 + 1e-9:
        raise ScanError(
            f"{tuple(fractions)} are not shares of one scan", remedy="use fractions that sum to at most 1"
        )
    rest = _whole(counts)
    left = 1.0
    parts = []
    for p in fractions:
        # Given the parts dealt before, what is left is binomial with the share p of the probability
        # left.
        part = rng.binomial(rest, min(1.0, p / left) if left > 0 else 0.0)
        parts.append(part.astype(np.int32))
        rest = rest - part
        left -= p
    return parts


def _whole(counts: Array) -> Array:
    counts = np.asarray(counts)
    if (counts < 0).any() or (counts != np.rint(counts)).any():
        raise ScanError(
            "the counts are not whole non-negative numbers", remedy="thin or split raw acquired counts only"
        )
    return counts.astype(np.int64)
