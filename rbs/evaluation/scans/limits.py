"""Ceiling of PSNR against a noisy reference, and errors corrected for the reference's noise.

Let λ be the expected standard counts of a pixel, λ̄ their mean over the evaluated pixels, R ~
Poisson(pλ) the rapid scan and Q ~ Poisson(qλ) the reference. Compared with Q/q, which has the
variance λ/q, even the estimate T = λ has the squared error λ̄/q: a noisy reference puts a ceiling
on PSNR and SSIM that no method can pass.
"""

from __future__ import annotations

import math


def ceiling_psnr(mean_count: float, peak: float, exposure: float = 1.0) -> float:
    """PSNR of a perfect denoiser against an independent noisy scan, 10 log10(P² q / λ̄), dB.

    Args:
        mean_count: λ̄, mean standard counts over the evaluated pixels.
        peak: P, standard counts.
        exposure: q, exposure of the reference relative to the standard scan.
    """
    return math.inf if mean_count == 0 else 10 * math.log10(peak**2 * exposure / mean_count)
