"""The semantic prior: image embedding and region masks that the teacher gives of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rbs.restorers.image_domain import Domain
from rbs.segmentation.label_map import LABEL_MAPS


@dataclass(frozen=True)
class SemanticPrior:
    """Image embedding and region masks of a batch of aligned scans, or of frames (one view).

    Both are grids that lie on the scan: cell (i, j) of the embedding covers the scan pixels from
    (i, j) * embedding_stride to (i + 1, j + 1) * embedding_stride, and so for the masks. Where the
    scan is no multiple of a stride, the last cells overhang its edge.

    Attributes:
        embedding: Image embedding, (B, V, C, h, w).
        masks: Probabilities of the regions in the order of the label map, (B, V, K, hm, wm); the
            rest of 1 is background.
        embedding_stride: Side of an embedding cell, scan pixels.
        mask_stride: Side of a mask cell, scan pixels.
    """

    embedding: Tensor
    masks: Tensor
    embedding_stride: int
    mask_stride: int

    def crop(self, top: int, left: int, height: int, width: int) -> SemanticPrior:
        """The prior of scan[..., top : top + height, left : left + width].

        Raises:
            ValueError: `top` or `left` does not lie on the embedding's grid.
        """
        if top % self.embedding_stride or left % self.embedding_stride:
            raise ValueError(
                f"crop at ({top}, {left}) is off the embedding's grid of {self.embedding_stride} pixels"
            )
        return replace(
            self,
            embedding=_cut(self.embedding, self.embedding_stride, top, left, height, width),
            masks=_cut(self.masks, self.mask_stride, top, left, height, width),
        )

    def flip(self, left_right: bool, up_down: bool) -> SemanticPrior:
        """The prior of the mirrored scan. Exact where the scan is a multiple of the strides."""
        dims = [dim for dim, wanted in ((-1, left_right), (-2, up_down)) if wanted]
        return replace(self, embedding=self.embedding.flip(dims), masks=self.masks.flip(dims))

    @staticmethod
    def of_labels(labels: Tensor, images: Domain) -> SemanticPrior:
        """A prior of masks alone, 0 or 1, one cell a pixel, without an embedding.

        Args:
            labels: k + 1 for region k, 0 for background, (B, V, H, W).
            images: Domain of what is labelled.
        """
        regions = len(LABEL_MAPS[images.shows])
        masks = F.one_hot(labels.long(), regions + 1)[..., 1:].movedim(-1, 2).float()
        return SemanticPrior(masks[:, :, :0], masks, 1, 1)

    def rounded(self) -> SemanticPrior:
        """The prior as files keep it: a half-precision embedding, masks in 255ths, uint8."""
        masks = (self.masks.detach() * 255).round().to(torch.uint8)
        return replace(self, embedding=self.embedding.detach().half(), masks=masks)

    def decoded(self) -> SemanticPrior:
        """The prior in single precision, be it rounded or not."""
        steps = 255 if self.masks.dtype == torch.uint8 else 1
        return replace(self, embedding=self.embedding.float(), masks=self.masks.float() / steps)

    def to(self, device: torch.device | str) -> SemanticPrior:
        """The prior on another device."""
        return replace(self, embedding=self.embedding.to(device), masks=self.masks.to(device))

    @staticmethod
    def cat(priors: Sequence[SemanticPrior]) -> SemanticPrior:
        """Batches of equal shape joined along B."""
        return replace(
            priors[0],
            embedding=torch.cat([prior.embedding for prior in priors]),
            masks=torch.cat([prior.masks for prior in priors]),
        )


def _cut(grid: Tensor, stride: int, top: int, left: int, height: int, width: int) -> Tensor:
    rows = slice(top // stride, -(-(top + height) // stride))
    columns = slice(left // stride, -(-(left + width) // stride))
    return grid[..., rows, columns]
