"""Label maps, and the labelled images that a segmenter learns from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rbs.restorers.image_domain import ImageKind
from rbs.scans.scan import REGIONS

GREY_HALF = 3.0
"""Root-counts that are drawn half-way to white."""


@dataclass(frozen=True)
class LabelMap:
    """Meaning of the numbers in a label image: k + 1 is names[k], 0 is background.

    Attributes:
        names: Names of the regions.
    """

    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number K of regions, background not counted."""
        return len(self.names)

    def masks(self, labels: Tensor) -> Tensor:
        """Masks of the regions, bool (N, K, H, W), from labels (N, H, W)."""
        return torch.stack([labels == k + 1 for k in range(len(self))], dim=1)


class LabelledImages(ABC):
    """Images of one kind: their labels, and the picture of them that SAM is shown.

    Attributes:
        labels: Regions the teacher tells apart.
        upright: True where the teacher may rely on which way is up.
        labelled_by: Part of a case that holds the labels.
        how_to_label: Remedy where that is missing.
        levels: Names, in the teacher's tables, of the two qualities of a batch, input and target.
        display: Constants of `picture`, by name: a teacher is good for these alone.
    """

    labels: ClassVar[LabelMap]
    upright: ClassVar[bool]
    labelled_by: ClassVar[str]
    how_to_label: ClassVar[str]
    levels: ClassVar[tuple[str, str]]
    display: ClassVar[Mapping[str, float]]

    @abstractmethod
    def picture(self, views: Tensor) -> Tensor:
        """Grey or RGB values 0..255, (N, 1 or 3, h, w), of views (N, 1 or 3, h, w)."""


class LabelledScans(LabelledImages):
    """Scans at standard scale with the regions of the skeleton."""

    labels = LabelMap(REGIONS)
    upright = True
    labelled_by = "truth file"
    how_to_label = "adapt it on phantoms: --data.manifest data/phantoms/manifest.csv (see `rbs phantom`)"
    levels = ("rapid", "standard")
    display: ClassVar[Mapping[str, float]] = {"grey_half": GREY_HALF}

    def picture(self, views: Tensor) -> Tensor:
        """See `LabelledImages.picture`: a grey value that saturates.

        Soft tissue and a full bladder both keep their contrast:

            z = sqrt(counts + 3/8) - sqrt(3/8),    grey = 255 z / (z + GREY_HALF)

        The root evens out the Poisson noise. No constant is taken from the image itself: a crop
        looks as it does within its scan.
        """
        root = (views.clamp(min=0) + 0.375).sqrt() - math.sqrt(0.375)
        return 255 * root / (root + GREY_HALF)


class LabelledFrames(LabelledImages):
    """Colour frames with the mask of a lesion."""

    labels = LabelMap(("lesion",))
    upright = False
    labelled_by = "mask"
    how_to_label = (
        "give every frame of train and val a mask in the manifest, or adapt it on drawn ones:"
        " --data.manifest data/mucosa/manifest.csv (see `rbs mucosa`)"
    )
    levels = ("degraded", "clean")
    display: ClassVar[Mapping[str, float]] = {}

    def picture(self, views: Tensor) -> Tensor:
        """See `LabelledImages.picture`: the colours, as in the images SAM was made for."""
        return 255 * views.clamp(0, 1)


LABELLED: Mapping[ImageKind, LabelledImages] = {"scans": LabelledScans(), "frames": LabelledFrames()}
