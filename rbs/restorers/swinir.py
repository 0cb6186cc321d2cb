"""SwinIR: attention in shifted windows (Liang et al., ICCV Workshops 2021, arXiv 2108.10257)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rbs.restorers.base import Restorer
from rbs.restorers.image_domain import DomainName, reach_of_input
from rbs.restorers.spandrel_arch import architecture


class SwinIR(Restorer):
    """SwinIR with the blocks of `spandrel`.

    Published for denoising photographs: width 180, six groups of six layers with six heads.

    Args:
        width: Channels, a multiple of every number of heads.
        depths: Layers of each group of blocks.
        heads: Attention heads of each group; as many numbers as `depths`.
        window: Rows and columns of a window, pixels.
        mlp_ratio: Hidden channels of the perceptrons, in units of `width`.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity.
        domain: Name of the image domain, see `Restorer`.
        condition_channels: Channels of the condition, see `Restorer`.
        scale: Rows and columns of the restoration per row and column of the image, see `Restorer`.
    """

    def __init__(
        self,
        width: int = 32,
        depths: Sequence[int] = (2, 2, 2),
        heads: Sequence[int] = (4, 4, 4),
        window: int = 8,
        mlp_ratio: float = 2.0,
        sigma_px: float = 1.5,
        domain: DomainName = "roots",
        condition_channels: int = 0,
        scale: int = 1,
    ) -> None:
        if len(depths) != len(heads):
            raise ValueError(f"depths has {len(depths)} groups but heads {len(heads)}")
        super().__init__(
            width,
            sigma_px=sigma_px,
            multiple=window,
            domain=domain,
            condition_channels=condition_channels,
            scale=scale,
        )
        self.width, self.window, self.mlp_ratio = width, window, mlp_ratio
        self.depths, self.heads = list(depths), list(heads)
        # A window a layer, a convolution a group, and one before and after them all.
        self.reach = reach_of_input(sigma_px) + sum(depths) * (window - 1) + len(depths) + 2
        self.backbone = architecture("SwinIR").SwinIR(
            # Of a scan one window wide the blocks would not shift their windows.
            img_size=2 * window,
            in_chans=self.input_channels,
            embed_dim=width,
            depths=self.depths,
            num_heads=self.heads,
            window_size=window,
            mlp_ratio=mlp_ratio,
            drop_path_rate=0.0,
            img_range=1.0,
            upsampler="",
        )
        del self.backbone.conv_last  # `Restorer.head` takes its place

    def features(self, x: Tensor) -> Tensor:
        """Deep and shallow features, (B, input_channels, H, W) to (B, width, H, W)."""
        net = self.backbone
        shallow = net.conv_first(x)
        return net.conv_after_body(net.forward_features(shallow)) + shallow
