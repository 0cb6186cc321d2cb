"""The peers that need no training: a Gaussian filter and non-local means behind Anscombe's transform.

Each has one parameter, tuned by the noise-corrected error on the validation split. A baseline tuned less
carefully than the method it is compared with proves nothing; one tuned on the test split would be no peer
either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rbs.evaluation.metrics import Target, nc_nmse, smooth
from rbs.scans.counts import anscombe, inverse_anscombe
from rbs.scans.register import Motion, warp, whole_pixel_shift

Array = npt.NDArray[Any]

GAUSSIAN_SIGMAS_MM = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
NLM_STRENGTHS = (0.5, 0.7, 0.9, 1.1, 1.4, 1.8)


@dataclass(frozen=True)
class Pair:
    """A rapid scan and what restorations of it are judged by.

    Attributes:
        patient: Identifier.
        rapid: Raw counts (V, H, W).
        fraction: p, exposure of the rapid scan relative to the standard scan.
        target: A scan independent of it.
        views: The view of each of the V channels.
        motion: How the patient moved from target to rapid scan; None for not at all.
    """

    patient: str
    rapid: Array
    fraction: float
    target: Target
    views: tuple[str, ...] = ("anterior", "posterior")
    motion: Motion | None = None

    def on_target(self, estimate: Array, *, raw: bool = False) -> Array:
        """Lay an estimate made of the rapid scan on the target.

        Args:
            estimate: (V, H, W).
            raw: Whether it has the noise of counts, which interpolation would smooth: it is then moved by
                whole pixels.
        """
        if self.motion is None:
            return estimate
        if raw:
            return whole_pixel_shift(estimate, self.motion, self.target.spacing_mm)[0]
        return warp(estimate, self.motion, self.target.spacing_mm)


def gaussian(pair: Pair, sigma_mm: float) -> Array:
    """The rapid scan at standard scale, smoothed by a Gaussian of `sigma_mm`; float64 (V, H, W)."""
    return smooth(pair.rapid, sigma_mm, pair.target.spacing_mm) / pair.fraction


def non_local_means(pair: Pair, strength: float) -> Array:
    """Anscombe's transform, fast non-local means, exact unbiased inverse.

    Buades, Coll, Morel, CVPR 2005; Darbon et al., ISBI 2008 (fast); Mäkitalo & Foi, IEEE TIP 2011;20:99
    (inverse). Patches of 5x5 pixels in a 13x13 search window; the noise after the transform has unit
    variance.

    Args:
        pair: The rapid scan.
        strength: Cut-off distance h, in units of the noise's standard deviation.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    from skimage.restoration import denoise_nl_means

    views = [
        denoise_nl_means(view, patch_size=5, patch_distance=6, h=strength, sigma=1.0, fast_mode=True)
        for view in anscombe(pair.rapid)
    ]
    return np.asarray(inverse_anscombe(np.stack(views))) / pair.fraction


def tune(
    method: Callable[[Pair, float], Array], candidates: Sequence[float], validation: Iterable[Pair]
) -> tuple[float, dict[float, float]]:
    """The candidate with the least noise-corrected error.

    Args:
        method: Pair and parameter to an estimate (V, H, W).
        candidates: Parameters to try.
        validation: Pairs of the validation split; consumed once, one at a time.

    Returns:
        The best parameter, and for each candidate the mean over patients of NC-MSE / P².

    Raises:
        ValueError: There are no pairs.
    """
    errors: dict[str, list[list[float]]] = {}
    for pair in validation:
        scores = [nc_nmse(pair.on_target(method(pair, value)), pair.target) for value in candidates]
        errors.setdefault(pair.patient, []).append(scores)
    if not errors:
        raise ValueError("no validation pairs to tune on")
    means = np.mean([np.mean(scans, axis=0) for scans in errors.values()], axis=0)
    table = dict(zip(candidates, (float(m) for m in means), strict=True))
    return min(table, key=lambda value: table[value]), table
