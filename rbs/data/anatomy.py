"""Foci and landmarks of a phantom."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rbs.errors import ManifestError

CHILD_FILE = "child.json"
"""Stands beside the truth file of a phantom."""


@dataclass(frozen=True)
class Focus:
    """A focus in a bone, hot or cold. `row` and `column` hold for both views of aligned arrays.

    Attributes:
        region: The region of the bone it sits in.
        row: Row of its centre.
        column: Column of its centre.
        fwhm_mm: Full width at half maximum before the camera blurs it, mm.
        contrast: Planar density at its centre relative to the bone; below 1 it is cold.
        kind: "hot", "cold" or "fracture" (a hot line, `fwhm_mm` wide); "" where older phantoms do
            not say.
    """

    region: str
    row: float
    column: float
    fwhm_mm: float
    contrast: float
    kind: str = ""


@dataclass(frozen=True)
class Anatomy:
    """Places in a phantom, in pixels of aligned arrays (the same in both views).

    Attributes:
        foci: Its lesions.
        landmarks: (row, column) by name ("distal femoral physis -1", ...).
    """

    foci: tuple[Focus, ...]
    landmarks: Mapping[str, tuple[float, float]]


def read_anatomy(truth: Path | None) -> Anatomy | None:
    """Read what stands beside a truth file.

    Args:
        truth: The truth file of a case, or None.

    Returns:
        None without a truth file, or where nothing stands beside it.

    Raises:
        ManifestError: The file beside it is damaged.
    """
    file = None if truth is None else truth.with_name(CHILD_FILE)
    if file is None or not file.is_file():
        return None
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        names = ("region", "row", "column", "fwhm_mm", "contrast")
        foci = tuple(
            Focus(**{name: lesion[name] for name in names}, kind=str(lesion.get("kind", "")))
            for lesion in told["lesions"]
        )
        marks = {
            name: (float(row), float(column)) for name, (row, column) in told["landmarks_row_column"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"it does not describe a phantom ({type(error).__name__}: {error})"
        remedy = "make the phantom anew, or remove the file: lesions and landmarks are then left out"
        raise ManifestError(fault, file=file, remedy=remedy) from error
    return Anatomy(foci, marks)
