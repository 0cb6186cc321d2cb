"""Semantic Prior Integration: what the teacher sees in the first restoration informs the second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.base import FLOOR, ROOT_SCALE

if TYPE_CHECKING:
    from rbs.teacher.prior import SemanticPrior


class SPI(nn.Module):
    r"""Fuses restored counts with the teacher's embedding E and region masks M by feature-wise modulation.

    .. math::
        h = \phi(\sqrt{I_1}), \quad c = \uparrow(W_E E) + \uparrow(W_M M), \quad (\gamma, \beta) = \psi(c)

    .. math::
        \mathrm{SPI}(I_1) = \big(\sqrt{I_1} + \omega(h (1 + \gamma) + \beta)\big)^2

    with convolutions :math:`\phi, \psi, \omega`, 1x1 projections :math:`W`, and bilinear upsampling to the
    scan's grid. Spatial feature modulation: Wang et al., CVPR 2018 (SFT, arXiv 1804.02815) and Park et al.,
    CVPR 2019 (SPADE, arXiv 1903.07291). :math:`\omega` starts at zero, so SPI starts as the identity. Views
    share the weights.

    Args:
        embedding_dim: Channels of the teacher's embedding.
        regions: Region masks K.
        width: Channels of the fused features.
    """

    def __init__(self, embedding_dim: int, regions: int = 9, width: int = 32) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.image = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.GELU())
        self.embedding = nn.Conv2d(embedding_dim, width, 1)
        self.masks = nn.Conv2d(regions, width, 1)
        self.modulation = nn.Sequential(nn.GELU(), nn.Conv2d(width, 2 * width, 3, padding=1))
        self.out = nn.Sequential(nn.GELU(), nn.Conv2d(width, 1, 3, padding=1))
        nn.init.zeros_(self.out[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.out[1].bias)  # type: ignore[arg-type]

    def forward(self, counts: Tensor, prior: SemanticPrior) -> Tensor:
        """Fuse.

        Args:
            counts: Restored counts at standard scale, (B, V, H, W).
            prior: The teacher's view of the same pixels.

        Returns:
            Non-negative counts (B, V, H, W), the second restorer's input.
        """
        batch, views, height, width = counts.shape
        with torch.autocast(counts.device.type, enabled=False):
            root = torch.sqrt(counts.float().reshape(batch * views, 1, height, width) + FLOOR)
        # 1x1 convolutions and upsampling commute: projecting first upsamples `width` channels instead of
        # hundreds.
        embedding = _upsample(self.embedding(prior.embedding.flatten(0, 1)), prior.embedding_stride)
        masks = _upsample(self.masks(prior.masks.flatten(0, 1)), prior.mask_stride)
        condition = embedding[..., :height, :width] + masks[..., :height, :width]
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        delta = self.out(self.image(root / ROOT_SCALE) * (1 + scale) + shift)
        with torch.autocast(counts.device.type, enabled=False):
            fused = ((root + delta.float()) ** 2 - FLOOR).clamp(min=0)
        return fused.reshape(counts.shape)


def _upsample(x: Tensor, stride: int) -> Tensor:
    return F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
