r"""Transfer: features of a semantic network enter a restorer beside the scan.

.. math::
    c = \uparrow_8 (W S), \qquad h_0 = w * [\mathrm{in}(x), c]

S are features of cells of 8 x 8 pixels, W a 1 x 1 convolution to few channels, the arrow bilinear
interpolation. So the first convolution of the restorer, and all after it, read them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.semantic_features import STRIDE


class SemanticTransfer(nn.Module):
    """Semantic features on the pixels of the scan.

    Args:
        semantic_channels: Channels of the features.
        width: Channels they are projected to.
    """

    def __init__(self, semantic_channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(semantic_channels, width, 1)

    def forward(self, semantic: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (B, C, h, w) of cells to (B, width, H, W).

        Args:
            semantic: Of the scan.
            size: Rows H and columns W of the scan.
        """
        projected = self.project(semantic)
        larger = F.interpolate(projected, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        return larger[..., : size[0], : size[1]]
