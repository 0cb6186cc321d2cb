"""Hallucinated and lost foci of a restoration, counted by a detector without known positions.

The detector is a difference of Gaussians D = (G_4mm - G_12mm) * image. On a standard scan of
expectation λ its Poisson noise is sd² = h² * λ, h the kernel, so that z = D/sd says how far a focus
stands out of a standard scan's own noise. A *hallucinated* focus is a local maximum x of D_T with

    D_T(x) - max over 8 mm around x of D_λ  >=  5 sd(x),

a *lost* one a local maximum of D_λ with z >= 5 which D_T, by the same rule, does not reach. The
rule asks for what exceeds the truth, not for what the truth has none of: a rib end restored too
brightly counts as well. No label is needed, and anatomy that is there (kidneys, growth plates) does
not count. The detector's noise is skewed where counts are few: five standard deviations are passed
by chance now and then, which is why the raw standard scan stands beside every method as a
reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rbs.scans.scan import Array

INNER_MM, OUTER_MM = 4.0, 12.0
SUPPORT_MM = 8.0
THRESHOLD = 5.0
"""In standard deviations of the detector on a standard scan."""
LEAST_COUNTS = 4.0


@dataclass(frozen=True)
class FocusErrors:
    """Foci of one restoration against its truth, in pixels of aligned arrays.

    Attributes:
        hallucinated: (view, row, column, excess in standard deviations) of foci the truth does not
            support.
        lost: The same of foci of the truth that the restoration does not show.
        true_foci: How many foci the truth holds.
    """

    hallucinated: list[tuple[int, int, int, float]]
    lost: list[tuple[int, int, int, float]]
    true_foci: int


def compare_foci(estimate: Array, expectation: Array, spacing_mm: tuple[float, float]) -> FocusErrors:
    """Find hallucinated and lost foci.

    Args:
        estimate: T, standard counts (V, H, W).
        expectation: λ, standard counts (V, H, W).
        spacing_mm: Row and column spacing, mm.
    """
    d_t, d_truth = detect(estimate, spacing_mm), detect(expectation, spacing_mm)
    sd = detector_noise(expectation, spacing_mm)
    hallucinated = _exceeding(d_t, d_truth, sd, spacing_mm)
    true_foci = _exceeding(d_truth, np.zeros_like(d_truth), sd, spacing_mm)
    lost = _exceeding(d_truth, np.maximum(d_t, 0), sd, spacing_mm)
    return FocusErrors(hallucinated, lost, len(true_foci))


def detect(image: Array, spacing_mm: tuple[float, float]) -> Array:
    """D, difference of Gaussians of the image, zero beyond the border, counts, (V, H, W)."""
    from scipy.ndimage import gaussian_filter

    image = image.astype(np.float64)
    inner, outer = (
        gaussian_filter(image, (0, sigma / spacing_mm[0], sigma / spacing_mm[1]), mode="constant")
        for sigma in (INNER_MM, OUTER_MM)
    )
    return np.asarray(inner - outer)


def detector_noise(expectation: Array, spacing_mm: tuple[float, float]) -> Array:
    """Standard deviation of D on a Poisson scan of this expectation, counts a pixel, (V, H, W).

    Where fewer than `LEAST_COUNTS` are expected in the kernel's equivalent area 1/Σh², as many are
    taken: a few counts side by side in an empty background are no focus, and have no normal
        distribution.
    """
    from scipy.signal import fftconvolve

    reach = [int(4 * OUTER_MM / s + 0.5) for s in spacing_mm]
    delta = np.zeros((1, 2 * reach[0] + 1, 2 * reach[1] + 1))
    delta[0, reach[0], reach[1]] = 1
    squared = detect(delta, spacing_mm) ** 2
    variance = fftconvolve(expectation.astype(np.float64), squared, mode="same", axes=(1, 2))
    return np.sqrt(np.maximum(variance, LEAST_COUNTS * squared.sum() ** 2))


def _exceeding(
    image: Array, support: Array, sd: Array, spacing_mm: tuple[float, float]
) -> list[tuple[int, int, int, float]]:
    """Local maxima that exceed all support within 8 mm by the threshold; a plateau is one."""
    from scipy.ndimage import label, maximum_filter

    near = disc(spacing_mm)
    peaks = (image == maximum_filter(image, footprint=near, mode="constant")) & (image > 0)
    excess = (image - maximum_filter(support, footprint=near, mode="constant", cval=-np.inf)) / sd
    touching = np.zeros((3, 3, 3), dtype=bool)
    touching[1] = True  # not across views
    numbers, _ = label(peaks & (excess >= THRESHOLD), structure=touching)
    candidates = np.argwhere(numbers)
    candidates = candidates[np.argsort(-excess[tuple(candidates.T)], kind="stable")]
    highest = np.unique(numbers[tuple(candidates.T)], return_index=True)[1]
    places = candidates[highest]
    return [(int(v), int(r), int(c), float(excess[v, r, c])) for v, r, c in places]


def disc(spacing_mm: tuple[float, float]) -> Array:
    """Pixels within `SUPPORT_MM` of one in its view, as a footprint, bool (1, rows, columns)."""
    rows, columns = (int(SUPPORT_MM / s) for s in spacing_mm)
    y, x = np.mgrid[-rows : rows + 1, -columns : columns + 1]
    return np.asarray(np.hypot(y * spacing_mm[0], x * spacing_mm[1]) <= SUPPORT_MM)[None]
