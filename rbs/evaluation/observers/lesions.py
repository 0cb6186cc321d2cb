"""Foci in bone: contrast that a restoration keeps, and its ratio to the noise.

Of a focus at x with a width w, F is the mean over the disc of radius w/2 and B the mean over the
ring from w/2 + 6 mm to w/2 + 20 mm, of pixels of the same bone where the labels know enough of
them. The same pixels are used in the restoration T and in the expectation λ:

    contrast            C = F / B - 1
    contrast recovery   C_T / C_λ      (1: all of it; unbiased noise keeps its mean)
    counts              F_T / F_λ      (what uptake measurements of the focus itself read)
    CNR                 (F_T - B_T) / rms(T - λ over the ring, less its mean)

w is the width after the camera's blur, sqrt(fwhm² + 7²) mm. Of the two views the one in which the
expectation shows more contrast is used; a focus that neither shows by 10 % is left out, for nothing
could recover it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rbs.data.anatomy import Focus
from rbs.scans.scan import REGIONS, Array

CAMERA_FWHM_MM = 7.0
"""Nominal resolution of a low-energy high-resolution collimator at 10 cm."""
RING_MM = (6.0, 20.0)
LEAST_CONTRAST = 0.1
ENOUGH_PIXELS = 12
"""Fewer ring pixels of the same bone than these say nothing about it: the whole ring is taken."""

SIZES_MM = (("small (under 8 mm)", 8.0), ("medium (8-14 mm)", 14.0), ("large (over 14 mm)", math.inf))
CONTRASTS = (("cold", 1.0), ("faint (under 2)", 2.0), ("medium (2-4)", 4.0), ("strong (over 4)", math.inf))


@dataclass(frozen=True)
class FocusScore:
    """Scores of one focus.

    Attributes:
        focus: The focus.
        view: Index of the view it was measured in.
        truth: C_λ, its contrast in the expectation.
        contrast: C_T, its contrast in the restoration.
        recovery: C_T / C_λ.
        counts: F_T / F_λ, counts within the disc over those expected there; NaN outside the image.
        cnr: Contrast-to-noise ratio; negative for a cold focus; infinite without noise.
    """

    focus: Focus
    view: int
    truth: float
    contrast: float
    recovery: float
    counts: float
    cnr: float

    @property
    def size_class(self) -> str:
        """Name of its class of `SIZES_MM`, by the width before the camera's blur."""
        return next(name for name, below in SIZES_MM if self.focus.fwhm_mm < below)

    @property
    def contrast_class(self) -> str:
        """Name of its class of `CONTRASTS`, by planar density over its bone, or "fracture"."""
        if self.focus.kind == "fracture":
            return "fracture"
        return next(name for name, below in CONTRASTS if self.focus.contrast < below)


def score_foci(
    estimate: Array,
    expectation: Array,
    labels: Array | None,
    foci: Iterable[Focus],
    spacing_mm: tuple[float, float],
) -> list[FocusScore]:
    """Score every focus that the expectation shows.

    Args:
        estimate: T, standard counts (V, H, W), aligned.
        expectation: λ, standard counts (V, H, W).
        labels: Region labels (V, H, W), k + 1 for REGIONS[k]; None where unknown.
        foci: The foci.
        spacing_mm: Row and column spacing, mm.

    Returns:
        One score a focus, without those that neither view shows.
    """
    scores = []
    for focus in foci:
        seen = [
            _score(view, estimate, expectation, labels, focus, spacing_mm) for view in range(len(estimate))
        ]
        best = max(seen, key=lambda score: abs(score.truth))
        if abs(best.truth) >= LEAST_CONTRAST:
            scores.append(best)
    return scores


def _score(
    view: int,
    estimate: Array,
    expectation: Array,
    labels: Array | None,
    focus: Focus,
    spacing_mm: tuple[float, float],
) -> FocusScore:
    radius = math.hypot(focus.fwhm_mm, CAMERA_FWHM_MM) / 2
    rows, columns = np.ogrid[: estimate.shape[1], : estimate.shape[2]]
    distance = np.hypot((rows - focus.row) * spacing_mm[0], (columns - focus.column) * spacing_mm[1])
    disc = distance <= radius
    ring = (distance >= radius + RING_MM[0]) & (distance <= radius + RING_MM[1])
    if labels is not None and focus.region in REGIONS:
        bone = ring & (labels[view] == REGIONS.index(focus.region) + 1)
        ring = bone if bone.sum() >= ENOUGH_PIXELS else ring
    t, truth = estimate[view].astype(np.float64), expectation[view].astype(np.float64)
    found, expected = _contrast(t, disc, ring), _contrast(truth, disc, ring)
    noise = float((t - truth)[ring].std()) if ring.any() else math.nan
    difference = float(t[disc].mean() - t[ring].mean()) if ring.any() and disc.any() else math.nan
    return FocusScore(
        focus=focus,
        view=view,
        truth=expected,
        contrast=found,
        recovery=found / expected if expected else math.nan,
        counts=float(t[disc].sum() / truth[disc].sum()) if truth[disc].sum() > 0 else math.nan,
        cnr=difference / noise if noise else math.copysign(math.inf, difference),
    )


def _contrast(image: Array, disc: Array, ring: Array) -> float:
    """F / B - 1; 0 where there is nothing to see."""
    if not disc.any() or not ring.any() or image[ring].mean() <= 0:
        return 0.0
    return float(image[disc].mean() / image[ring].mean() - 1)
