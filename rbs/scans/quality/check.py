"""The quality of a scan: is it what it says?

`rbs.clinic.checks.check` decides whether a scan may be restored. Here a physicist is warned of
faults of a scan that may: of the patient, the injection, the camera, the header and the export.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from rbs.scans.quality import camera, counts, hot_spots, motion, table, views
from rbs.scans.quality.clean import CLEAN, FLAGGED
from rbs.scans.quality.findings import SMALLEST, SURE, Finding, Kind, Suspicion
from rbs.scans.quality.seen import see
from rbs.scans.scan import Scan

CHECKS = (
    motion.motion_within,
    motion.motion_between,
    hot_spots.extravasation,
    hot_spots.contamination,
    hot_spots.saturation,
    counts.velocity,
    counts.missing_in_one_head,
    counts.filtered,
    camera.uniformity,
    camera.energy_window,
    camera.metal,
    table.coverage,
    table.rows,
    views.swapped,
    views.mirrored,
)

IMPLIES = {
    Kind.MIRRORED: (Kind.BETWEEN, Kind.METAL, Kind.UNIFORMITY),
    Kind.BETWEEN: (Kind.METAL, Kind.UNIFORMITY),
    Kind.MOTION: (Kind.ROWS, Kind.UNIFORMITY),
    Kind.EXTRAVASATION: (Kind.CONTAMINATION, Kind.HEAD),
    Kind.WINDOW: (Kind.METAL,),
    Kind.COVERAGE: (Kind.SWAPPED,),
}
"""Findings that another fault causes; they are left out beside it unless they are sure. The lumbar
spine, for example, is looked for at a share of the length of a body that is not cut."""


def check_quality(scan: Scan) -> list[Finding]:
    """Look for faults of a whole-body scan, the surest first.

    A scan of less than half a metre, or of too few counts, shows no whole body: nothing is found.

    Args:
        scan: One or two views as acquired. Its header is used where it has one.
    """
    return findings_of(suspicions(scan))


def findings_of(signs: Iterable[Suspicion]) -> list[Finding]:
    """The signs that hardly any clean scan shows, without those that a surer one implies."""
    chances = {sign.kind: (p_value_of(sign), sign) for sign in signs}
    found = {kind: pair for kind, pair in chances.items() if pair[0] <= FLAGGED}
    for kind, others in IMPLIES.items():
        for other in others:
            if kind in found and other in found and found[other][1].score < SURE:
                del found[other]
    return [
        Finding(sign.kind, sign.view, sign.place, sign.score, max(p_value, SMALLEST), sign.fault, sign.remedy)
        for p_value, sign in sorted(found.values(), key=lambda pair: pair[0])
    ]


def suspicions(scan: Scan) -> Iterator[Suspicion]:
    """The strongest sign of every fault that can be looked for in this scan."""
    seen = see(scan)
    if seen is None:
        return
    for check in CHECKS:
        if (sign := check(seen)) is not None:
            yield sign


def p_value_of(sign: Suspicion) -> float:
    """Share of clean scans with a sign as strong: the exponential tail of their scores."""
    clean = CLEAN[sign.kind]
    beyond = (sign.score - clean.threshold) / clean.scale
    return min(FLAGGED * math.exp(-max(beyond, -50.0)), 1.0)
