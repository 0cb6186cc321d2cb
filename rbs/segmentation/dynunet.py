"""DynUNet, the network of nnU-Net (Isensee et al., Nature Methods 2021), as MONAI builds it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rbs.restorers.image_domain import DomainName
from rbs.segmentation.segmenter import EncoderDecoder


class DynUNet(EncoderDecoder):
    """U-Net with instance normalisation. The defaults have 0.41 M parameters.

    Args:
        filters: Channels of each level, finest first; at least four levels.
        patch: Side of the blocks of pixels that are laid into channels, see `EncoderDecoder`.
        domain: Name of the image domain.
    """

    def __init__(
        self,
        filters: Sequence[int] = (16, 24, 32, 48, 56, 56),
        patch: int = 2,
        domain: DomainName = "roots",
    ) -> None:
        super().__init__(filters, patch=patch, domain=domain)
        from monai.networks.nets import DynUNet as Net  # monai takes seconds to import

        self.filters = list(filters)
        halvings = [2] * (len(filters) - 1)
        self.backbone = Net(
            spatial_dims=2,
            in_channels=self.input_channels,
            out_channels=1,
            kernel_size=[3] * len(filters),
            strides=[1, *halvings],
            upsample_kernel_size=halvings,
            filters=self.filters,
        )
        # `head` takes its place, and an unused parameter would stop distributed training.
        del self.backbone.output_block
        # MONAI registers every block a second time here; weight files would hold it twice.
        del self.backbone.skip_layers

    def decode(self, x: Tensor) -> list[Tensor]:
        """See `EncoderDecoder.decode`."""
        *skips, coarsest = self.encoder_levels(x)
        levels = [coarsest]
        for up, skip in zip(self.backbone.upsamples, reversed(skips), strict=True):
            levels.append(up(levels[-1], skip))
        return levels

    def encoder_levels(self, x: Tensor) -> list[Tensor]:
        """Features of the encoder levels, finest first; argument as of `decode`."""
        levels = [self.backbone.input_block(x)]
        for down in (*self.backbone.downsamples, self.backbone.bottleneck):
            levels.append(down(levels[-1]))
        return levels
