"""Classical peers for colour frames: for each degradation those that were made for it.

Each has one parameter, tuned on the validation split by PSNR. All work on sRGB values but for two
that undo what happens to light, and therefore work in linear light.
"""

from __future__ import annotations

import numpy as np

from rbs.degradation.optical import Preset, to_linear, to_srgb
from rbs.evaluation.endoscopy.pairs import FramePair
from rbs.evaluation.peers import Classical, has_bm3d
from rbs.scans.scan import Array

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Of linear red, green and blue (IEC 61966-2-1)."""

UNSHARP_RADIUS_PX = 2.0
ITERATIONS = 10
"""Of Richardson-Lucy."""


def gaussian(pair: FramePair, sigma_px: float) -> Array:
    """Every colour smoothed by a Gaussian."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(pair.degraded, (0, sigma_px, sigma_px), mode="nearest"))


def median(pair: FramePair, size: float) -> Array:
    """The median of `size` x `size` pixels of every colour."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(pair.degraded, size=(1, int(size), int(size)), mode="nearest"))


def non_local_means(pair: FramePair, strength: float) -> Array:
    """Fast non-local means in colour (Buades et al., CVPR 2005; Darbon et al., ISBI 2008).

    Args:
        pair: The frame.
        strength: Cut-off distance h in units of the noise's standard deviation, which is estimated.
    """
    from skimage.restoration import denoise_nl_means

    sigma = noise_of(pair.degraded)
    settings = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": 0}
    return denoise_nl_means(pair.degraded, h=max(strength * sigma, 1e-6), sigma=sigma, **settings)


def bm3d(pair: FramePair, strength: float) -> Array:
    """BM3D in colour (Dabov et al., ICIP 2007), by its authors' package, which is not free.

    Args:
        pair: The frame.
        strength: Standard deviation that is assumed, over that which is estimated.
    """
    from bm3d import bm3d_rgb

    sigma = max(strength * noise_of(pair.degraded), 1e-4)
    return bm3d_rgb(pair.degraded.transpose(1, 2, 0), sigma).transpose(2, 0, 1)


def noise_of(frame: Array) -> float:
    """Standard deviation of the noise, by the median absolute wavelet coefficient; mean of colours.

    Donoho & Johnstone, Biometrika 1994;81:425.
    """
    from skimage.restoration import estimate_sigma

    return float(estimate_sigma(frame, average_sigmas=True, channel_axis=0))


def gamma(pair: FramePair, exponent: float) -> Array:
    """The sRGB values to the power of `exponent`."""
    return np.power(pair.degraded, exponent)


def exposure(pair: FramePair, mean: float) -> Array:
    """Gain in linear light that gives the valid area a mean luminance of `mean`."""
    light = to_linear(pair.degraded)
    luminance = np.tensordot(LUMINANCE, light, axes=1)
    return to_srgb(np.clip(light * mean / max(float(luminance[pair.target.valid].mean()), 1e-6), 0, 1))


def clahe(pair: FramePair, clip: float) -> Array:
    """Contrast-limited adaptive histogram equalisation of V in HSV, hues kept.

    Zuiderveld, Graphics Gems IV, 1994.
    """
    from skimage.exposure import equalize_adapthist

    return equalize_adapthist(pair.degraded.transpose(1, 2, 0), clip_limit=clip).transpose(2, 0, 1)


def unsharp(pair: FramePair, amount: float) -> Array:
    """Unsharp mask: the difference to a Gaussian of two pixels, added `amount` times."""
    from skimage.filters import unsharp_mask

    return unsharp_mask(pair.degraded, UNSHARP_RADIUS_PX, amount, channel_axis=0)


def richardson_lucy(pair: FramePair, sigma_px: float) -> Array:
    """Ten iterations of Richardson-Lucy with a Gaussian, in linear light, edges mirrored.

    Richardson, J Opt Soc Am 1972;62:55; Lucy, Astron J 1974;79:745.
    """
    from skimage.restoration import richardson_lucy as deconvolve

    reach = int(np.ceil(4 * sigma_px))
    distance = np.arange(-reach, reach + 1)
    profile = np.exp(-0.5 * (distance / sigma_px) ** 2)
    blur = np.outer(profile, profile) / profile.sum() ** 2
    edge = ((0, 0), (2 * reach, 2 * reach), (2 * reach, 2 * reach))
    light = np.pad(to_linear(pair.degraded), edge, mode="symmetric")
    sharp = np.stack([deconvolve(colour, blur, num_iter=ITERATIONS) for colour in light])
    return to_srgb(np.clip(sharp[:, 2 * reach : -2 * reach, 2 * reach : -2 * reach], 0, 1))


_DENOISERS = (
    Classical("gaussian", "Gaussian, {:g} pixels", gaussian, "sigma_px", (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)),
    Classical("median", "Median, {0:g} x {0:g} pixels", median, "size", (3, 5)),
    Classical("nlm", "Non-local means", non_local_means, "strength", (0.4, 0.6, 0.8, 1.0, 1.4)),
)
_BM3D = Classical("bm3d", "BM3D, colour", bm3d, "strength", (0.8, 1.0, 1.3, 1.7))
_LIGHTERS = (
    Classical("gamma", "Gamma, {:g}", gamma, "exponent", (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    Classical(
        "exposure",
        "Exposure to a mean of {:g}",
        exposure,
        "mean",
        (0.08, 0.11, 0.14, 0.18, 0.22, 0.27, 0.35, 0.45),
    ),
    Classical("clahe", "CLAHE, clip {:g}", clahe, "clip", (0.001, 0.003, 0.01, 0.03, 0.1)),
)
_SHARPENERS = (
    Classical("unsharp", "Unsharp mask, {:g} times", unsharp, "amount", (0.1, 0.25, 0.5, 1.0, 2.0)),
    Classical("lucy", "Richardson-Lucy, {:g} pixels", richardson_lucy, "sigma_px", (0.5, 0.8, 1.2, 1.8, 2.5)),
)


def peers(preset: Preset | None) -> tuple[Classical, ...]:
    """Peers for a degradation; all for "mixed" and for frames acquired in low quality (None).

    BM3D is among them where its package is, whose licence is for non-commercial use only. Bicubic
    interpolation, the peer for "x2", is what that preset's frames have been through: the row of the
    degraded frame.
    """
    denoisers = (*_DENOISERS, _BM3D) if has_bm3d() else _DENOISERS
    made_for: dict[str, tuple[Classical, ...]] = {
        "denoise": denoisers,
        "deblur": _SHARPENERS,
        "low-light": _LIGHTERS,
        "x2": _SHARPENERS,
    }
    return made_for.get(preset or "", (*denoisers, *_LIGHTERS, *_SHARPENERS))
