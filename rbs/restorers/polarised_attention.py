r"""Distilled polarised self-attention: which channels and which pixels matter, in full polarity.

Polarised self-attention (Liu et al., arXiv 2107.00782) collapses one direction wholly and keeps the
other at high resolution. With N normalising the channels and :math:`\langle\cdot\rangle` the mean
over pixels,

.. math::
    A^c &= 2\sigma\big(N(W_z\, V \operatorname{softmax}_{\text{pixels}}(q))\big), \\
    A^s &= 2\sigma\big(\gamma\,\operatorname{softmax}_{\text{channels}}\langle Q \rangle V'\big), \\
    y &= \tfrac12 (A^c + A^s)\, x .

Distilled: q, V, Q and V' are not of x but of a student of it, half as many channels (a 1 x 1
convolution) on pixels twice as wide, which costs an eighth. Both gates start at one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PolarisedAttention(nn.Module):
    """Gates of channels and of pixels, from a small student of the features.

    Args:
        channels: Channels of the features, two or more.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        student = channels // 2
        self.student = nn.Conv2d(channels, student, 1)
        self.channel_query = nn.Conv2d(student, 1, 1)
        self.channel_value = nn.Conv2d(student, student, 1)
        self.channel_gate = nn.Linear(student, channels)
        self.norm = nn.LayerNorm(channels)
        self.pixel_query = nn.Conv2d(student, student, 1)
        self.pixel_value = nn.Conv2d(student, student, 1)
        self.gain = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        small = self.student(F.avg_pool2d(x, 2, ceil_mode=True))
        places = torch.softmax(self.channel_query(small).flatten(2), dim=2)  # (B, 1, hw)
        summed = (self.channel_value(small).flatten(2) * places).sum(dim=2)
        of_channels = 2 * torch.sigmoid(self.norm(self.channel_gate(summed)))[..., None, None]
        weights = torch.softmax(self.pixel_query(small).mean(dim=(2, 3)), dim=1)
        place = self.gain * (self.pixel_value(small) * weights[..., None, None]).sum(dim=1, keepdim=True)
        of_pixels = 2 * torch.sigmoid(
            F.interpolate(place, x.shape[-2:], mode="bilinear", align_corners=False)
        )
        return 0.5 * x * (of_channels + of_pixels)
