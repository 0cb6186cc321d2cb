"""The loss of segmenters: Dice and cross-entropy, weighted by the rarity of regions, and clDice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EROSIONS = 3
"""Steps of the soft skeleton: structures of up to 8 pixels are thinned to their centreline."""


class DiceCrossEntropy(nn.Module):
    r"""Dice + cross-entropy of the softmax over background and regions.

    Cross-entropy weighs each class by the inverse root of its share of the pixels,

    .. math::
        w_k \propto (\pi_k + 10^{-4})^{-1/2}, \qquad \sum_k \pi_k w_k = 1 ,

    with shares that are averaged over the batches seen so far. With a weight, `centreline_loss` of
    thin regions is added.

    Args:
        classes: Background and regions.
        cldice_weight: Weight of `centreline_loss`.
        thin: Classes that it is averaged over.
    """

    def __init__(self, classes: int, cldice_weight: float = 0.0, thin: Sequence[int] = ()) -> None:
        from monai.losses import DiceLoss  # monai takes seconds to import

        super().__init__()
        self.dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.cldice_weight, self.thin = cldice_weight, list(thin)
        self.register_buffer("pixels", torch.zeros(classes))
        self.pixels: Tensor

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of logits (N, 1 + K, H, W) of the labels (N, H, W)."""
        if self.training:
            self.pixels += torch.bincount(labels.flatten(), minlength=len(self.pixels))
        loss: Tensor = self.dice(logits, labels[:, None])
        loss = loss + F.cross_entropy(logits, labels, self.weights().to(logits.dtype))
        if self.cldice_weight:
            there = torch.stack([labels == k for k in self.thin], dim=1)
            centreline = centreline_loss(logits.softmax(dim=1)[:, self.thin], there.to(logits.dtype))
            loss = loss + self.cldice_weight * centreline
        return loss

    def weights(self) -> Tensor:
        """Weights of the classes in the cross-entropy, (1 + K,)."""
        shares = self.pixels / self.pixels.sum().clamp(min=1)
        weights = (shares + 1e-4).rsqrt()
        return weights / (weights * shares).sum().clamp(min=1e-6)


def centreline_loss(found: Tensor, there: Tensor) -> Tensor:
    r"""Soft clDice loss (Shit et al., CVPR 2021, arXiv 2003.07311) of regions, and their mean.

    A skeleton S is what erosions and openings leave of a mask V. With the sums over all pixels,

    .. math::
        P = \frac{1 + \sum S_f V_t}{1 + \sum S_f}, \qquad R = \frac{1 + \sum S_t V_f}{1 + \sum S_t},
        \qquad L = 1 - \frac{2 P R}{P + R},

    f as found and t true: a gap in a thin structure costs as much as one in a broad structure.
    `monai.losses.SoftclDiceLoss` gives the same for one region, three times as slowly on a CPU.

    Args:
        found: Probabilities, (N, R, H, W).
        there: Truth, 0 or 1, likewise.
    """
    from monai.losses.cldice import soft_skel  # monai takes seconds to import

    def skeleton(masks: Tensor) -> Tensor:
        # Pooling treats channels that lie side by side in memory together.
        side_by_side = masks.flatten(0, 1)[None].contiguous(memory_format=torch.channels_last)
        thinned: Tensor = soft_skel(side_by_side, _EROSIONS)
        return thinned[0].unflatten(0, masks.shape[:2])

    line_found, line_there = skeleton(found), skeleton(there)
    over = (0, 2, 3)
    precision = (1 + (line_found * there).sum(over)) / (1 + line_found.sum(over))
    recall = (1 + (line_there * found).sum(over)) / (1 + line_there.sum(over))
    return (1 - 2 * precision * recall / (precision + recall)).mean()
