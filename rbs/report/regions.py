"""The page of `rbs segment`: contours of the regions on every scan, and their measures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rbs.report.html import render
from rbs.scans.body import body_mask
from rbs.scans.regions import DESCRIBED, PALETTE
from rbs.scans.scan import REGIONS, Array, Scan, View
from rbs.utils.files import write_text

MARGIN = 12
"""About the body, pixels."""

ROWS = 1700
"""Rows of a picture, about: twice what a screen shows, so that contours stay thin."""

GREYS = 200
"""Levels of grey of a picture; what is left of 256 colours are those of the regions."""


@dataclass(frozen=True)
class ShownView:
    """A view on the page.

    Attributes:
        view: Its name.
        sides: Side of the patient on the left and on the right of the picture.
        picture: PNG with contours, base64.
        shape: Height and width of the body in it, mm, which the picture is shown in proportion to.
    """

    view: str
    sides: tuple[str, str]
    picture: str
    shape: tuple[float, float]


@dataclass(frozen=True)
class ShownScan:
    """A scan on the page.

    Attributes:
        name: Its name.
        about: What is said of it.
        views: Its pictures.
        rows: Measures, a mapping of column to text a row, by "view" and "region"; none where they
            were not asked for.
        warnings: What to look at.
    """

    name: str
    about: str
    views: tuple[ShownView, ...]
    rows: tuple[Mapping[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def shown(
    name: str, scan: Scan, labels: Array, rows: Sequence[Mapping[str, str]], warnings: Sequence[str]
) -> ShownScan:
    """Draw a scan; the arrays may go then.

    Args:
        name: Its name.
        scan: The scan.
        labels: Of its frames, as stored (frames, rows, columns).
        rows: Measures.
        warnings: What to look at.
    """
    velocity = f"{scan.velocity:.4g} cm/min" if scan.velocity else "velocity unknown"
    counts = " and ".join(f"{int(view.sum()):,}" for view in scan.counts)
    about = f"{', '.join(scan.views)}; {counts} counts; {velocity}"
    return ShownScan(name, about, tuple(_views(scan, labels)), tuple(rows), tuple(warnings))


def write_regions_page(scans: Sequence[ShownScan], output: Path, *, segmenter: str) -> None:
    """Write one self-contained page; an older one is replaced.

    Args:
        scans: The scans.
        output: The file.
        segmenter: What found the regions.

    Raises:
        OutputError: It cannot be written.
    """
    legend = [(name, "#{:02x}{:02x}{:02x}".format(*region.colour)) for name, region in DESCRIBED.items()]
    content = {"segmenter": segmenter, "legend": legend, "scans": scans}
    write_text(output, render("regions.html", content))


def _views(scan: Scan, labels: Array) -> list[ShownView]:
    """The views as the camera wrote them, cut to the body."""
    (top, bottom), (left, right) = body_box(scan)
    found = []
    for view, counts, label in zip(scan.views, scan.counts, labels, strict=True):
        first, last = (left, right)
        if view == View.POSTERIOR:
            first, last = scan.shape[1] - right, scan.shape[1] - left
        box = slice(top, bottom), slice(first, last)
        size = (bottom - top) * scan.spacing_mm[0], (last - first) * scan.spacing_mm[1]
        png = contours_png(counts[box], label[box])
        found.append(ShownView(str(view), sides(view), base64.b64encode(png).decode("ascii"), size))
    return found


def contours_png(counts: Array, labels: Array) -> bytes:
    """A view in inverse grey, the contour of each region on it in exactly its colour.

    Args:
        counts: (H, W).
        labels: k + 1 for `REGIONS[k]`, 0 for background, (H, W).
    """
    from PIL import Image
    from scipy.ndimage import binary_erosion

    from rbs.report.figures import black_level  # it needs pandas, which tables do not

    scale = max(round(ROWS / len(counts)), 1)
    line = scale // 2 + 1
    black = black_level(counts)
    grey = np.rint(np.minimum(counts / black, 1) * (GREYS - 1)).astype(np.uint8)
    first_grey = len(PALETTE)
    large = first_grey + grey.repeat(scale, axis=0).repeat(scale, axis=1)
    labels = labels.repeat(scale, axis=0).repeat(scale, axis=1)
    for value in range(1, len(REGIONS) + 1):
        mask = labels == value
        if mask.any():
            large[mask & ~binary_erosion(mask, iterations=line)] = value
    picture = Image.fromarray(large).convert("P")
    greys = [(round(255 * (1 - n / (GREYS - 1))),) * 3 for n in range(GREYS)]
    picture.putpalette([part for colour in (*PALETTE, *greys) for part in colour])
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def body_box(scan: Scan) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the body in the aligned views: first and one past the last."""
    body = body_mask(scan.aligned(), scan.spacing_mm)
    rows, columns = (_extent(np.asarray(body.any(axis=axes))) for axes in ((0, 2), (0, 1)))
    return rows, columns


def sides(view: View) -> tuple[str, str]:
    """Side of the patient on the left and on the right of a view as the camera wrote it."""
    return ("R", "L") if view == View.ANTERIOR else ("L", "R")


def _extent(there: Array) -> tuple[int, int]:
    """First and one past the last place that holds something, with a margin; all if none does."""
    places = np.flatnonzero(there)
    if not places.size:
        return 0, len(there)
    return max(int(places[0]) - MARGIN, 0), min(int(places[-1]) + MARGIN + 1, len(there))
