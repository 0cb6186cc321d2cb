r"""Texture: uptake that varies within bones and soft tissue as no drawn child's does.

Bones of patients are not evenly bright: marrow, vessels, folds and old injuries vary the uptake at
all scales. A restorer trained on smooth phantoms takes what of this it sees in a patient for noise,
and putting a part of the noise back makes its images better. So some expectations get a random
field:

.. math::
    \lambda'_v = \lambda_v\, e^{s g_v - s^2 / 2}, \qquad
    g_v = \sqrt{c}\, g + \sqrt{1 - c}\, g^{(v)},

with :math:`g, g^{(v)}` Gaussian fields of unit variance, whose amplitude falls as
:math:`1/f^{\beta}`, seen through a camera of a random FWHM; :math:`c` is the part that both views
share, and :math:`s` the strength. The mean uptake stays what it was. Bones are in all of this where
they were, so that labels still fit.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from rbs.data.augmentation.geometric import log_uniform
from rbs.scans.scan import Array, Spacing

STRENGTH = (0.05, 0.6)
"""Of the logarithm of the uptake, standard deviation; log-uniform."""
EXPONENT = (0.0, 1.8)
"""Of the amplitude's fall with frequency: from white noise to clouds."""
FWHM_MM = (5.0, 11.0)
"""Of the camera that sees it."""
_SIGMA = 2 * np.sqrt(2 * np.log(2))


def draw_texture(image: Array, spacing_mm: Spacing, rng: np.random.Generator) -> Array:
    """An expectation with texture.

    Args:
        image: Expected counts (V, H, W).
        spacing_mm: Rows, columns.
        rng: Source of everything random.

    Returns:
        Expected counts (V, H, W), float32, zero where they were zero.
    """
    strength, shared = log_uniform(STRENGTH, rng), rng.uniform()
    exponent = rng.uniform(*EXPONENT)
    fwhm = rng.uniform(*FWHM_MM)
    sigma = [fwhm / _SIGMA / mm for mm in spacing_mm]
    common, *own = (_field(image.shape[1:], spacing_mm, exponent, sigma, rng) for _ in range(1 + len(image)))
    fields = np.sqrt(shared) * common + np.sqrt(1 - shared) * np.stack(own)
    return np.asarray(image * np.exp(strength * fields - strength**2 / 2), np.float32)


def _field(
    shape: tuple[int, int], spacing_mm: Spacing, exponent: float, sigma: list[float], rng: np.random.Generator
) -> Array:
    """A Gaussian field (H, W) of mean 0 and variance 1, alike in all directions in mm."""
    along_rows, along_columns = (
        np.fft.fftfreq(shape[0], spacing_mm[0]),
        np.fft.rfftfreq(shape[1], spacing_mm[1]),
    )
    frequency = np.hypot(along_rows[:, None], along_columns)
    frequency[0, 0] = np.inf
    falling = np.fft.rfft2(rng.normal(size=shape)) * frequency**-exponent
    seen = gaussian_filter(np.fft.irfft2(falling, shape), sigma, mode="wrap")
    return (seen - seen.mean()) / seen.std()
