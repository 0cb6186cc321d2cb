"""Parts of MUNIT that scans and frames share: blocks of content and style, discriminators."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

SIDES = (1, 2, 4, 8)
"""Pixels a side whose sums or means a discriminator sees."""

FEATURES = 64

STYLE_SHARE = 0.5
"""Weight of the style's reconstruction beside the discriminators."""


def features(channels: int) -> nn.Sequential:
    """Three convolutions, each of which halves rows and columns, to `FEATURES` channels."""
    widths = (channels, 16, 32, FEATURES)
    layers: list[nn.Module] = []
    for first, second in pairwise(widths):
        layers += [nn.Conv2d(first, second, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def style_encoder(channels: int) -> nn.Sequential:
    """Features of a whole image, (B, FEATURES)."""
    return nn.Sequential(features(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def discriminators(channels: int) -> nn.ModuleDict:
    """A discriminator for each of `SIDES`, which judges patches."""
    return nn.ModuleDict(
        {str(side): nn.Sequential(features(channels), nn.Conv2d(FEATURES, 1, 1)) for side in SIDES}
    )


def compete(
    networks: nn.ModuleDict, true: Callable[[int], Tensor], made: Callable[[int], Tensor]
) -> dict[str, Tensor]:
    """Least-squares losses of a generator, "adversarial", and of its discriminators.

    Neither moves the weights of the other.

    Args:
        networks: Of `discriminators`.
        true: What a discriminator sees of poor images, for each of `SIDES`.
        made: The same of degraded images.
    """
    terms: dict[str, Any] = {"adversarial": 0.0, "discrimination": 0.0}
    for side, network in networks.items():
        real, drawn = true(int(side)), made(int(side))
        terms["discrimination"] += (network(real) - 1).square().mean()
        terms["discrimination"] += network(drawn.detach()).square().mean()
        frozen = {name: weight.detach() for name, weight in network.named_parameters()}
        terms["adversarial"] += (functional_call(network, frozen, drawn) - 1).square().mean()
    return terms


class Block(nn.Module):
    """Residual block of two convolutions, each before an adaptive normalisation where styled."""

    def __init__(self, channels: int, style: int = 0) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate") for _ in range(2)
        )
        self.affine = nn.Linear(style, 4 * channels) if style else None

    def forward(self, x: Tensor, *style: Tensor) -> Tensor:
        """Features (B, channels, H, W), changed by those of a style (B, style) where styled."""
        affine: Any = (None, None, None, None)
        if self.affine is not None:
            affine = self.affine(style[0])[:, :, None, None].chunk(4, dim=1)
        y = x
        for place, convolution in enumerate(self.convolutions):
            y = normalised(convolution(y), *affine[2 * place : 2 * place + 2])
            y = F.silu(y) if place == 0 else y
        return x + y


def normalised(x: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    """Normalise over channels; with a gain and a shift of each, as AdaIN does over the image."""
    y = (x - x.mean(dim=1, keepdim=True)) / (x.var(dim=1, keepdim=True) + 1e-4).sqrt()
    return y if gain is None or shift is None else y * (1 + gain) + shift
