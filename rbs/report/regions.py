"""The page of `rbs segment`: contours of the regions on every scan, and their measures."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from rbs.errors import printable
from rbs.scans.body import body_mask
from rbs.scans.regions import DESCRIBED
from rbs.scans.scan import REGIONS, Array, Scan, View
from rbs.utils.files import write_text
from rbs.utils.version import VERSION
from rbs.utils.words import counted

HEIGHT = 8.5
"""Height of the picture of a whole frame, inches."""

MARGIN = 12
"""About the body, pixels."""


@dataclass(frozen=True)
class Shown:
    """A scan on the page.

    Attributes:
        name: Its name.
        lines: What is said of it.
        regions: Names of the regions that are there.
        picture: PNG of its views with contours, base64.
        rows: Measures, a mapping of column to text a row, by "view" and "region"; none where they
            were not asked for.
        warnings: What to look at.
    """

    name: str
    lines: str
    regions: tuple[str, ...]
    picture: str
    rows: tuple[dict[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def shown(
    name: str, scan: Scan, labels: Array, rows: Sequence[dict[str, str]], warnings: Sequence[str]
) -> Shown:
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
    there = tuple(region for k, region in enumerate(REGIONS, start=1) if (labels == k).any())
    picture = base64.b64encode(contours_png(scan, labels)).decode("ascii")
    lines = f"{', '.join(scan.views)}; {counts} counts; {velocity}"
    return Shown(name, lines, there, picture, tuple(rows), tuple(warnings))


def write_regions_page(scans: Sequence[Shown], output: Path, *, segmenter: str) -> None:
    """Write one self-contained page; an older one is replaced.

    Args:
        scans: The scans.
        output: The file.
        segmenter: What found the regions.

    Raises:
        OutputError: It cannot be written.
    """
    import jinja2

    template = (files("rbs.report") / "regions.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"counted": counted, "printable": printable}
    legend = [(name, "#{:02x}{:02x}{:02x}".format(*region.colour)) for name, region in DESCRIBED.items()]
    html = environment.from_string(template).render(
        version=VERSION,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        segmenter=segmenter,
        legend=legend,
        colours=dict(legend),
        scans=scans,
    )
    write_text(output, html)


def contours_png(scan: Scan, labels: Array) -> bytes:
    """The views in inverse grey as the camera wrote them, contours of the regions upon them.

    Args:
        scan: The scan.
        labels: Of its frames (frames, rows, columns).
    """
    import matplotlib
    import matplotlib.pyplot as plt

    from rbs.report.figures import png

    matplotlib.use("Agg")
    body = body_mask(scan.aligned(), scan.spacing_mm).any(axis=0)
    rows, columns = (_extent(body.any(axis=axis)) for axis in (1, 0))
    aspect = scan.spacing_mm[0] / scan.spacing_mm[1]
    width = HEIGHT * (columns[1] - columns[0]) / (rows[1] - rows[0]) / aspect
    number = len(scan.views)
    figure, axes = plt.subplots(1, number, figsize=(number * width + 0.2, HEIGHT + 0.35), squeeze=False)
    for axis, counts, label, view in zip(axes[0], scan.counts, labels, scan.views, strict=True):
        # Bone is in the upper tenth of the counted pixels; what is hotter is black.
        black = 1.5 * float(np.percentile(counts[counts > 0], 97)) if counts.any() else 1.0
        axis.imshow(np.minimum(counts, black), cmap="gray_r", aspect=aspect, interpolation="nearest", vmin=0)
        left, right = (
            columns if view == View.ANTERIOR else (scan.shape[1] - columns[1], scan.shape[1] - columns[0])
        )
        for k, region in enumerate(REGIONS, start=1):
            mask = label == k
            if mask.any():
                colour = [part / 255 for part in DESCRIBED[region].colour]
                axis.contour(mask, levels=[0.5], colors=[colour], linewidths=0.9)
        axis.set(xlim=(left - 0.5, right - 0.5), ylim=(rows[1] - 0.5, rows[0] - 0.5), xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
        axis.set_title(str(view), fontsize=10)
        # The camera in front has the patient's right on its left.
        for side, at in zip("RL" if view == View.ANTERIOR else "LR", (0.03, 0.97), strict=True):
            axis.text(
                at, 0.985, side, transform=axis.transAxes, ha="center", va="top", fontsize=10, color="0.35"
            )
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.3 / (HEIGHT + 0.35), wspace=0.03)
    return png(figure)


def _extent(there: Array) -> tuple[int, int]:
    """First and one past the last place that holds something, with a margin; all if none does."""
    places = np.flatnonzero(there)
    if not places.size:
        return 0, len(there)
    return max(int(places[0]) - MARGIN, 0), min(int(places[-1]) + MARGIN + 1, len(there))
