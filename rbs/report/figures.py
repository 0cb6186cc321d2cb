"""Figures of the report: as PNG data for the page, as SVG and PDF files in a folder."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from rbs.scans.scan import Array
from rbs.utils.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KNEES = (0.60, 0.80)
"""Place of the knees between the top and the bottom of the body: the growth plates of distal femur
and proximal tibia are at about 0.28 of the height above the soles, and the toes may point down."""

DIFFERENCE_SHARE = 0.25
"""Difference maps saturate at this share of P."""

FRAME_ERROR = 0.2
"""Error maps of frames saturate at this share of the range of sRGB."""

SIDE_MM = 100.0
"""Side of the square that shows a focus, mm."""

WIDTH = 13.0
"""Width of figures of scans and frames, inches."""

TALLEST = 0.36
"""Height of a row of an overview at most, relative to the width of the figure."""

DPI = 110
VECTOR_DPI = 220
"""At which the scans in SVG and PDF files are drawn: three to four points a pixel of the camera."""
MOST_ACROSS = 8
MARGIN = 6
"""About the body, pixels."""


def views_figure(
    panels: Mapping[str, Array], views: Sequence[str], peak: float, spacing_mm: tuple[float, float]
) -> Figure:
    """Every estimate of both views beside each other in inverse grey, one window for all.

    Args:
        panels: Printed label to standard counts (V, H, W), aligned; among them "standard".
        views: The view of each of the V channels; posterior views are shown as the camera saw them.
        peak: P: white is 0, black is P counts and more.
        spacing_mm: Row and column spacing, mm.
    """
    return _views(panels, body_box(panels), views, spacing_mm, vmin=0.0, vmax=peak, cmap="gray_r")


def difference_figure(
    panels: Mapping[str, Array],
    truth: Array,
    views: Sequence[str],
    peak: float,
    spacing_mm: tuple[float, float],
) -> Figure:
    """Estimate minus truth, blue too few and red too many counts, saturating at a quarter of P.

    Args:
        panels: Printed label to standard counts (V, H, W), aligned.
        truth: Expected standard counts (V, H, W), aligned.
        views: The view of each of the V channels.
        peak: P, standard counts.
        spacing_mm: Row and column spacing, mm.
    """
    limit, box = DIFFERENCE_SHARE * peak, body_box({"truth": truth})
    errors = {label: counts - truth for label, counts in panels.items()}
    return _views(errors, box, views, spacing_mm, vmin=-limit, vmax=limit, cmap="RdBu_r")


def knees_figure(panels: Mapping[str, Array], peak: float, spacing_mm: tuple[float, float]) -> Figure:
    """The knees in the first view, in the window of the whole scan."""
    cut = knees(panels)
    cuts = {label: [counts[cut.place]] for label, counts in panels.items()}
    return _grid(cuts, [cut.name], spacing_mm, vmin=0.0, vmax=peak, cmap="gray_r")


@dataclass(frozen=True)
class Cut:
    """A detail of aligned scans (V, H, W).

    Attributes:
        name: Printed beside it.
        view: Index of the view.
        rows: Its rows.
        columns: Its columns.
    """

    name: str
    view: int
    rows: slice
    columns: slice

    @property
    def place(self) -> tuple[int, slice, slice]:
        """Index of the detail in an array (V, H, W)."""
        return self.view, self.rows, self.columns


def knees(panels: Mapping[str, Array]) -> Cut:
    """The knees in the first view."""
    body = body_box(panels)[0]
    height = body.stop - body.start
    rows = slice(*(body.start + int(end * height) for end in KNEES))
    columns = body_box({label: counts[:1, rows] for label, counts in panels.items()})[1]
    return Cut("knees", 0, rows, columns)


def around(name: str, center: tuple[float, float], truth: Array, spacing_mm: tuple[float, float]) -> Cut:
    """A square of `SIDE_MM` about a place (row, column), in the view that sees it best."""
    view = int(truth[:, round(center[0]), round(center[1])].argmax())
    cuts = []
    for middle, size, step in zip(center, truth.shape[1:], spacing_mm, strict=True):
        side = min(round(SIDE_MM / step), size)
        start = min(max(0, round(middle) - side // 2), size - side)
        cuts.append(slice(start, start + side))
    return Cut(name, view, *cuts)


def overview_figure(
    panels: Mapping[str, Array],
    cuts: Sequence[Cut],
    peak: float,
    spacing_mm: tuple[float, float],
    views: Sequence[str],
    *,
    minus: tuple[str, str] | None = None,
    saturation: float = DIFFERENCE_SHARE,
    width: float = WIDTH,
    note: str = "",
) -> Figure:
    """A few estimates beside each other: whole views in a row, and a row for each enlarged detail.

    Every row has one window of inverse grey, up to the peak or the brightest of the last estimate.

    Args:
        panels: Printed label to standard counts (V, H, W), aligned; the best known last.
        cuts: The details.
        peak: P: in the row of whole views, black is P counts and more.
        spacing_mm: Row and column spacing, mm.
        views: The view of each of the V channels.
        minus: Labels of the two whose difference is a last column.
        saturation: Difference in full colour, as a part of the row's black.
        width: Inches.
        note: Printed below.
    """
    body = body_box(panels)

    def whole(counts: Array) -> Array:
        cameras = [_camera(image[body], view) for image, view in zip(counts, views, strict=True)]
        return np.concatenate(cameras, axis=1)

    def detail(cut: Cut) -> Callable[[Array], Array]:
        return lambda counts: _camera(counts[cut.place], views[cut.view])

    best = list(panels.values())[-1]
    rows: list[tuple[str, float, Callable[[Array], Array]]] = [("whole body", peak, whole)]
    rows += [(cut.name, max(1.0, float(np.percentile(best[cut.place], 99.5))), detail(cut)) for cut in cuts]
    strips = []
    for name, black, show in rows:
        grey = {"vmin": 0.0, "vmax": black, "cmap": "gray_r"}
        cells = [(show(counts), grey) for counts in panels.values()]
        if minus:
            limit = saturation * black
            colours = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
            cells.append((show(panels[minus[0]]) - show(panels[minus[1]]), colours))
        strips.append((f"{name}\nblack: {black:.3g} counts", cells))
    return _strips(
        [*panels, *(["difference"] if minus else [])], strips, spacing_mm[0] / spacing_mm[1], width, note
    )


def frame_overview_figure(
    panels: Mapping[str, Array], restored: str, clean: Array, valid: Array, place: tuple[int, int]
) -> Figure:
    """A few frames beside each other with the error of one, and below them a detail of each.

    Args:
        panels: Printed label to sRGB values (3, H, W), 0..1.
        restored: Label of the one whose error is shown.
        clean: The clean frame, likewise.
        valid: bool (H, W).
        place: Row and column of the middle of the detail.
    """
    error = np.abs(panels[restored] - clean).mean(axis=0) * valid
    colours = {"vmin": 0.0, "vmax": FRAME_ERROR, "cmap": "inferno"}
    strips = []
    for name, cut in (("frame", ...), ("detail", (..., *_square(clean.shape[1:], place)))):
        cells: list[Any] = [(_last_colours(frame[cut]), {}) for frame in panels.values()]
        strips.append((name, [*cells, (error[cut], colours)]))
    return _strips([*panels, "error"], strips, 1.0)


def frames_figure(panels: Mapping[str, Array]) -> Figure:
    """Colour frames beside each other.

    Args:
        panels: Printed label to sRGB values (3, H, W), 0..1.
    """
    return _grid({label: [_last_colours(frame)] for label, frame in panels.items()}, [""], (1.0, 1.0))


def zoomed_frames_figure(panels: Mapping[str, Array], place: tuple[int, int]) -> Figure:
    """A detail of each frame, a third of its longer side, about a place (row, column)."""
    rows, columns = _square(next(iter(panels.values())).shape[1:], place)
    return frames_figure({label: x[:, rows, columns] for label, x in panels.items()})


def frame_errors_figure(panels: Mapping[str, Array], clean: Array, valid: Array) -> Figure:
    """Mean absolute error of the colours of each frame, none where it is not valid.

    Args:
        panels: Printed label to sRGB values (3, H, W), 0..1.
        clean: The clean frame, likewise.
        valid: bool (H, W).
    """
    errors = {label: [np.abs(frame - clean).mean(axis=0) * valid] for label, frame in panels.items()}
    return _grid(errors, [""], (1.0, 1.0), vmin=0.0, vmax=FRAME_ERROR, cmap="inferno")


def body_box(panels: Mapping[str, Array]) -> tuple[slice, slice]:
    """Rows and columns that hold the body in all views, found in the smoothed mean of all panels.

    Small parts that do not touch it, as contamination below the feet, are left out.
    """
    from scipy.ndimage import gaussian_filter, label

    mean = np.mean([counts.astype(np.float64).mean(axis=0) for counts in panels.values()], axis=0)
    smoothed = gaussian_filter(mean, 3.0)
    parts, _ = label(smoothed > 0.5 * smoothed.mean())
    sizes = np.bincount(parts.ravel())[1:]
    body = np.isin(parts, 1 + np.flatnonzero(sizes > 0.1 * sizes.max(initial=0)))
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    if not rows.size:
        return slice(0, mean.shape[0]), slice(0, mean.shape[1])
    return (
        slice(max(0, rows[0] - MARGIN), min(mean.shape[0], rows[-1] + MARGIN + 1)),
        slice(max(0, columns[0] - MARGIN), min(mean.shape[1], columns[-1] + MARGIN + 1)),
    )


def curves_figure(table: pd.DataFrame) -> Figure | None:
    """Curves of a training run: a panel for each logged name, training and validation together.

    Args:
        table: As Lightning's CSVLogger writes it: step, epoch, train/NAME, val/NAME, many cells
            empty.

    Returns:
        None where there is nothing to draw.
    """
    names: dict[str, list[str]] = {}
    for column in table.columns:
        match = re.fullmatch(r"(?:train|val)[/_](.+)", column)
        if match and table[column].notna().sum() > 1:  # a single point is no curve
            # Lightning logs "train/total_step" and "train/total_epoch" where both are asked for.
            name = match[1].removesuffix("_step").removesuffix("_epoch")
            names.setdefault(name, []).append(column)
    if not names:
        return None
    figure, axes = small_multiples(len(names), 4, 3.2, 2.3)
    for axis, (name, columns) in zip(axes, names.items(), strict=True):
        for column in columns:
            points = table[["step", column]].dropna()
            train = column.startswith("train")
            axis.plot(
                points["step"],
                points[column],
                color="0.55" if train else "#1f4e79",
                linewidth=0.9 if train else 1.6,
                marker="" if train or len(points) > 30 else "o",
                markersize=3,
                label="training" if train else "validation",
            )
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(color="0.9", linewidth=0.6)
        axis.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return figure


def differences_figure(
    table: pd.DataFrame, labels: Mapping[str, str], metrics: Sequence[Mapping[str, Any]]
) -> Figure | None:
    """Difference to the best peer and its interval, a panel a metric, a line a method.

    Args:
        table: differences.csv.
        labels: Method names to printed labels, in the order of the table.
        metrics: Descriptions of the metrics to show.

    Returns:
        None where there is nothing to draw.
    """
    rows = {name: part.set_index("method") for name, part in table.groupby("metric")}
    shown = [metric for metric in metrics if metric["name"] in rows]
    if not shown:
        return None
    figure, axes = small_multiples(len(shown), 3, 4.3, 0.9 + 0.22 * len(labels))
    for axis, metric in zip(axes, shown, strict=True):
        part = rows[metric["name"]]
        better = "right" if metric["higher_is_better"] else "left"
        forest(axis, part, labels, str(part["against"].iloc[0]))
        axis.set_title(f"{titled(metric)} (better: {better})", fontsize=8)
        axis.locator_params(axis="x", nbins=5)
    figure.tight_layout()
    return figure


def small_multiples(count: int, across: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Figure with a number of panels of a size in inches, at most so many beside each other."""
    import matplotlib.pyplot as plt

    across = min(across, count)
    down = -(-count // across)
    figure, axes = plt.subplots(down, across, figsize=(width * across, height * down), squeeze=False)
    for axis in axes.flat:
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def forest(axis: Axes, table: pd.DataFrame, labels: Mapping[str, str], comparator: str) -> None:
    """Draw differences and their intervals, a line a label; the comparator is a tick at zero.

    Args:
        axis: Where to.
        table: Columns difference, low and high by name.
        labels: Names to printed labels, from top to bottom.
        comparator: Name of what all are compared with.
    """
    found = table.reindex(list(labels))
    middle, low, high = (found[name].to_numpy(dtype=float) for name in ("difference", "low", "high"))
    drawn, whiskers = np.isfinite(middle), np.stack([middle - low, high - middle])
    axis.axvline(0, color="0.6", linewidth=0.8)
    axis.errorbar(
        middle[drawn],
        np.flatnonzero(drawn),
        xerr=np.where(np.isfinite(whiskers), whiskers.clip(min=0), 0)[:, drawn],
        fmt="o",
        color="#1f4e79",
        markersize=4,
        capsize=2,
        linewidth=1.1,
    )
    axis.plot(0, list(labels).index(comparator), marker="|", color="0.3", markersize=10)
    axis.set_yticks(range(len(labels)), list(labels.values()), fontsize=7)
    axis.set_ylim(len(labels) - 0.5, -0.5)


def titled(metric: Mapping[str, Any]) -> str:
    """Label of a metric with its unit."""
    return ", ".join(filter(None, (metric["label"], metric["unit"])))


def jpeg(figure: Figure) -> bytes:
    """A figure of photographs as JPEG data: no banks of colours, no sub-sampling."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="jpeg", dpi=DPI, pil_kwargs={"quality": 92, "subsampling": 0})
    return drawn.getvalue()


def black_level(counts: Array) -> float:
    """Counts that are black where a view is shown as it was acquired.

    Bone is in the upper tenth of the counted pixels; what is hotter is black.
    """
    return 1.5 * float(np.percentile(counts[counts > 0], 97)) if counts.any() else 1.0


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """A figure as PNG data."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    # Noise does not compress: 128 colours a picture make the page a third as large and look the
    # same.
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as name.svg and name.pdf; older ones are replaced.

    Raises:
        OutputError: They cannot be written.
    """
    import matplotlib

    # Text stays text, and the same figure gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "rbs", "svg.fonttype": "none", "pdf.fonttype": 42}):
        for suffix, dated in (("svg", "Date"), ("pdf", "CreationDate")):
            with whole_file(folder / f"{name}.{suffix}", overwrite=True) as path:
                figure.savefig(path, dpi=VECTOR_DPI, metadata={dated: None})


def _last_colours(frame: Array) -> Array:
    """(3, H, W) to (H, W, 3), 0..1."""
    return np.clip(np.moveaxis(frame, 0, -1), 0, 1)


def _square(shape: Sequence[int], place: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a square about a place, a third of the longer side."""
    side = max(shape) // 3
    top, left = (
        int(np.clip(at - side // 2, 0, max(0, most - side))) for at, most in zip(place, shape, strict=True)
    )
    return slice(top, top + side), slice(left, left + side)


def _camera(image: Array, view: str) -> Array:
    return image[:, ::-1] if view == "posterior" else image


def _views(
    panels: Mapping[str, Array],
    box: tuple[slice, slice],
    views: Sequence[str],
    spacing_mm: tuple[float, float],
    **window: Any,
) -> Figure:
    cuts = {
        label: [_camera(image[box], view) for image, view in zip(images, views, strict=True)]
        for label, images in panels.items()
    }
    return _grid(cuts, list(views), spacing_mm, **window)


def _grid(
    cuts: Mapping[str, Sequence[Array]],
    row_names: Sequence[str],
    spacing_mm: tuple[float, float],
    **window: Any,
) -> Figure:
    """A picture a cell, a column a label, in as many rows of columns as keep them legible.

    Pixels are drawn as they are, never smoothed.
    """
    import matplotlib.pyplot as plt

    sample = next(iter(cuts.values()))[0]
    aspect = spacing_mm[0] / spacing_mm[1]
    blocks = math.ceil(len(cuts) / MOST_ACROSS)
    across, rows = math.ceil(len(cuts) / blocks), len(row_names)
    height = min(WIDTH / across * aspect * sample.shape[0] / sample.shape[1], 8.0)
    figure, axes = plt.subplots(
        rows * blocks, across, figsize=(WIDTH, (height * rows + 0.3) * blocks), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for place, (label, images) in enumerate(cuts.items()):
        block, j = divmod(place, across)
        for i, image in enumerate(images):
            axis = axes[block * rows + i, j]
            _panel(axis, image, aspect, window)
            if j == 0:
                axis.set_ylabel(row_names[i], fontsize=9)
        axes[block * rows, j].set_title(label, fontsize=8, wrap=True)
    figure.subplots_adjust(
        left=0.02,
        right=0.998,
        bottom=0,
        top=1 - 0.3 / figure.get_figheight(),
        wspace=0.02,
        hspace=0.02 if blocks == 1 else 0.3 / height,
    )
    return figure


def _strips(
    titles: Sequence[str],
    strips: Sequence[tuple[str, Sequence[tuple[Array, dict[str, Any]]]]],
    aspect: float,
    width: float = WIDTH,
    note: str = "",
) -> Figure:
    """Rows of pictures, a name at the left of each, a title above each column, a note below."""
    import matplotlib.pyplot as plt

    left, foot = 0.5, 0.3 if note else 0.02
    cell = (width - left) / len(titles)
    titles = [textwrap.fill(title, int(11 * cell)) for title in titles]  # 11 characters an inch
    head = 0.12 + 0.18 * max(title.count("\n") + 1 for title in titles)
    shapes = [cells[0][0].shape for _, cells in strips]
    heights = [min(cell * aspect * shape[0] / shape[1], TALLEST * width) for shape in shapes]
    total = head + foot + 1.02 * sum(heights)
    figure, axes = plt.subplots(
        len(strips), len(titles), figsize=(width, total), squeeze=False, height_ratios=heights
    )
    for line, (name, cells) in zip(axes, strips, strict=True):
        for axis, (image, window) in zip(line, cells, strict=True):
            _panel(axis, image, aspect, window)
        line[0].set_ylabel(name, fontsize=10)
    figure.align_ylabels()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    figure.text(0.5, 0.08 / total, note, ha="center", fontsize=10)
    figure.subplots_adjust(
        left=left / width, right=0.999, bottom=foot / total, top=1 - head / total, wspace=0.02, hspace=0.03
    )
    return figure


def _panel(axis: Axes, image: Array, aspect: float, window: dict[str, Any]) -> None:
    axis.set_axis_on()
    axis.imshow(image.astype(np.float32), aspect=aspect, interpolation="nearest", **window)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("0.8")
