"""What a denoiser can reach at all, and what is left of its error without the reference's noise.

Let λ be the expected standard counts of a pixel, λ̄ their mean over the evaluated pixels, R ~ Poisson(pλ) the
rapid scan and Q ~ Poisson(qλ) the reference. Compared with Q/q, which has the variance λ/q, even the estimate
T = λ has the squared error λ̄/q: a noisy reference puts a ceiling on PSNR and SSIM that no method can pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class ReferenceKind(Enum):
    """What a rapid scan of fraction p of the standard counts is compared with."""

    EXPECTATION = "the known expectation of a phantom"
    INDEPENDENT = "an independent standard scan"
    CONTAINING = "the standard scan the rapid scan was thinned out of"


@dataclass(frozen=True)
class Limits:
    """Mean squared errors, counts², between which every method lies.

    Attributes:
        naive: Of the rapid scan divided by its fraction, R/p.
        perfect: Of the best estimate that knows λ: λ itself, or R + (1-p)λ where the reference contains R.
    """

    naive: float
    perfect: float

    @property
    def gain_db(self) -> float:
        """The most any method can gain over R/p, dB; infinite against the expectation."""
        return math.inf if self.perfect == 0 else 10 * math.log10(self.naive / self.perfect)


def limits(mean_count: float, fraction: float, kind: ReferenceKind) -> Limits:
    """The Poisson limits of the mean squared error.

    ============ ============== ===========
    reference    naive R/p      perfect
    ============ ============== ===========
    expectation  λ̄/p            0 (only the Bayes risk remains)
    independent  λ̄(1 + 1/p)     λ̄
    containing R λ̄(1 - p)/p     λ̄(1 - p)
    ============ ============== ===========

    Args:
        mean_count: λ̄, mean standard counts over the evaluated pixels.
        fraction: p, exposure of the rapid scan relative to the standard scan.
        kind: What the estimates are compared with.
    """
    if kind is ReferenceKind.EXPECTATION:
        return Limits(naive=mean_count / fraction, perfect=0.0)
    if kind is ReferenceKind.INDEPENDENT:
        return Limits(naive=mean_count * (1 + 1 / fraction), perfect=mean_count)
    return Limits(naive=mean_count * (1 - fraction) / fraction, perfect=mean_count * (1 - fraction))


def ceiling_psnr(mean_count: float, peak: float, exposure: float = 1.0) -> float:
    """PSNR of a perfect denoiser against an independent noisy scan, 10 log10(P² q / λ̄), dB.

    Args:
        mean_count: λ̄, mean standard counts over the evaluated pixels.
        peak: P, standard counts.
        exposure: q, exposure of the reference relative to the standard scan.
    """
    return math.inf if mean_count == 0 else 10 * math.log10(peak**2 * exposure / mean_count)


def noise_corrected_mse(estimate: Array, counts: Array, exposure: float, mask: Array) -> float:
    """Squared error of an estimate against the unknown expectation, seen through an independent noisy scan.

    mean((T - Q/q)²) - mean(Q)/q², the means over the mask. With Q ~ Poisson(qλ) independent of T the expected
    value is mean((T - λ)²): Q/q has the variance λ/q, which mean(Q)/q² estimates without bias. Valid on raw
    counts that were never interpolated. It may come out negative by chance when T is near λ.

    Args:
        estimate: T, standard counts (V, H, W).
        counts: Q, raw counts at their own exposure (V, H, W), independent of the rapid scan T was made from.
        exposure: q.
        mask: The evaluated pixels, bool (V, H, W).

    Returns:
        Counts².
    """
    t, q = estimate[mask].astype(np.float64), counts[mask].astype(np.float64)
    return float(((t - q / exposure) ** 2).mean() - q.mean() / exposure**2)
