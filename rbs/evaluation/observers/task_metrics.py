"""Reading tasks as columns of the table of `rbs evaluate`: foci and growth plates.

They need a known expectation, and but for the first two a phantom's lesions and landmarks: NaN
without.
"""

from __future__ import annotations

import math

import numpy as np

from rbs.evaluation.observers.growth_plates import PlateScores, compare_plates, measure_plates
from rbs.evaluation.observers.lesion_detection import FocusErrors, compare_foci
from rbs.evaluation.observers.lesions import FocusScore, score_foci
from rbs.evaluation.scans.metrics import Metric, Target
from rbs.scans.scan import Array


def found_foci(estimate: Array, target: Target) -> FocusErrors | None:
    """Hallucinated and lost foci; None without an expectation."""
    if target.expectation is None:
        return None
    return compare_foci(estimate, target.expectation, target.spacing_mm)


def focus_scores(estimate: Array, target: Target) -> list[FocusScore]:
    """Scores of the phantom's lesions; none where they are not known."""
    if target.expectation is None or target.anatomy is None:
        return []
    return score_foci(estimate, target.expectation, target.labels, target.anatomy.foci, target.spacing_mm)


def plate_scores(estimate: Array, target: Target) -> PlateScores:
    """Scores of the distal femoral growth plates; NaN where they are not known."""
    if target.expectation is None or target.anatomy is None:
        return compare_plates([], [])
    landmarks, spacing = target.anatomy.landmarks, target.spacing_mm
    found = measure_plates(estimate, landmarks, spacing)
    return compare_plates(found, measure_plates(target.expectation, landmarks, spacing))


def hallucinated(estimate: Array, target: Target) -> float:
    """Foci of the restoration that the expectation does not support, a view."""
    found = found_foci(estimate, target)
    return math.nan if found is None else len(found.hallucinated) / len(estimate)


def lost(estimate: Array, target: Target) -> float:
    """Foci of the expectation that the restoration does not show, a view."""
    found = found_foci(estimate, target)
    return math.nan if found is None else len(found.lost) / len(estimate)


def lesion_recovery(estimate: Array, target: Target) -> float:
    """Mean contrast recovery of the lesions."""
    scores = focus_scores(estimate, target)
    return float(np.mean([score.recovery for score in scores])) if scores else math.nan


def lesion_counts(estimate: Array, target: Target) -> float:
    """Mean over lesions of their counts over those expected."""
    scores = focus_scores(estimate, target)
    return float(np.mean([score.counts for score in scores])) if scores else math.nan


_TRUTH = "the known expectation (phantoms only)"
TASKS = "Foci and growth plates"
"""Group of these metrics in print."""

TASK_METRICS: tuple[Metric, ...] = (
    Metric(
        "lesion_recovery",
        "Lesion contrast",
        "",
        None,
        _TRUTH,
        "mean over lesions of the contrast F/B - 1 in T over that in λ; 1 is best",
        lesion_recovery,
        group=TASKS,
        ideal=1.0,
        mask="the lesions and rings about them",
    ),
    Metric(
        "lesion_counts",
        "Lesion counts",
        "",
        None,
        _TRUTH,
        "mean over lesions of the counts F in T over those in λ; 1 is best",
        lesion_counts,
        printed=False,
        group=TASKS,
        ideal=1.0,
        mask="the lesions",
    ),
    Metric(
        "physis_peak",
        "Physis peak",
        "",
        None,
        _TRUTH,
        "peak of the distal femoral growth plates above the metaphysis in T over that in λ; 1 is best; the "
        "maximum of a noisy profile lies above its expectation",
        lambda estimate, target: plate_scores(estimate, target).peak,
        group=TASKS,
        ideal=1.0,
        mask="the distal femoral growth plates",
    ),
    Metric(
        "physis_fwhm",
        "Physis FWHM",
        "",
        None,
        _TRUTH,
        "full width at half maximum of the distal femoral growth plates in T over that in λ; 1 is best",
        lambda estimate, target: plate_scores(estimate, target).fwhm,
        printed=False,
        group=TASKS,
        ideal=1.0,
        mask="the distal femoral growth plates",
    ),
    Metric(
        "physis_asymmetry_error",
        "Physis asymmetry error",
        "%",
        False,
        _TRUTH,
        "|A_T - A_λ|, A = 200 (left - right)/(left + right) % of the growth plates' peaks",
        lambda estimate, target: plate_scores(estimate, target).asymmetry_error,
        printed=False,
        group=TASKS,
        mask="the distal femoral growth plates",
    ),
    Metric(
        "hallucinated",
        "Hallucinated foci",
        "a view",
        False,
        _TRUTH,
        "local maxima of the difference of Gaussians (4 and 12 mm) of T that exceed those of λ within 8 mm "
        "by 5 standard deviations of a standard scan's Poisson noise",
        hallucinated,
        group=TASKS,
        mask="all of each view",
    ),
    Metric(
        "lost",
        "Lost foci",
        "a view",
        False,
        _TRUTH,
        "local maxima of the difference of Gaussians of λ that exceed those of T within 8 mm by 5 standard "
        "deviations of a standard scan's Poisson noise",
        lost,
        group=TASKS,
        mask="all of each view",
    ),
)
