"""What training validates by: quick scores of one whole restored image. `rbs evaluate` has the full ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rbs.utils.image_ops import gaussian, warp

PEAK_SIGMA_PX = 1.5
"""Smoothing of the standard scan before its 99.9th percentile, the peak of PSNR, is taken."""


def scan_scores(restored: Tensor, batch: dict[str, Any]) -> dict[str, float]:
    r"""Scores of one whole restored scan over all its pixels.

    Against an independent standard scan S of exposure q, the noise-corrected error is
    :math:`\overline{(T - S/q)^2} - \bar S / q^2`, unbiased for the error against the expectation.
        The peak P
    of PSNR is the 99.9th percentile of the smoothed standard scan.

    Args:
        restored: Counts at standard scale, (1, V, H, W).
        batch: "target" (1, V, H, W) counts, "target_exposure" (1,); for phantoms, "expectation";
            and of a patient who moved, "displacement" (1, 2, H, W), by which the restored scan is
            laid on the target.

    Returns:
        "nc_psnr" dB; "count_bias", the relative error of the total count; "psnr_expectation" dB
        where there is one.
    """
    if "displacement" in batch:
        restored = warp(restored, batch["displacement"])
    restored = restored.double()
    q = float(batch["target_exposure"][0])
    standard = batch["target"].double() / q
    peak = torch.quantile(gaussian(standard, PEAK_SIGMA_PX).flatten(), 0.999)
    noise = standard.mean() / q
    # The estimate can come out below zero for a near-perfect restoration; a thousandth of the noise
    # is well below what it can resolve.
    error = (((restored - standard) ** 2).mean() - noise).clamp(min=1e-3 * noise)
    scores = {"nc_psnr": _decibel(peak, error), "count_bias": float(restored.sum() / standard.sum() - 1)}
    if "expectation" in batch:
        scores["psnr_expectation"] = _decibel(peak, ((restored - batch["expectation"]) ** 2).mean())
    return scores


def frame_scores(restored: Tensor, batch: dict[str, Any]) -> dict[str, float]:
    r"""Scores of one whole restored frame over its valid pixels, against the clean frame.

    Errors are of sRGB values, whose peak is 1. SSIM (Wang et al., IEEE TIP 2004;13:600) has the
    published Gaussian window of 11 pixels; its map is averaged over colours and valid pixels.

    Args:
        restored: sRGB values 0..1, (1, 3, H, W).
        batch: "target" (1, 3, H, W) and "valid", bool (1, 1, H, W).

    Returns:
        "psnr" dB and "ssim".
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    target = batch["target"].float()
    restored, valid = restored.float(), batch["valid"].expand_as(target)
    error = ((restored - target)[valid].double() ** 2).mean()
    _, similarity = structural_similarity_index_measure(
        restored, target, data_range=1.0, return_full_image=True
    )
    # A perfect frame has no error; a thousandth of a grey level is well below what eight bits can
    # hold.
    peak, error = torch.ones_like(error), error.clamp(min=(1e-3 / 255) ** 2)
    return {"psnr": _decibel(peak, error), "ssim": float(similarity[valid].double().mean())}


def _decibel(peak: Tensor, error: Tensor) -> float:
    return float(10 * torch.log10(peak**2 / error))
