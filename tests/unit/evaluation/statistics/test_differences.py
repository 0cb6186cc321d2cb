"""Paired comparisons against scipy, hand-worked numbers and a simulated null."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, ttest_rel, wilcoxon

from rbs.evaluation.scans.metrics import METRICS
from rbs.evaluation.statistics.differences import differences, holm, signed_rank_p

NAMES = ["rapid", "gaussian", "stage1"]
PEERS = NAMES[:2]
METRIC = {m.name: m for m in METRICS}


def table(column="psnr", **values):
    """A per-patient table of one metric, a list of values a method."""
    rows = [
        {"patient": f"P{k}", "method": method, column: value}
        for method, list_of_values in values.items()
        for k, value in enumerate(list_of_values)
    ]
    return pd.DataFrame(rows)


def compare(per_patient, metric="psnr", **options):
    found = differences(per_patient, [METRIC[metric]], NAMES, PEERS, **options)
    return found.set_index("method")


@pytest.fixture
def twelve():
    rng = np.random.default_rng(3)
    patients = rng.normal(30, 4, 12)
    return {
        "rapid": patients - 9 + rng.normal(0, 0.5, 12),
        "gaussian": patients + rng.normal(0, 0.5, 12),
        "stage1": patients + 0.6 + rng.normal(0, 0.5, 12),
    }


def test_p_is_scipys_and_the_difference_is_paired(twelve):
    found = compare(table(**twelve))
    assert set(found["against"]) == {"gaussian"}
    d = twelve["stage1"] - twelve["gaussian"]
    row = found.loc["stage1"]
    assert row["difference"] == pytest.approx(d.mean())
    assert (row["better"], row["worse"]) == ((d > 0).sum(), (d < 0).sum())
    assert row["p"] == pytest.approx(wilcoxon(d, method="exact").pvalue)
    # The patients differ by far more than the methods: unpaired, the interval would be ten times as
    # wide.
    t = ttest_rel(twelve["stage1"], twelve["gaussian"]).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((t.low, t.high), abs=0.12)
    # Every patient is worse: 2 / 2^12, the least that is possible, and twice that for two methods.
    assert found.loc["rapid", "p"] == pytest.approx(2 / 2**12)
    assert found.loc["rapid", "p_holm"] == found.loc["rapid", "p_least"] == pytest.approx(4 / 2**12)


def test_holm_on_numbers_worked_by_hand():
    """4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not fall below the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    found = holm([0.02, np.nan])  # what could not be tested does not count
    assert found[0] == 0.02
    assert np.isnan(found[1])


def test_the_best_peer_is_found_by_each_metrics_own_direction():
    values = {"rapid": [1.0, 1.2, 1.1], "gaussian": [-2.0, 2.1, 0.1], "stage1": [0.1, -0.1, 0.2]}
    assert compare(table("psnr", **values), "psnr").loc["stage1", "against"] == "rapid"
    assert compare(table("region_bias", **values), "region_bias").loc["stage1", "against"] == "gaussian"
    # Its signed mean is nearly zero, yet no patient is: absolute values are compared.
    found = compare(table("count_bias", **values), "count_bias")
    assert found.loc["stage1", "against"] == "rapid"
    assert found.loc["stage1", "difference"] == pytest.approx((0.4 - 3.3) / 3)


def test_where_one_is_best_the_distance_from_one_is_compared():
    recovery = dataclasses.replace(METRIC["count_bias"], name="recovery", ideal=1.0)
    values = {"rapid": [1.3, 0.7], "gaussian": [0.1, 0.1], "stage1": [1.1, 0.9]}
    found = differences(table("recovery", **values), [recovery], NAMES, PEERS).set_index("method")
    assert set(found["against"]) == {"rapid"}
    assert found.loc["stage1", "difference"] == pytest.approx(-0.2)
    assert found.loc["stage1", ["better", "worse"]].tolist() == [2, 0]
    assert found.loc["gaussian", ["better", "worse"]].tolist() == [0, 2]


