"""Distillation of one segmenter into another, by outputs and by features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def output_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""Kullback-Leibler divergence of the student's regions from the teacher's.

    With the softmax q of the teacher's and s of the student's logits over T (Hinton et al., arXiv
    1503.02531),

    .. math::
        L = T^2 \frac{\sum_i w_i \sum_k q_{ik} \log (q_{ik} / s_{ik})}{\sum_i w_i}, \qquad
        w_i = \sum_k q_{ik} (\pi_k + 10^{-4})^{-1/2},

    where i runs over pixels and :math:`\pi` is the mean of q: pixels of rare regions count more, as
    in the cross-entropy of labels (`rbs.segmentation.objective`). Else a scan is background.

    Args:
        student: Logits of background and regions, (B, V, 1 + K, H, W).
        teacher: Likewise; no gradient reaches it.
        temperature: T, above zero.
    """
    log_q = F.log_softmax(teacher.detach().float() / temperature, dim=2)
    log_s = F.log_softmax(student.float() / temperature, dim=2)
    q = log_q.exp()
    rarity = (q.mean(dim=(0, 1, 3, 4)) + 1e-4).rsqrt()
    weights = torch.einsum("bvkhw,k->bvhw", q, rarity)
    divergence = (q * (log_q - log_s)).sum(dim=2)
    return temperature**2 * (weights * divergence).sum() / weights.sum()


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared difference of normalised maps: one minus their mean correlation.

    Each channel of each scan is brought to mean zero and variance one over its cells, so that only
    the pattern counts. 0 for equal patterns, 1 for unrelated ones.

    Args:
        student: Projected features, (B, C, h, w); brought to the teacher's cells.
        teacher: Features of the teacher, (B, C, H, W); no gradient reaches them.
    """
    wanted = _normalised(teacher.detach().float())
    found = F.interpolate(student.float(), wanted.shape[-2:], mode="bilinear", align_corners=False)
    return ((_normalised(found) - wanted) ** 2).mean() / 2


def _normalised(maps: Tensor) -> Tensor:
    """Channels of mean zero and variance one over rows and columns."""
    deviations = maps - maps.mean(dim=(2, 3), keepdim=True)
    return deviations * (deviations.square().mean(dim=(2, 3), keepdim=True) + 1e-6).rsqrt()
