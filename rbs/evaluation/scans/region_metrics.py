"""PSNR to the truth of each region of the skeleton, where expectation and labels are known."""

from __future__ import annotations

import math
from typing import Any

from rbs.evaluation.scans.metrics import Metric, Target
from rbs.report.searches import REGIONAL
from rbs.scans.fidelity import relative_error
from rbs.scans.scan import REGIONS, Array


def _metrics_of(k: int) -> tuple[Metric, Metric]:
    """PSNR of a region, and the squared error it is pooled from."""
    region = REGIONS[k]
    name = region.replace(" ", "_")

    def error(estimate: Array, target: Target) -> float:
        if target.expectation is None or target.labels is None:
            return math.nan
        inside = target.labels == k + 1
        if not inside.any():
            return math.nan
        return relative_error(estimate, target.expectation, inside, target.peak)

    about: dict[str, Any] = {"group": REGIONAL, "mask": f"the region {region}", "peak": "P"}
    truth = "the known expectation (phantoms only)"
    definition = (
        "10 log10(P² / mean((T - λ)²)) over the pixels of the region, the mean over patients before the log"
    )
    decibels = Metric(
        *(f"psnr_{name}", f"PSNR {region}", "dB", True, truth, definition),
        lambda estimate, target: math.nan,
        pooled_from=f"nmse_{name}",
        **about,
    )
    relative = Metric(
        *(f"nmse_{name}", f"MSE {region} / P²", "", False, truth, "mean((T - λ)²) / P² over the region"),
        error,
        printed=False,
        **about,
    )
    return decibels, relative


REGION_METRICS = tuple(metric for k in range(len(REGIONS)) for metric in _metrics_of(k))
"""PSNR of each region, and the column of relative errors it is pooled from."""
