"""Growth plates of arms and legs, by name and side, and the shafts beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from rbs.scans.counts import END_MM
from rbs.scans.regions import label_of
from rbs.scans.scan import Array

Pixels: TypeAlias = tuple[Array, ...]
"""Rows and columns of pixels of a view."""

PLATE, ARMS, LEGS = (label_of(name) for name in ("growth plates", "arms", "legs"))
NEAR_MM = 12.0
"""Distance within which the bone of a plate, and a pixel of the plate, is looked for."""
LEAST_MM2 = 40.0
"""Area of the smallest plate."""
RIDGE_MM = 2.5
"""Half width of the strip along a plate's middle line."""

BANDS = {
    ARMS: (("proximal humerus", -0.1, 0.3), ("wrist", 0.4, 1.0)),
    LEGS: (("hip", -0.1, 0.22), ("knee", 0.25, 0.7), ("ankle", 0.75, 1.0)),
}
"""Names of the plates of a limb, and the part of its rows, from the trunk, in which each lies."""

SHAFTS = {
    "proximal humerus": ("proximal humerus", "wrist", 0.15, 0.38),
    "wrist": ("proximal humerus", "wrist", 0.65, 0.85),
    "hip": ("hip", "distal femur", 0.4, 0.7),
    "distal femur": ("hip", "distal femur", 0.4, 0.7),
    "knee": ("hip", "knee", 0.4, 0.7),
    "proximal tibia": ("proximal tibia", "ankle", 0.35, 0.65),
    "ankle": ("proximal tibia", "ankle", 0.35, 0.65),
}
"""Shaft of each plate: part of the way from one plate to another, along the straight line."""
ASIDE = 0.2
"""Distance from that line within which the shaft lies, of its length."""


@dataclass(frozen=True)
class Plate:
    """A growth plate in one view.

    Attributes:
        name: One of `SHAFTS`. Radius and ulna are one, "wrist"; so are femur and tibia, "knee",
            where their plates touch.
        side: "left" or "right" of the patient.
        zone: Pixels that belong to it where they are labelled a growth plate, of each piece.
        limb: Label of the bone beside it.
        shaft: Pixels among which its shaft lies; none where the other plate that says where is not
            seen.
    """

    name: str
    side: str
    zone: tuple[Pixels, ...]
    limb: int
    shaft: Pixels

    def pixels(self, labels: Array) -> Pixels:
        """Its pixels in a label map of the view, (H, W)."""
        pieces = [_labelled(piece, labels, PLATE) for piece in self.zone]
        return np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces])

    def ridge(self, labels: Array, spacing_mm: tuple[float, float]) -> Pixels:
        """Pixels within 2.5 mm of its middle line, the principal axis of each of its pieces.

        Args:
            labels: Of the view, (H, W).
            spacing_mm: Row and column spacing, mm.
        """
        rows, columns = [np.zeros(0, int)], [np.zeros(0, int)]
        for piece in self.zone:
            row, column = _labelled(piece, labels, PLATE)
            if row.size < 2:
                continue
            places = np.stack([row * spacing_mm[0], column * spacing_mm[1]])
            places -= places.mean(axis=1, keepdims=True)
            thin = np.linalg.eigh(places @ places.T)[1][:, 0]
            near = np.abs(thin @ places) <= RIDGE_MM
            rows.append(row[near])
            columns.append(column[near])
        return np.concatenate(rows), np.concatenate(columns)

    def shaft_pixels(self, labels: Array) -> Pixels:
        """Pixels of its shaft in a label map of the view, (H, W)."""
        return _labelled(self.shaft, labels, self.limb)


def _labelled(pixels: Pixels, labels: Array, label: int) -> Pixels:
    kept = labels[pixels] == label
    return pixels[0][kept], pixels[1][kept]


