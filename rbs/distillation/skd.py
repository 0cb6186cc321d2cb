"""Semantic Knowledge Distillation: the second restorer, which sees priors, teaches the first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.image_domain import DOMAINS, DomainName

SHORTEST = 0.01
"""Least length of features that a cosine divides by: its gradient grows as they vanish, as behind
rectifiers, and would drown all others."""


class SKD(nn.Module):
    r"""Pulls the first restorer's output and decoder features to the second's, held fixed (sg).

    .. math::
        L = \operatorname{mean}\Big|\sqrt{I_1 + \tfrac38} - \operatorname{sg}\sqrt{I_2 +
        \tfrac38}\Big|
          + \operatorname{mean}\big(1 - \cos(W F_1, \operatorname{sg} F_2)\big)

    The square root stabilises the variance of counts, so that a bright bladder does not outweigh
    the skeleton; colours are compared as they are (see `rbs.restorers.image_domain`). The cosine is
    taken over channels at each pixel, after a learned 1x1 projection W that starts as the identity:
    a teacher that starts as a copy of its student teaches nothing before it differs.

    Args:
        student_channels: Channels of the first restorer's features F1.
        teacher_channels: Channels of the second restorer's features F2.
        domain: What the restorers restore.
    """

    def __init__(self, student_channels: int, teacher_channels: int, domain: DomainName = "roots") -> None:
        super().__init__()
        self.images = DOMAINS[domain]
        self.projection = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        nn.init.dirac_(self.projection.weight)

    def forward(self, i1: Tensor, i2: Tensor, features1: Tensor, features2: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            i1: First restoration, (B, C, H, W).
            i2: Second restoration, (B, C, H, W).
            features1: (B, student_channels, H, W).
            features2: (B, teacher_channels, H, W).
        """
        # Cosines near 1 differ by less than half precision can tell apart.
        with torch.autocast(i1.device.type, enabled=False):
            image = (self.images.stabilised(i1) - self.images.stabilised(i2.detach())).abs().mean()
            found, wanted = self.projection(features1.float()), features2.detach().float()
            return image + (1 - F.cosine_similarity(found, wanted, dim=1, eps=SHORTEST)).mean()
