"""The peers that need no training: filters of counts, and denoisers behind Anscombe's transform.

Each has one parameter, tuned by the noise-corrected error on the validation split. A baseline tuned
less carefully than the method it is compared with proves nothing; one tuned on the test split would
be no peer either.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rbs.evaluation.scans.metrics import Target, nc_nmse
from rbs.inference.residual import put_back
from rbs.scans.body import smooth
from rbs.scans.counts import anscombe, inverse_anscombe
from rbs.scans.registration import Motion, warp, whole_pixel_shift

if TYPE_CHECKING:
    from rbs.restorers.checkpoint import LoadedRestorer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pair:
    """A rapid scan and what restorations of it are judged by.

    Attributes:
        patient: Identifier.
        rapid: Raw counts (V, H, W).
        exposure: p, exposure of the rapid scan relative to the standard scan.
        target: A scan independent of it.
        views: The view of each of the V channels.
        motion: How the patient moved from target to rapid scan; None for not at all.
    """

    patient: str
    rapid: Array
    exposure: float
    target: Target
    views: tuple[str, ...] = ("anterior", "posterior")
    motion: Motion | None = None

    @property
    def seen(self) -> tuple[Array, float]:
        """What restorers are given: the rapid scan at standard scale, float32 (V, H, W), and its exposure."""
        return np.asarray(self.rapid, dtype=np.float32) / np.float32(self.exposure), self.exposure

    def restored_by(self, loaded: LoadedRestorer) -> Array:
        """What a restorer makes of it, standard counts (V, H, W)."""
        return loaded.restore(self.rapid, self.exposure)

    def error(self, estimate: Array) -> float:
        """What peers are tuned by: the noise-corrected error of an estimate made of it, relative to P²."""
        return nc_nmse(self.on_target(estimate), self.target)

    def on_target(self, estimate: Array, *, raw: bool = False) -> Array:
        """Lay an estimate made of the rapid scan on the target.

        Args:
            estimate: (V, H, W).
            raw: Whether it has the noise of counts, which interpolation would smooth: it is then
                moved by whole pixels.
        """
        if self.motion is None:
            return estimate
        if raw:
            return whole_pixel_shift(estimate, self.motion, self.target.spacing_mm)[0]
        return warp(estimate, self.motion, self.target.spacing_mm)


def gaussian(pair: Pair, sigma_mm: float) -> Array:
    """The rapid scan at standard scale, smoothed by a Gaussian of `sigma_mm`; float64 (V, H, W)."""
    return smooth(pair.rapid, sigma_mm, pair.target.spacing_mm) / pair.exposure


def median(pair: Pair, size: float) -> Array:
    """The median of `size` x `size` pixels of the rapid scan at standard scale, float64 (V, H, W).

    The median of few Poisson counts lies below their mean: it loses counts, and that is its nature.
    """
    from scipy.ndimage import median_filter

    return median_filter(pair.rapid / pair.exposure, size=(1, int(size), int(size)), mode="reflect")


def total_variation(pair: Pair, weight: float) -> Array:
    """Total-variation denoising between Anscombe's transform and its inverse, the residual put back.

    Rudin, Osher, Fatemi, Physica D 1992;60:259; by the algorithm of Chambolle, J Math Imaging Vis
    2004;20:89.

    Args:
        pair: The rapid scan.
        weight: Of the total variation, the noise having unit variance.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    from skimage.restoration import denoise_tv_chambolle

    denoise = partial(denoise_tv_chambolle, weight=weight, max_num_iter=100)
    return _counts_kept(pair, stabilised(pair, denoise))


def wavelet(pair: Pair, sigma: float) -> Array:
    """BayesShrink wavelet thresholds, averaged over 16 shifts, between Anscombe's transform and its inverse.

    Chang, Yu, Vetterli, IEEE Trans Image Process 2000;9:1532; shifts: Coifman & Donoho 1995.

    Args:
        pair: The rapid scan.
        sigma: Standard deviation of the noise that is assumed. It is 1 in the body and less in the
            air, and BayesShrink has one threshold a subband for both.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    from skimage.restoration import cycle_spin, denoise_wavelet

    settings = {
        "sigma": sigma,
        "wavelet": "sym4",
        "wavelet_levels": 2,
        "method": "BayesShrink",
        "rescale_sigma": False,
    }
    return stabilised(
        pair, partial(cycle_spin, func=denoise_wavelet, max_shifts=3, func_kw=settings, workers=1)
    )


def non_local_means(pair: Pair, strength: float) -> Array:
    """Fast non-local means between Anscombe's transform and its inverse, the residual put back.

    Buades, Coll, Morel, CVPR 2005; Darbon et al., ISBI 2008 (fast). Patches of 5x5 pixels in a
    13x13 search window.

    Args:
        pair: The rapid scan.
        strength: Cut-off distance h, in units of the noise's standard deviation.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    from skimage.restoration import denoise_nl_means

    denoise = partial(denoise_nl_means, patch_size=5, patch_distance=6, h=strength, sigma=1.0, fast_mode=True)
    return _counts_kept(pair, stabilised(pair, denoise))