def find_plates(
    labels: Array, left: Array, scanned: tuple[int, int], spacing_mm: tuple[float, float]
) -> list[Plate]:
    """Find and name the growth plates of a view.

    Connected pixels of the label are a piece; it belongs to the limb, arm or leg, of which more
    pixels lie within 12 mm, and its name to how far down the rows of that limb it lies (`BANDS`).
    Of two pieces at a knee the upper one is the distal femur. A limb that the scan cuts off has no
    plates: nothing tells a knee from an ankle then.

    Args:
        labels: (H, W).
        left: True at pixels of the patient's left half, (H, W).
        scanned: First row that holds counts, and one past the last.
        spacing_mm: Row and column spacing, mm.
    """
    from scipy.ndimage import distance_transform_edt, label

    numbers, count = label(labels == PLATE, np.ones((3, 3)))
    if not count:
        return []
    away, nearest = distance_transform_edt(numbers == 0, sampling=spacing_mm, return_indices=True)
    zones = np.where(away <= NEAR_MM, numbers[tuple(nearest)], 0)
    areas = np.bincount(numbers.ravel()) * np.prod(spacing_mm)
    pieces: dict[tuple[int, str], list[int]] = {}
    middles = {
        n: np.argwhere(numbers == n).mean(axis=0) for n in range(1, count + 1) if areas[n] >= LEAST_MM2
    }
    for n, middle in middles.items():
        near = labels[zones == n]
        limb = LEGS if (near == LEGS).sum() >= (near == ARMS).sum() else ARMS
        side = "left" if left[tuple(middle.astype(int))] else "right"
        pieces.setdefault((limb, side), []).append(n)
    plates = []
    for (limb, side), those in pieces.items():
        rows = np.flatnonzero(((labels == limb) & (left == (side == "left"))).any(axis=1))
        if not rows.size or min(rows[0] - scanned[0], scanned[1] - 1 - rows[-1]) * spacing_mm[0] < END_MM:
            continue
        down = {n: (middles[n][0] - rows[0]) / (rows[-1] - rows[0] + 1) for n in those}
        named = _named(limb, down, areas)
        places = {name: np.mean([middles[n] for n in own], axis=0) for name, own in named.items()}
        for name, own in named.items():
            zone = tuple(np.nonzero(zones == n) for n in own)
            plates.append(Plate(name, side, zone, limb, _shaft(name, places, labels.shape, spacing_mm)))
    return plates


def _named(limb: int, down: dict[int, float], areas: Array) -> dict[str, list[int]]:
    """Pieces of a limb by the name of their plate.

    Args:
        limb: Label of the limb.
        down: How far down the rows of the limb each piece lies, 0 to 1.
        areas: Of the pieces, mm^2.
    """
    named = {name: [n for n, part in down.items() if start <= part < end] for name, start, end in BANDS[limb]}
    # A speck beside a plate is none of its own.
    knee = sorted(named.pop("knee", []), key=lambda n: -areas[n])[:2]
    if len(knee) == 2 and areas[knee[1]] < areas[knee[0]] / 4:
        knee.pop()
    if len(knee) == 2:
        upper, lower = sorted(knee, key=lambda n: down[n])
        named |= {"distal femur": [upper], "proximal tibia": [lower]}
    else:
        named["knee"] = knee
    return {name: own for name, own in named.items() if own}


def _shaft(
    name: str, places: dict[str, Array], shape: tuple[int, ...], spacing_mm: tuple[float, float]
) -> Pixels:
    """Pixels among which the shaft of a plate lies; none where one of its ends is not seen."""
    begin, end, first, last = SHAFTS[name]
    if not {begin, end} <= places.keys():
        return np.zeros(0, int), np.zeros(0, int)
    start = places[begin] * spacing_mm
    way = places[end] * spacing_mm - start
    row, column = np.ogrid[: shape[0], : shape[1]]
    down, across = row * spacing_mm[0] - start[0], column * spacing_mm[1] - start[1]
    length = float(np.hypot(*way))
    along = (down * way[0] + across * way[1]) / length**2
    aside = (down * way[1] - across * way[0]) / length**2
    return np.nonzero((along >= first) & (along <= last) & (np.abs(aside) <= ASIDE))
