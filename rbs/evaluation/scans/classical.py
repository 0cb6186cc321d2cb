"""Classical peers for scans: filters of counts, and denoisers of Anscombe-transformed counts.

Each has one parameter, tuned on the validation split by the noise-corrected error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from rbs.evaluation.peers import Classical, has_bm3d
from rbs.evaluation.scans.pairs import ScanPair
from rbs.inference.strengths import put_back
from rbs.scans.body import smooth
from rbs.scans.counts import anscombe, inverse_anscombe
from rbs.scans.scan import Array


def gaussian(pair: ScanPair, sigma_mm: float) -> Array:
    """The rapid scan at standard scale, smoothed by a Gaussian of `sigma_mm`; float64 (V, H, W)."""
    return smooth(pair.rapid, sigma_mm, pair.target.spacing_mm) / pair.exposure


def median(pair: ScanPair, size: float) -> Array:
    """The median of `size` x `size` pixels of the rapid scan at standard scale, float64 (V, H, W).

    The median of few Poisson counts lies below their mean: it loses counts, and that is its nature.
    """
    from scipy.ndimage import median_filter

    return median_filter(pair.rapid / pair.exposure, size=(1, int(size), int(size)), mode="reflect")


def total_variation(pair: ScanPair, weight: float) -> Array:
    """Total-variation denoising of Anscombe-transformed counts, the residual put back.

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


def wavelet(pair: ScanPair, sigma: float) -> Array:
    """BayesShrink wavelet thresholds of Anscombe-transformed counts, averaged over 16 shifts.

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


def non_local_means(pair: ScanPair, strength: float) -> Array:
    """Fast non-local means of Anscombe-transformed counts, the residual put back.

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


def bm3d(pair: ScanPair, sigma: float) -> Array:
    """BM3D of Anscombe-transformed counts, by its authors' package, which is not free.

    Dabov et al., IEEE Trans Image Process 2007;16:2080; Mäkitalo & Foi, same journal 2011;20:99.

    Args:
        pair: The rapid scan.
        sigma: Standard deviation of the noise that is assumed.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    from bm3d import bm3d as denoise

    return stabilised(pair, partial(denoise, sigma_psd=sigma))


def stabilised(pair: ScanPair, denoise: Callable[[Array], Array]) -> Array:
    """Denoise between Anscombe's transform and its exact unbiased inverse.

    Args:
        pair: The rapid scan.
        denoise: View (H, W) to view.

    Returns:
        Standard counts, float64 (V, H, W).
    """
    views = [denoise(view) for view in anscombe(pair.rapid)]
    return np.asarray(inverse_anscombe(np.stack(views))) / pair.exposure


def _counts_kept(pair: ScanPair, estimate: Array) -> Array:
    """The estimate with the counts back that it lost.

    The inverse of Anscombe's transform is exact where a denoiser averages pixels of one mean. Where
    it averages across structures, the mean of square roots lies below the root of the mean, and
    counts are lost wherever it smooths much.
    """
    return put_back(estimate, pair.rapid, pair.exposure, pair.target.spacing_mm)


GAUSSIAN = Classical(
    *("gaussian", "Gaussian, {:g} mm", gaussian, "sigma_mm"),
    candidates=(1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0),
    on_phantoms=3.5,
)
NON_LOCAL_MEANS = Classical(
    *("nlm", "Anscombe + non-local means", non_local_means, "strength"),
    candidates=(0.7, 1.0, 1.4, 2.0, 2.8),
    on_phantoms=2.0,
)
CLASSICAL = (
    GAUSSIAN,
    Classical("median", "Median, {0:g} x {0:g} pixels", median, "size", (3, 5, 7), on_phantoms=5),
    Classical("tv", "Anscombe + total variation", total_variation, "weight", (1.0, 1.4, 2.0, 2.8, 4.0), 2.8),
    Classical("wavelet", "Anscombe + wavelets", wavelet, "sigma", (0.4, 0.5, 0.6, 0.8, 1.0), on_phantoms=0.6),
    NON_LOCAL_MEANS,
)
BM3D = Classical("bm3d", "Anscombe + BM3D", bm3d, "sigma", (1.0, 1.2, 1.5), on_phantoms=1.2)


def available() -> tuple[Classical, ...]:
    """The classical peers; BM3D where its package is."""
    return (*CLASSICAL, BM3D) if has_bm3d() else CLASSICAL
