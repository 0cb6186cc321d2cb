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
        Kind.MOTION: Tail(1.27, 0.11),
        Kind.BETWEEN: Tail(3.87, 0.8),
        Kind.EXTRAVASATION: Tail(0.18, 0.031),
        Kind.SATURATION: Tail(1.88, 0.3),
        Kind.VELOCITY: Tail(1.23, 0.15),
        Kind.UNIFORMITY: Tail(9.19, 0.87),
        Kind.WINDOW: Tail(1.09, 0.068),
        Kind.METAL: Tail(4, 0.15),
        Kind.CONTAMINATION: Tail(0.42, 0.1),
        Kind.COVERAGE: Tail(31.3, 8),
        Kind.SWAPPED: Tail(0.1, 0.098),
        Kind.MIRRORED: Tail(0.1, 0.35),
        Kind.FILTERED: Tail(0.384, 0.05),
        Kind.HEAD: Tail(0.253, 0.04),
        Kind.ROWS: Tail(2.05, 0.18),
    }
)
"""Tail of each kind: fitted to 395 phantom children by `benchmarks/check.py calibration`."""
