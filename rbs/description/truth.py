"""The true statements of a phantom child, from its record and its expectation.

The record is `child.json` of a cohort (`rbs.synthetic.cohort`). Whatever is not in it (which hot
spot is the injection site, how bright the growth plates are) is measured in the expectation, which
has no noise. Needs no PyTorch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rbs.description.sentences import (
    AGES,
    COLD_PARTS,
    LEFT,
    METAL_PARTS,
    MIDDLE,
    NONE,
    NUMBERS,
    OUTSIDE,
    PARTS,
    RIGHT,
    SIDES,
    SOME,
    Statement,
)
from rbs.scans.regions import HOT, label_of
from rbs.scans.scan import Array

CAMERA_MM = 10.0
"""Blur of a camera at the depth of the skeleton, full width at half maximum."""
STANDS_OUT = 0.3
"""Change of the uptake of a bone, blurred by the camera, from which on a focus is spoken of."""
MIDDLE_MM = 12.0
"""Distance from the midline within which a focus of chest or pelvis lies in the middle."""
ASIDE_MM = 22.0
"""Distance of the hips from the middle of the field from which on a child lies to one side."""
PLATES = {"mild": 0.0, "moderate": 2.5, "intense": 3.5}
"""Least uptake of a growth plate, relative to the shaft, of each grade."""
UNEQUAL = 1.25
"""Uptake of one growth plate over the other's from which on they are unlike."""
BLADDER = {"little": 0.0, "moderate": 0.02, "much": 0.045}
"""Least part of the counts of the first view in the bladder, of each grade."""
FAINT_KIDNEY = 1.6
"""Uptake over the tissue around from which on a kidney is seen clearly."""
METAL = {
    "earrings": "head",
    **dict.fromkeys(("pendant", "port", "rods"), "trunk"),
    **dict.fromkeys(("button", "buckle"), "pelvis"),
    "bracelet": "arms",
    "plate": "legs",
}
"""Part of the body that metal lies over."""

Place = tuple[float, float]
_SIGNS = {LEFT: "+1", RIGHT: "-1"}


@dataclass(frozen=True)
class _Child:
    """What is known of a child.

    Attributes:
        record: Content of `child.json`.
        marks: Row and column of its landmarks.
        expectation: Aligned, (V, H, W).
        labels: Aligned, (V, H, W).
        spacing_mm: Side of a pixel.
    """

    record: Mapping[str, Any]
    marks: Mapping[str, Place]
    expectation: Array
    labels: Array
    spacing_mm: float

    def middle(self, name: str) -> Place | None:
        """Middle between the landmarks of left and right; None where one is missing."""
        both = [self.marks.get(f"{name} {sign}") for sign in _SIGNS.values()]
        if both[0] is None or both[1] is None:
            return None
        return (both[0][0] + both[1][0]) / 2, (both[0][1] + both[1][1]) / 2


Part = tuple[str, str]
"""Region and side of one of `PARTS`."""


@dataclass(frozen=True)
class Foci:
    """Foci that stand out.

    Attributes:
        hot: Number of hot ones of each part.
        cold: Regions of cold ones.
    """

    hot: Mapping[Part, int]
    cold: frozenset[str]

    def statements(self) -> tuple[Statement, ...]:
        """The true statement of each of their topics."""
        return (
            *(
                Statement(
                    "hot foci", *part, _highest(NUMBERS, self.hot[part]) if self.hot.get(part) else NONE
                )
                for part in PARTS
            ),
            *(
                Statement("cold foci", region, grade=SOME if region in self.cold else NONE)
                for region in COLD_PARTS
            ),
        )


def midline_of(record: Mapping[str, Any]) -> tuple[Array, Array]:
    """Rows and columns of the line through head, spine, hips and knees, as far as scanned."""
    marks = record["landmarks_row_column"]
    line = [marks[name] for name in ("vertex", "L3") if name in marks]
    for name in ("hip", "knee"):
        both = [marks[f"{name} {sign}"] for sign in _SIGNS.values() if f"{name} {sign}" in marks]
        if len(both) == 2:
            line.append(np.mean(both, axis=0))
    rows, columns = np.array(line, float).T
    return rows, columns


def part_of(region: str, left_of_midline_mm: float) -> Part:
    """The part in which a focus of a region lies."""
    if (region, "") in PARTS:
        return region, ""
    if (region, MIDDLE) in PARTS and abs(left_of_midline_mm) < MIDDLE_MM:
        return region, MIDDLE
    return region, LEFT if left_of_midline_mm > 0 else RIGHT


