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
        Kind.MOTION: Tail(1.3, 0.12),
        Kind.BETWEEN: Tail(4, 0.8),
        Kind.EXTRAVASATION: Tail(0.2, 0.03),
        Kind.SATURATION: Tail(2.3, 0.3),
        Kind.VELOCITY: Tail(1.25, 0.12),
        Kind.UNIFORMITY: Tail(9, 0.9),
        Kind.WINDOW: Tail(1.15, 0.06),
        Kind.METAL: Tail(4.4, 0.2),
        Kind.CONTAMINATION: Tail(0.6, 0.1),
        Kind.COVERAGE: Tail(32, 8),
        Kind.SWAPPED: Tail(0.0, 0.08),
        Kind.MIRRORED: Tail(0.6, 0.4),
        Kind.FILTERED: Tail(0.6, 0.08),
        Kind.HEAD: Tail(0.28, 0.04),
        Kind.ROWS: Tail(2.8, 0.3),
    }
)
"""Tail of each kind: fitted to 500 phantom children by `benchmarks/check.py calibration`."""
