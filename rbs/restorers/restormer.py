"""Restormer: channel attention at four scales (Zamir et al., CVPR 2022, arXiv 2111.09881)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rbs.restorers.base import Restorer
from rbs.restorers.image_domain import DomainName


class Restormer(Restorer):
    """Restormer as `deepinv` builds it, with the published layer normalisation of each pixel.

    MONAI's normalises each channel over the whole image instead, which would tell a crop from a
    whole scan. The defaults have 1.0 M parameters; published for photographs are width 48 and
    blocks (4, 6, 6, 8).

    Args:
        width: Channels at full resolution; they double at every level.
        blocks: Transformer blocks of each of the four levels, finest first.
        heads: Attention heads of each level.
        refinement_blocks: Blocks after the decoder, at full resolution.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity.
        domain: Name of the image domain, see `Restorer`.
        condition_channels: Channels of the condition, see `Restorer`.
    """

    def __init__(
        self,
        width: int = 16,
        blocks: Sequence[int] = (1, 1, 1, 2),
        heads: Sequence[int] = (1, 2, 4, 8),
        refinement_blocks: int = 1,
        sigma_px: float = 1.5,
        domain: DomainName = "roots",
        condition_channels: int = 0,
    ) -> None:
        if len(blocks) != 4 or len(heads) != 4:
            raise ValueError(f"blocks {blocks} and heads {heads} must name four levels each")
        super().__init__(
            2 * width, sigma_px=sigma_px, multiple=8, domain=domain, condition_channels=condition_channels
        )
        from deepinv.models import Restormer as Net

        self.width, self.refinement_blocks = width, refinement_blocks
        self.blocks, self.heads = list(blocks), list(heads)
        self.backbone = Net(
            in_channels=self.input_channels,
            dim=width,
            num_blocks=self.blocks,
            num_refinement_blocks=refinement_blocks,
            heads=self.heads,
            # Adds the embedded input to the features instead of the input to the output: the head
            # comes last.
            dual_pixel_task=True,
            pretrained=None,
        )
        self.backbone.output = nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """Refined decoder features, (B, input_channels, H, W) to (B, 2 width, H, W)."""
        return self.backbone.forward_restormer(x)
