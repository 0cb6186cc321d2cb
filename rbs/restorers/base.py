"""What every restorer shares: Poisson physics, padding, one view or two. A family adds only a backbone."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IN_CHANNELS = 5
"""Channels a backbone sees: variance-stabilised scan and local mean of either view, and the noise level."""

LOCAL_MEAN_SIGMA_PX = 2.0
"""Width of the Gaussian that makes the local-mean channel, pixels."""

ROOT_SCALE = 2.0
"""Square roots are divided by this: scans of 0.1 to 50 counts a pixel then lie between 0.2 and 3.5."""

FLOOR = 1e-4
"""Counts added under the square root, and taken off after squaring, so that its slope is finite at zero."""


class Restorer(nn.Module, ABC):
    r"""A network from a rapid scan to the expectation of a standard one.

    Raw counts of a rapid scan are Poisson with mean :math:`p\lambda`, where :math:`\lambda` is the
    expectation of the standard scan and :math:`p` the exposure; restorers take them at standard scale,
    :math:`x = r/p`. Then

    .. math::
        s = \sqrt{x + \tfrac{3}{8p}}, \qquad \operatorname{std}(s) \approx \frac{1}{2\sqrt p}

    whatever :math:`\lambda` (Anscombe, Biometrika 1948;35:246), so the backbone sees an image of known,
    constant noise beside its local mean and that noise level. The answer is given in the same domain,
    relative to a Gaussian filter:

    .. math::
        f(x) = \Big(\sqrt{G_\sigma x + \epsilon} + \delta\Big)^2 - \epsilon ,

    with :math:`\delta` from a zero-initialised convolution: an untrained restorer *is* the Gaussian filter,
    or the identity where :math:`\sigma = 0`.

    A subclass builds its backbone after calling this constructor and implements `features`. Every argument of
    its own constructor must be kept as an attribute of the same name: `spec` reads them back.

    Args:
        feature_channels: Channels C of the feature map the backbone returns.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity.
        multiple: Heights and widths the backbone accepts are multiples of this; others are padded by
            replication.
    """

    def __init__(self, feature_channels: int, *, sigma_px: float, multiple: int = 1) -> None:
        super().__init__()
        self.feature_channels = feature_channels
        self.sigma_px = sigma_px
        self.multiple = multiple
        self.head = nn.Conv2d(feature_channels, 2, 3, padding=1, padding_mode="replicate")
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The backbone: (B, 5, H, W) to (B, feature_channels, H, W), H and W multiples of `multiple`."""

    def forward(self, x: Tensor, fraction: Tensor) -> Tensor:
        """Restore a scan.

        Args:
            x: Rapid scan at standard scale (raw counts / fraction), counts (B, V, H, W), V = 1 or 2, any H
                and W.
            fraction: Exposure p of the rapid scan relative to the standard one, (B,).

        Returns:
            Non-negative counts at standard scale, (B, V, H, W), float32.

        Raises:
            ValueError: `x` is not (B, 1 or 2, H, W), or `fraction` is not (B,).
        """
        return self.restore_with_features(x, fraction)[0]

    def restore_with_features(self, x: Tensor, fraction: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, returning also the backbone's features (B, feature_channels, H, W)."""
        if x.ndim != 4 or x.shape[1] not in (1, 2):
            raise ValueError(f"a scan must be (B, 1 or 2 views, H, W), not {tuple(x.shape)}")
        if fraction.shape != x.shape[:1]:
            raise ValueError(
                f"one fraction a scan: expected shape ({x.shape[0]},), not {tuple(fraction.shape)}"
            )
        views = x.shape[1]
        # One view is shown twice and the two answers averaged, so one set of weights serves both kinds of
        # scan.
        x = x.expand(-1, 2, -1, -1)
        height, width = x.shape[-2:]
        # Squares and square roots of counts lose the Poisson noise in bfloat16: physics stays in float32.
        with torch.autocast(x.device.type, enabled=False):
            x, p = x.float(), fraction.float()[:, None, None, None]
            channels, start = self.see(x, p)
        bottom, right = -height % self.multiple, -width % self.multiple
        padded = F.pad(channels, (0, right, 0, bottom), mode="replicate")
        # Convolutions of few channels run faster with channels last, on a CPU and under bfloat16 on a GPU.
        features = self.features(padded.contiguous(memory_format=torch.channels_last))
        features = features[..., :height, :width]
        delta = self.head(features)
        with torch.autocast(x.device.type, enabled=False):
            counts = self.answer(start, delta.float())
        if views == 1:
            counts = counts.mean(dim=1, keepdim=True)
        return counts, features

    def see(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """The domain restorers work in: square roots.

        Args:
            x: Both views at standard scale, counts (B, 2, H, W), float32.
            p: Exposure, (B, 1, 1, 1).

        Returns:
            What the backbone sees, (B, 5, H, W), and what its answer is relative to, (B, 2, H, W).
        """
        own = torch.sqrt(x + 3 / (8 * p))
        local = torch.sqrt(gaussian(x, LOCAL_MEAN_SIGMA_PX) + FLOOR)
        noise = (0.5 / torch.sqrt(p)).expand(-1, 1, *x.shape[-2:])
        channels = torch.cat([own / ROOT_SCALE, local / ROOT_SCALE, noise], dim=1)
        return channels, torch.sqrt(gaussian(x, self.sigma_px) + FLOOR)

    def answer(self, start: Tensor, delta: Tensor) -> Tensor:
        """Counts (B, 2, H, W), not negative, from the second of `see` and what the network adds to it."""
        return ((start + delta) ** 2 - FLOOR).clamp(min=0)

    def spec(self) -> dict[str, Any]:
        """How to build this restorer again, untrained: {"class_path": ..., "init_args": {...}}."""
        return describe(self)


def describe(thing: Any) -> dict[str, Any]:
    """Class path and arguments of an object that keeps each constructor argument under its own name."""
    cls = type(thing)
    names = list(inspect.signature(cls.__init__).parameters)[1:]
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {n: getattr(thing, n) for n in names},
    }


def gaussian(x: Tensor, sigma_px: float) -> Tensor:
    """Gaussian filter of (B, V, H, W), cut at four sigma, edges replicated (SciPy's mode "nearest")."""
    if sigma_px == 0:
        return x
    radius = int(4 * sigma_px + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    flat = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.reshape(x.shape)
