"""Means and intervals of draws in views in scans."""

import numpy as np
import pytest

from rbs.evaluation.statistics.hierarchical import nested_interval, nested_mean


def test_a_scan_of_two_views_counts_once():
    values = [[np.array([1.0, 3.0]), np.array([4.0])], [np.array([9.0])]]
    assert nested_mean(values) == (3 + 9) / 2


def test_the_interval_covers_the_mean_of_the_population():
    """Scans, views and draws each vary; nine in ten intervals or more must hold the true mean, zero."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        scans = rng.normal(0, 1, 30)
        views = [scan + rng.normal(0, 0.5, 2) for scan in scans]
        low, high = nested_interval([[view + rng.normal(0, 0.3, 3) for view in own] for own in views])
        held += low < 0 < high
    assert 0.88 <= held / 100 <= 0.98


def test_scans_are_the_unit():
    """Many draws of two scans tell as little of other scans as few do."""
    rng = np.random.default_rng(0)

    def width(draws):
        scans = [[5 * scan + rng.normal(0, 0.1, draws) for _ in range(2)] for scan in range(2)]
        low, high = nested_interval(scans)
        return high - low

    assert width(100) == pytest.approx(width(3), rel=0.1)
    assert width(3) > 4.5


def test_one_scan_has_the_interval_of_its_draws():
    values = np.array([1.0, 2.0, 3.0])
    low, high = nested_interval([[values]])
    assert (low, high) == (1, 3)


@pytest.mark.parametrize("values", [[[np.array([1.0])]], [[np.array([1.0, np.nan])]]])
def test_a_single_value_or_an_unknown_one_has_no_interval(values):
    assert np.isnan(nested_interval(values)).all()
