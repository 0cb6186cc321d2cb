"""COCO files drawn by hand, and the codes of their masks, written apart from the reader."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def lengths_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask down its columns, beginning with those of 0."""
    flat = mask.T.ravel().astype(int)
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    ends = [*starts.tolist(), len(flat)]
    return np.diff([0, *ends]).tolist()


def compressed(lengths: Sequence[int]) -> str:
    """The compressed text of run lengths: differences from the third on, 5 bits a character."""
    text = ""
    for place, length in enumerate(lengths):
        value = length - (lengths[place - 2] if place > 2 else 0)
        while True:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text += chr((bits | (0x20 if more else 0)) + 48)
            if not more:
                break
    return text


def box(top: int, left: int, bottom: int, right: int) -> list[float]:
    """Polygon of the pixels top to bottom, left to right, the last ones left out."""
    return [left, top, right, top, right, bottom, left, bottom]


def write_coco(
    path: Path,
    sizes: Mapping[str, tuple[int, int]],
    masks: Sequence[tuple[str, str, Any]],
    **changes: Any,
) -> Path:
    """Write a COCO file.

    Args:
        path: The file.
        sizes: Rows and columns of each picture.
        masks: Picture, category and segmentation of each annotation.
        changes: Entries of the file to replace.
    """
    pictures, names = list(sizes), list(dict.fromkeys(category for _, category, _ in masks))
    content = {
        "images": [
            {"id": 10 + k, "file_name": name, "height": sizes[name][0], "width": sizes[name][1]}
            for k, name in enumerate(pictures)
        ],
        "categories": [{"id": 5 + k, "name": name, "supercategory": "bone"} for k, name in enumerate(names)],
        "annotations": [
            {
                "id": k,
                "image_id": 10 + pictures.index(picture),
                "category_id": 5 + names.index(category),
                "segmentation": segmentation,
                "iscrowd": int(isinstance(segmentation, dict)),
            }
            for k, (picture, category, segmentation) in enumerate(masks)
        ],
    }
    path.write_text(json.dumps(content | changes))
    return path
