"""Channels that no loss trains on: the second set of the model observer.

Laguerre-Gauss functions (Gallas & Barrett, J Opt Soc Am A 2003;20:1725) are a complete orthonormal
basis of the rotationally symmetric templates, so a few of them hold nearly all that a linear reader
can use of a focus that is round and at a known place. Gabor channels also see orientation, which
such foci do not have, and their many outputs would need many draws.
"""

from __future__ import annotations

import math

import numpy as np

from rbs.evaluation.observers.observers import WINDOW
from rbs.scans.scan import Array, Spacing

CHANNELS = 6


def laguerre_gauss_channels(fwhm_mm: float, spacing_mm: Spacing) -> Array:
    """Laguerre-Gauss channels as templates in space, centred on the middle pixel.

    u_j(r) = (√2 / a) exp(-π r² / a²) L_j(2π r² / a²), L_j the Laguerre polynomial of order j. The
    width a = FWHM √(π / 4 ln 2) makes the first channel the focus itself, so that in white noise it
    is the matched filter; the others follow correlated noise and what a restorer does to the focus.

    Args:
        fwhm_mm: FWHM of the focus in the image, the camera's blur included.
        spacing_mm: Row and column spacing; the channels are round in mm.

    Returns:
        float64 (CHANNELS, WINDOW * WINDOW), of unit norm.
    """
    from scipy.special import eval_laguerre

    a = fwhm_mm * math.sqrt(math.pi / (4 * math.log(2)))
    y, x = ((np.arange(WINDOW) - WINDOW // 2) * s for s in spacing_mm)
    scaled = 2 * math.pi * (y[:, None] ** 2 + x**2).ravel() / a**2
    templates = np.exp(-scaled / 2) * eval_laguerre(np.arange(CHANNELS)[:, None], scaled)
    return np.asarray(templates / np.linalg.norm(templates, axis=1, keepdims=True))
