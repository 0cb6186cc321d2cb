"""Differentiable operations on batches of images: Gaussian filter and warp."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian(x: Tensor, sigma_px: float) -> Tensor:
    """Gaussian filter of (B, V, H, W), cut at four sigma, edges replicated ("nearest" in SciPy)."""
    if sigma_px == 0:
        return x
    radius = filter_radius(sigma_px)
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    flat = F.pad(x.reshape(-1, 1, *x.shape[-2:]), (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.reshape(x.shape)


def filter_radius(sigma_px: float) -> int:
    """Pixels from the middle at which `gaussian` is cut."""
    return int(4 * sigma_px + 0.5)


def warp(estimate: Tensor, displacement: Tensor) -> Tensor:
    """Estimate at x + u(x), bicubic: on the grid of a target scan whose patient has moved by u.

    The estimate is interpolated and not the target, because interpolated counts are not Poisson.
    Bilinear interpolation would blur, and a restorer trained through it would learn to sharpen.

    Args:
        estimate: Counts at standard scale, (B, V, H, W).
        displacement: u in pixels, down and right, (B, 2, H, W); all views move alike.

    Returns:
        Non-negative counts (B, V, H, W), differentiable in `estimate`; its edges are replicated.
    """
    rows, columns = estimate.shape[-2:]
    displacement = displacement.float()
    down, across = (torch.arange(n, device=estimate.device, dtype=torch.float32) for n in (rows, columns))
    at = torch.stack([across + displacement[:, 1], down[:, None] + displacement[:, 0]], dim=-1)
    # grid_sample puts -1 and 1 at the centres of the outermost pixels.
    at = at / torch.tensor([(columns - 1) / 2, (rows - 1) / 2], device=at.device) - 1
    moved = F.grid_sample(estimate.float(), at, mode="bicubic", padding_mode="border", align_corners=True)
    return moved.clamp(min=0)
