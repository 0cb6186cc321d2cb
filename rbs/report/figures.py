"""Figures of the report, and how they leave it: as PNG data on the page, as SVG and PDF in a folder."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.utils.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]

KNEES = (0.64, 0.84)
"""Where the knees lie between the top and the bottom of the body: the growth plates of distal femur
and proximal tibia are at 0.28 of the height above the soles in children and adults, give or take
the pose."""

DIFFERENCE_SHARE = 0.25
"""Difference maps saturate at this share of P."""

FRAME_ERROR = 0.2
"""Error maps of frames saturate at this share of the range of sRGB."""

DPI = 110
VECTOR_DPI = 220
"""At which the scans in SVG and PDF files are drawn: three to four points a pixel of the camera."""
MOST_ACROSS = 8


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
    rows, columns = body_box(panels)
    cuts = {
        label: [
            _camera(image, view)[rows, _camera_columns(columns, image.shape[1], view)]
            for image, view in zip(counts, views, strict=True)
        ]
        for label, counts in panels.items()
    }
    return _grid(cuts, list(views), spacing_mm, vmin=0.0, vmax=peak, cmap="gray_r")


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
    rows, columns = body_box({"truth": truth})
    cuts = {
        label: [
            _camera(image, view)[rows, _camera_columns(columns, image.shape[1], view)]
            for image, view in zip(counts - truth, views, strict=True)
        ]
        for label, counts in panels.items()
    }
    limit = DIFFERENCE_SHARE * peak
    return _grid(cuts, list(views), spacing_mm, vmin=-limit, vmax=limit, cmap="RdBu_r")


def knees_figure(panels: Mapping[str, Array], peak: float, spacing_mm: tuple[float, float]) -> Figure:
    """The knees of the first view, where growth plates are thinnest and brightest, in the scan's window."""
    rows, columns = body_box(panels)
    height = rows.stop - rows.start
    knees = slice(rows.start + int(KNEES[0] * height), rows.start + int(KNEES[1] * height))
    columns = body_box({label: counts[:1, knees] for label, counts in panels.items()})[1]
    cuts = {label: [counts[0][knees, columns]] for label, counts in panels.items()}
    return _grid(cuts, ["knees"], spacing_mm, vmin=0.0, vmax=peak, cmap="gray_r")


def frames_figure(panels: Mapping[str, Array]) -> Figure:
    """Colour frames beside each other.

    Args:
        panels: Printed label to sRGB values (3, H, W), 0..1.
    """
    return _grid({label: [_last_colours(frame)] for label, frame in panels.items()}, [""], (1.0, 1.0))


