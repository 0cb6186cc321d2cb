"""Paired differences, against closed forms, SciPy, and published examples."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rbs.evaluation.scans.metrics import METRICS
from rbs.multirun.ablation.compare import Difference, improves, paired, scores_of, value

NAMED = {metric.name: metric for metric in METRICS}
PLAIN, POOLED, BIAS, LESS = (NAMED[n] for n in ("psnr", "nc_psnr", "count_bias", "region_bias"))


def test_a_constant_difference_is_found_whatever_patients_and_seeds():
    rng = np.random.default_rng(0)
    b = rng.normal(30, 5, (3, 12))
    found = paired([(b + 0.25, b)], PLAIN)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.p == pytest.approx(2 / 2**12)  # all of 12 signs alike


def test_pairing_removes_what_rows_share():
    rng = np.random.default_rng(1)
    b = rng.normal(30, 5, (3, 20))
    a = b + rng.normal(0.1, 0.05, (3, 20))
    found = paired([(a, b)], PLAIN)
    assert found.high - found.low < 0.1  # unpaired, patients alone would make it some 6 dB
    assert found.low < 0.1 < found.high


def test_the_interval_of_one_seed_is_that_of_scipys_bootstrap():
    d = np.random.default_rng(2).normal(0.2, 1.0, 40)
    found = paired([(d[None], np.zeros((1, 40)))], PLAIN)
    wanted = stats.bootstrap((d,), np.mean, n_resamples=5000, method="percentile", random_state=3)
    assert found.low == pytest.approx(wanted.confidence_interval.low, abs=0.04)
    assert found.high == pytest.approx(wanted.confidence_interval.high, abs=0.04)


def test_seeds_that_disagree_widen_the_interval():
    patients = np.random.default_rng(3).normal(0, 0.01, (1, 30))
    same = paired([(patients + np.zeros((3, 1)), np.zeros((3, 30)))], PLAIN)
    apart = paired([(patients + np.array([[-1.0], [0.0], [1.0]]), np.zeros((3, 30)))], PLAIN)
    # A mean of three draws of -1, 0, 1: its 2.5 % quantile is -1 or -2/3.
    assert apart.high - apart.low > 1.2
    assert same.high - same.low < 0.02


def test_the_test_counts_patients_not_seeds():
    d = np.random.default_rng(4).normal(0.3, 1, (1, 15))
    many = np.repeat(d, 50, axis=0)
    assert paired([(many, 0 * many)], PLAIN).p == paired([(d, 0 * d)], PLAIN).p == stats.wilcoxon(d[0]).pvalue


def test_decibels_come_of_mean_errors():
    b = np.array([[1e-3, 3e-3, 2e-3], [1e-3, 3e-3, 2e-3]])
    a = b / 2
    assert paired([(a, b)], POOLED).mean == pytest.approx(10 * math.log10(2))
    assert value(b, POOLED) == pytest.approx(-10 * math.log10(2e-3))
    # One estimate below zero, as noise can make it, has no dB of its own and still counts.
    a[0, 0] = -1e-4
    assert math.isfinite(paired([(a, b)], POOLED).mean)


def test_rows_that_are_alike_differ_by_nothing():
    b = np.random.default_rng(5).normal(30, 5, (2, 9))
    found = paired([(b, b)], PLAIN)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert math.isnan(found.p)  # no patient differs, so none can be tested


def test_one_patient_has_no_interval():
    found = paired([(np.ones((3, 1)), np.zeros((3, 1)))], PLAIN)
    assert found.mean == 1
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_what_pairs_have_in_common_is_their_mean():
    zero = np.zeros((1, 8))
    assert paired([(zero + 1, zero), (zero + 3, zero)], PLAIN).mean == 2


def test_visits_are_averaged_and_biases_have_no_sign():
    rows = [("a", 1, "A", -2.0), ("a", 1, "A", 4.0), ("a", 1, "B", -3.0), ("b", 1, "A", 9.0)]
    table = pd.DataFrame(rows, columns=["row", "seed", "patient", "count_bias"])
    np.testing.assert_array_equal(scores_of(table, "a", BIAS), [[1.0, 3.0]])


@pytest.mark.parametrize(
    ("metric", "difference", "p", "wanted"),
    [
        (PLAIN, Difference(0.2, 0.1, 0.3, 0.01), 0.03, True),
        (PLAIN, Difference(-0.2, -0.3, -0.1, 0.01), 0.03, False),
        (LESS, Difference(-0.2, -0.3, -0.1, 0.01), 0.03, True),
        (BIAS, Difference(-0.2, -0.3, -0.1, 0.01), 0.03, True),
        (PLAIN, Difference(0.2, 0.1, 0.3, 0.01), 0.06, None),  # not after correction
        (PLAIN, Difference(0.2, -0.1, 0.3, 0.01), 0.03, None),  # the seeds disagree
        (PLAIN, Difference(0.2, math.nan, math.nan, math.nan), math.nan, None),
    ],
)
def test_only_what_is_clear_helps(metric, difference, p, wanted):
    assert improves(difference, p, metric) is wanted


def test_a_mean_error_below_zero_has_no_decibels():
    below, above = np.full((1, 12), -1e-4), np.full((1, 12), 1e-3)
    assert math.isnan(value(below, POOLED))
    assert math.isnan(paired([(below, below)], POOLED).mean)
    assert math.isnan(paired([(below, above)], POOLED).mean)
