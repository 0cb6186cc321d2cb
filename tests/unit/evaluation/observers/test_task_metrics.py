"""The columns that tasks add to the table of `rbs evaluate`."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.data.anatomy import Anatomy, Focus
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.scans.metrics import METRICS, Target
from rbs.scans.scan import REGIONS

SPACING = (2.26, 2.26)


@pytest.fixture(scope="module")
def target():
    """Two legs with bright growth plates, and a focus."""
    truth = np.full((2, 200, 120), 3.0)
    truth[:, 120:123, 25:45] = truth[:, 120:123, 75:95] = 40
    truth[:, 40:43, 60:63] = 60
    truth = gaussian_filter(truth, (0, 1.5, 1.5))
    marks = {}
    for side, column in (("-1", 35.0), ("+1", 85.0)):
        marks |= {
            f"femoral diaphysis {side}": (80.0, column),
            f"distal femoral physis {side}": (121.0, column),
        }
    labels = np.full(truth.shape, REGIONS.index("legs") + 1, np.uint8)
    anatomy = Anatomy((Focus("legs", 41, 61, 8.0, 3.0),), marks)
    return Target(np.random.default_rng(0).poisson(truth), 1.0, SPACING, truth, labels, anatomy)


@pytest.fixture(params=[metric.name for metric in TASK_METRICS])
def metric(request):
    return next(m for m in TASK_METRICS if m.name == request.param)


BEST = {"lesion_recovery": 1.0, "lesion_counts": 1.0, "physis_peak": 1.0, "physis_fwhm": 1.0}


def test_the_truth_is_best(metric, target):
    assert metric.compute(target.expectation, target) == pytest.approx(BEST.get(metric.name, 0.0))


def test_what_harms_is_seen(metric, target):
    """More of the harm a metric is there for is worse."""
    y, x = np.mgrid[:200, :120]
    costs = []
    for size in (0.0, 1.0, 2.0):
        estimate = gaussian_filter(target.expectation, (0, 2 * size, 2 * size))
        if metric.name == "physis_asymmetry_error":
            estimate = target.expectation * (1 + 0.1 * size * (x > 60))
        if metric.name == "hallucinated":
            estimate = target.expectation.copy()
            for k in range(int(3 * size)):
                estimate += 10 * np.exp(-((y - 170) ** 2 + (x - 15 - 18 * k) ** 2) / 8)
        costs.append(abs(metric.compute(estimate, target) - BEST.get(metric.name, 0.0)))
    assert costs[0] < costs[1] <= costs[2]
    if metric.name != "lost":
        assert costs[1] < costs[2]


def test_without_truth_there_is_no_number(metric, target):
    blind = Target(target.counts, 1.0, SPACING)
    assert math.isnan(metric.compute(target.standard, blind))
    nameless = dataclasses.replace(target, anatomy=None)
    known = metric.name in ("hallucinated", "lost")
    assert math.isnan(metric.compute(target.standard, nameless)) != known


def test_names_are_new_and_definitions_stand(metric):
    assert metric.name not in {m.name for m in METRICS}
    assert metric.definition
    assert metric.reference