def zoomed_frames_figure(panels: Mapping[str, Array], place: tuple[int, int]) -> Figure:
    """A detail of each frame, a third of its longer side, about a place (row, column)."""
    height, width = next(iter(panels.values())).shape[1:]
    side = max(height, width) // 3
    top, left = (
        int(np.clip(at - side // 2, 0, max(0, most - side)))
        for at, most in zip(place, (height, width), strict=True)
    )
    return frames_figure({label: x[:, top : top + side, left : left + side] for label, x in panels.items()})


def frame_errors_figure(panels: Mapping[str, Array], clean: Array, valid: Array) -> Figure:
    """Mean absolute error of the colours of each frame, brightest at `FRAME_ERROR`; none where not valid.

    Args:
        panels: Printed label to sRGB values (3, H, W), 0..1.
        clean: The clean frame, likewise.
        valid: bool (H, W).
    """
    errors = {label: [np.abs(frame - clean).mean(axis=0) * valid] for label, frame in panels.items()}
    return _grid(errors, [""], (1.0, 1.0), vmin=0.0, vmax=FRAME_ERROR, cmap="inferno")


def body_box(panels: Mapping[str, Array], margin: int = 6) -> tuple[slice, slice]:
    """Rows and columns that hold the body in all views, found in the smoothed mean of all panels."""
    from scipy.ndimage import gaussian_filter

    mean = np.mean([counts.astype(np.float64).mean(axis=0) for counts in panels.values()], axis=0)
    smoothed = gaussian_filter(mean, 3.0)
    body = smoothed > 0.5 * smoothed.mean()
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    if not rows.size:
        return slice(0, mean.shape[0]), slice(0, mean.shape[1])
    return (
        slice(max(0, rows[0] - margin), min(mean.shape[0], rows[-1] + margin + 1)),
        slice(max(0, columns[0] - margin), min(mean.shape[1], columns[-1] + margin + 1)),
    )


def curves_figure(table: pd.DataFrame) -> Figure | None:
    """Curves of a training run: a panel for each logged name, training and validation together.

    Args:
        table: As Lightning's CSVLogger writes it: step, epoch, train/NAME, val/NAME, many cells
            empty.

    Returns:
        None where there is nothing to draw.
    """
    import matplotlib.pyplot as plt

    names: dict[str, list[str]] = {}
    for column in table.columns:
        match = re.fullmatch(r"(?:train|val)[/_](.+)", column)
        if match and table[column].notna().sum() > 1:  # a single point is no curve
            # Lightning logs "train/total_step" and "train/total_epoch" where both are asked for.
            name = match[1].removesuffix("_step").removesuffix("_epoch")
            names.setdefault(name, []).append(column)
    if not names:
        return None
    across = min(4, len(names))
    down = -(-len(names) // across)
    figure, axes = plt.subplots(down, across, figsize=(3.2 * across, 2.3 * down), squeeze=False)
    for axis, (name, columns) in zip(axes.flat, names.items(), strict=False):
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
        axis.tick_params(labelsize=7)
        axis.grid(color="0.9", linewidth=0.6)
        axis.legend(fontsize=7, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
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
    import matplotlib.pyplot as plt

    rows = {name: part.set_index("method") for name, part in table.groupby("metric")}
    shown = [metric for metric in metrics if metric["name"] in rows]
    if not shown:
        return None
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    height = 0.9 + 0.22 * len(labels)
    figure, axes = plt.subplots(down, across, figsize=(4.3 * across, height * down), squeeze=False)
    for axis, metric in zip(axes.flat, shown, strict=False):
        found = rows[metric["name"]].reindex(list(labels))
        places = np.arange(len(found))
        middle, low, high = (found[name].to_numpy(dtype=float) for name in ("difference", "low", "high"))
        whiskers = np.stack([middle - low, high - middle])
        axis.axvline(0, color="0.6", linewidth=0.8)
        drawn = np.isfinite(middle)
        axis.errorbar(
            middle[drawn],
            places[drawn],
            xerr=np.where(np.isfinite(whiskers), np.maximum(whiskers, 0), 0)[:, drawn],
            fmt="o",
            color="#1f4e79",
            markersize=4,
            capsize=2,
            linewidth=1.1,
        )
        other = str(found["against"].dropna().iloc[0])
        axis.plot(0, list(labels).index(other), marker="|", color="0.3", markersize=10)
        axis.set_yticks(places, list(labels.values()), fontsize=7)
        axis.set_ylim(len(found) - 0.5, -0.5)
        better = {True: "right", False: "left", None: "left"}[metric["higher_is_better"]]
        unit = f", {metric['unit']}" if metric["unit"] else ""
        axis.set_title(f"{metric['label']}{unit} (better: {better})", fontsize=8)
        axis.tick_params(axis="x", labelsize=7)
        axis.locator_params(axis="x", nbins=5)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    figure.tight_layout()
    return figure


def jpeg(figure: Figure) -> bytes:
    """A figure of photographs as JPEG data: no banks of colours, no sub-sampling."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="jpeg", dpi=DPI, pil_kwargs={"quality": 92, "subsampling": 0})
    return drawn.getvalue()


def png(figure: Figure) -> bytes:
    """A figure as PNG data."""
    from PIL import Image

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
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


def _camera(image: Array, view: str) -> Array:
    return image[:, ::-1] if view == "posterior" else image


def _camera_columns(columns: slice, width: int, view: str) -> slice:
    return slice(width - columns.stop, width - columns.start) if view == "posterior" else columns


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
    height = min(13.0 / across * aspect * sample.shape[0] / sample.shape[1], 8.0)
    figure, axes = plt.subplots(
        rows * blocks, across, figsize=(13.0, (height * rows + 0.3) * blocks), squeeze=False
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


def _panel(axis: Axes, image: Array, aspect: float, window: dict[str, Any]) -> None:
    axis.set_axis_on()
    axis.imshow(image.astype(np.float32), aspect=aspect, interpolation="nearest", **window)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("0.8")
