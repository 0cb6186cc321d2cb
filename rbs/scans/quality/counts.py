"""Number and noise of the counts: against the velocity, between the heads, and Poisson's."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbs.scans.counts import block_sums, dispersion_index
from rbs.scans.dicom.reader import from_picture
from rbs.scans.noise import examine
from rbs.scans.quality.findings import SURE, Kind, Suspicion
from rbs.scans.quality.seen import Seen
from rbs.scans.ranges import ACTIVITY
from rbs.scans.scan import STANDARD_VELOCITY

USUAL_PER_CM2 = 120.0
"""Counts of a view a square centimetre of body at 20 cm/min, hot spots held down; between a child
of 10 kg and an adult of 70 kg it changes less than from one patient to the next."""

USUAL_PER_MBQ = 1200.0
"""Counts of a view a MBq at 20 cm/min, three hours after the injection, hot spots held down."""

UPTAKE_H, HALF_LIFE_H = 3.0, 6.007


def velocity(seen: Seen) -> Suspicion | None:
    """Score the counts at the stated velocity against the usual number, as a log ratio.

    With activity and times in the header the usual number follows from them; otherwise from the
    area of the body, with which paediatric doses rise. Patients differ by a factor of two and more,
    so that only a velocity wrong by a unit or a digit can be told.
    """
    scan = seen.scan
    if scan.velocity is None:
        return None
    held = float(seen.held.sum(axis=(1, 2)).mean())
    activity = _activity_at_scan(scan.provenance.header)
    if activity is None:
        area = float(seen.body.sum(axis=(1, 2)).mean()) * seen.spacing[0] * seen.spacing[1] / 100
        usual, source = USUAL_PER_CM2 * area, "a body of this size"
    else:
        usual, source = USUAL_PER_MBQ * activity, f"the {activity:.0f} MBq that were left"
    ratio = held * scan.velocity / STANDARD_VELOCITY / usual
    times = f"{max(ratio, 1 / ratio):.1f} times {'more' if ratio > 1 else 'fewer'} counts"
    return Suspicion(
        Kind.VELOCITY,
        abs(float(np.log(ratio))),
        f"{times} than {source} gives at {scan.velocity:.3g} cm/min",
        "compare ScanVelocity (mm/s) with the protocol; state the true one with --velocity CM_PER_MIN",
    )


def _activity_at_scan(header: Any) -> float | None:
    """Administered activity, MBq, decayed from three hours after the injection to the scan."""
    try:
        drug = header.RadiopharmaceuticalInformationSequence[0]
        activity = float(drug.RadionuclideTotalDose)
        if activity not in ACTIVITY:
            return None
        hours = (_hour(header.AcquisitionTime) - _hour(drug.RadiopharmaceuticalStartTime)) % 24
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return activity * 0.5 ** ((hours - UPTAKE_H) / HALF_LIFE_H) if 0.5 < hours < 12 else None


def _hour(time: Any) -> float:
    """Hours of a DICOM time HHMM[SS]."""
    text = str(time)
    return int(text[:2]) + int(text[2:4]) / 60


def missing_in_one_head(seen: Seen) -> Suspicion | None:
    """Score the counts of one view against the other as a log ratio, hot spots held down."""
    both = seen.body.all(axis=0)
    if len(seen.views) < 2 or not both.any():
        return None
    counts = seen.held[:, both].sum(axis=1)
    share, view = float(counts.min() / counts.max()), str(seen.views[int(counts.argmin())])
    return Suspicion(
        Kind.HEAD,
        -float(np.log(share)),
        f"it holds only {100 * share:.0f} % of the counts of the other view",
        "look for a wrong energy window, collimator distance or an interrupted head; scan again",
        view,
    )


def filtered(seen: Seen) -> Suspicion | None:
    """Score the departure of the noise from Poisson's in pixels, and its excess in 2x2 sums.

    A filter takes noise from pixels and leaves it in their sums; a scale raises both. Sums see some
    anatomy, too, and therefore count less; coarse pixels see so much of it that none is scored.
    What `rbs.scans.noise.examine` would have the reader refuse is sure.
    """
    scan = seen.scan
    remedy = "export the raw counts, before any filter, zoom or rescaling"
    recovered = from_picture(scan.provenance.header)
    for view, frame in zip(scan.views, scan.counts, strict=True):
        if fault := examine(frame, cut=scan.cut, recovered=recovered).fault:
            return Suspicion(Kind.FILTERED, SURE, f"{fault}: no raw counts", remedy, str(view))
    if seen.coarse or scan.cut or recovered:  # which changes the noise of low counts by itself
        return None
    signs = []
    for view, counts in zip(seen.views, seen.counts, strict=True):
        pixels = dispersion_index(counts)
        sums = dispersion_index(block_sums(counts[None], 2, 2)[0])
        if not np.isfinite(pixels + sums):
            continue
        signs.append((abs(pixels - 1) / 0.1, f"variance of pixels is {pixels:.2f} times their mean", view))
        excess = sums / pixels - 1
        signs.append(
            (excess / 0.4, f"of neighbouring pixels is shared ({100 * excess:.0f} % more in 2x2 sums)", view)
        )
    if not signs:
        return None
    score, what, view = max(signs)
    return Suspicion(
        Kind.FILTERED,
        float(score),
        f"the noise {what}: no raw counts",
        remedy,
        str(view),
    )
