"""The field of view of a frame: no black borders, insets and burned-in text.

The field of an endoscope is convex: an octagon, a circle, or either of them cut by the picture's
edges. So it is the convex hull of the largest coherent area that is not border; dark lumen at its
rim lies inside. Parts that reach into it from outside (a black patch over a name, an inset, a line
of text) are taken out afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from rbs.endoscopy.colour import Frame, Mask

_DARK = 0.11
"""Encoded value up to which processors draw borders: black or a dark grey."""
_FLAT = 4.5 / 255
"""Deviation of the colours of a border or an inset, by JPEG."""
_INSET = 0.01
"""Share of the frame that the colour of an inset fills at least."""


def field_of_view(frame: Frame) -> Mask:
    """Find the pixels of a frame that show what the camera saw.

    Args:
        frame: float32 (3, H, W), sRGB 0..1.

    Returns:
        bool (H, W); all False for a frame that shows nothing, such as a black one.
    """
    unit = max(1, round(max(frame.shape[1:]) / 160))  # a little more than half a stroke of text
    insets = _insets(frame)
    border = _reaching_the_edge(_like_border(frame) | insets)
    body = ndimage.binary_opening(~border, iterations=unit, border_value=0) if border.any() else ~border
    field = _hull(_largest(body))
    field &= ~ndimage.binary_dilation(border & ndimage.binary_opening(border, iterations=unit))
    field &= ~_text(frame, field, unit)
    # Around the field colours are mixed with the border's.
    return ndimage.binary_erosion(field, iterations=unit, border_value=1) & ~insets


def _like_border(frame: Frame) -> Mask:
    """Pixels that are black, or of the dark grey that the frame's edge has."""
    edge = np.concatenate([frame[:, 0], frame[:, -1], frame[:, :, 0], frame[:, :, -1]], axis=1)
    dark = edge[:, edge.max(0) <= _DARK]
    if dark.shape[1] < 0.01 * edge.shape[1]:
        return np.zeros(frame.shape[1:], bool)
    grey = np.median(dark, axis=1)[:, None, None]
    return (np.abs(frame - grey).max(0) <= _FLAT) | (frame.max(0) <= _FLAT)


def _insets(frame: Frame) -> Mask:
    """Boxes of one green or blue colour at the frame's edge, with all that is drawn on them."""
    found = np.zeros(frame.shape[1:], bool)
    unlike_mucosa = frame[1:].max(0) > frame[0] + 0.1
    bins = np.round(frame * 42).astype(np.int32)
    key = np.where(unlike_mucosa, (bins[0] * 64 + bins[1]) * 64 + bins[2], -1)
    keys, counts = np.unique(key, return_counts=True)
    for common in keys[(counts > _INSET * found.size) & (keys >= 0)]:
        colour = np.median(frame[:, key == common], axis=1)[:, None, None]
        for box in _boxes(np.abs(frame - colour).max(0) <= _FLAT, _INSET * found.size):
            rows, columns = box
            at_edge = 0 in (rows.start, columns.start) or (rows.stop, columns.stop) != found.shape
            filled = (np.abs(frame[(slice(None), *box)] - colour).max(0) <= 2 * _FLAT).mean()
            if at_edge and filled > 0.7:
                found[box] = True
    return found


def _text(frame: Frame, field: Mask, unit: int) -> Mask:
    """Text at the rim of the field or across it: rows of thin white strokes and white between."""
    found = np.zeros(field.shape, bool)
    white = np.where(frame.max(0) - frame.min(0) < 0.15, frame.min(0), 0)
    strokes = white - ndimage.grey_opening(white, size=(2 * unit + 1, 2 * unit + 1)) > 0.12
    lines = ndimage.binary_closing(strokes, np.ones((1, 6 * unit + 1), bool))
    rim = ndimage.binary_dilation(~field, iterations=4 * unit)
    for box in _boxes(lines, 8 * unit):
        height, width = (side.stop - side.start for side in box)
        parts = ndimage.label(strokes[box])[1]
        is_line = height <= 8 * unit and width >= 2.5 * height and parts >= 3
        if is_line and rim[box].any() and field[box].any():
            found[box] = strokes[box] | (white[box] > 0.5)
    return ndimage.binary_dilation(found, iterations=unit)


def _boxes(mask: Mask, pixels: float) -> Iterator[tuple[slice, slice]]:
    """Bounding boxes of the connected parts of at least so many pixels."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None and sizes[number] >= pixels:
            yield box


def _reaching_the_edge(mask: Mask) -> Mask:
    """The connected parts that touch the frame's edge."""
    labels, _ = ndimage.label(mask)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, edge[edge > 0])


def _largest(mask: Mask) -> Mask:
    labels, number = ndimage.label(mask)
    if not number:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _hull(mask: Mask) -> Mask:
    """Convex hull, filled; empty for less than a hundredth of the frame."""
    if mask.sum() < 0.01 * mask.size:
        return np.zeros_like(mask)
    from PIL import Image, ImageDraw
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(mask.any(1))
    left, right = mask[rows].argmax(1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(1)
    ends = np.stack([np.r_[left, right], np.r_[rows, rows]], axis=1)
    if np.ptp(ends, axis=0).min() == 0:  # a line has no hull
        return mask
    corners = ends[ConvexHull(ends).vertices]
    picture = Image.new("1", mask.shape[::-1])
    ImageDraw.Draw(picture).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.array(picture, bool)
