"""MUNIT-LQ: content and style, learned against discriminators that see counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.degradation.content_style import FEATURES, STYLE_SHARE, Block, compete, discriminators, style_encoder
from rbs.degradation.learned import ScanDegradation, Terms
from rbs.restorers.image_domain import FLOOR
from rbs.utils.image_ops import gaussian

_COMMON, _LOCAL = 10.0, 0.3
"""Factors on the mixture that a style has everywhere, and on what content adds to it in places:
the first is learned sooner."""


class Munit(ScanDegradation):
    r"""Unpaired transfer of style after MUNIT (Huang et al., ECCV 2018, arXiv 1804.04732).

    A scan is content, where and how much, and style, how a camera shows it. The content of a good
    scan and a style :math:`s \sim \mathcal N(0, 1)` are decoded to a poor one. Three things differ
    from MUNIT, each because images are counts:

    * The decoder mixes Gaussian filters of the good scan,

      .. math::
          \hat\lambda(x) = \sum_k w_k(x)\,(G_{\sigma_k} \lambda)(x), \qquad
          w_k \ge 0,\; \sum_k w_k = 1,

      and the weights are what content and style decide. Counts are spread and nothing else: but
      for one factor for the whole scan, no pixel exceeds the brightest around it.
    * A discriminator compares poor scans with counts drawn from :math:`\hat\lambda`, not with
      :math:`\hat\lambda`, as in AmbientGAN (Bora et al., ICLR 2018): the expectation of a poor
      scan is never seen. Their roots, whose noise is the same everywhere, are compared on pixels
      and on sums of 2, 4 and 8 pixels a side.
    * One direction: good scans are degraded, so nothing translates poor scans to good ones, and the
      style of the counts that were drawn is reconstructed, by which styles differ.

    AdaIN takes mean and spread over the channels of a pixel, not over the image: a whole scan is
    treated as its crops are.

    Args:
        channels: Channels of content.
        blocks: Residual blocks of the content encoder, and as many of the decoder.
        style: Numbers in a style.
        widths_mm: Standard deviations of the filters, mm, beginning with 0.
    """

    def __init__(
        self,
        channels: int = 16,
        blocks: int = 1,
        style: int = 4,
        widths_mm: Sequence[float] = (0, 2.5, 4.5, 8, 16, 36),
    ) -> None:
        super().__init__()
        if min(channels, blocks, style) < 1 or not 2 <= len(widths_mm) <= 16 or widths_mm[0] != 0:
            raise ValueError(f"{channels} channels, {blocks} blocks, {style} numbers, {widths_mm} mm")
        self.channels, self.blocks, self.style = channels, blocks, style
        self.widths_mm = list(widths_mm)
        mixed = len(widths_mm)
        self.content = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * mixed, channels, 3, padding=1, padding_mode="replicate"),
            *(Block(channels) for _ in range(blocks)),
        )
        self.decoder = nn.ModuleList(Block(channels, style) for _ in range(blocks))
        self.weights = nn.Conv2d(channels, mixed, 3, padding=1, padding_mode="replicate")
        self.common = nn.Linear(style, mixed + 1)  # what a style changes everywhere
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.common.weight, std=0.2 / _COMMON)
        self.common.bias.data = torch.tensor([0.0, 3.0 / _COMMON, *[0.0] * (mixed - 1)])
        self.style_encoder = style_encoder(4)
        self.style_head = nn.Linear(FEATURES, style)
        self.discriminators = discriminators(4)

    def filters(self, good: Tensor) -> Tensor:
        """The scan and its Gaussian filters, (B, 1, H, W) to (B, K, H, W)."""
        pixel = sum(self.spacing_mm) / 2
        return torch.cat([gaussian(good, width / pixel) for width in self.widths_mm], dim=1)

    def mix(self, good: Tensor, style: Tensor) -> Tensor:
        """The expectation of a poor scan, (B, 1, H, W), of expectation and style (B, style)."""
        rows, columns = good.shape[-2:]
        filters = self.filters(F.pad(good, (0, columns % 2, 0, rows % 2), mode="replicate"))
        x = self.content((filters + FLOOR).sqrt())
        for block in self.decoder:
            x = block(x, style)
        # Levels of good and poor scans differ a little, as blur takes counts out of the body.
        gain, common = (_COMMON * self.common(style))[:, :, None, None].tensor_split([1], dim=1)
        logits = _LOCAL * self.weights(x) + common
        weights = F.interpolate(logits, scale_factor=2, mode="bilinear").softmax(dim=1)
        mixed = (weights * filters).sum(dim=1, keepdim=True)
        return (0.1 * gain).exp() * mixed[..., :rows, :columns]

    def losses(self, good: Tensor, poor: Tensor, level: Tensor) -> Terms:
        """See `ScanDegradation.losses`."""
        style = torch.randn(len(good), self.style, device=good.device)
        drawn = self.noise.expose_tensor(self.mix(good, style) * level[:, None, None, None], self.spacing_mm)
        terms = compete(
            self.discriminators,
            lambda side: _roots(poor, level, side),
            lambda side: _roots(drawn, level, side),
        )
        found = self.style_head(self.style_encoder(_roots(drawn, level, 1)))
        terms["style"] = STYLE_SHARE * (found - style).square().mean()
        return {**terms, "total": sum(terms.values(), good.new_zeros(()))}

    def degrade(self, good: Tensor, generator: torch.Generator) -> Tensor:
        """See `ScanDegradation.degrade`; both views have one style."""
        style = torch.randn(1, self.style, generator=generator)
        return self.mix(good, style.expand(len(good), -1))


def _roots(counts: Tensor, level: Tensor, side: int) -> Tensor:
    """What discriminators see of sums over blocks of pixels.

    Anscombe's roots over that of the level, their noise, local means and the logarithm of the local
    power of what is left of them, over the noise: (B, 4, H / side, W / side).
    """
    sums = F.avg_pool2d(counts, side) * side**2
    level = level[:, None, None, None] * side**2
    roots = ((sums + 0.375) / (level + 0.375)).sqrt()
    noise = 0.5 / level.sqrt()
    local = gaussian(roots, 1.5)
    power = gaussian((roots - local) ** 2, 2.0) / noise**2
    return torch.cat([roots, local, (power + 0.1).log(), noise.expand_as(roots)], dim=1)
