"""The page of `rbs view`: images of scans that are compared by eye, with all their counts."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rbs.report.html import render
from rbs.report.regions import body_box, sides
from rbs.scans.regions import DESCRIBED
from rbs.scans.scan import Array, Scan, View
from rbs.utils.files import write_text

STEP = 0.02
"""Counts that a step of a stored pixel stands for, where 16 bits hold the largest of them."""


@dataclass(frozen=True)
class Image:
    """An image of a scan.

    Attributes:
        name: What it is, in a word or two.
        about: What it is, with all that matters.
        counts: At the exposure of the standard scan, frames as stored (frames, rows, columns).
        restored: True for a restoration of the first image of its scan.
    """

    name: str
    about: str
    counts: Array
    restored: bool = False


@dataclass(frozen=True)
class Mark:
    """A numbered place in a view.

    Attributes:
        view: The view.
        row: Row, from 0.
        column: Column as stored, from 0.
        text: Its number.
    """

    view: View
    row: float
    column: float
    text: str


def packed_scan(
    scan: Scan,
    images: Sequence[Image],
    *,
    name: str,
    about: str,
    exposure: float,
    labels: Array | None = None,
    marks: Sequence[Mark] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """A scan as the page holds it; the arrays may go then.

    Args:
        scan: The rapid scan: its views and pixels are those of all images.
        images: Its images; the first one is the rapid scan at standard exposure.
        name: Its name on the page.
        about: What is said of it.
        exposure: Exposure of the rapid scan relative to the standard one.
        labels: Of its frames as stored (frames, rows, columns); None for no contours.
        marks: Numbers drawn with the contours.
        warnings: What to look at.
    """
    return {
        "name": name,
        "about": about,
        "warnings": list(warnings),
        "exposure": exposure,
        **geometry(scan),
        "black": shared_black([image.counts for image in images]),
        "images": [
            {"name": image.name, "about": image.about, "restored": image.restored, **packed(image.counts)}
            for image in images
        ],
        "labels": None if labels is None else [_deflated(label.astype(np.uint8)) for label in labels],
        "marks": [{**vars(mark), "view": str(mark.view)} for mark in marks],
    }


def geometry(scan: Scan) -> dict[str, Any]:
    """Views and pixels of a scan, and where its body lies in the aligned views."""
    (top, bottom), (left, right) = body_box(scan)
    return {
        "rows": scan.shape[0],
        "columns": scan.shape[1],
        "spacing": list(scan.spacing_mm),
        "views": [{"name": str(view), "sides": sides(view)} for view in scan.views],
        "body": [top, bottom, left, right],
    }


def packed(counts: Array) -> dict[str, Any]:
    """Counts of all views in 16 bits a pixel, compressed: `values * step` are the counts.

    Args:
        counts: (frames, rows, columns), not negative.
    """
    step = max(STEP, float(counts.max()) / np.iinfo(np.uint16).max)
    return {"step": step, "values": [_deflated(np.rint(view / step).astype("<u2")) for view in counts]}


def write_viewer_page(
    scans: Sequence[dict[str, Any]], output: Path, *, restorer: str, overwrite: bool = False
) -> None:
    """Write one self-contained page.

    Args:
        scans: As of `packed_scan`.
        output: The file.
        restorer: What restored them, with the hash of its weights.
        overwrite: Replace an older file.

    Raises:
        OutputError: It exists already, or cannot be written.
    """
    colours = [
        ["", ""],
        *([name, "#{:02x}{:02x}{:02x}".format(*of.colour)] for name, of in DESCRIBED.items()),
    ]
    content = {"restorer": restorer, "data": {"scans": scans, "regions": colours}}
    write_text(output, render("viewer.html", content), overwrite=overwrite)


def shared_black(images: Sequence[Array]) -> float:
    """Counts that are black at first where images of one scan are compared."""
    from rbs.report.figures import black_level  # it needs pandas

    return max(map(black_level, images))


def _deflated(values: Array) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode("ascii")
