r"""Pixels cut in four: counts of a coarse matrix on one of twice as many rows and columns.

With B the bilinear interpolation between the centres of pixels and i a coarse pixel, its four fine
ones a share its counts as the interpolation does:

.. math::
    (U y)_{ia} = y_i \, \frac{(B y)_{ia}}{\sum_b (B y)_{ib}}, \qquad \sum_a (U y)_{ia} = y_i .

Counts are kept exactly, pixel by pixel, and never fall below zero. A pixel without counts gives
four without.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-12
"""Counts below which a pixel is empty: its parts are zero whatever their shares."""


def cut_in_four(counts: Tensor) -> Tensor:
    """Cut each pixel in four, which hold its counts together.

    Args:
        counts: Non-negative, float32 (B, V, H, W).

    Returns:
        float32 (B, V, 2 H, 2 W).
    """
    smooth = F.interpolate(counts, scale_factor=2.0, mode="bilinear", align_corners=False)
    per_count = counts / (4 * F.avg_pool2d(smooth, 2)).clamp(min=SMALLEST)
    return smooth * F.interpolate(per_count, scale_factor=2.0, mode="nearest")
