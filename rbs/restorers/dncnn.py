"""DnCNN: a stack of convolutions (Zhang et al., IEEE TIP 2017;26:3142), as `deepinv` builds it."""

from __future__ import annotations

from torch import Tensor

from rbs.restorers.base import Restorer
from rbs.restorers.image_domain import DomainName, reach_of_input


class DnCNN(Restorer):
    """DnCNN without batch normalisation; the restorer's head is its last layer.

    Args:
        depth: Convolutions, the head included; at least 2.
        width: Channels of the hidden layers.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity.
        domain: Name of the image domain, see `Restorer`.
        condition_channels: Channels of the condition, see `Restorer`.
    """

    def __init__(
        self,
        depth: int = 12,
        width: int = 48,
        sigma_px: float = 1.5,
        domain: DomainName = "roots",
        condition_channels: int = 0,
    ) -> None:
        if depth < 2:
            raise ValueError(f"a DnCNN needs at least 2 layers, not {depth}")
        super().__init__(width, sigma_px=sigma_px, domain=domain, condition_channels=condition_channels)
        from deepinv.models import DnCNN as Net

        self.depth, self.width = depth, width
        self.reach = reach_of_input(sigma_px) + depth
        self.backbone = Net(self.input_channels, self.input_channels, depth=depth, nf=width, pretrained=None)
        # Its own last layer adds to the input image; `Restorer.head` takes its place.
        del self.backbone.out_conv

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, (B, input_channels, H, W) to (B, width, H, W)."""
        x = self.backbone.nl_list[0](self.backbone.in_conv(x))
        for convolve, activate in zip(self.backbone.conv_list, self.backbone.nl_list[1:], strict=True):
            x = activate(convolve(x))
        return x
