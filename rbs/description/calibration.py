"""Temperatures, which make confidences true.

Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbs.description.describer import Describer
from rbs.description.grammar import CHOICES, TOKENS
from rbs.description.sentences import TOPICS

_TEMPERATURES = torch.linspace(0.6, 3.0, 49)


def fit_temperatures(describer: Describer, logits: Tensor, truth: Tensor) -> Tensor:
    """The temperature of each choice, (N,): the likeliest one of each kind of fact.

    Args:
        describer: The network; its own temperatures are not looked at.
        logits: Of all words at all choices, (B, N, V), of scans that it was not trained on.
        truth: True sentence of each topic, (B, T).
    """
    kinds = {topic.name: topic.kind for topic in TOPICS}
    own = [kinds[TOKENS[choice.beginning[0]]] for choice in CHOICES]
    topics = [topic.kind for topic in TOPICS]
    fitted = torch.ones(len(CHOICES))
    losses = torch.stack(
        [-describer.rated(logits, t.expand(len(CHOICES))).gather(1, truth).sum(dim=0) for t in _TEMPERATURES]
    )
    for kind in dict.fromkeys(topics):
        asked = torch.tensor([name == kind for name in topics])
        best = _TEMPERATURES[losses[:, asked].sum(dim=1).argmin()]
        fitted[torch.tensor([name == kind for name in own])] = best
    return fitted
