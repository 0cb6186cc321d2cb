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


CLEAN: Mapping[Kind, Tail] = MappingProxyType({kind: Tail(1e9, 1.0) for kind in Kind})
