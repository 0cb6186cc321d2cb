"""Semantic Prior Integration: the second restorer is told which region each pixel belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.segmentation.label_map import LABEL_MAPS

if TYPE_CHECKING:
    from rbs.segmentation.prior import SemanticPrior


class SPI(nn.Module):
    r"""Turns region masks M and embedding E of a prior into the condition of the second restorer.

    .. math::
        c = \big[\uparrow\! M_{11}, \dots, \uparrow\! M_{1K}, \uparrow\!(W_E E_1), \dots,
        \uparrow\! M_{VK}, \uparrow\!(W_E E_V)\big], \qquad
        h_0 = w * [\mathrm{in}(x), c] = w_x * \mathrm{in}(x) + w_c * c

    Every region of every view is a channel of its own, at the scan's own resolution; the embedding
    is projected to `width` channels a view by a 1x1 convolution :math:`W_E`. The channels join the
    input of the restorer's backbone, whose first convolution therefore adds a learned function of
    the prior to its first features :math:`h_0`: features are conditioned at their entrance. Their
    weights :math:`w_c` start at zero (`Restorer.start_from`), so the restorer starts as the one
    without a prior, and their gradient is not zero: it reaches :math:`w_c` in the first step and
    :math:`W_E` in the second.

    The two views of a scan are one condition, as they are one input; a single view is given twice.
    A frame is one view.

    Args:
        embedding_dim: Channels of the prior's embedding; 0 leaves it out: masks alone.
        width: Channels to which the embedding of a view is projected.
        domain: What is restored; it says how many region masks there are.

    Attributes:
        channels: Channels of the condition.
    """

    def __init__(self, embedding_dim: int, width: int = 8, domain: DomainName = "roots") -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        images = DOMAINS[domain]
        self.views = images.channels // images.view_channels
        self.embedding = nn.Conv2d(embedding_dim, width, 1) if embedding_dim else None
        self.channels = self.views * (len(LABEL_MAPS[images.shows]) + (width if embedding_dim else 0))

    def forward(self, prior: SemanticPrior, size: tuple[int, int]) -> Tensor:
        """The condition, (B, channels, H, W).

        Args:
            prior: Of the pixels that are restored.
            size: Rows H and columns W of those.
        """
        parts = [_on_pixels(prior.masks, prior.mask_stride, size)]
        if self.embedding is not None:
            # Projection and upsampling commute: a few channels are upsampled instead of hundreds.
            projected = self.embedding(prior.embedding.flatten(0, 1)).unflatten(0, prior.embedding.shape[:2])
            parts.append(_on_pixels(projected, prior.embedding_stride, size))
        condition = torch.cat(parts, dim=2)
        return condition.expand(-1, self.views, -1, -1, -1).flatten(1, 2)


def _on_pixels(grid: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Cells (B, V, C, h, w) of that many pixels on the grid of pixels, (B, V, C, H, W)."""
    if stride > 1:
        larger = F.interpolate(grid.flatten(0, 1), scale_factor=stride, mode="bilinear", align_corners=False)
        grid = larger.unflatten(0, grid.shape[:2])
    return grid[..., : size[0], : size[1]]
