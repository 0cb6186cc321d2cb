"""Label maps: the regions that segmenters tell apart. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbs.scans.scan import REGIONS

if TYPE_CHECKING:
    from torch import Tensor

    from rbs.restorers.image_domain import ImageKind


@dataclass(frozen=True)
class LabelMap:
    """Meaning of the numbers in a label image: k + 1 is names[k], 0 is background."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number K of regions, background not counted."""
        return len(self.names)

    def masks(self, labels: Tensor) -> Tensor:
        """Masks of the regions, bool (N, K, H, W), from labels (N, H, W)."""
        import torch

        return torch.stack([labels == k + 1 for k in range(len(self))], dim=1)


LABEL_MAPS: Mapping[ImageKind, LabelMap] = {"scans": LabelMap(REGIONS), "frames": LabelMap(("lesion",))}
"""Regions of scans and of frames."""