def hot_parts(record: Mapping[str, Any], spacing_mm: float) -> list[Part]:
    """The part of each hot focus of a phantom that stands out.

    Args:
        record: Content of its `child.json`.
        spacing_mm: Side of a pixel, mm.
    """
    line = midline_of(record)
    return [
        part_of(one["region"], (one["column"] - float(np.interp(one["row"], *line))) * spacing_mm)
        for one in record["lesions"]
        if one["kind"] != "cold" and stands_out(one)
    ]


def foci_of(record: Mapping[str, Any], spacing_mm: float) -> Foci:
    """Foci of a phantom; arguments as of `hot_parts`."""
    cold = [one["region"] for one in record["lesions"] if one["kind"] == "cold" and stands_out(one)]
    return Foci(Counter(hot_parts(record, spacing_mm)), frozenset(cold))


def statements_of(
    record: Mapping[str, Any], expectation: Array, labels: Array, spacing_mm: float
) -> tuple[Statement, ...]:
    """The true statement on each topic, in the order of `rbs.description.sentences.TOPICS`.

    Args:
        record: Content of the phantom's `child.json`.
        expectation: Expected counts of both views, aligned, (2, H, W).
        labels: Their labels, (2, H, W).
        spacing_mm: Side of a pixel, mm.
    """
    marks = {
        name: (float(row), float(column)) for name, (row, column) in record["landmarks_row_column"].items()
    }
    child = _Child(record, marks, expectation, labels, spacing_mm)
    injected, contaminated = _spots_beside_bone(child)
    metal = {METAL[one["name"]] for one in record["attenuators"]}
    return (
        Statement("age", grade=_highest(AGES, record["child"]["age_y"])),
        _coverage(child),
        _position(child),
        *_plates(child),
        *foci_of(record, spacing_mm).statements(),
        *(_kidney(child, side) for side in SIDES),
        _bladder(child),
        injected,
        contaminated,
        *(Statement("metal", part, grade=SOME if part in metal else NONE) for part in METAL_PARTS),
    )


def stands_out(lesion: Mapping[str, Any]) -> bool:
    """True for a focus that the camera's blur leaves strong enough to be spoken of."""
    size = lesion["fwhm_mm"], lesion["length_mm"]
    return abs(blurred(lesion["contrast"], *size)) >= STANDS_OUT


def blurred(contrast: float, fwhm_mm: float, length_mm: float) -> float:
    """Change of a bone's uptake at the middle of a focus, after the camera's blur."""
    return (contrast - 1) * math.prod(side / math.hypot(side, CAMERA_MM) for side in (fwhm_mm, length_mm))


def _highest(grades: Mapping[str, float], value: float) -> str:
    """The last grade whose least value is reached."""
    return [grade for grade, least in grades.items() if value >= least][-1]


def _coverage(child: _Child) -> Statement:
    if "vertex" not in child.marks:
        return Statement("coverage", "head", grade=OUTSIDE)
    if child.record["partial"]:
        return Statement("coverage", "legs", grade=OUTSIDE)
    return Statement("coverage", grade="whole")


def _position(child: _Child) -> Statement:
    hips = child.middle("hip")
    columns = child.expectation.shape[2]
    aside = 0.0 if hips is None else (hips[1] - (columns - 1) / 2) * child.spacing_mm
    return Statement("position", side=MIDDLE if abs(aside) < ASIDE_MM else LEFT if aside > 0 else RIGHT)


def _plates(child: _Child) -> list[Statement]:
    """Grades of both distal femoral growth plates, and how they compare."""
    peaks, statements = {}, []
    for side in SIDES:
        peak, ratio = _plate(child, _SIGNS[side])
        grade = OUTSIDE if math.isnan(ratio) else _highest(PLATES, ratio)
        statements.append(Statement("growth plate", "distal femur", side, grade))
        peaks[side] = peak
    left_over_right = peaks[LEFT] / peaks[RIGHT]
    if math.isnan(left_over_right):
        compared = Statement("comparison", "knees", grade=OUTSIDE)
    elif 1 / UNEQUAL < left_over_right < UNEQUAL:
        compared = Statement("comparison", "knees", grade="alike")
    else:
        compared = Statement("comparison", "knees", LEFT if left_over_right > 1 else RIGHT, "greater")
    return [*statements, compared]


