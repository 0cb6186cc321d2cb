"""Growth plates of the distal femora: bright, thin and diagnostic structures of a child.

A profile runs along the femur's axis through the plate, averaged over 12 mm across. Its base is the
mean of the metaphysis, 14 to 24 mm towards the hip; its peak the maximum within 8 mm of the
landmark, above that base; its width that at half the peak. A restoration is compared with the
expectation:

    peak recovery   peak_T / peak_λ            width recovery   FWHM_T / FWHM_λ
    asymmetry       200 (left - right) / (left + right) % of the peaks; error: T minus λ

The maximum of a noisy profile lies above that of its expectation, so raw scans "recover" more than
all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rbs.scans.scan import Array

SIDES = ("-1", "+1")
STEP_MM = 0.25
REACH_MM = 26.0
ACROSS_MM = 12.0
PEAK_WITHIN_MM = 8.0
BASE_MM = (-24.0, -14.0)


@dataclass(frozen=True)
class Plate:
    """A growth plate as one image shows it.

    Attributes:
        view: Index of the view.
        side: "-1" or "+1", as its landmark is named.
        peak: Counts a pixel above the metaphysis.
        fwhm_mm: Width of the plate, mm; NaN where the profile does not fall to half the peak on
            both sides.
    """

    view: int
    side: str
    peak: float
    fwhm_mm: float


@dataclass(frozen=True)
class PlateScores:
    """Growth plates of a restoration beside those of the expectation, means over sides and views.

    Attributes:
        peak: Recovery of the peak.
        fwhm: Recovery of the width; NaN where no width can be measured.
        asymmetry_error: Error of the asymmetry, percentage points, absolute; NaN with one side
            only.
    """

    peak: float
    fwhm: float
    asymmetry_error: float


def measure_plates(
    image: Array, landmarks: Mapping[str, tuple[float, float]], spacing_mm: tuple[float, float]
) -> list[Plate]:
    """Measure the distal femoral growth plates whose landmarks are known.

    Args:
        image: Counts (V, H, W), aligned.
        landmarks: (row, column) by name: "femoral diaphysis -1", "distal femoral physis -1", and of
            "+1".
        spacing_mm: Row and column spacing, mm.
    """
    from scipy.ndimage import map_coordinates

    spacing = np.array(spacing_mm)
    along = np.arange(-REACH_MM, REACH_MM + STEP_MM / 2, STEP_MM)
    across = np.arange(-ACROSS_MM / 2, ACROSS_MM / 2 + 0.5, 1.0)
    plates = []
    for side in SIDES:
        if not {f"femoral diaphysis {side}", f"distal femoral physis {side}"} <= landmarks.keys():
            continue
        physis = np.array(landmarks[f"distal femoral physis {side}"]) * spacing
        axis = physis - np.array(landmarks[f"femoral diaphysis {side}"]) * spacing
        axis = axis / np.linalg.norm(axis)
        normal = np.array([-axis[1], axis[0]])
        places = physis + along[:, None, None] * axis + across[:, None] * normal
        for view, frame in enumerate(image):
            values = map_coordinates(frame.astype(np.float64), (places / spacing).transpose(2, 0, 1), order=1)
            peak, fwhm = _peak(along, values.mean(axis=1))
            plates.append(Plate(view, side, peak, fwhm))
    return plates


def compare_plates(found: list[Plate], truth: list[Plate]) -> PlateScores:
    """Compare the plates of a restoration with those of the expectation, in the same order."""
    peaks = [t.peak / e.peak for t, e in zip(found, truth, strict=True) if e.peak > 0]
    widths = [t.fwhm_mm / e.fwhm_mm for t, e in zip(found, truth, strict=True)]
    widths = [width for width in widths if not math.isnan(width)]
    errors = [
        abs(asymmetry_percent(found, view) - asymmetry_percent(truth, view))
        for view in sorted({plate.view for plate in truth})
    ]
    return PlateScores(
        peak=float(np.mean(peaks)) if peaks else math.nan,
        fwhm=float(np.mean(widths)) if widths else math.nan,
        asymmetry_error=float(np.mean(errors)) if errors else math.nan,
    )


def asymmetry_percent(plates: list[Plate], view: int) -> float:
    """200 (a - b) / (a + b) of the peaks of sides "-1" and "+1" of a view, %; NaN with one side."""
    peaks = {plate.side: plate.peak for plate in plates if plate.view == view}
    if len(peaks) < 2 or sum(peaks.values()) <= 0:
        return math.nan
    return 200 * (peaks[SIDES[0]] - peaks[SIDES[1]]) / sum(peaks.values())


def _peak(along: Array, profile: Array) -> tuple[float, float]:
    """Height above the base and width at half of it."""
    base = profile[(along >= BASE_MM[0]) & (along <= BASE_MM[1])].mean()
    near = np.flatnonzero(np.abs(along) <= PEAK_WITHIN_MM)
    top = int(near[np.argmax(profile[near])])
    height = float(profile[top] - base)
    if height <= 0:
        return height, math.nan
    return height, width_at(along, profile, top, base + height / 2)


def width_at(places: Array, profile: Array, top: int, level: float) -> float:
    """Width of the peak at index `top` where the profile crosses `level`, interpolated linearly.

    Returns:
        In units of `places`; NaN where the profile does not fall below the level on both sides.
    """
    edges = []
    for step in (-1, 1):
        index = top
        while 0 <= index < len(profile) and profile[index] >= level:
            index += step
        if not 0 <= index < len(profile):
            return math.nan
        inside = index - step
        share = (profile[inside] - level) / (profile[inside] - profile[index])
        edges.append(places[inside] + share * (places[index] - places[inside]))
    return float(edges[1] - edges[0])
