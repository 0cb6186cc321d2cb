"""Semantic features of whole scans on coarse pixels: what is where, for networks that ask for it.

The features are learned by describing phantom children in words (`rbs.description`); a restorer
that enlarges coarse scans may read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.image_domain import SquareRoots
from rbs.utils.checkpoint import describe, save_modules
from rbs.weights.module_file import read_module

STRIDE = 8
"""Side of a cell of the features, coarse pixels."""


class SemanticNetwork(nn.Module):
    """An encoder of residual blocks on three levels. The defaults have 0.29 M parameters.

    It reads counts as restorers do (`rbs.restorers.image_domain.SquareRoots`), in blocks of 2 x 2
    pixels laid into channels. It knows no place: features of a crop are those of the whole scan but
    near its border.

    Args:
        channels: Channels of cells of 2, 4 and 8 pixels.
        blocks: Residual blocks of each.

    Raises:
        ValueError: There are not three levels, or their numbers are out of range.

    Attributes:
        feature_channels: Channels of the features.
    """

    def __init__(self, channels: Sequence[int] = (24, 40, 64), blocks: Sequence[int] = (0, 2, 3)) -> None:
        super().__init__()
        three = len(channels) == len(blocks) == 3
        if (
            not three
            or not 1 <= min(channels) <= max(channels) <= 1024
            or not 0 <= min(blocks) <= max(blocks) <= 64
        ):
            raise ValueError(f"levels of {list(channels)} channels and {list(blocks)} blocks")
        self.channels, self.blocks = list(channels), list(blocks)
        self.feature_channels = self.channels[-1]
        self.domain = SquareRoots()
        fine, middle, coarse = self.channels
        self.stem = nn.Conv2d(4 * self.domain.input_channels, fine, 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(number)))
            for width, number in zip(self.channels, self.blocks, strict=True)
        )
        self.downs = nn.ModuleList([nn.Conv2d(fine, middle, 2, 2), nn.Conv2d(middle, coarse, 2, 2)])

    def features(self, x: Tensor, exposure: Tensor) -> Tensor:
        """Features of scans.

        Args:
            x: Counts of coarse pixels at standard scale (raw counts / exposure), (B, 2, H, W),
                aligned; a scan of one view is given twice.
            exposure: Exposure relative to the standard scan, (B,).

        Returns:
            (B, feature_channels, ceil(H / 8), ceil(W / 8)).
        """
        height, width = x.shape[-2:]
        rows, columns = ((side + STRIDE - 1) // STRIDE * STRIDE for side in (height, width))
        # Squares and square roots of counts lose the Poisson noise in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            p = exposure.float()[:, None, None, None]
            given, _ = self.domain.network_input(x.float(), p, 0.0)
        padded = F.pad(given, (0, columns - width, 0, rows - height), mode="replicate")
        y = self.stem(F.pixel_unshuffle(padded, 2))
        y = self.levels[0](y)
        for down, level in zip(self.downs, list(self.levels)[1:], strict=True):
            y = level(down(y))
        return y

    def forward(self, x: Tensor, exposure: Tensor) -> Tensor:
        """See `features`."""
        return self.features(x, exposure)

    def spec(self) -> dict[str, Any]:
        """Class path and arguments to build it again, untrained: {"class_path", "init_args"}."""
        return describe(self)


class ResidualBlock(nn.Module):
    """Normalisation of the channels, two convolutions of 3 x 3, and the input added.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        # Gradients of convolutions are computed twice as fast where channels do not lie last.
        normed = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
        return x + self.second(F.gelu(self.first(normed)))


def save_semantic_network(path: str | Path, network: SemanticNetwork, provenance: dict[str, Any]) -> None:
    """Write a network and its spec, replacing an older file whole.

    Raises:
        OutputError: The file cannot be written.
    """
    save_modules(path, {"": network}, {**network.spec(), "provenance": provenance})


def load_semantic_network(path: str | Path) -> SemanticNetwork:
    """Read a network, in evaluation mode, frozen, on the CPU.

    Raises:
        CheckpointError: The file is missing, truncated, damaged, or holds something else.
    """
    missing = "train one with `make train-describer`, or check the path"
    return read_module(path, SemanticNetwork, missing).module
