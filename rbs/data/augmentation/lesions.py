r"""Foci put into training crops: what a restorer has hardly ever seen, it takes for noise.

A restorer trained for the least error returns the mean of all scans that its counts could have come
from, as often as each occurs in training. Faint small foci are rare even in disease, so it takes
nearly all of them for noise and flattens them. Here as many as wanted are put in, into phantoms and
into acquired scans:

.. math::
    \lambda' = \lambda + c\,\bar\lambda(r_0)\, G(r - r_0) \quad (c > 0), \qquad
    \lambda' = \lambda\,\big(1 + c\,G(r - r_0)\big) \quad (c < 0),

with :math:`\bar\lambda` the local mean and :math:`G` a Gaussian of peak 1. Counts stay exactly
Poisson: those of a hot focus are added as a Poisson draw of their own, those a cold one lacks are
taken out by binomial thinning. Where the expectation is not known, places and heights go by the
counts smoothed over 10 mm, so that a few per cent of chance are in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from rbs.data.augmentation.geometric import log_uniform
from rbs.scans.scan import Array

FWHM_MM = (6.0, 30.0)
"""Of a focus as the camera sees it, the camera's blur included; log-uniform."""
CONTRAST = (0.1, 3.0)
"""Peak of a hot focus over the local mean; log-uniform, so that most are faint."""
COLDEST, COLD_SHARE = 0.7, 0.2
"""The most a cold focus takes away, and how many are cold."""

_LOCAL_MM = 10.0
"""Width of the Gaussian that makes the local mean."""


@dataclass(frozen=True)
class Foci:
    """Change of the expectation of a crop: counts added by hot foci, share left by cold ones.

    Attributes:
        added: Counts of hot foci at standard exposure, (V, H, W).
        kept: Share that cold foci leave, (V, H, W), 0 to 1.
        places: Their rows and columns, (n, 2).
    """

    added: Array
    kept: Array
    places: Array

    def expect(self, expectation: Array) -> Array:
        """An expectation at standard exposure, (V, H, W), with the foci in it."""
        return (expectation * self.kept + self.added).astype(np.float32)

    def count(self, counts: Array, exposure: float, rng: np.random.Generator) -> Array:
        """Poisson counts (V, H, W) of that exposure with the foci: of `expect(...) * exposure`."""
        left = rng.binomial(np.asarray(counts, np.int64), np.clip(self.kept, 0, 1))
        return (left + rng.poisson(self.added * exposure)).astype(np.int32)


def draw_foci(image: Array, spacing_mm: tuple[float, float], mean: float, rng: np.random.Generator) -> Foci:
    """Draw foci for a crop, more of them where there is more tracer.

    Args:
        image: Counts or expectation at standard exposure, (V, H, W). Views show a focus at the same
            place, each as strongly as its depth allows.
        spacing_mm: Rows, columns.
        mean: Their mean number, Poisson.
        rng: Source of everything random.
    """
    views, rows, columns = image.shape
    local = local_mean(image, spacing_mm)
    added, kept = np.zeros_like(local), np.ones_like(local)
    number = rng.poisson(mean)
    weight = local.sum(axis=0).ravel()
    if not weight.any():
        return Foci(added, kept, np.empty((0, 2), int))
    y, x = np.mgrid[:rows, :columns]
    chosen = rng.choice(weight.size, size=number, p=weight / weight.sum(dtype=np.float64))
    places = np.stack(np.unravel_index(chosen, (rows, columns)), axis=1)
    for row, column in places.tolist():
        fwhm = log_uniform(FWHM_MM, rng)
        cold = rng.random() < COLD_SHARE
        contrast = rng.uniform(0.1, COLDEST) if cold else log_uniform(CONTRAST, rng)
        # In the middle of the body both views see it alike; under one surface the other hardly
        # does.
        depth = rng.uniform(0, 1)
        seen = np.minimum(1, 2 * np.array([depth, 1 - depth])) if views == 2 else np.ones(views)
        far = ((y - row) * spacing_mm[0]) ** 2 + ((x - column) * spacing_mm[1]) ** 2
        shape = np.exp(-4 * np.log(2) * far / fwhm**2)
        for view in range(views):
            if cold:
                kept[view] *= 1 - contrast * seen[view] * shape
            else:
                added[view] += contrast * seen[view] * local[view, row, column] * shape
    return Foci(added, kept, places)


def local_mean(image: Array, spacing_mm: tuple[float, float]) -> Array:
    """An image (V, H, W), smoothed over 10 mm."""
    sigma = [_LOCAL_MM / mm for mm in spacing_mm]
    return np.stack([gaussian_filter(np.asarray(view, np.float32), sigma) for view in image])
