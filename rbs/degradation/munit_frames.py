"""MUNIT-LQ of frames: content and style are decoded to blur, light, haze and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.degradation.content_style import FEATURES, STYLE_SHARE, Block, compete, discriminators, style_encoder
from rbs.degradation.frames import WHOLE, FrameDegradation, encoded, light_of
from rbs.degradation.learned import Terms

_DIRECTIONS = 4
_CAST = 0.2
"""Factor on what differs between colours: what differs between scenes would be taken for a cast."""
_LOCAL = 0.3
"""Factor on what content adds in places: what a style has everywhere is learned sooner."""
_FIELD = 5
"""Terms of the light's field: rows, columns, their squares and their product."""
_STARTS = {"gain": 0.0, "field": 0.0, "haze": -5.0, "shot": -7.0, "read": -10.0}
"""Logarithms before any training: of gains and of the field's terms, of light added, and of the
noise's variance over the light and in the dark."""
_SEEN = 8


class FrameMunit(FrameDegradation):
    r"""Transfer of style between unpaired frames after MUNIT (Huang et al., arXiv 1804.04732).

    As in `rbs.degradation.munit.Munit`, content and a style :math:`s \sim \mathcal N(0, 1)` are
    decoded not to pixels but to what is done to them: no structure is painted, though gain and haze
    may darken or veil places. In linear light l of colour c,

    .. math::
        m_c = e^{g_c + q + d}\,(k * l_c) + e^{h_c + d'_c}, \qquad
        y_c \sim \mathcal N\big(m_c,\; e^a m_c + e^b\big) ,

    which is encoded again. The kernel k is a mixture of Gaussian functions, round ones, and long
    ones in four directions; g are gains, q is a field of the second degree in the place in the
    frame, h is haze, a and b are shot and read noise. All of these are what a style has everywhere;
    d and d' are what content and style add in places, at a quarter of the pixels a side.

    Discriminators compare noisy frames, on pixels and on means of 2, 4 and 8 pixels a side: their
    colours, details, and the logarithm of the local power of details. As with scans, nothing
    translates poor frames to clean ones, and the style of what was made is reconstructed.

    Args:
        channels: Channels of content.
        blocks: Residual blocks of the content encoder, and as many of the decoder.
        style: Numbers in a style.
        widths_px: Standard deviations of round kernels, pixels, beginning with 0.
        lengths_px: Those of long kernels along their direction; across it they have half a pixel.
    """

    def __init__(
        self,
        channels: int = 16,
        blocks: int = 1,
        style: int = 8,
        widths_px: Sequence[float] = (0, 0.8, 1.6, 3.0),
        lengths_px: Sequence[float] = (2.0, 4.0),
    ) -> None:
        super().__init__()
        if min(channels, blocks, style) < 1 or not widths_px or widths_px[0] != 0:
            raise ValueError(f"{channels} channels, {blocks} blocks, {style} numbers, {widths_px} px")
        if min(*widths_px, *lengths_px, 1) < 0 or 0 in lengths_px or max(*widths_px, *lengths_px, 0) > 32:
            raise ValueError(f"kernels of {widths_px} and {lengths_px} px: positive ones up to 32 are needed")
        self.channels, self.blocks, self.style = channels, blocks, style
        self.widths_px, self.lengths_px = list(widths_px), list(lengths_px)
        self.register_buffer("bank", _kernels(self.widths_px, self.lengths_px), persistent=False)
        self.bank: Tensor
        self.content = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(3 * 4**2, channels, 3, padding=1, padding_mode="replicate"),
            *(Block(channels) for _ in range(blocks)),
        )
        self.decoder = nn.ModuleList(Block(channels, style) for _ in range(blocks))
        self.local = nn.Conv2d(channels, 4, 3, padding=1, padding_mode="replicate")
        nn.init.zeros_(self.local.weight)
        nn.init.zeros_(self.local.bias)  # type: ignore[arg-type]
        self.parts = [len(self.bank), 3, _FIELD, 3, 1, 1]
        self.common = nn.Sequential(nn.Linear(style, 64), nn.SiLU(), nn.Linear(64, sum(self.parts)))
        nn.init.normal_(self.common[-1].weight, std=0.02)  # type: ignore[arg-type]
        nn.init.zeros_(self.common[-1].bias)  # type: ignore[arg-type]
        self.style_encoder = style_encoder(_SEEN)
        self.style_head = nn.Linear(FEATURES, style)
        self.discriminators = discriminators(_SEEN)

    def expected(self, good: Tensor, style: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Light of poor frames without their noise, and the variance of that.

        Args:
            good: Frames or crops of them, (B, 3, H, W).
            style: (B, style).
            place: See `FrameDegradation.losses`.
        """
        rows, columns = good.shape[-2:]
        kernel, gain, field, haze, shot, read = (4 * self.common(style)).split(self.parts, dim=1)
        sharp = torch.zeros_like(kernel[:1])
        sharp[:, 0] = 3.0  # before any training most light stays where it is
        blurred = _convolved(light_of(good), self.bank, (kernel + sharp).softmax(dim=1))
        padded = F.pad(good, (0, -columns % 4, 0, -rows % 4), mode="replicate")
        x = self.content(2 * padded - 1)
        for block in self.decoder:
            x = block(x, style)
        local = _LOCAL * F.interpolate(self.local(x), scale_factor=4, mode="bilinear")[..., :rows, :columns]
        light = _toned(gain) + _field(field, place, (rows, columns)) + local[:, :1]
        veil = _STARTS["haze"] + _toned(haze) + local[:, 1:]
        mean = light.clamp(-7, 3).exp() * blurred + veil.clamp(-9, 0).exp()
        shot, read = (
            (_STARTS[k] + v).clamp(-18, -1).exp()[..., None, None]
            for k, v in (("shot", shot), ("read", read))
        )
        return mean, shot * mean + read

    def losses(self, good: Tensor, poor: Tensor, place: Tensor) -> Terms:
        """See `FrameDegradation.losses`."""
        style = torch.randn(len(good), self.style, device=good.device)
        mean, variance = self.expected(good, style, place)
        made = encoded(mean + variance.sqrt() * torch.randn_like(mean))
        terms = compete(self.discriminators, lambda side: _seen(poor, side), lambda side: _seen(made, side))
        found = self.style_head(self.style_encoder(_seen(made, 1)))
        terms["style"] = STYLE_SHARE * (found - style).square().mean()
        return {**terms, "total": sum(terms.values(), good.new_zeros(()))}

    def degrade(self, good: Tensor, generator: torch.Generator, field: Tensor) -> Tensor:
        """See `FrameDegradation.degrade`; all of a frame has one style."""
        style = torch.randn(len(good), self.style, generator=generator)
        mean, variance = self.expected(good, style, good.new_tensor([WHOLE] * len(good)))
        return encoded(mean + variance.sqrt() * torch.randn(mean.shape, generator=generator))


def _toned(colours: Tensor) -> Tensor:
    """Numbers of colours (B, 3), their differences reduced, (B, 3, 1, 1)."""
    mean = colours.mean(dim=1, keepdim=True)
    return (mean + _CAST * (colours - mean))[:, :, None, None]


def _kernels(widths_px: Sequence[float], lengths_px: Sequence[float]) -> Tensor:
    """Round and long Gaussian kernels of sum 1, (K, S, S), cut at 2.5 of the longest."""
    radius = math.ceil(2.5 * max(*widths_px, *lengths_px, 0.4))
    row, column = torch.meshgrid(*[torch.arange(-radius, radius + 1.0)] * 2, indexing="ij")
    axes = [(max(width, 0.05), max(width, 0.05), 0.0) for width in widths_px]
    axes += [(long, 0.5, math.pi * k / _DIRECTIONS) for long in lengths_px for k in range(_DIRECTIONS)]
    found = []
    for along, across, angle in axes:
        u = column * math.cos(angle) - row * math.sin(angle)
        v = column * math.sin(angle) + row * math.cos(angle)
        kernel = torch.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2))
        found.append(kernel / kernel.sum())
    return torch.stack(found)


def _convolved(images: Tensor, bank: Tensor, weights: Tensor) -> Tensor:
    """Images (B, C, H, W), each with its mixture (B, K) of kernels (K, S, S), edges replicated."""
    rows, columns = images.shape[-2:]
    reach = bank.shape[-1] // 2
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    size = padded.shape[-2:]
    transfer = (weights.to(torch.cfloat) @ torch.fft.rfft2(bank, s=size).flatten(1)).unflatten(
        1, (size[0], -1)
    )
    found = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer[:, None], s=size)
    return found[..., 2 * reach : 2 * reach + rows, 2 * reach : 2 * reach + columns]


def _field(terms: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
    """Fields of the second degree over crops, (B, 1, H, W); a frame reaches from -1 to 1."""
    axes = []
    for axis, length in enumerate(shape):
        share = (torch.arange(length, device=place.device) + 0.5) / length
        first, last = place[:, axis, None], place[:, 2 + axis, None]
        axes.append(2 * (first + (last - first) * share) - 1)
    row, column = axes[0][:, :, None], axes[1][:, None, :]
    planes = (row, column, row**2, column**2, row * column)
    return sum(
        (term[:, None, None] * plane for term, plane in zip(terms.T, planes, strict=True)),
        torch.zeros_like(row * column),
    )[:, None]


def _seen(frames: Tensor, side: int) -> Tensor:
    """What discriminators see of means over blocks of pixels, (B, 8, H / side, W / side).

    Colours, what differs from their local means, and the logarithm of the local power of that, of
    grey and of what differs from grey: noise of sensors is independent between colours, detail is
    not.
    """
    x = F.avg_pool2d(frames, side)
    detail = x - _local(x)
    grey = detail.mean(dim=1, keepdim=True)
    power = _local(torch.cat([grey**2, ((detail - grey) ** 2).mean(dim=1, keepdim=True)], dim=1))
    return torch.cat([2 * x - 1, 8 * detail, ((power + 1e-5).log() + 8) / 2], dim=1)


def _local(x: Tensor) -> Tensor:
    """Means over 5 x 5 pixels."""
    return F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False)
