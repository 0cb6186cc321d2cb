"""Agreement of segmented regions with true ones: Dice and the 95 % surface distance.

    Dice = 2 |A and B| / (|A| + |B|)

The 95 % surface distance is the larger of the 95th percentiles of the distances from the surface of
A to that of B and from B to A (Huttenlocher et al., IEEE Trans. Pattern Anal. Mach. Intell. 15
(1993) 850-863, with a percentile in place of the maximum). The surface is the pixels of a region
that touch, by an edge, pixels outside it or the edge of the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from rbs.scans.scan import REGIONS, Array
from rbs.utils.files import write_csv

MEAN = "mean"
"""Name of the row that holds the mean over regions."""


@dataclass(frozen=True)
class RegionScore:
    """A region in one view of a scan, segmented and true.

    Attributes:
        patient: Identifier.
        view: Name of the view.
        region: Name of the region.
        dice: 0 where only one of the two has the region.
        hd95_mm: 95 % surface distance, mm; NaN where only one of the two has the region.
        found_pixels: Pixels of the segmented region.
        true_pixels: Pixels of the true one.
        shared_pixels: Pixels of both.
    """

    patient: str
    view: str
    region: str
    dice: float
    hd95_mm: float
    found_pixels: int
    true_pixels: int
    shared_pixels: int


@dataclass(frozen=True)
class RegionSummary:
    """A region over patients who have it, with 95 % bootstrap intervals over patients.

    Attributes:
        region: Its name, or `MEAN` for the mean over regions.
        patients: Their number.
        dice: Mean over patients; pixels of the views of a patient are summed before dividing.
        dice_low: Lower end of its interval; NaN with fewer than two patients.
        dice_high: Upper end.
        hd95_mm: Mean over patients of the mean over views, mm; NaN where nothing tells it.
        hd95_low: Lower end of its interval.
        hd95_high: Upper end.
    """

    region: str
    patients: int
    dice: float
    dice_low: float
    dice_high: float
    hd95_mm: float
    hd95_low: float
    hd95_high: float

    def __str__(self) -> str:
        dice = f"{self.dice:.3f}{_interval(self.dice_low, self.dice_high, 3):<19}"
        far = f"{self.hd95_mm:6.1f} mm{_interval(self.hd95_low, self.hd95_high, 1)}"
        shown = far if np.isfinite(self.hd95_mm) else ""
        return f"{self.region:<14}{self.patients:>4}  {dice}{shown}".rstrip()


def _interval(low: float, high: float, digits: int) -> str:
    return f" ({low:.{digits}f} to {high:.{digits}f})" if np.isfinite(low) else ""


def score_regions(
    found: Array,
    truth: Array,
    *,
    patient: str,
    views: Sequence[str],
    spacing_mm: tuple[float, float],
    regions: Sequence[str] = REGIONS,
) -> list[RegionScore]:
    """Score each region of each view; none where neither of the two has it.

    Args:
        found: Segmented labels (V, H, W): k + 1 for `regions[k]`.
        truth: True labels (V, H, W).
        patient: Identifier.
        views: Name of each view.
        spacing_mm: Row and column spacing, mm.
        regions: Names of the regions.
    """
    scores = []
    for view, found_in_view, true_in_view in zip(views, found, truth, strict=True):
        for value, region in enumerate(regions, start=1):
            a, b = found_in_view == value, true_in_view == value
            sizes = int(a.sum()), int(b.sum())
            if not any(sizes):
                continue
            shared = int((a & b).sum())
            far = surface_distance(a, b, spacing_mm)
            scores.append(
                RegionScore(patient, str(view), region, 2 * shared / sum(sizes), far, *sizes, shared)
            )
    return scores


def surface_distance(a: Array, b: Array, spacing_mm: tuple[float, float], percentile: float = 95.0) -> float:
    """Percentile of the distances between the surfaces of two masks, mm; NaN where one is empty.

    Args:
        a: bool (H, W).
        b: bool (H, W).
        spacing_mm: Row and column spacing, mm.
        percentile: 100 gives the Hausdorff distance.
    """
    from scipy.ndimage import distance_transform_edt

    if not (a.any() and b.any()):
        return float("nan")
    # Nothing beyond the two matters, and most regions are small.
    rows, columns = (np.flatnonzero((a | b).any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    surfaces = [_surface(mask)[box] for mask in (a, b)]
    directed = []
    for own, other in (surfaces, surfaces[::-1]):
        distance = distance_transform_edt(~other, sampling=spacing_mm)
        directed.append(float(np.percentile(distance[own], percentile)))
    return max(directed)


def _surface(mask: Array) -> Array:
    from scipy.ndimage import binary_erosion

    surface: Array = mask & ~binary_erosion(mask)
    return surface


def write_scores(path: Path, scores: Iterable[RegionScore]) -> None:
    """Write a row a patient, view and region, in place of an older table.

    Raises:
        OutputError: It cannot be written.
    """
    names = [field.name for field in fields(RegionScore)]
    rows = (
        [f"{value:.4f}" if isinstance(value, float) and np.isfinite(value) else value for value in row]
        for row in map(astuple, scores)
    )
    write_csv(path, names, (["" if value != value else value for value in row] for row in rows))


def summarise_regions(scores: Sequence[RegionScore], regions: Sequence[str] = REGIONS) -> list[RegionSummary]:
    """Means over the patients who have a region, and the mean over regions last.

    Args:
        scores: Of all patients.
        regions: Names of the regions, in the order of the result.

    Returns:
        Only regions that some patient has; nothing where there are none.
    """
    from rbs.evaluation.statistics.summary import interval

    patients = list(dict.fromkeys(score.patient for score in scores))
    dice = np.full((len(patients), len(regions)), np.nan)
    far = dice.copy()
    for p, patient in enumerate(patients):
        for r, region in enumerate(regions):
            own = [s for s in scores if s.patient == patient and s.region == region]
            if not (true := sum(s.true_pixels for s in own)):
                continue
            dice[p, r] = 2 * sum(s.shared_pixels for s in own) / (true + sum(s.found_pixels for s in own))
            distances = [s.hd95_mm for s in own if np.isfinite(s.hd95_mm)]
            far[p, r] = np.mean(distances) if distances else np.nan
    known = np.flatnonzero(np.isfinite(dice).any(axis=0))
    if not known.size:
        return []

    def row(name: str, columns: Array) -> RegionSummary:
        numbers: list[float] = []
        for table in (dice[:, columns], far[:, columns]):
            some = table[np.isfinite(table).any(axis=1)]
            mean = _mean(some) if len(some) else np.nan
            chosen = interval((np.arange(len(some)),), lambda n, some=some: _mean(some[n.astype(int)]))
            numbers += [mean, *chosen]
        return RegionSummary(name, int(np.isfinite(dice[:, columns]).any(axis=1).sum()), *numbers)

    rows = [row(regions[int(r)], np.array([r])) for r in known]
    return [*rows, row(MEAN, known)]


def _mean(table: Array) -> float:
    """Mean over regions (columns) of the mean over the patients (rows) who have them."""
    known = np.isfinite(table)
    there = known.any(axis=0)
    return float((np.where(known, table, 0).sum(axis=0)[there] / known.sum(axis=0)[there]).mean())
