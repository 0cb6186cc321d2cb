r"""The table of the regions of a scan: counts, shares, sides and growth plates.

Of a region with counts N on n pixels, in a view with counts M in all, e the part of the stated
counts that was counted (1 of raw counts):

    counts              N                  Poisson variance  N / e
    share               s = N / M                            s (1 - s) / (M e)
    counts a pixel      d = N / n                            d² / (N e)
    left : right        R = d_L / d_R                        R² (1 / N_L + 1 / N_R) / e
    plate : shaft       R = d_P / d_S                        R² (1 / N_P + 1 / N_S) / e

The variance of the ratios is that of the delta method, to first order in the counts' relative
errors (Casella & Berger, Statistical Inference, 2nd ed. (2002), section 5.5.4). The standard
deviation of the same number over label maps drawn from the probabilities (`label_draws`) is its
uncertainty by the segmentation. The two are independent to first order and add in squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rbs.errors import ScanError
from rbs.scans.counts import scanned_rows
from rbs.scans.scan import REGIONS, Array, View
from rbs.segmentation.measures.label_draws import label_draws, likeliest
from rbs.segmentation.measures.plates import PLATE, Pixels, Plate, find_plates
from rbs.segmentation.measures.sides import is_left, midline

DRAWS = 24
"""Label maps behind the uncertainty by the segmentation: known to 15 % then."""

SIDELESS = ("urinary tract", "hot spots")
"""Regions whose sides are not compared."""


@dataclass(frozen=True)
class Measured:
    """A measured number and the standard deviations of its two errors; NaN where not defined.

    Attributes:
        value: The number.
        poisson: Standard deviation by the noise of the counts.
        segmentation: Standard deviation by the borders of the regions.
    """

    value: float = math.nan
    poisson: float = math.nan
    segmentation: float = math.nan

    @property
    def sd(self) -> float:
        """Standard deviation of both."""
        return math.hypot(self.poisson, self.segmentation)


@dataclass(frozen=True)
class RegionRow:
    """A region, or a growth plate, in one view.

    Attributes:
        view: The view.
        region: One of `rbs.scans.scan.REGIONS`.
        plate: Name of a growth plate ("distal femur"); empty for a whole region.
        side: "left" or "right" of the patient for a growth plate; empty for both sides.
        area_cm2: Its projected area.
        counts: Its counts.
        share_percent: Its share of all counts of the view, %.
        counts_per_pixel: Its mean.
        counts_per_cm2: The same by area.
        left_over_right: Mean of the left half over that of the right one; of a growth plate that of
            the strips along its middle lines.
        peak_over_shaft: Mean along the middle line of a growth plate over that of the shaft beside
            it.
    """

    view: View
    region: str
    plate: str
    side: str
    area_cm2: Measured = Measured()
    counts: Measured = Measured()
    share_percent: Measured = Measured()
    counts_per_pixel: Measured = Measured()
    counts_per_cm2: Measured = Measured()
    left_over_right: Measured = Measured()
    peak_over_shaft: Measured = Measured()

    def as_dict(self) -> dict[str, Any]:
        """Columns of a table: each number, and NUMBER_poisson_sd and NUMBER_segmentation_sd."""
        row: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Measured):
                row[field.name] = value.value
                row[f"{field.name}_poisson_sd"] = value.poisson
                row[f"{field.name}_segmentation_sd"] = value.segmentation
            else:
                row[field.name] = str(value)
        return row


def region_table(
    counts: Array,
    probabilities: Array,
    spacing_mm: tuple[float, float],
    views: Sequence[View],
    *,
    exposure: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[RegionRow]:
    """Measure every region of a labelled scan, view by view.

    Args:
        counts: Aligned, (V, H, W): raw, or at the scale of the standard scan.
        probabilities: Of background and regions, (V, 1 + K, H, W).
        spacing_mm: Row and column spacing, mm.
        views: The view of each of the V channels.
        exposure: Counts that were counted over those in `counts`: 1 for raw counts, and the
            exposure of the rapid scan for counts at standard scale, restored ones too.
        draws: Label maps drawn for the uncertainty by the segmentation.
        seed: Seed of these draws.

    Returns:
        Rows of each view: the regions that it shows in the order of `REGIONS`, then its growth
        plates by name, left and right, each name followed by a row that compares its sides.

    Raises:
        ScanError: The scan holds no counts, or no pixel of it is labelled as bone.
    """
    if not counts.sum() > 0:
        raise ScanError("it holds no counts", remedy="measure another scan")
    labels = likeliest(probabilities)
    if not np.isin(labels, np.arange(len(REGIONS)) + 1).any():
        raise ScanError("no bone was found in it", remedy="look at its contours, or label it by hand")
    left = is_left(midline(counts, labels), labels.shape[2])
    maps = [labels, *label_draws(probabilities, spacing_mm, draws, seed)]
    scale = _Scale(exposure, float(np.prod(spacing_mm)) / 100)
    rows: list[RegionRow] = []
    for view, name in enumerate(views):
        seen, shown = counts[view].astype(np.float64), [one[view] for one in maps]
        rows += _region_rows(name, seen, shown, left, scale)
        plates = find_plates(labels[view], left, scanned_rows(counts), spacing_mm)
        rows += _plate_rows(name, seen, shown, plates, spacing_mm, scale)
    return rows


@dataclass(frozen=True)
class _Part:
    """Sums over a part of a view, on the likeliest label map first, then on each drawn one.

    Attributes:
        counts: Its counts, (1 + draws,).
        pixels: Its pixels, (1 + draws,).
    """

    counts: Array
    pixels: Array

    @classmethod
    def of(cls, counts: Array, pixels: Sequence[Pixels]) -> _Part:
        """The part of a view's counts (H, W) in the pixels of each label map."""
        return cls(np.array([counts[one].sum() for one in pixels]), np.array([one[0].size for one in pixels]))

    @property
    def mean(self) -> Array:
        """Counts a pixel, (1 + draws,); NaN where it has no pixel."""
        return np.where(self.pixels > 0, self.counts / np.maximum(self.pixels, 1), np.nan)


