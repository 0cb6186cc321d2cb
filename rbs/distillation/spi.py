"""Semantic Prior Integration: what the teacher sees in the first restoration informs the second."""

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
    r"""Modulates a restoration by the teacher's embedding E and region masks M.

    .. math::
        h = \phi(\sqrt{I_1}), \quad c = \uparrow(W_E E) + \uparrow(W_M M), \quad (\gamma, \beta) =
        \psi(c)

    .. math::
        \mathrm{SPI}(I_1) = \big(\sqrt{I_1} + \omega(h (1 + \gamma) + \beta)\big)^2

    with convolutions :math:`\phi, \psi, \omega`, 1x1 projections :math:`W`, and bilinear upsampling
    to the image's grid. Spatial feature modulation: Wang et al., CVPR 2018 (SFT, arXiv 1804.02815)
    and Park et al., CVPR 2019 (SPADE, arXiv 1903.07291). :math:`\omega` starts at zero, so SPI
    starts as the identity. Views share the weights; the three colours of a frame are one view, and
    have no square roots (see `rbs.restorers.image_domain`).

    Args:
        embedding_dim: Channels of the teacher's embedding.
        width: Channels of the fused features.
        domain: What is restored; it says how many region masks there are, too.
    """

    def __init__(self, embedding_dim: int, width: int = 32, domain: DomainName = "roots") -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.images = DOMAINS[domain]
        channels, regions = self.images.view_channels, len(LABEL_MAPS[self.images.shows])
        self.image = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.GELU())
        self.embedding = nn.Conv2d(embedding_dim, width, 1)
        self.masks = nn.Conv2d(regions, width, 1)
        self.modulation = nn.Sequential(nn.GELU(), nn.Conv2d(width, 2 * width, 3, padding=1))
        self.out = nn.Sequential(nn.GELU(), nn.Conv2d(width, channels, 3, padding=1))
        nn.init.zeros_(self.out[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.out[1].bias)  # type: ignore[arg-type]

    def forward(self, restored: Tensor, prior: SemanticPrior) -> Tensor:
        """Fuse.

        Args:
            restored: Restored counts at standard scale, (B, V, H, W); or frames, (B, 3, H, W).
            prior: The teacher's view of the same pixels.

        Returns:
            The second restorer's input, of the same kind and shape.
        """
        height, width = restored.shape[-2:]
        with torch.autocast(restored.device.type, enabled=False):
            start = self.images.forward(self.images.views(restored.float()))
        # 1x1 convolutions and upsampling commute: projecting first upsamples `width` channels
        # instead of hundreds.
        embedding = _upsample(self.embedding(prior.embedding.flatten(0, 1)), prior.embedding_stride)
        masks = _upsample(self.masks(prior.masks.flatten(0, 1)), prior.mask_stride)
        condition = embedding[..., :height, :width] + masks[..., :height, :width]
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        delta = self.out(self.image(start / self.images.input_scale) * (1 + scale) + shift)
        with torch.autocast(restored.device.type, enabled=False):
            fused = self.images.inverse(start + delta.float())
        return fused.reshape(restored.shape)


def _upsample(x: Tensor, stride: int) -> Tensor:
    return F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
