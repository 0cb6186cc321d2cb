"""A finding about a scan: the fault, its place, how sure it is and its remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rbs.scans.scan import Box

SMALLEST = 1e-6
"""Share of clean scans below which a p-value is not told: no tail is known that far."""

SURE = 1000.0
"""Score of what no clean scan can show, as empty rows inside the body."""


class Kind(StrEnum):
    """Faults that are looked for."""

    MOTION = "motion within the scan"
    BETWEEN = "motion between the views"
    EXTRAVASATION = "extravasation"
    SATURATION = "saturation"
    VELOCITY = "velocity"
    UNIFORMITY = "field uniformity"
    WINDOW = "energy window"
    METAL = "metal"
    CONTAMINATION = "contamination"
    COVERAGE = "partial coverage"
    SWAPPED = "views swapped"
    MIRRORED = "view mirrored"
    FILTERED = "filtered before export"
    HEAD = "counts missing in one head"
    ROWS = "rows repeated or missing"


@dataclass(frozen=True)
class Suspicion:
    """The strongest sign of one fault in a scan, be it strong enough for a finding or not.

    Attributes:
        kind: The fault.
        score: Strength of the sign, in a unit of its own.
        fault: What was seen, a clause.
        remedy: What to do about it, a clause.
        view: The view it was seen in; None for the whole scan.
        place: Where in that view, or in both; None for all of it.
    """

    kind: Kind
    score: float
    fault: str
    remedy: str
    view: str | None = None
    place: Box | None = None


@dataclass(frozen=True)
class Finding:
    """A fault of a scan that its user should know of.

    Attributes:
        kind: The fault.
        view: The view it is in; None for the whole scan.
        place: Where in that view, or in both, in pixels of the frame as stored; None for all of it.
        score: Strength of the sign, in the unit of its check.
        p_value: Share of clean scans with a sign as strong, `SMALLEST` where it is less.
        fault: What was seen.
        remedy: What to do about it.
    """

    kind: Kind
    view: str | None
    place: Box | None
    score: float
    p_value: float
    fault: str
    remedy: str

    @property
    def where(self) -> str:
        """The place in words; "whole scan" without one."""
        parts = (self.view and f"{self.view} view", self.place and str(self.place))
        return ", ".join(part for part in parts if part) or "whole scan"

    @property
    def how_sure(self) -> str:
        """The p-value in words."""
        return f"p = {self.p_value:.1g}" if self.p_value > SMALLEST else f"p < {SMALLEST:g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"kind": str(self.kind), "where": self.where}

    def __str__(self) -> str:
        return f"{self.kind}: {self.fault} ({self.where}; {self.how_sure}); {self.remedy}"
