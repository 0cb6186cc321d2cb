"""U-Net (Ronneberger et al., MICCAI 2015, arXiv 1505.04597), as `deepinv` builds it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rbs.restorers.base import Restorer
from rbs.restorers.image_domain import DomainName, reach_of_input


class UNet(Restorer):
    """U-Net without batch normalisation: a restoration must not depend on the rest of the batch.

    Args:
        channels: Channels of each level, finest first; at least two levels.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity.
        domain: Name of the image domain, see `Restorer`.
        condition_channels: Channels of the condition, see `Restorer`.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        sigma_px: float = 1.5,
        domain: DomainName = "roots",
        condition_channels: int = 0,
    ) -> None:
        super().__init__(
            channels[0],
            sigma_px=sigma_px,
            multiple=2 ** (len(channels) - 1),
            domain=domain,
            condition_channels=condition_channels,
        )
        from deepinv.models import UNet as Net

        self.channels = list(channels)
        # Two convolutions of 3 x 3 on the way down; three and an interpolation on the way up.
        self.reach = reach_of_input(sigma_px) + sum(6 * 2**level for level in range(len(channels)))
        self.backbone = Net(
            in_channels=self.input_channels,
            out_channels=channels[0],
            residual=False,
            batch_norm=False,
            channels_per_scale=self.channels,
        )

    def features(self, x: Tensor) -> Tensor:
        """Decoder features, (B, input_channels, H, W) to (B, channels[0], H, W)."""
        return self.backbone(x)
