r"""Contrast of foci in restorations of real scans, which have no known truth.

The counts that the rapid scan does not hold are split in two once more, so that there are three
scans of one patient, of which none knows of the noise of the others: the rapid scan, which is
restored to T; A, which says where foci are; and C, which says how bright they are. With the
detector D of `rbs.evaluation.observers.lesion_detection` and the uptake U about each place x, as A
shows it,

.. math::
    \text{kept} = \sum_x \frac{D_T(x)}{U(x)} \Big/ \sum_x \frac{D_C(x)}{U(x)},

which is 1 in expectation for the rapid scan itself. A place where A shows a focus by chance alone
adds nothing to either sum in expectation. Foci are small bright places of any kind, lesions, joints
and vertebrae among them: what blurs one blurs the others.
"""

from __future__ import annotations

import math

import numpy as np

from rbs.degradation.thinning import split
from rbs.evaluation.observers.lesion_detection import OUTER_MM, detect, find_foci
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.scan import Array

CLASSES = {"faint": (3.0, 5.0), "bright": (5.0, math.inf)}
"""Foci by how far they stand out of the noise of A, standard deviations of the detector."""
COLUMNS = tuple(f"{name}_{kind}" for name in CLASSES for kind in ("foci", "shown", "counted"))
"""Of scores: number, contrasts in the restoration, contrasts in other counts."""
DEFINITION = (
    "local maxima of a difference of Gaussians (4 and 12 mm) in half of the counts that the rapid scan does "
    "not hold, bright from 5 standard deviations of its noise on, faint from 3 to 5; kept: the sum of the "
    "same difference over the uptake about each, in the restoration, over that in the other half; pooled "
    "over the draws and views of a scan, then the mean over scans"
)


def focus_contrasts(estimate: Array, pair: ScanPair) -> list[dict[str, float]]:
    """Sums of the contrasts of foci, by view and class.

    The halves A and C of the counts are the same each time.

    Args:
        estimate: Restoration T, standard counts (V, H, W).
        pair: The rapid scan it was made of, and all other counts.

    Returns:
        For each view the number of foci of a class (`faint_foci`), and the sums of their contrasts
        in T (`faint_shown`) and in C (`faint_counted`).
    """
    from scipy.ndimage import gaussian_filter

    target, spacing = pair.target, pair.spacing_mm
    finding, judging = split(target.counts, (0.5, 0.5), np.random.default_rng(0))
    scale = 2 / target.exposure
    sigma = (0, OUTER_MM / spacing[0], OUTER_MM / spacing[1])
    about = scale * gaussian_filter(finding.astype(np.float64), sigma, mode="constant")
    contrasts = {
        "shown": detect(estimate, spacing) / np.maximum(about, 1e-9),
        "counted": scale * detect(judging, spacing) / np.maximum(about, 1e-9),
    }
    least = min(low for low, _ in CLASSES.values())
    found = [focus for focus in find_foci(finding, spacing, least) if target.mask[focus[:3]]]
    rows: list[dict[str, float]] = []
    for view in range(len(estimate)):
        row: dict[str, float] = {}
        for name, (low, high) in CLASSES.items():
            own = [focus[:3] for focus in found if focus[0] == view and low <= focus[3] < high]
            row[f"{name}_foci"] = len(own)
            for kind, contrast in contrasts.items():
                row[f"{name}_{kind}"] = float(sum(contrast[place] for place in own))
        rows.append(row)
    return rows