def _plate(child: _Child, sign: str) -> tuple[float, float]:
    """Mean of the brightest pixels of a plate, and that over the shaft's; NaN outside the field."""
    plate = child.marks.get(f"distal femoral physis {sign}")
    shaft = child.marks.get(f"femoral diaphysis {sign}")
    if plate is None or shaft is None:
        return math.nan, math.nan
    around = _around(child, plate, (8.0, 15.0))
    peak = float(np.sort(around, axis=None)[-around.size // 5 :].mean())
    return peak, peak / float(np.median(_around(child, shaft, (20.0, 10.0)).max(axis=1)))


def _around(child: _Child, place: Place, mm: tuple[float, float]) -> Array:
    """Pixels of the anterior view within so many mm of a place, rows and columns."""
    deep, wide = (max(round(half / child.spacing_mm), 1) for half in mm)
    row, column = round(place[0]), round(place[1])
    part: Array = child.expectation[
        0, max(row - deep, 0) : row + deep + 1, max(column - wide, 0) : column + wide + 1
    ]
    return part


def _split_row(child: _Child) -> float | None:
    """Row between kidneys and bladder; None where the hips are outside the field."""
    hips, lumbar = child.middle("hip"), child.marks.get("L3")
    if hips is None:
        return None
    length = child.record["child"]["height_cm"] * 10 / child.spacing_mm
    return (hips[0] + lumbar[0]) / 2 if lumbar else hips[0] - 0.06 * length


def _kidney(child: _Child, side: str) -> Statement:
    """A kidney as the posterior view shows it."""
    from scipy.ndimage import binary_dilation

    split, lumbar = _split_row(child), child.marks.get("L3")
    if split is None or lumbar is None or "vertex" not in child.marks:
        return Statement("kidney", side=side, grade=OUTSIDE)
    labels, image = child.labels[-1], child.expectation[-1]
    row, column = np.indices(labels.shape)
    own = (labels == label_of("urinary tract")) & (row < split) & ((column > lumbar[1]) == (side == LEFT))
    if not own.any():
        return Statement("kidney", side=side, grade="not seen")
    far, near = (binary_dilation(own, iterations=max(round(mm / child.spacing_mm), 1)) for mm in (14.0, 7.0))
    around = far & ~near & (labels == 0)
    contrast = image[own].mean() / image[around].mean() if around.any() else math.inf
    return Statement("kidney", side=side, grade="clear" if contrast >= FAINT_KIDNEY else "faint")


def _bladder(child: _Child) -> Statement:
    """The bladder by its part of the counts of the anterior view."""
    split = _split_row(child)
    if split is None:
        return Statement("bladder", grade=OUTSIDE)
    labels, image = child.labels[0], child.expectation[0]
    own = (labels == label_of("urinary tract")) & (np.arange(len(labels))[:, None] > split)
    return Statement("bladder", grade=_highest(BLADDER, float(image[own].sum() / image.sum())))


def _spots_beside_bone(child: _Child) -> tuple[Statement, Statement]:
    """The injection site, and whether drops of tracer lie on the child: hot spots of no focus."""
    from scipy.ndimage import label

    numbers, count = label(child.labels[0] == HOT, np.ones((3, 3)))
    lesions = [(one["row"], one["column"]) for one in child.record["lesions"] if one["kind"] != "cold"]
    spots = []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(numbers == number)
        if not any(numbers[round(row), round(column)] == number for row, column in lesions):
            spots.append((float(rows.mean()), float(columns.mean())))
    injection = Statement("injection site", grade=NONE)
    near = [(away, n, found) for n, spot in enumerate(spots) for away, found in _arms(child, spot)]
    if child.record["injection_site"] and near:
        _, which, injection = min(near, key=lambda one: one[0])
        spots.pop(which)
    drops = child.record["contamination"] and bool(spots)
    return injection, Statement("contamination", grade=SOME if drops else NONE)


def _arms(child: _Child, spot: Place) -> list[tuple[float, Statement]]:
    """Distance of a spot from elbows and hands, mm, and what it would be there."""
    reach = 0.05 * child.record["child"]["height_cm"] * 10 / child.spacing_mm
    found = []
    for side, sign in _SIGNS.items():
        elbow, wrist = child.marks.get(f"elbow {sign}"), child.marks.get(f"wrist {sign}")
        if elbow is not None:
            away = math.dist(elbow, spot) * child.spacing_mm
            found.append((away, Statement("injection site", "elbow", side)))
        if elbow is not None and wrist is not None:
            length = max(math.dist(elbow, wrist), 1e-6)
            way = [(wrist[i] - elbow[i]) / length for i in (0, 1)]
            along = min(max(sum((spot[i] - wrist[i]) * way[i] for i in (0, 1)), 0.0), reach)
            nearest = [wrist[i] + along * way[i] for i in (0, 1)]
            away = math.dist(nearest, spot) * child.spacing_mm
            found.append((away, Statement("injection site", "hand", side)))
    return [(away, statement) for away, statement in found if away < 60]
