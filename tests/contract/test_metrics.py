"""What every metric promises: the reference is best, and error makes it worse in the stated direction."""

import os

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.evaluation.scans.metrics import METRICS, NOISY, TRUTH, Target, decibels
from rbs.evaluation.set_metrics.fid_kid import SET_METRICS
from rbs.evaluation.set_metrics.lpips import lpips_of_scans
from rbs.weights.external import ALEXNET, find

NAMES = [metric.name for metric in METRICS] + ["lpips"]


@pytest.fixture(scope="module")
def truth():
    blobs = np.random.default_rng(0).random((2, 192, 176)) > 0.99  # MS-SSIM needs 176 pixels
    return 3 + 300 * gaussian_filter(blobs.astype(float), (0, 3, 3))


@pytest.fixture(scope="module")
def target(truth):
    labels = np.zeros(truth.shape, dtype=np.uint8)
    labels[:, 20:60], labels[:, 80:100] = 1, 6
    return Target(np.random.default_rng(4).poisson(truth), 1.0, (2.3, 2.3), truth, labels)


@pytest.fixture(scope="module", params=NAMES)
def metric(request):
    if request.param != "lpips":
        return next(m for m in METRICS if m.name == request.param)
    if not os.environ.get("RBS_WEIGHTS") or find(*ALEXNET) is None:
        pytest.skip("no LPIPS weights in RBS_WEIGHTS")
    return lpips_of_scans()


def cost(metric, value):
    """Lower is better, whatever the metric."""
    if metric.higher_is_better is None:
        return abs(value)
    return -value if metric.higher_is_better else value


def reference_of(metric, target):
    """What the metric compares with: the noisy standard scan or the expectation."""
    return target.standard if metric.group == NOISY else target.expectation


def test_the_reference_itself_is_best(metric, target):
    reference = reference_of(metric, target)
    best = metric.compute(reference, target)
    # Estimated through a noisy scan: zero error within its statistics, which are far below its
    # noise.
    resolved = 0.1 * reference.mean()
    if metric.name in ("nc_mse", "nc_nmse"):
        assert abs(best) < resolved / (target.peak**2 if metric.name == "nc_nmse" else 1)
        return
    if metric.name == "nc_psnr":
        # The error of one scan may be negative by chance, which has no decibels; of this one it is not.
        assert best > decibels(resolved / target.peak**2)
        return
    ideal = np.inf if metric.unit == "dB" else 1.0 if "ssim" in metric.name else 0.0
    assert best == pytest.approx(ideal, abs=1e-6)


def test_more_error_is_worse(metric, target):
    """More noise, and for the biases more loss, is worse at every step."""
    reference = reference_of(metric, target)
    noise = np.random.default_rng(2).normal(size=reference.shape)
    costs = []
    for size in (0.5, 1.0, 2.0, 4.0):
        estimate = reference * (1 - 0.05 * size) if "bias" in metric.name else reference + size * noise
        costs.append(cost(metric, metric.compute(estimate, target)))
    assert np.isfinite(costs).all()
    assert np.all(np.diff(costs) > 0)


def test_it_says_what_it_is(metric):
    described = metric.describe()
    for stated in ("name", "label", "definition", "reference", "mask"):
        assert described[stated]
    assert described["group"] in (TRUTH, NOISY)
    assert described["higher_is_better"] in (True, False, None)
    assert described["unit"] in ("dB", "%", "counts²", "")
    assert "compute" not in described


def test_a_peak_is_stated_where_one_matters(metric, target):
    """With another peak the value is another one, or the metric names none."""
    other = Target(target.counts, 1.0, target.spacing_mm, target.expectation, target.labels)
    other.__dict__.update(standard=target.standard, mask=target.mask, peak=2 * target.peak)
    estimate = target.expectation + np.random.default_rng(3).normal(size=target.counts.shape)
    same = metric.compute(estimate, other) == pytest.approx(metric.compute(estimate, target), rel=1e-6)
    assert same == (metric.peak == "")


def test_without_truth_it_is_a_number_or_nan(metric, target):
    blind = Target(target.counts, 1.0, target.spacing_mm)
    value = metric.compute(target.expectation + 1.0, blind)
    assert isinstance(value, float)
    assert np.isnan(value) == ("expectation (phantoms only)" in metric.reference)


@pytest.mark.parametrize("metric", SET_METRICS, ids=lambda m: m.name)
def test_figures_of_a_set_promise_the_same(metric):
    """The reference is best, and the farther the features are shifted the worse it is."""
    described = metric.describe()
    for stated in ("name", "label", "definition", "reference", "mask", "peak"):
        assert described[stated]
    assert (described["unit"], described["higher_is_better"]) == ("", False)
    points = np.random.default_rng(0).normal(size=(400, 4))
    costs = [metric.compute(points + shift, points) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert np.all(np.diff(costs) > 0)
    assert costs[0] == pytest.approx(0, abs=0.1 * costs[1])