@dataclass(frozen=True)
class _Scale:
    """Units of a scan.

    Attributes:
        exposure: Part of the stated counts that was counted, e.
        pixel_cm2: Area of a pixel, cm^2.
    """

    exposure: float
    pixel_cm2: float

    def numbers(self, part: _Part, everything: float) -> dict[str, Measured]:
        """Area, counts, share, counts a pixel and counts a cm^2 of a part, as of `RegionRow`."""
        counted = max(float(part.counts[0]) * self.exposure, 1.0)
        relative = 1 / math.sqrt(counted)
        share = part.counts / everything
        within = math.sqrt(max(1 - share[0], 0))
        return {
            "area_cm2": _measured(part.pixels * self.pixel_cm2, 0.0),
            "counts": _measured(part.counts, relative),
            "share_percent": _measured(100 * share, relative * within),
            "counts_per_pixel": _measured(part.mean, relative),
            "counts_per_cm2": _measured(part.mean / self.pixel_cm2, relative),
        }

    def ratio(self, one: _Part, other: _Part) -> Measured:
        """Mean of one part over that of another; not defined where either has no counts."""
        if not min(one.counts[0], other.counts[0]) > 0:
            return Measured()
        relative = math.sqrt((1 / one.counts[0] + 1 / other.counts[0]) / self.exposure)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _measured(one.mean / other.mean, relative)


def _measured(values: Array, relative: float) -> Measured:
    """A number with its relative Poisson error, from its values on all label maps."""
    drawn = values[1:][np.isfinite(values[1:])]
    spread = float(drawn.std(ddof=1)) if drawn.size > 1 else math.nan
    return Measured(float(values[0]), abs(float(values[0])) * relative, spread)


def _region_rows(
    view: View, counts: Array, maps: Sequence[Array], left: Array, scale: _Scale
) -> Iterator[RegionRow]:
    """Rows of the regions that a view shows."""
    size = 2 * (1 + len(REGIONS))
    # Label and side of each pixel as one number: one pass over the pixels for all regions.
    keys = [(2 * labels.astype(np.intp) + left).ravel() for labels in maps]
    sums = np.stack([np.bincount(key, counts.ravel(), size) for key in keys])
    pixels = np.stack([np.bincount(key, minlength=size) for key in keys])
    everything = float(counts.sum())
    for k, region in enumerate(REGIONS, start=1):
        sides = [_Part(sums[:, 2 * k + side], pixels[:, 2 * k + side]) for side in (0, 1)]
        both = _Part(sides[0].counts + sides[1].counts, sides[0].pixels + sides[1].pixels)
        if both.pixels[0]:
            ratio = Measured() if region in SIDELESS else scale.ratio(sides[1], sides[0])
            numbers = scale.numbers(both, everything)
            yield RegionRow(view, region, "", "", **numbers, left_over_right=ratio)


def _plate_rows(
    view: View,
    counts: Array,
    maps: Sequence[Array],
    plates: Sequence[Plate],
    spacing_mm: tuple[float, float],
    scale: _Scale,
) -> Iterator[RegionRow]:
    """Rows of the growth plates of a view."""
    region, everything = REGIONS[PLATE - 1], float(counts.sum())
    for name in dict.fromkeys(plate.name for plate in plates):
        strips = {}
        for plate in sorted((one for one in plates if one.name == name), key=lambda one: one.side):
            whole = _Part.of(counts, [plate.pixels(labels) for labels in maps])
            strip = _Part.of(counts, [plate.ridge(labels, spacing_mm) for labels in maps])
            shaft = _Part.of(counts, [plate.shaft_pixels(labels) for labels in maps])
            strips[plate.side] = strip
            numbers = scale.numbers(whole, everything)
            yield RegionRow(
                view, region, name, plate.side, **numbers, peak_over_shaft=scale.ratio(strip, shaft)
            )
        if len(strips) == 2:
            ratio = scale.ratio(strips["left"], strips["right"])
            yield RegionRow(view, region, name, "", left_over_right=ratio)
