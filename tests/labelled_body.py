"""A labelled body of rectangles: skull, trunk, arms and legs with all growth plates, in two views."""

from __future__ import annotations

import numpy as np

from rbs.scans.scan import REGIONS, View

SHAPE, SPACING = (250, 111), (3.0, 3.0)
MIDLINE = 55
VIEWS = (View.ANTERIOR, View.POSTERIOR)
LABEL = {name: number for number, name in enumerate(REGIONS, start=1)}
LIMBS = {"arms": (slice(48, 140), 22, 5), "legs": (slice(128, 236), 42, 7)}
"""Rows of a right limb, its first column, its width."""
PLATES = {
    "proximal humerus": ("arms", 53),
    "wrist": ("arms", 118),
    "hip": ("legs", 133),
    "distal femur": ("legs", 172),
    "proximal tibia": ("legs", 180),
    "ankle": ("legs", 222),
}
"""Limb and first of the two rows of each plate."""


def limb(name: str, side: str) -> tuple[slice, slice]:
    """Rows and columns of an arm or a leg; the patient's right is on the left of the image."""
    rows, first, width = LIMBS[name]
    columns = slice(first, first + width)
    if side == "left":
        columns = slice(2 * MIDLINE - first - width + 1, 2 * MIDLINE - first + 1)
    return rows, columns


def plate(name: str, side: str) -> tuple[slice, slice]:
    """Rows and columns of a growth plate."""
    of, row = PLATES[name]
    return slice(row, row + 2), limb(of, side)[1]


def body() -> np.ndarray:
    """Labels (2, rows, columns), the same in both aligned views."""
    labels = np.zeros(SHAPE, np.uint8)
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    labels[np.hypot(rows - 25, columns - MIDLINE) <= 12] = LABEL["skull"]
    labels[45:86, 35:76] = LABEL["thorax"]
    labels[38:111, 53:58] = LABEL["spine"]
    labels[111:128, 38:73] = LABEL["pelvis"]
    for name in LIMBS:
        for side in ("right", "left"):
            labels[limb(name, side)] = LABEL[name]
    for name in PLATES:
        for side in ("right", "left"):
            labels[plate(name, side)] = LABEL["growth plates"]
    return np.stack([labels, labels])


def certain(labels: np.ndarray) -> np.ndarray:
    """Probabilities 0 and 1 (V, 1 + K, H, W) of labels (V, H, W)."""
    return np.stack([labels == k for k in range(1 + len(REGIONS))], axis=1).astype(np.float32)


def unsure(labels: np.ndarray) -> np.ndarray:
    """Probabilities of labels whose borders are known to about two pixels."""
    from scipy.ndimage import gaussian_filter

    soft = gaussian_filter(certain(labels), (0, 0, 1, 1))
    return soft / soft.sum(axis=1, keepdims=True)
