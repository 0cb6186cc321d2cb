"""Masks in the COCO format: polygons and run lengths, read into label images without pycocotools.

Layout and codes are those of Lin et al., ECCV 2014 (Microsoft COCO), as its reference software
reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rbs.errors import ManifestError
from rbs.scans.scan import Array

_SCALE = 5
"""Points a pixel at which the outline of a polygon is followed, as the reference software does."""

_LONGEST = 60
"""Bits of a run length at most."""


@dataclass(frozen=True)
class CocoPicture:
    """A picture of a COCO file.

    Attributes:
        file_name: Its name, with folders as the file gives them.
        shape: Rows and columns.
        masks: Category and segmentation of each annotation, as the file gives them.
    """

    file_name: str
    shape: tuple[int, int]
    masks: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class CocoFile:
    """A COCO file.

    Attributes:
        path: The file.
        categories: Names of its categories, in its order.
        pictures: Its pictures by name.
    """

    path: Path
    categories: tuple[str, ...]
    pictures: Mapping[str, CocoPicture]

    def labels(self, picture: CocoPicture, regions: Mapping[str, int], shape: tuple[int, int]) -> Array:
        """Label image of a picture; where masks overlap, the higher label wins.

        Args:
            picture: The picture.
            regions: Label of each category; 0 for none.
            shape: Rows and columns that the picture really has.

        Returns:
            uint8 (rows, columns), 0 background.

        Raises:
            ManifestError: The sizes differ, or a segmentation is damaged.
        """
        if picture.shape != shape:
            stated, real = ("{} x {}".format(*size) for size in (picture.shape, shape))
            fault = f"it says {picture.file_name} has {stated} rows and columns, but it has {real}"
            remedy = "give the annotations of the pictures as they are, not resized"
            raise ManifestError(fault, file=self.path, remedy=remedy)
        labels = np.zeros(shape, np.uint8)
        for category, segmentation in picture.masks:
            try:
                mask = decode(segmentation, shape)
            except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
                fault = f"a mask of {category!r} in {picture.file_name} is damaged ({error})"
                raise ManifestError(fault, file=self.path, remedy="export the annotations again") from None
            np.maximum(labels, np.uint8(regions[category]), out=labels, where=mask)
        return labels


def read_coco(path: Path) -> CocoFile:
    """Read a COCO file: images, annotations and categories; nothing is decoded yet.

    Raises:
        ManifestError: It cannot be read, is no COCO file of segmentations, or refers to a picture
            or a category that it does not hold.
    """
    remedy = "give a COCO file with images, annotations and categories"
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        fault = f"it cannot be read ({error.strerror or error})"
        raise ManifestError(fault, file=path, remedy="check the path") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"it is not JSON ({type(error).__name__})", file=path, remedy=remedy) from None
    try:
        categories = {item["id"]: str(item["name"]) for item in content["categories"]}
        images = {item["id"]: item for item in content["images"]}
        masks: dict[Any, list[tuple[str, Any]]] = {key: [] for key in images}
        for item in content["annotations"]:
            number, picture, category = item.get("id"), item["image_id"], item["category_id"]
            if picture not in images or category not in categories:
                fault = f"its annotation {number} is of an unknown picture or category"
                raise ManifestError(fault, file=path, remedy="export the annotations again, all of them")
            masks[picture].append((categories[category], item["segmentation"]))
        pictures = [
            CocoPicture(str(item["file_name"]), (int(item["height"]), int(item["width"])), tuple(masks[key]))
            for key, item in images.items()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fault = f"it is no COCO file of segmentations ({type(error).__name__}: {error})"
        raise ManifestError(fault, file=path, remedy=remedy) from None
    by_name = {picture.file_name: picture for picture in pictures}
    if len(by_name) < len(pictures):
        twice = next(p.file_name for p in pictures if by_name[p.file_name] is not p)
        raise ManifestError(f"it lists {twice} twice", file=path, remedy="keep one of them")
    return CocoFile(path, tuple(dict.fromkeys(categories.values())), by_name)


def decode(segmentation: Any, shape: tuple[int, int]) -> Array:
    """Mask of a segmentation, bool (rows, columns).

    Args:
        segmentation: Polygons, a list of x, y, x, y, ... each, whose union is meant; or run lengths
            with their size, as numbers or as the compressed text.
        shape: Rows and columns.

    Raises:
        ValueError: It is none of these, or not of this size.
    """
    if isinstance(segmentation, Mapping):
        if tuple(segmentation["size"]) != shape:
            raise ValueError(f"run lengths of {segmentation['size']} pixels")
        counts = segmentation["counts"]
        return run_length_mask(run_lengths(counts) if isinstance(counts, str) else counts, shape)
    mask = np.zeros(shape, bool)
    for polygon in segmentation:
        mask |= polygon_mask(polygon, shape)
    return mask


def run_length_mask(counts: Sequence[int], shape: tuple[int, int]) -> Array:
    """Mask of run lengths, which count pixels down the columns: of 0, of 1, of 0, ...

    Raises:
        ValueError: They do not fill the picture.
    """
    lengths = np.asarray(counts, dtype=np.int64)
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != shape[0] * shape[1]:
        raise ValueError("its run lengths do not fill the picture")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(shape[::-1]).T


def run_lengths(text: str) -> list[int]:
    """Run lengths of the compressed text: 5 bits a character, differences from the third on.

    Raises:
        ValueError: It ends within a number, or a number does not end.
    """
    lengths: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 0x1F) << bits
        bits += 5
        if bits > _LONGEST:
            raise ValueError("a run length is too long")
        if code & 0x20:
            continue
        if code & 0x10:  # negative
            value -= 1 << bits
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = bits = 0
    if bits:
        raise ValueError("its run lengths end early")
    return lengths


def polygon_mask(polygon: Sequence[float], shape: tuple[int, int]) -> Array:
    """Mask of a polygon x, y, x, y, ..., pixel for pixel that of COCO's reference software.

    The outline is followed in steps of a fifth of a pixel; the inside begins and ends where it
    crosses the middle of a column.

    Raises:
        ValueError: It has fewer than three corners, half of one, or one that is no number.
    """
    corners = np.asarray(polygon, dtype=np.float64)
    if corners.ndim != 1 or len(corners) % 2 or len(corners) < 6 or not np.isfinite(corners).all():
        raise ValueError("a polygon has fewer than three corners")
    if np.abs(corners).max() > 100 + 10 * max(shape):
        raise ValueError("a polygon lies far outside the picture")
    fine = (_SCALE * corners.reshape(-1, 2) + 0.5).astype(int)
    path = np.concatenate([_line(*ends) for ends in pairwise([*fine, fine[0]])])
    (x, y), (x_before, y_before) = path[1:].T, path[:-1].T
    crossed = x != x_before
    column = (np.where(x < x_before, x, x - 1)[crossed] + 0.5) / _SCALE - 0.5
    row = np.minimum(y, y_before)[crossed]
    rows, columns = shape
    within = (column == np.floor(column)) & (column >= 0) & (column <= columns - 1)
    start = np.ceil(np.clip((row[within] + 0.5) / _SCALE - 0.5, 0, rows)).astype(int)
    places = column[within].astype(int) * rows + start
    crossings = np.bincount(places, minlength=rows * columns + 1)[: rows * columns]
    return (np.cumsum(crossings) % 2 == 1).reshape(columns, rows).T


def _line(start: Array, end: Array) -> Array:
    """Points of a line in whole numbers, (N, 2), from end to end, one a step of its longer side."""
    steps = np.abs(end - start)
    longer = 0 if steps[0] >= steps[1] else 1
    # It is rounded from its lower end, whichever way it is followed.
    backwards = start[longer] > end[longer]
    low, high = (end, start) if backwards else (start, end)
    along = np.arange(steps[longer] + 1)
    slope = (high[1 - longer] - low[1 - longer]) / max(steps[longer], 1)
    points = np.empty((len(along), 2), int)
    points[:, longer] = low[longer] + along
    points[:, 1 - longer] = (low[1 - longer] + slope * along + 0.5).astype(int)
    return points[::-1] if backwards else points
