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
    """The temperature of each choice, (N,), on the CPU: the likeliest one of each kind of fact.

    Args:
        describer: The network, on the device of the logits; its own temperatures are not looked at.
        logits: Of all words at all choices, (B, N, V), of scans that it was not trained on.
        truth: True sentence of each topic, (B, T).
    """
    kinds = {topic.name: topic.kind for topic in TOPICS}
    own = [kinds[TOKENS[choice.beginning[0]]] for choice in CHOICES]
    topics = [topic.kind for topic in TOPICS]
    fitted = torch.ones(len(CHOICES))
    tried = [t.expand(len(CHOICES)) for t in _TEMPERATURES.to(logits.device)]
    losses = torch.stack([-describer.rated(logits, t).gather(1, truth).sum(dim=0) for t in tried]).cpu()
    for kind in dict.fromkeys(topics):
        asked = [number for number, name in enumerate(topics) if name == kind]
        best = _TEMPERATURES.take(losses[:, asked].sum(dim=1).argmin())
        fitted[[number for number, name in enumerate(own) if name == kind]] = best
    return fitted
