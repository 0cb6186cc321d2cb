r"""Dynamic perceptual convolution: kernels mixed by what is known of a scan as a whole.

With s the context of the scan (pooled semantic features, facts of the child, exposure) and K
kernels :math:`W_k`,

.. math::
    y = x + \sum_k a_k\, W_k * x, \qquad a = \operatorname{softmax}\big(m(s) / \tau\big),

m a perceptron of one hidden layer (Chen et al., CVPR 2020, arXiv 1912.03458, whose s is pooled from
x itself). Since convolutions are linear, the kernels are mixed first and applied once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 4.0
"""Keeps the mixture even in early training, so that all kernels learn."""

_FIRST = 0.3
"""Factor on the usual size of untrained kernels: the sum starts near x."""


class DynamicConvolution(nn.Module):
    """A 3 x 3 convolution whose kernel is another for every scan, added to its input.

    Args:
        channels: Channels of the features.
        context_size: Numbers in the context of a scan.
        kernels: K.
        hidden: Hidden units of the perceptron.
    """

    def __init__(self, channels: int, context_size: int, kernels: int = 4, hidden: int = 16) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.empty(kernels, channels, channels, 3, 3))
        nn.init.normal_(self.kernels, std=_FIRST / (3 * channels**0.5))
        self.mixing = nn.Sequential(nn.Linear(context_size, hidden), nn.GELU(), nn.Linear(hidden, kernels))

    def shares(self, context: Tensor) -> Tensor:
        """Shares of the kernels, (B, K), of contexts (B, context_size)."""
        return torch.softmax(self.mixing(context) / TEMPERATURE, dim=1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, channels, H, W) and contexts (B, context_size) to features of the same shape."""
        batch, channels, height, width = x.shape
        mixed = torch.einsum("bk,koihw->boihw", self.shares(context), self.kernels)
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate").reshape(1, -1, height + 2, width + 2)
        y = F.conv2d(padded, mixed.reshape(-1, channels, 3, 3).to(x.dtype), groups=batch)
        return x + y.reshape(batch, channels, height, width)
