"""The hint of image reconstruction for one-shot segmentation (OS-MedSeg, arXiv 2408.03616).

A teacher of the student's architecture learns to reconstruct scans, for which it needs no labels.
The student's features of the last two decoder levels are drawn to the direction of the teacher's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rbs.segmentation.segmenter import EncoderDecoder

HINTED = 2
"""Decoder levels that are compared, the finest."""

HIDDEN = 0.25
"""Share of the blocks that the teacher has to reconstruct without seeing them."""

BLOCK = 8
"""Side of a block, pixels."""


class ReconstructionTeacher(nn.Module):
    """A network that reconstructs the hidden blocks of a scan.

    The scan is reconstructed as the square roots of its raw counts, whose noise is the same
    everywhere. A pixel that is hidden shares no noise with those that are seen, so the teacher
    learns expectations.

    Args:
        student: The network it has the architecture and first weights of. Where both begin alike,
            their features can agree.
    """

    def __init__(self, student: EncoderDecoder) -> None:
        super().__init__()
        self.network = copy.deepcopy(student)
        # Another head takes its place.
        self.network.head.requires_grad_(False)
        channels = self.network.head.in_channels
        self.head = nn.Conv2d(channels, student.views * student.patch**2, 1)

    def forward(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Loss of the reconstruction, a scalar, and the features of the decoder levels.

        Args:
            x: Scans at standard scale, counts (B, 2, H, W).
            exposure: Exposure relative to the standard scan, (B,).
            spacing_mm: Row and column spacing, mm, (B, 2).
        """
        height, width = x.shape[-2:]
        hidden = hidden_blocks(x, HIDDEN, BLOCK)
        _, features = self.network.logits_with_features(x * ~hidden, exposure, spacing_mm)
        drawn = F.pixel_shuffle(self.head(features[-1]).float(), self.network.patch)
        roots = (x * exposure[:, None, None, None]).clamp(min=0).sqrt()
        errors = (drawn[..., :height, :width] - roots).square() * hidden
        return errors.sum() / (hidden.sum() * x.shape[1]).clamp(min=1), features


def hidden_blocks(x: Tensor, share: float, block: int) -> Tensor:
    """Pixels of blocks drawn at random, bool (B, 1, H, W).

    Args:
        x: Scans, (B, V, H, W).
        share: Share of the blocks that are drawn.
        block: Side of a block, pixels.
    """
    rows, columns = (-(-size // block) for size in x.shape[-2:])
    blocks = torch.rand(len(x), 1, rows, columns, device=x.device) < share
    pixels = blocks.repeat_interleave(block, 2).repeat_interleave(block, 3)
    return pixels[..., : x.shape[2], : x.shape[3]]


def hint(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over the last levels of one minus the cosine of both features, averaged over pixels.

    The gradient is of the student: the teacher learns from reconstruction alone.

    Args:
        student: Features of the decoder levels (B, C, h, w), coarsest first.
        teacher: Likewise.
    """
    levels = zip(student[-HINTED:], teacher[-HINTED:], strict=True)
    terms = [1 - F.cosine_similarity(s.float(), t.detach().float(), dim=1).mean() for s, t in levels]
    return torch.stack(terms).sum()
