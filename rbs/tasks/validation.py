"""Scores of one whole restored image in training's validation; `rbs evaluate` has more of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbs.losses import PoissonDeviance
from rbs.scans.body import body_mask
from rbs.scans.censoring import cut_counts, rarely_cut
from rbs.scans.fidelity import count_bias, decibels, noise_corrected_mse, peak_counts, relative_error
from rbs.scans.registration import warp_by

_ARRAYS = {"target", "expectation", "displacement"}


def scan_scores(restored: Tensor, batch: dict[str, Any]) -> dict[str, float]:
    """Scores of one whole restored scan over the body, defined as in `rbs evaluate`.

    Args:
        restored: Counts at standard scale, (1, V, H, W).
        batch: "target" (1, V, H, W) counts, "target_exposure" (1,), "spacing_mm" (1, 2); for
            phantoms, "expectation"; of a patient who moved, "displacement" (1, 2, H, W), by which
            the restored scan is laid on the target; and of a cut scan, "cut" (1,).

    Returns:
        "nc_nmse", the noise-corrected squared error over P²; "nmse_truth", the error against the
        expectation over P², where there is one; "count_bias" %; "deviance", the censored likelihood
        a pixel (`rbs.losses.PoissonDeviance`), where counts were cut, for then few pixels have a
        noise-corrected error. `pooled` turns the first two into dB.
    """
    arrays = {name: value[0].float().cpu().numpy() for name, value in batch.items() if name in _ARRAYS}
    estimate, counts = restored[0].float().cpu().numpy(), arrays["target"]
    if "displacement" in arrays:
        estimate = warp_by(estimate, arrays["displacement"])
    q, (rows, columns) = float(batch["target_exposure"][0]), batch["spacing_mm"][0].tolist()
    standard = counts.astype(np.float64) / q
    mask, peak = body_mask(standard, (rows, columns)), peak_counts(standard, (rows, columns))
    cut = int(batch["cut"][0]) if "cut" in batch else 0
    judged = mask & rarely_cut(counts, cut)
    scores = {"count_bias": count_bias(estimate, standard, mask)}
    if judged.any():
        scores["nc_nmse"] = noise_corrected_mse(estimate, counts, q, judged) / peak**2
    if cut:
        given = torch.from_numpy(cut_counts(counts, cut))[None]
        found = torch.from_numpy(estimate)[None]
        exposure = batch["target_exposure"].cpu()
        scores["deviance"] = float(PoissonDeviance()(found, given, exposure, torch.tensor([cut])))
    if "expectation" in arrays:
        scores["nmse_truth"] = relative_error(estimate, arrays["expectation"], mask, peak)
    return scores


def pooled(means: dict[str, float]) -> dict[str, float]:
    """Mean scores over patients with "nc_psnr" and "psnr_truth", dB, in place of mean errors.

    They are logarithms of mean errors, for the noise-corrected error of one scan may be negative by
    chance; infinite where even the mean is, being below what the scans can resolve.
    """
    scores = dict(means)
    for name in [name for name in means if "nmse" in name]:
        scores[name.replace("nmse", "psnr")] = decibels(max(scores.pop(name), 0.0))
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
