"""DynUNet with wavelet-Mamba blocks and snake convolutions, after TopoWMamba (arXiv 2502.14363)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rbs.restorers.image_domain import DomainName
from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.snake import SnakeBundle
from rbs.segmentation.state_space import WaveletMamba

_SNAKES = 2
"""Finest decoder levels with snake convolutions."""


class TopoWMamba(DynUNet):
    """DynUNet that scans its encoder levels and follows thin structures in its decoder.

    A wavelet-Mamba block follows each encoder level but the finest. In the two finest decoder
    levels snake convolutions are added to the second convolution. Both add nothing before the first
    step, so it starts as a `DynUNet`. The defaults have 0.49 M parameters.

    Args:
        filters: See `DynUNet`; multiples of 4.
        wavelets: With wavelet-Mamba blocks.
        snakes: With snake convolutions.
        patch: See `DynUNet`.
        domain: Name of the image domain.
    """

    def __init__(
        self,
        filters: Sequence[int] = (16, 24, 32, 48, 56, 56),
        wavelets: bool = True,
        snakes: bool = True,
        patch: int = 2,
        domain: DomainName = "roots",
    ) -> None:
        super().__init__(filters, patch, domain)
        self.wavelets, self.snakes = wavelets, snakes
        self.scans = nn.ModuleList(
            WaveletMamba(channels) if wavelets else nn.Identity() for channels in self.filters[1:]
        )
        if wavelets:
            self.multiple *= 2  # the coarsest level is halved once more
        if snakes:
            for up, channels in zip(reversed(self.backbone.upsamples), self.filters[:_SNAKES], strict=False):
                up.conv_block.conv2 = SnakeBundle(up.conv_block.conv2, channels)

    def encoder_levels(self, x: Tensor) -> list[Tensor]:
        """See `DynUNet.encoder_levels`."""
        levels = [self.backbone.input_block(x)]
        downs = (*self.backbone.downsamples, self.backbone.bottleneck)
        for down, scan in zip(downs, self.scans, strict=True):
            levels.append(scan(down(levels[-1])))
        return levels
