"""Two parts of a scan with independent noise: one can be learned to predict the other."""

from __future__ import annotations

import torch
from torch import Tensor

from rbs.degradation.noise_filter import NoiseFilter
from rbs.scans.scan import Spacing
from rbs.utils.image_ops import gaussian


def independent_parts(
    counts: Tensor, share: Tensor, noise: NoiseFilter, spacing_mm: Spacing
) -> tuple[Tensor, Tensor]:
    r"""A share p of the counts and the rest, whose noise is not correlated.

    Raw counts are dealt out binomially: the parts are independent Poisson scans. Counts y whose
    noise was filtered cannot be; to them noise z of the same covariance is added (Pang et al., CVPR
    2021),

    .. math::
        p\,(y + k z), \qquad (1 - p)\,(y - z / k), \qquad k^2 = \frac{1}{p} - 1 ,

    with a covariance of zero and the variances of the binomial parts. The variance of z follows the
    counts smoothed by 2 pixels. These parts may be negative.

    Args:
        counts: Counts of poor scans (B, 1, H, W).
        share: p of each, 0 to 1, (B,).
        noise: Filter of their noise.
        spacing_mm: Row and column spacing, mm.

    Returns:
        Both of the shape of `counts`.
    """
    p = share[:, None, None, None]
    if noise.white:
        first = torch.binomial(counts, p.expand_as(counts))
        return first, counts - first
    z = noise.filtered(gaussian(counts, 2.0).clamp(min=0).sqrt() * torch.randn_like(counts), spacing_mm)
    k = (1 / p - 1).sqrt()
    return p * (counts + k * z), (1 - p) * (counts - z / k)
