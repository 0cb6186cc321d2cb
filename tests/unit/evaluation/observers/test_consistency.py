"""Agreement with the rapid scan against Poisson statistics."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import poisson

from rbs.evaluation.observers.consistency import check_consistency, deviance_moments
from rbs.scans.counts import poisson_deviance

SPACING = (2.26, 2.26)  # blocks of 8 pixels


@pytest.fixture(scope="module")
def truth():
    rng = np.random.default_rng(0)
    return 1e-6 + gaussian_filter(20.0 * (rng.random((2, 256, 128)) > 0.99), (0, 4, 4))


@pytest.mark.parametrize("p", [0.02, 0.5])
def test_the_truth_has_the_expected_deviance_at_any_count(truth, p):
    rng = np.random.default_rng(1)
    found = [check_consistency(rng.poisson(p * truth), truth, p, SPACING) for _ in range(60)]
    ratios = [c.ratio for c in found]
    assert np.mean(ratios) == pytest.approx(1, abs=4 * np.std(ratios) / np.sqrt(60))
    spread = found[0].spread / found[0].expected
    assert np.std(ratios) == pytest.approx(spread, rel=0.35)
    assert found[0].blocks == 2 * 32 * 16
    assert np.mean([len(c.clusters) for c in found]) < 1


def test_moments_are_sums_over_poisson_counts():
    for m in (0.01, 0.7, 3.0, 40.0):
        d = poisson_deviance(np.arange(300.0), np.full(300, m))
        weights = poisson.pmf(np.arange(300), m)
        mean = (weights * d).sum()
        assert deviance_moments(np.array(m))[0] == pytest.approx(mean, rel=2e-3)
        assert deviance_moments(np.array(m))[1] == pytest.approx((weights * d**2).sum() - mean**2, rel=5e-3)
    assert deviance_moments(np.array(1e4))[0] == pytest.approx(1, abs=0.005)


def test_deviance_is_twice_the_log_likelihood_lost():
    r, m = np.array([0.0, 3.0, 8.0]), np.array([2.0, 3.0, 5.0])
    expected = 2 * (poisson.logpmf(r, np.where(r > 0, r, 1e-12)) - poisson.logpmf(r, m))
    np.testing.assert_allclose(poisson_deviance(r, m), expected, atol=1e-9)


def test_what_contradicts_the_counts_is_flagged_where_it_does(truth):
    rng = np.random.default_rng(2)
    rapid = rng.poisson(0.5 * (truth + 1))
    restored = truth + 1
    restored[0, 64:80, 32:48] *= 3  # made up
    restored[1, 160:176, 64:80] *= 0.1  # wiped out
    found = check_consistency(rapid, restored, 0.5, SPACING)
    places = {(c.view, np.sign(c.z)): (c.row, c.column, c.blocks) for c in found.clusters}
    assert places == {(0, -1.0): (71.5, 39.5, 4), (1, 1.0): (167.5, 71.5, 4)}
    made_up = next(c for c in found.clusters if c.view == 0)
    assert made_up.expected > 2 * made_up.counted
    assert found.ratio > 1.1


def test_what_has_seen_the_counts_agrees_too_well(truth):
    """The documented bias: below 1, and 0 for the scan itself."""
    rapid = np.random.default_rng(3).poisson(0.5 * (truth + 1))
    smoothed = gaussian_filter(rapid / 0.5, (0, 2, 2))
    assert check_consistency(rapid, smoothed, 0.5, SPACING).ratio < 0.9
    assert check_consistency(rapid, rapid / 0.5, 0.5, SPACING).ratio == pytest.approx(0, abs=1e-3)


def test_a_restoration_of_nothing_is_very_wrong_but_not_infinitely(truth):
    rapid = np.random.default_rng(4).poisson(0.5 * (truth + 1))
    found = check_consistency(rapid, np.zeros_like(truth), 0.5, SPACING)
    assert np.isfinite(found.ratio)
    assert found.ratio > 100
