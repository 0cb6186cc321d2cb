"""Reference rows of the table: a perfect restoration and another standard scan.

Both need the known expectation of a phantom. They are scored by every metric as methods are, so
each metric shows what it makes of the truth itself, and of a scan that cost the full time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from rbs.evaluation.scans.limits import ceiling_psnr
from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.scan import Array

CEILING, REPEAT = "ceiling", "repeat"
REFERENCES = {CEILING: "Perfect restoration (ceiling)", REPEAT: "Another standard scan (repeat)"}
"""Names of the rows to their printed labels."""

_STREAM = 1
"""Separates this stream from the one that splits a patient's counts, which starts from the same
name."""


def reference_images(pair: ScanPair) -> dict[str, Array]:
    """Expectation, and a Poisson draw of it that depends on the patient alone; {} without truth.

    Returns:
        Name of the row to standard counts (V, H, W), lying where the target lies.
    """
    expectation = pair.target.expectation
    if expectation is None:
        return {}
    rng = np.random.default_rng((zlib.crc32(pair.patient.encode()), _STREAM))
    return {CEILING: expectation, REPEAT: rng.poisson(expectation).astype(np.float32)}


def reference_scores(pair: ScanPair, metrics: Sequence[Metric]) -> dict[str, dict[str, float]]:
    """Scores of both rows; of a real scan only the ceiling of PSNR is known, from its counts.

    Returns:
        Name of the row to scores by metric, NaN where unknown.
    """
    target, images = pair.target, reference_images(pair)
    scores = {
        row: {m.name: m.compute(images[row], target) if images else math.nan for m in metrics}
        for row in REFERENCES
    }
    if not images:
        scores[CEILING]["psnr"] = ceiling_psnr(target.mean_count, target.peak, target.exposure)
    return scores
