"""The page of `rbs check`: every scan with its findings, and the places marked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from rbs.report.html import render
from rbs.scans.counts import scanned_rows
from rbs.scans.quality.clean import FLAGGED
from rbs.scans.quality.findings import Finding
from rbs.scans.scan import Scan
from rbs.utils.files import write_text

HEIGHT = 7.5
"""Height of the picture of a whole frame, inches."""

MARGIN = 12
"""About what was scanned, pixels."""


@dataclass(frozen=True)
class CheckedScan:
    """A checked scan: its findings and its picture.

    Attributes:
        file: The file.
        views: Its views, in frame order.
        velocity: cm/min; None where unknown.
        counts: Counts of each view.
        findings: What was found, the surest first.
        picture: PNG of its views with the places marked, base64; None where none was wanted or
            nothing was found.
    """

    file: Path
    views: tuple[str, ...]
    velocity: float | None
    counts: tuple[int, ...]
    findings: tuple[Finding, ...]
    picture: str | None = None

    @classmethod
    def of(cls, file: Path, scan: Scan, findings: Sequence[Finding], *, picture: bool) -> Self:
        """Keep what the page shows; the scan itself may go."""
        shown = base64.b64encode(_png(scan, findings)).decode("ascii") if picture and findings else None
        counts = tuple(int(view.sum()) for view in scan.counts)
        return cls(file, tuple(map(str, scan.views)), scan.velocity, counts, tuple(findings), shown)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the picture."""
        return {
            "file": str(self.file),
            "views": self.views,
            "velocity": self.velocity,
            "counts": self.counts,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def write_quality_page(scans: Sequence[CheckedScan], output: Path) -> None:
    """Write one self-contained page; an older one is replaced.

    Raises:
        OutputError: It cannot be written.
    """
    content = {
        "flagged": FLAGGED,
        "faulty": [scan for scan in scans if scan.findings],
        "clean": [scan for scan in scans if not scan.findings],
    }
    write_text(output, render("quality.html", content))


def _png(scan: Scan, findings: Sequence[Finding]) -> bytes:
    """The views in inverse grey as the camera wrote them, a numbered box about each place."""
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    from rbs.report.figures import black_level, png

    matplotlib.use("Agg")
    first, last = scanned_rows(scan.counts)
    top, end = max(first - MARGIN, 0), min(last + MARGIN, scan.shape[0])
    aspect = scan.spacing_mm[0] / scan.spacing_mm[1]
    width = HEIGHT * scan.shape[1] / (end - top) / aspect
    number = len(scan.views)
    figure, axes = plt.subplots(1, number, figsize=(number * width + 0.2, HEIGHT + 0.35), squeeze=False)
    for axis, counts, view in zip(axes[0], scan.counts, scan.views, strict=True):
        black = black_level(counts)
        axis.imshow(np.minimum(counts, black), cmap="gray_r", aspect=aspect, interpolation="nearest", vmin=0)
        axis.set(ylim=(end - 0.5, top - 0.5), xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
        axis.set_title(str(view), fontsize=10)
        for n, finding in enumerate(findings, start=1):
            if finding.place is None or finding.view not in (None, str(view)):
                continue
            (first, last), (left, right) = finding.place.rows, finding.place.columns
            box = Rectangle(
                (left - 1, first - 1), right - left + 1, last - first + 1, fill=False, color="#c00000", lw=1.3
            )
            axis.add_patch(box)
            at = min(max(left + 2, 2), scan.shape[1] - 14), max(first - 4, top + 14)
            axis.text(*at, str(n), color="#c00000", fontsize=10, fontweight="bold", va="bottom")
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.3 / (HEIGHT + 0.35), wspace=0.03)
    return png(figure)