def bm3d(pair: Pair, sigma: float) -> Array:
    """BM3D between Anscombe's transform and its inverse, by its authors' package, which is not free.

    Dabov et al., IEEE Trans Image Process 2007;16:2080; Mäkitalo & Foi, same journal 2011;20:99.

    Args:
        pair: The rapid scan.
        sigma: Standard deviation of the noise that is assumed.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    from bm3d import bm3d as denoise

    return stabilised(pair, partial(denoise, sigma_psd=sigma))


def stabilised(pair: Pair, denoise: Callable[[Array], Array]) -> Array:
    """A denoiser for noise of unit variance, between Anscombe's transform and its exact unbiased inverse.

    Args:
        pair: The rapid scan.
        denoise: View (H, W) to view.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    views = [denoise(view) for view in anscombe(pair.rapid)]
    return np.asarray(inverse_anscombe(np.stack(views))) / pair.exposure


def _counts_kept(pair: Pair, estimate: Array) -> Array:
    """The estimate with the counts back that it lost.

    The inverse of Anscombe's transform is exact where a denoiser averages pixels of one mean. Where
    it averages across structures, the mean of square roots lies below the root of the mean, and
    counts are lost wherever it smooths much.
    """
    return put_back(estimate, pair.rapid, pair.exposure, pair.target.spacing_mm)


@dataclass(frozen=True)
class Classical:
    """A classical peer before it is tuned.

    Attributes:
        name: As in the CSV files.
        label: As printed; the tuned parameter is filled in.
        restore: Pair and parameter to an estimate.
        parameter: Name of the parameter.
        candidates: Values to try.
    """

    name: str
    label: str
    restore: Callable[[Any, float], Array]
    parameter: str
    candidates: tuple[float, ...]


GAUSSIAN = Classical(
    "gaussian", "Gaussian, {:g} mm", gaussian, "sigma_mm", (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
)
CLASSICAL = (
    GAUSSIAN,
    Classical("median", "Median, {0:g} x {0:g} pixels", median, "size", (3, 5, 7)),
    Classical("tv", "Anscombe + total variation", total_variation, "weight", (1.0, 1.4, 2.0, 2.8, 4.0)),
    Classical("wavelet", "Anscombe + wavelets", wavelet, "sigma", (0.4, 0.5, 0.6, 0.8, 1.0)),
    Classical("nlm", "Anscombe + non-local means", non_local_means, "strength", (0.7, 1.0, 1.4, 2.0, 2.8)),
)
BM3D = Classical("bm3d", "Anscombe + BM3D", bm3d, "sigma", (1.0, 1.2, 1.5))


def available() -> tuple[Classical, ...]:
    """The classical peers; BM3D where its package is, whose licence is for non-commercial use only."""
    return (*CLASSICAL, BM3D) if importlib.util.find_spec("bm3d") else CLASSICAL


def tune(peers: Sequence[Classical], validation: Iterable[Any]) -> list[dict[float, float]]:
    """The error of every candidate, as its pairs reckon it.

    Args:
        peers: What to tune.
        validation: Pairs of the validation split; consumed once, one at a time.

    Returns:
        For each peer, and each of its candidates, the mean over patients.

    Raises:
        ValueError: There are no pairs.
    """
    errors: dict[str, list[list[list[float]]]] = {}
    for pair in validation:
        scores = [[pair.error(peer.restore(pair, value)) for value in peer.candidates] for peer in peers]
        errors.setdefault(pair.patient, []).append(scores)
    if not errors:
        raise ValueError("no validation pairs to tune on")
    tables = []
    for number, peer in enumerate(peers):
        by_patient = [np.mean([scan[number] for scan in scans], axis=0) for scans in errors.values()]
        means = np.mean(by_patient, axis=0)
        tables.append(dict(zip(peer.candidates, (float(m) for m in means), strict=True)))
    return tables


def best(table: dict[float, float]) -> float:
    """The candidate with the least error."""
    return min(table, key=lambda value: table[value])
