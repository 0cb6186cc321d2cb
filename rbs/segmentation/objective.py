"""The loss of segmenters: Dice and cross-entropy, weighted by the rarity of regions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DiceCrossEntropy(nn.Module):
    r"""Dice + cross-entropy of the softmax over background and regions.

    Cross-entropy weighs each class by the inverse root of its share of the pixels,

    .. math::
        w_k \propto (\pi_k + 10^{-4})^{-1/2}, \qquad \sum_k \pi_k w_k = 1 ,

    with shares that are averaged over the batches seen so far.

    Args:
        classes: Background and regions.
    """

    def __init__(self, classes: int) -> None:
        from monai.losses import DiceLoss  # monai takes seconds to import

        super().__init__()
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.register_buffer("pixels", torch.zeros(classes, dtype=torch.float64))
        self.pixels: Tensor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of logits (N, 1 + K, H, W) of the labels (N, H, W)."""
        if self.training:
            self.pixels += torch.bincount(labels.flatten(), minlength=len(self.pixels))
        overlap: Tensor = self.dice(logits, labels[:, None])
        return overlap + F.cross_entropy(logits, labels, self.weights().to(logits.dtype))

    def weights(self) -> Tensor:
        """Weights of the classes in the cross-entropy, (1 + K,)."""
        shares = self.pixels / self.pixels.sum().clamp(min=1)
        weights = (shares + 1e-4).rsqrt()
        return weights / (weights * shares).sum().clamp(min=1e-6)
