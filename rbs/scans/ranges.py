"""Ranges that no whole-body scan leaves: a number outside is a mistake, or in another unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """A quantity and the least and most it may be.

    Attributes:
        name: The quantity.
        low: The least.
        high: The most.
        unit: Its unit.
    """

    name: str
    low: float
    high: float
    unit: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} {self.unit}"


SPACING = Range("pixel spacing", 0.5, 20.0, "mm")
"""A field of view of 40 to 61 cm in 64 to 1024 pixels, zoomed or not: 0.5 mm is finer than any
collimator resolves, 20 mm twice the coarsest matrix."""

VELOCITY = Range("scan velocity", 1.0, 1000.0, "cm/min")
"""Tables travel at 5 to 60 cm/min. What is thinned out of such a scan is as if it were faster: at
1000 cm/min 2 % of the standard counts are left."""

DURATION = Range("duration", 0.1, 36_000.0, "s")
"""Acquisitions take minutes, the slowest an hour; thinning shortens them with the counts."""

AGE = Range("age", 0.01, 120.0, "years")
HEIGHT = Range("height", 30.0, 250.0, "cm")
WEIGHT = Range("weight", 0.5, 400.0, "kg")

ACTIVITY = Range("activity", 10.0, 5000.0, "MBq")
"""Children are given 40 MBq and more, adults up to about 1000."""
