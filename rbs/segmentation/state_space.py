"""Selective state spaces of images, and the wavelet-Mamba block made of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def selective_scan(x: Tensor, log_decay: Tensor, enter: Tensor, leave: Tensor) -> Tensor:
    r"""Answer of a linear state space whose decay, entrance and exit change along a sequence.

    .. math::
        h_t = e^{a_t} h_{t-1} + b_t x_t^\top, \qquad y_t = c_t^\top h_t, \qquad h_0 = 0,

    with the state h (N x P) of each head. All steps are computed at once, as the product with a
    triangular matrix (Dao and Gu, "Transformers are SSMs", ICML 2024, arXiv 2405.21060):

    .. math::
        y_t = \sum_{s \le t} e^{a_{s+1} + \dots + a_t} \, (c_t^\top b_s) \, x_s .

    Each exponent is summed up from s on, so none is a difference of long sums, and no power is
    above 1. Memory grows with the square of the length: it is meant for some hundred steps.

    Args:
        x: Input of each head, (..., G, T, P).
        log_decay: a <= 0, (..., G, T).
        enter: b, the same for all heads, (..., T, N).
        leave: c, likewise.

    Returns:
        y, (..., G, T, P).
    """
    steps = x.shape[-2]
    ones = torch.ones(steps, steps, dtype=torch.bool, device=x.device)
    each = log_decay[..., None].expand(*log_decay.shape, steps)
    spans = each.masked_fill(~ones.tril(-1), 0).cumsum(dim=-2)  # row t, column s
    decay = spans.masked_fill(~ones.tril(), -math.inf).exp()
    weights = (leave @ enter.transpose(-1, -2))[..., None, :, :] * decay
    return weights @ x


class SelectiveScan(nn.Module):
    """Mamba's state space of sequences: decay, entrance and exit are chosen by the input.

    The decay is one number a head and step, as in Mamba-2 (see `selective_scan`).

    Args:
        channels: Channels, a multiple of `heads`.
        heads: Heads G.
        states: Size N of their state.
    """

    def __init__(self, channels: int, heads: int = 4, states: int = 8) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels are no multiple of {heads} heads")
        self.sizes = (heads, states, states)
        self.choose = nn.Linear(channels, sum(self.sizes))
        # Memories of 1 to 20 steps, as long as the sequences of coarse levels.
        pace = torch.logspace(math.log10(0.05), 0, heads)
        self.pace = nn.Parameter(pace.expm1().log())
        self.log_rate = nn.Parameter(torch.zeros(heads))
        self.direct = nn.Parameter(torch.ones(heads))

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (..., T, C) from sequences of the same shape."""
        pace, enter, leave = self.choose(x).float().split(self.sizes, dim=-1)
        pace = F.softplus(pace + self.pace).transpose(-1, -2)  # (..., G, T)
        heads = x.float().unflatten(-1, (self.sizes[0], -1)).transpose(-2, -3)  # (..., G, T, P)
        found = selective_scan(pace[..., None] * heads, -self.log_rate.exp()[:, None] * pace, enter, leave)
        found = found + self.direct[:, None, None] * heads
        return found.transpose(-2, -3).flatten(-2)


class WaveletMamba(nn.Module):
    r"""Wavelet-Mamba block (after TopoWMamba, arXiv 2502.14363): the low band is scanned.

    The features are split by a Haar transform into a low band L and three of detail D, each of
    half the rows and columns. The low band is scanned along rows and columns in both directions,

    .. math::
        L' = W \big(\operatorname{silu}(z) \odot \sum_{d=1}^{4} S_d(u)\big), \qquad
        (u, z) = V L ,

    u after a depthwise convolution of 3 x 3; each band of detail passes a depthwise convolution.
    The inverse transform of both is added to the features; before the first step it is zero.

    Args:
        channels: Channels, a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.split = nn.Conv2d(channels, 2 * channels, 1)
        self.near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.scans = nn.ModuleList(SelectiveScan(channels) for _ in range(4))
        self.join = nn.Conv2d(channels, channels, 1)
        self.detail = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels)
        for last in (self.join, self.detail):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) from features of the same shape; rows and columns are even."""
        low, *details = haar(self.norm(x)).unbind(dim=2)
        u, gate = self.split(low).chunk(2, dim=1)
        low = self.join(F.silu(gate) * self._scanned(F.silu(self.near(u))))
        detail = self.detail(torch.cat(details, dim=1)).unflatten(1, (3, -1)).transpose(1, 2)
        return x + inverse_haar(torch.cat([low[:, :, None], detail], dim=2))

    def _scanned(self, u: Tensor) -> Tensor:
        total = torch.zeros_like(u)
        for scan, (along, backward) in zip(
            self.scans, [(3, False), (3, True), (2, False), (2, True)], strict=True
        ):
            lines = u.movedim(1, -1) if along == 3 else u.permute(0, 3, 2, 1)  # (B, lines, T, C)
            found = scan(lines.flip(2)).flip(2) if backward else scan(lines)
            total = total + (found.movedim(-1, 1) if along == 3 else found.permute(0, 3, 2, 1))
        return total


def haar(x: Tensor) -> Tensor:
    """Orthonormal Haar transform of blocks of 2 x 2 pixels.

    Args:
        x: (B, C, H, W), H and W even.

    Returns:
        (B, C, 4, H / 2, W / 2): mean (times 2), then differences of columns, of rows, of both.
    """
    blocks = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4))
    return torch.einsum("kn,bcnhw->bckhw", _haar(x), blocks)


def inverse_haar(bands: Tensor) -> Tensor:
    """Image (B, C, H, W) of the bands that `haar` makes of it."""
    return F.pixel_shuffle(torch.einsum("kn,bckhw->bcnhw", _haar(bands), bands).flatten(1, 2), 2)


def _haar(like: Tensor) -> Tensor:
    """Weights of the pixels of a block, row by row, in each band, (4, 4): its own inverse."""
    signs = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    return torch.tensor(signs, dtype=like.dtype, device=like.device) / 2
