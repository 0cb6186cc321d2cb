"""Labels of the views: swapped, or one of them mirrored."""

from __future__ import annotations

import numpy as np

from rbs.scans.quality.findings import Kind, Suspicion
from rbs.scans.quality.motion import fit_of_views
from rbs.scans.quality.seen import Seen

BEHIND = (0.27, 0.45, 0.024)
IN_FRONT = (0.10, 0.20, 0.04)
"""Parts of the body as shares of its length: first and last row, half width about the axis. Lumbar
spine and kidneys lie behind, face, neck and breastbone in front."""


def swapped(seen: Seen) -> Suspicion | None:
    """Score the lumbar spine over the neck in the anterior view against the posterior, as a log.

    The detector behind the patient sees the lumbar spine from half the depth of the trunk; face,
    neck and breastbone are nearer to the one in front. The ratio of both does not depend on the
    sensitivity of the heads.
    """
    if len(seen.views) < 2:
        return None
    behind, front = (_counts_in(seen, *part) for part in (BEHIND, IN_FRONT))
    if min(*behind, *front) <= 0:
        return None
    score = float(np.log(behind[0] / behind[1]) - np.log(front[0] / front[1]))
    return Suspicion(
        Kind.SWAPPED,
        score,
        "the lumbar spine is brighter in the view called anterior than in the one called posterior",
        "look at the face and the bladder; name the frames with --view",
    )


def _counts_in(seen: Seen, first: float, last: float, half_width: float) -> tuple[float, float]:
    top, end = seen.rows
    rows = np.arange(top + int(first * (end - top)), top + int(last * (end - top)))
    away = np.abs(np.arange(seen.counts.shape[2]) - seen.axis[rows, None]) * seen.spacing[1]
    inside = away < half_width * seen.length_mm
    anterior, posterior = (float(view[rows][inside].sum()) for view in seen.held)
    return anterior, posterior


def mirrored(seen: Seen) -> Suspicion | None:
    """Score how much better the views fit when one is mirrored, over the misfit that is left."""
    if len(seen.views) < 2:
        return None
    (plain, _), (flipped, _) = fit_of_views(seen, mirrored=False), fit_of_views(seen, mirrored=True)
    score = (flipped - plain) / max(1 - max(flipped, plain), 1e-6)
    return Suspicion(
        Kind.MIRRORED,
        float(score),
        f"the views fit better with one of them mirrored (correlation {flipped:.3f}, not {plain:.3f})",
        "look for the side marker; export both views as the camera writes them",
    )