def test_another_method_can_be_named(twelve):
    found = compare(table(**twelve), against="stage1")
    assert set(found.index) == {"rapid", "gaussian"}
    expected = (twelve["gaussian"] - twelve["stage1"]).mean()
    assert found.loc["gaussian", "difference"] == pytest.approx(expected)


def test_noise_corrected_psnr_is_compared_by_the_errors_behind_it():
    rng = np.random.default_rng(0)
    errors = {name: size * rng.uniform(0.5, 2, 10) for name, size in zip(NAMES, (50, 4, 1), strict=True)}
    errors["stage1"][3] = -0.1
    found = compare(table("nc_nmse", **errors).assign(nc_psnr=np.nan), "nc_psnr")
    ratio = errors["gaussian"].mean() / errors["stage1"].mean()
    assert found.loc["stage1", "difference"] == pytest.approx(10 * math.log10(ratio))
    assert found.loc["stage1", "low"] < found.loc["stage1", "difference"] < found.loc["stage1", "high"]
    assert found.loc["stage1", "p"] == pytest.approx(wilcoxon(errors["stage1"], errors["gaussian"]).pvalue)
    assert found.loc["stage1", "better"] == (errors["stage1"] < errors["gaussian"]).sum()


@pytest.mark.parametrize(("patients", "tested"), [(1, False), (5, False), (6, True)])
def test_with_fewer_than_six_patients_nothing_is_tested(patients, tested):
    values = {
        "rapid": np.arange(patients) - 9.0,
        "gaussian": np.arange(patients),
        "stage1": 1.5 * np.arange(1, patients + 1),
    }
    row = compare(table(**values)).loc["stage1"]
    assert row["patients"] == patients
    assert np.isfinite(row["difference"])
    assert np.isnan(row["low"]) == (patients < 2)
    assert np.isfinite(row["p"]) == np.isfinite(row["p_holm"]) == tested
    assert row["p_least"] == pytest.approx(2 / 2**patients * (2 if tested else 1))


def test_patients_without_a_value_or_a_difference_are_no_evidence(twelve):
    stage1 = twelve["stage1"].copy()
    stage1[:3], stage1[3:8] = np.nan, twelve["gaussian"][3:8]
    row = compare(table(**twelve | {"stage1": stage1})).loc["stage1"]
    assert row["patients"] == 9
    assert np.isnan(row["p"])
    same = compare(table(**twelve | {"stage1": twelve["gaussian"]})).loc["stage1"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)
    assert np.isnan(same["p"])


def test_two_perfect_scores_do_not_differ():
    values = {"rapid": [9.0, 9.0], "gaussian": [np.inf, 30.0], "stage1": [np.inf, 31.0]}
    found = compare(table(**values))
    assert found.loc["stage1", "difference"] == 0.5
    assert found.loc["rapid", "difference"] == -np.inf


def test_a_metric_without_any_value_has_no_row(twelve):
    assert compare(table(**{name: [np.nan] * 4 for name in NAMES})).empty
    assert compare(table(**twelve | {"stage1": [np.nan] * 12})).index.tolist() == ["rapid"]


def test_where_nothing_differs_a_difference_is_seldom_found():
    """Five methods that are one: at least one false alarm in at most 5 % of the studies (Holm's promise)."""
    rng, alarms, studies = np.random.default_rng(1), 0, 400
    for _ in range(studies):
        scores = rng.normal(size=(5, 12)) + rng.normal(0, 3, 12)
        alarms += min(holm([signed_rank_p(scores[k] - scores[0]) for k in range(1, 5)])) <= 0.05
    assert 0 < alarms <= binom.ppf(0.999, studies, 0.05)


def test_a_real_difference_is_found():
    rng = np.random.default_rng(2)
    found = [min(holm([signed_rank_p(rng.normal(1, 1, 21)) for _ in range(4)])) <= 0.05 for _ in range(50)]
    assert np.mean(found) > 0.9
