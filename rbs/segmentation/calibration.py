r"""Regions of the right size on average: biases of the logits, fitted to labelled scans.

Dice rewards a region that covers what may belong to it, so that a trained segmenter draws thin
bones too wide in every scan, and gives their counts too large. With a bias b_k on each logit,

.. math::
    p'_k = \frac{p_k e^{b_k}}{\sum_j p_j e^{b_j}} ,

the biases are those for which the expected area of each region, :math:`\sum p'_k`, is its
labelled area over all scans together; that of background is 0. It is the maximum-likelihood fit of
the intercepts of a multinomial logistic regression: vector scaling (Guo et al., ICML 2017), its
biases alone. Hot spots keep their odds against bones: they are so few that their area says little.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from rbs.scans.regions import BONE_LABELS, HOT
from rbs.scans.scan import Array
from rbs.segmentation.segmenter import EncoderDecoder

STEPS = 40
SURE = 0.998
"""Probability of background from which on a pixel of background is left out: it does not change
the fit."""


def area_biases(scans: Iterable[tuple[Array, Array]]) -> Array:
    """Biases of the logits, float64 (1 + K,), from scans with labels.

    Args:
        scans: Probabilities (V, 1 + K, H, W) and labels (V, H, W) of each.
    """
    logs, labels = [], []
    for probabilities, truth in scans:
        kept = (probabilities[:, 0] < SURE) | (truth > 0)
        logs.append(np.log(np.maximum(np.moveaxis(probabilities, 1, -1)[kept], 1e-7)))
        labels.append(truth[kept])
    log_p = np.concatenate(logs).astype(np.float64)
    areas = np.bincount(np.concatenate(labels), minlength=log_p.shape[1])
    biases, bones = np.zeros(log_p.shape[1]), list(BONE_LABELS)
    for _ in range(STEPS):
        p = np.exp(log_p + biases - (log_p + biases).max(axis=1, keepdims=True))
        expected = (p / p.sum(axis=1, keepdims=True)).sum(axis=0)
        # Iterative scaling; one pixel more on either side keeps a region without any finite.
        biases += np.log((areas + 1) / (expected + 1))
        biases -= biases[0]
        biases[HOT] = np.average(biases[bones], weights=areas[bones] + 1)
    return biases


def add_biases(segmenter: EncoderDecoder, biases: Array) -> None:
    """Add biases (1 + K,) to the logits of a segmenter for good: to those of its last layer."""
    head = segmenter.head.bias
    assert head is not None
    with torch.no_grad():
        per_label = head.view(segmenter.views, len(biases), segmenter.patch**2)
        per_label += torch.as_tensor(biases, dtype=head.dtype, device=head.device)[:, None]
