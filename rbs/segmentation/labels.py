"""The labelled images that a teacher learns from, and the picture of them that SAM is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from rbs.restorers.image_domain import ImageKind
from rbs.segmentation.label_map import LABEL_MAPS, LabelMap

GREY_HALF = 3.0
"""Root-counts that are drawn half-way to white."""


@dataclass(frozen=True)
class LabelledImages:
    """Images of one kind with their labels, and the picture of them that SAM is shown.

    Attributes:
        labels: Regions the teacher tells apart.
        picture: Grey or RGB values 0..255, (N, 1 or 3, h, w), of views (N, 1 or 3, h, w).
        display: Constants of `picture`, by name: a teacher is good for these alone.
        upright: True where the teacher may rely on which way is up.
        labelled_by: Part of a case that holds the labels.
        how_to_label: Remedy where that is missing.
        levels: Names, in the teacher's tables, of the two qualities of a batch, input and target.
    """

    labels: LabelMap
    picture: Callable[[Tensor], Tensor]
    display: Mapping[str, float]
    upright: bool
    labelled_by: str
    how_to_label: str
    levels: tuple[str, str]


def grey_picture(views: Tensor) -> Tensor:
    """Counts as a grey value that saturates: soft tissue and a full bladder keep their contrast.

        z = sqrt(counts + 3/8) - sqrt(3/8),    grey = 255 z / (z + GREY_HALF)

    The root evens out the Poisson noise. No constant is taken from the image itself: a crop looks
    as it does within its scan.
    """
    root = (views.clamp(min=0) + 0.375).sqrt() - math.sqrt(0.375)
    return 255 * root / (root + GREY_HALF)


def colour_picture(views: Tensor) -> Tensor:
    """Colours 0..1 as those 0..255 that SAM was made for."""
    return 255 * views.clamp(0, 1)


LABELLED: Mapping[ImageKind, LabelledImages] = {
    "scans": LabelledImages(
        labels=LABEL_MAPS["scans"],
        picture=grey_picture,
        display={"grey_half": GREY_HALF},
        upright=True,
        labelled_by="truth or label file",
        how_to_label="label the scans, or train on phantoms: --data.manifest data/phantoms/manifest.csv (see"
        " `rbs simulate`)",
        levels=("rapid", "standard"),
    ),
    "frames": LabelledImages(
        labels=LABEL_MAPS["frames"],
        picture=colour_picture,
        display={},
        upright=False,
        labelled_by="mask",
        how_to_label="give every frame of train and val a mask in the manifest, or train on drawn ones:"
        " --data.manifest data/mucosa/manifest.csv (see `rbs simulate --kind endoscopy`)",
        levels=("degraded", "clean"),
    ),
}
"""Labelled scans and frames, by kind."""
