"""Scores of clean scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rbs.scans.quality.findings import Kind

FLAGGED = 0.001
"""Share of clean scans in which each kind of fault is found."""


@dataclass(frozen=True)
class Tail:
    """The exponential tail of the scores of clean scans.

    Attributes:
        threshold: Score that a share `FLAGGED` of them reaches.
        scale: Increase of the score by which that share falls e-fold.
    """

    threshold: float
    scale: float


CLEAN: Mapping[Kind, Tail] = MappingProxyType(
    {
        Kind.MOTION: Tail(1.33, 0.13),
        Kind.BETWEEN: Tail(3.86, 0.8),
        Kind.EXTRAVASATION: Tail(0.193, 0.034),
        Kind.SATURATION: Tail(1.88, 0.3),
        Kind.VELOCITY: Tail(1.21, 0.15),
        Kind.UNIFORMITY: Tail(8.55, 0.73),
        Kind.WINDOW: Tail(1.11, 0.074),
        Kind.METAL: Tail(4, 0.15),
        Kind.CONTAMINATION: Tail(0.42, 0.1),
        Kind.COVERAGE: Tail(31.3, 8),
        Kind.SWAPPED: Tail(0.1, 0.1),
        Kind.MIRRORED: Tail(0.1, 0.35),
        Kind.FILTERED: Tail(0.358, 0.04),
        Kind.HEAD: Tail(0.255, 0.04),
        Kind.ROWS: Tail(2.05, 0.17),
    }
)
"""Tail of each kind: fitted to 310 phantom children by `benchmarks/check.py calibration`."""
