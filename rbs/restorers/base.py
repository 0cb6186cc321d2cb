"""What every restorer shares: its domain's physics, padding, one view or two. A family adds a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.utils.checkpoint import describe


class Restorer(nn.Module, ABC):
    r"""A network from a rapid scan to the expectation of a standard one, or from a poor frame to a good one.

    Which of them, and on what scale it sees and answers, is its domain
    (`rbs.restorers.image_domain`). Its answer is relative to a Gaussian filter of the image,

    .. math::
        f(x) = t^{-1}\big(t(G_\sigma x) + \delta\big) ,

    :math:`t` being the square root for counts and nothing at all for colours, with :math:`\delta`
        from a
    zero-initialised convolution: an untrained restorer *is* the Gaussian filter, or the identity
    where
    :math:`\sigma = 0` and for colours.

    A subclass builds its backbone, of `seen_channels`, after calling this constructor and
    implements `features`. Every argument of its own constructor must be kept as an attribute of the
    same name: `spec` reads them back.

    Args:
        feature_channels: Channels C of the feature map the backbone returns.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity,
            as colours always do.
        multiple: Heights and widths the backbone accepts are multiples of this; others are padded
            by replication.
        domain: What it restores: "roots" and "counts" are scans, "colours" are frames.

    Attributes:
        images: The domain.
        seen_channels: Channels the backbone is given: 5 of a scan, 6 of a frame.
    """

    def __init__(
        self, feature_channels: int, *, sigma_px: float, multiple: int = 1, domain: DomainName = "roots"
    ) -> None:
        super().__init__()
        self.feature_channels = feature_channels
        self.sigma_px = sigma_px
        self.multiple = multiple
        self.domain: DomainName = domain
        self.images = DOMAINS[domain]
        self.seen_channels = self.images.seen_channels
        self.head = nn.Conv2d(feature_channels, self.images.channels, 3, padding=1, padding_mode="replicate")
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The backbone: (B, seen_channels, H, W) to (B, feature_channels, H, W), multiples of `multiple`."""

    def forward(self, x: Tensor, exposure: Tensor) -> Tensor:
        """Restore an image.

        Args:
            x: Rapid scan at standard scale (raw counts / exposure), counts (B, V, H, W), V = 1 or
                2; or frames, sRGB values 0..1, (B, 3, H, W). Any H and W.
            exposure: Exposure p of the rapid scan relative to the standard one, (B,); of a frame 1.

        Returns:
            Non-negative counts at standard scale, or sRGB values 0..1, of the shape of `x`,
            float32.

        Raises:
            ValueError: `x` is no image of the domain, or `exposure` is not (B,).
        """
        return self.restore_with_features(x, exposure)[0]

    def restore_with_features(self, x: Tensor, exposure: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, returning also the backbone's features (B, feature_channels, H, W)."""
        if not self.images.fits(x):
            raise ValueError(f"{self.images.shows} must be {self.images.shape}, not {tuple(x.shape)}")
        if exposure.shape != x.shape[:1]:
            raise ValueError(
                f"one exposure an image: expected shape ({x.shape[0]},), not {tuple(exposure.shape)}"
            )
        channels, height, width = x.shape[1:]
        # One view is shown twice and the two answers averaged, so one set of weights serves both
        # kinds of scan.
        x = x.expand(-1, self.images.channels, -1, -1)
        # Squares and square roots of counts lose the Poisson noise in bfloat16: physics stays in
        # float32.
        with torch.autocast(x.device.type, enabled=False):
            x, p = x.float(), exposure.float()[:, None, None, None]
            seen, start = self.images.see(x, p, self.sigma_px)
        bottom, right = -height % self.multiple, -width % self.multiple
        padded = F.pad(seen, (0, right, 0, bottom), mode="replicate")
        # Convolutions of few channels run faster with channels last, on a CPU and under bfloat16 on
        # a GPU.
        features = self.features(padded.contiguous(memory_format=torch.channels_last))
        features = features[..., :height, :width]
        delta = self.head(features)
        with torch.autocast(x.device.type, enabled=False):
            restored = self.images.answer(start, delta.float())
        if channels < self.images.channels:
            restored = restored.mean(dim=1, keepdim=True)
        return restored, features

    def spec(self) -> dict[str, Any]:
        """How to build this restorer again, untrained: {"class_path": ..., "init_args": {...}}."""
        return describe(self)
