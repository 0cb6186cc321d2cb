"""Hot spots of a labelled scan: bone, number, area, counts and contrast.

A hot spot is a connected set of pixels whose probability of the label "hot spots" exceeds `EDGE`
and somewhere reaches `THRESHOLD`. Growth plates and the urinary tract have labels of their own and
are none. Of what has that label, two kinds do not count: what lies beside all bones (drops of
urine), and what is hotter in an arm than most lesions are (the site of the injection).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rbs.scans.regions import BONE_LABELS, BONES, HOT, label_of
from rbs.scans.scan import Array, View
from rbs.segmentation.measures.label_draws import likeliest
from rbs.segmentation.measures.regions import Measured

EDGE, THRESHOLD = 0.3, 0.65
"""Probability at the border of a hot spot, and the least at its peak: chosen on training and
validation phantoms (docs/quantify.md)."""
RING_MM = (6.0, 20.0)
"""Bone around a hot spot: distance from its border."""
ENOUGH_MM2 = 60.0
"""A smaller area of the ring says nothing about the bone."""
INJECTION = 4.2
"""Mean over that of both arms from which on a hot spot of an arm is taken for the site of the
injection, where one of the views shows it: chosen on training and validation phantoms."""
SAME_MM = 12.0
"""Distance between the middles of hot spots in two views that are one focus."""


@dataclass(frozen=True)
class HotSpot:
    """A hot spot in one view.

    Attributes:
        view: The view.
        region: The bone it lies in; empty where it lies beside all bones.
        focus: Number of the focus, from 1; one focus may be seen in both views. 0 where it does not
            count.
        reason: Why it does not count; empty where it does.
        row: Row of its middle in the aligned view.
        column: Column of its middle.
        probability: Largest probability of the label in it.
        area_cm2: Expected area: the sum of the label's probabilities, by the area of a pixel.
        counts: Counts in it.
        contrast: Its mean over that of the bone around it.
        pixels: Its rows and columns.
    """

    view: View
    region: str
    focus: int
    reason: str
    row: float
    column: float
    probability: float
    area_cm2: float
    counts: float
    contrast: Measured
    pixels: tuple[Array, ...] = field(repr=False, compare=False)


def find_hot_spots(
    counts: Array,
    probabilities: Array,
    spacing_mm: tuple[float, float],
    views: Sequence[View],
    *,
    exposure: float = 1.0,
    threshold: float = THRESHOLD,
) -> list[HotSpot]:
    """Find the hot spots of a scan, the surest first.

    Args:
        counts: Aligned, (V, H, W): raw, or at the scale of the standard scan.
        probabilities: Of background and regions, (V, 1 + K, H, W).
        spacing_mm: Row and column spacing, mm.
        views: The view of each of the V channels.
        exposure: Counts that were counted over those in `counts`, as of `region_table`.
        threshold: Least probability at the peak.

    Returns:
        Those that count, numbered by focus, and those that do not, with the reason.
    """
    from scipy.ndimage import label

    labels = likeliest(probabilities)
    pixel_cm2 = float(np.prod(spacing_mm)) / 100
    found = []
    for view, name in enumerate(views):
        hot = probabilities[view, HOT]
        numbers, count = label(hot > EDGE, np.ones((3, 3)))
        for n in range(1, count + 1):
            pixels = np.nonzero(numbers == n)
            if hot[pixels].max() < threshold:
                continue
            region, contrast = _bone_around(
                counts[view], probabilities[view], labels[view], pixels, spacing_mm, exposure
            )
            arms = counts[view][labels[view] == label_of("arms")]
            arm = arms.mean() if arms.size else 0.0
            hotter = arm > 0 and counts[view][pixels].mean() >= INJECTION * arm
            reason = "" if region else "beside the bones"
            if region == "arms" and hotter:
                reason = "site of the injection"
            found.append(
                HotSpot(
                    view=name,
                    region=region,
                    focus=0,
                    reason=reason,
                    row=float(pixels[0].mean()),
                    column=float(pixels[1].mean()),
                    probability=float(hot[pixels].max()),
                    area_cm2=float(hot[pixels].sum()) * pixel_cm2,
                    counts=float(counts[view][pixels].sum()),
                    contrast=contrast,
                    pixels=pixels,
                )
            )
    return _numbered(sorted(found, key=lambda spot: -spot.probability), spacing_mm)


def _numbered(spots: Sequence[HotSpot], spacing_mm: tuple[float, float]) -> list[HotSpot]:
    """Number the foci that count; hot spots of two views whose middles lie near are one."""
    foci: list[list[HotSpot]] = []
    for spot in spots:
        away = {
            n: math.hypot(
                (own[0].row - spot.row) * spacing_mm[0], (own[0].column - spot.column) * spacing_mm[1]
            )
            for n, own in enumerate(foci)
            if all(one.view != spot.view for one in own)  # a focus is seen once a view
        }
        nearest = min(away, key=lambda n: away[n], default=None)
        if nearest is not None and away[nearest] <= SAME_MM:
            foci[nearest].append(spot)
        else:
            foci.append([spot])
    number = 0
    numbered = []
    for own in foci:
        reason = next((spot.reason for spot in own if spot.reason), "")
        number += not reason
        numbered += [replace(spot, focus=0 if reason else number, reason=reason) for spot in own]
    return numbered


def _bone_around(
    counts: Array,
    probabilities: Array,
    labels: Array,
    pixels: tuple[Array, ...],
    spacing_mm: tuple[float, float],
    exposure: float,
) -> tuple[str, Measured]:
    """The bone of a hot spot, and its contrast to that bone.

    Args:
        counts: Of the view, (H, W).
        probabilities: Of the view, (1 + K, H, W).
        labels: Of the view, (H, W).
        pixels: Of the hot spot.
        spacing_mm: Row and column spacing, mm.
        exposure: Counts that were counted over those in `counts`.
    """
    from scipy.ndimage import distance_transform_edt

    margins = [math.ceil(RING_MM[1] / mm) + 1 for mm in spacing_mm]
    box = tuple(
        slice(max(int(at.min()) - margin, 0), int(at.max()) + margin + 1)
        for at, margin in zip(pixels, margins, strict=True)
    )
    spot = np.zeros(labels.shape, bool)
    spot[pixels] = True
    away = distance_transform_edt(~spot[box], sampling=spacing_mm)
    near = np.asarray(away <= RING_MM[1])
    bones = probabilities[(slice(None), *box)][list(BONE_LABELS)]
    # Bone near the border counts more: a hot spot of a rib may lie beside the spine.
    weight = np.where(near, np.exp(-away / RING_MM[0]), 0)
    shares = (bones * weight).sum(axis=(1, 2))
    enough = ENOUGH_MM2 / math.prod(spacing_mm)
    if (np.isin(labels[box], BONE_LABELS) & near).sum() < enough:
        return "", Measured()
    best = int(shares.argmax())
    ring = near & (away >= RING_MM[0]) & (labels[box] == BONE_LABELS[best])
    if ring.sum() < enough:
        ring = near & (away >= 1) & np.isin(labels[box], BONE_LABELS)
    inside, around = counts[pixels], counts[box][ring]
    if not min(inside.sum(), around.sum()) > 0:
        return BONES[best], Measured()
    ratio = float(inside.mean() / around.mean())
    poisson = ratio * math.sqrt((1 / inside.sum() + 1 / around.sum()) / exposure)
    return BONES[best], Measured(ratio, poisson)
