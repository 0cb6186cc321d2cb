r"""Contrast of foci in restorations of real scans, which have no known truth.

The counts that the rapid scan does not hold say where foci are, and the rapid scan itself how
bright they are: its noise is independent of the places, so that its contrasts are right on average.
With G a Gaussian of 4 mm and u one of four directions, the contrast of an image at x is

.. math::
    D_u(x) = G(x) - \tfrac{1}{2} \big(G(x + d\,u) + G(x - d\,u)\big), \qquad d = 14\ \text{mm}.

At each local maximum of G of the other counts, u is the direction in which these show the least
contrast. Outlines and long bones have none along themselves, so that they are no foci. With U the
uptake about x, in the other counts, too, a restoration T of the rapid scan R has

.. math::
    \text{kept} = \sum_x \frac{D_u(x; T)}{U(x)} \Big/ \sum_x \frac{D_u(x; R)}{U(x)}.

Noise moves the maximum of a faint focus, which costs sharp images more than smooth ones: in a
simulation a blur of 6 mm seems to keep 0.64 of them instead of 0.49, one of 3.5 mm nearly what it
does. Places that noise alone has made brightest, some hundred a scan there, count for less than
0.005 each. Foci are small bright places of any kind, lesions, joints and vertebrae among them.
"""

from __future__ import annotations

import math

import numpy as np

from rbs.evaluation.observers.lesion_detection import INNER_MM, OUTER_MM, disc
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.body import smooth
from rbs.scans.scan import Array

FLANK_MM = 14.0
"""d: beyond a focus of 5 mm (sigma) under the inner Gaussian."""
DIRECTIONS = ((1.0, 0.0), (0.0, 1.0), (math.sqrt(0.5), math.sqrt(0.5)), (math.sqrt(0.5), -math.sqrt(0.5)))
"""u: rows and columns."""
CLASSES = {"faint": (2.0, 4.0), "bright": (4.0, math.inf)}
"""Foci by the least contrast that the other counts show, standard deviations of its noise."""
SUMS = ("foci", "restored", "rapid")
"""Number of foci, and the sums of their contrasts in the restoration and in the rapid scan."""
COLUMNS = tuple(f"{name}_{kind}" for name in CLASSES for kind in SUMS)
"""Columns of scores."""
DEFINITION = (
    "places that, smoothed by 4 mm, are brighter than the mean of 14 mm to both sides in each of four "
    "directions, in the counts that the rapid scan does not hold: bright from 4 standard deviations of their "
    "noise on in the direction of the least contrast, faint from 2 to 4; kept: the sum of this contrast, "
    "over the uptake about each place, in the restoration, over that in the rapid scan; pooled over the "
    "draws and views of a scan, then the mean over scans"
)


def focus_contrasts(estimate: Array, pair: ScanPair) -> list[dict[str, float]]:
    """Sums of the contrasts of foci, by view and class.

    Args:
        estimate: Restoration T, standard counts (V, H, W).
        pair: The rapid scan it was made of, and all other counts.

    Returns:
        For each view the number of foci of a class (`faint_foci`), and the sums of their contrasts
        in T (`faint_restored`) and in the rapid scan (`faint_rapid`).
    """
    target, spacing = pair.target, pair.spacing_mm
    bright = smooth(target.standard, INNER_MM, spacing)
    places = _maxima(bright, target.judged, spacing)
    # The squared kernel of G is a Gaussian of INNER_MM / √2; the flanks overlap it by a twentieth.
    area = 4 * math.pi * INNER_MM**2 / (spacing[0] * spacing[1])
    variance = smooth(target.standard, INNER_MM / math.sqrt(2), spacing) / (area * target.exposure)
    z = _contrasts(bright, places, spacing) / np.sqrt(_contrasts(variance, places, spacing, flanks=0.25))
    least = z.argmin(axis=0), np.arange(len(places))
    about = smooth(target.standard, OUTER_MM, spacing)[tuple(places.T)]
    restored, rapid = (
        _contrasts(smooth(image, INNER_MM, spacing), places, spacing)[least] / about
        for image in (estimate, pair.rapid / pair.exposure)
    )
    rows: list[dict[str, float]] = []
    for view in range(len(estimate)):
        row: dict[str, float] = {}
        for name, (low, high) in CLASSES.items():
            own = (places[:, 0] == view) & (low <= z[least]) & (z[least] < high)
            sums = own.sum(), restored[own].sum(), rapid[own].sum()
            row |= {f"{name}_{kind}": float(value) for kind, value in zip(SUMS, sums, strict=True)}
        rows.append(row)
    return rows


def _maxima(image: Array, inside: Array, spacing_mm: tuple[float, float]) -> Array:
    """View, row and column of local maxima whose flanks lie within the image, int (n, 3)."""
    from scipy.ndimage import maximum_filter

    highest = maximum_filter(image, footprint=disc(spacing_mm), mode="constant")
    places = np.argwhere((image == highest) & (image > 0) & inside)
    margin = np.array([math.ceil(FLANK_MM / mm) for mm in spacing_mm])
    within = (places[:, 1:] >= margin) & (places[:, 1:] < image.shape[1:] - margin)
    return np.asarray(places[within.all(axis=1)])


def _contrasts(image: Array, places: Array, spacing_mm: tuple[float, float], flanks: float = -0.5) -> Array:
    """The value at each place plus `flanks` times the values to both sides, (directions, n)."""
    found = []
    for u in DIRECTIONS:
        step = np.array([0, *(round(FLANK_MM * part / mm) for part, mm in zip(u, spacing_mm, strict=True))])
        sides = image[tuple((places + step).T)] + image[tuple((places - step).T)]
        found.append(image[tuple(places.T)] + flanks * sides)
    return np.stack(found)
