"""Dynamic snake convolution (Qi et al., ICCV 2023, arXiv 2307.08388), for thin, bent structures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Snake(nn.Module):
    r"""A convolution along rows whose samples follow a bent line.

    Sample :math:`c` of the pixel in row :math:`i` and column :math:`j` lies in column
    :math:`j + c`, and in the row

    .. math::
        i + \sum_{n=1}^{|c|} \tanh o_{\pm n}(i, j), \qquad -T/2 < c < T/2 ,

    read between rows by linear interpolation, zero outside the image: each step along the line
    may move it by one row at most, so the line has no gap. The offsets :math:`o` are a convolution
    of the same features, zero at the beginning: it starts as a straight convolution of 1 x T.

    Args:
        channels: Channels of input and output.
        taps: Samples T of a line, odd.
    """

    def __init__(self, channels: int, taps: int = 9) -> None:
        super().__init__()
        self.reach = taps // 2
        self.offsets = nn.Conv2d(channels, 2 * self.reach, 3, padding=1)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.offsets.bias)  # type: ignore[arg-type]
        self.weigh = nn.Conv2d(channels, channels, (1, taps), stride=(1, taps), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) from features of the same shape."""
        right, left = self.offsets(x).float().tanh().chunk(2, dim=1)
        left = left.cumsum(dim=1).flip(1)
        across = torch.cat([left, torch.zeros_like(left[:, :1]), right.cumsum(dim=1)], dim=1)
        height, width = x.shape[2:]
        rows = torch.arange(height, device=x.device)[:, None, None] + across.permute(0, 2, 3, 1)
        along = torch.arange(-self.reach, self.reach + 1, device=x.device)
        columns = (torch.arange(width, device=x.device)[:, None] + along).expand_as(rows)
        # Pixel n of N has its centre at (2 n + 1) / N - 1.
        lines = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
        read = F.grid_sample(x.float(), lines.flatten(2, 3), align_corners=False)
        return self.weigh(read)


class SnakeBundle(nn.Module):
    """The sum of a convolution and of snakes along rows and columns, which start with no weight.

    Args:
        straight: The convolution.
        channels: Its channels.
    """

    def __init__(self, straight: nn.Module, channels: int) -> None:
        super().__init__()
        self.straight = straight
        self.along_rows, self.along_columns = Snake(channels), Snake(channels)
        for snake in (self.along_rows, self.along_columns):
            nn.init.zeros_(snake.weigh.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) from features of the same shape."""
        columns = self.along_columns(x.transpose(2, 3)).transpose(2, 3)
        total: Tensor = self.straight(x) + self.along_rows(x) + columns
        return total
