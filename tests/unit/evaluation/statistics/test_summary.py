"""Means and intervals over patients."""

import numpy as np
import pandas as pd
import pytest

from rbs.evaluation.scans.metrics import METRICS
from rbs.evaluation.statistics.summary import by_patient, summarise


def scores(**columns):
    table = pd.DataFrame({m.name: np.nan for m in METRICS}, index=range(len(next(iter(columns.values())))))
    return table.assign(**columns)


def test_a_patient_seen_twice_counts_once():
    table = by_patient(scores(patient=["a", "a", "b"], method="rapid", psnr=[10.0, 20.0, 30.0]), METRICS)
    assert table["psnr"].tolist() == [15, 30]
    row = summarise(table, METRICS).set_index("metric").loc["psnr"]
    assert row["mean"] == 22.5
    assert row["patients"] == 2


def test_noise_corrected_psnr_is_pooled_before_the_logarithm():
    """One negative estimate must lower the mean error, not drop out and leave the larger ones."""
    table = by_patient(
        scores(patient=["a", "b"], method="x", nc_nmse=[0.003, -0.001], nc_psnr=[25.2, np.nan]), METRICS
    )
    row = summarise(table, METRICS).set_index("metric").loc["nc_psnr"]
    assert row["mean"] == pytest.approx(30)
    assert row["low"] < 30 < row["high"] == np.inf


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(60):
        table = scores(patient=np.arange(25).astype(str), method="x", psnr=rng.normal(30, 2, 25))
        row = summarise(by_patient(table, METRICS), METRICS).set_index("metric").loc["psnr"]
        hits.append(row["low"] < 30 < row["high"])
    assert 0.85 <= np.mean(hits) < 1


def test_one_patient_has_no_interval():
    row = summarise(by_patient(scores(patient=["a"], method="x", psnr=[3.0]), METRICS), METRICS).iloc[0]
    assert np.isnan(row["low"])
    assert row["mean"] == 3


def test_a_ceiling_known_for_some_scans_only_is_no_ceiling():
    """Of a phantom and a real scan, perfect SSIM is known for the phantom alone."""
    table = scores(
        patient=["a", "b", "a", "b"],
        method=["ceiling", "ceiling", "x", "x"],
        ssim=[0.9, np.nan, 0.8, 0.2],
        psnr=[30.0, 20.0, 29.0, 19.0],
    )
    rows = summarise(by_patient(table, METRICS), METRICS).set_index(["method", "metric"])["mean"]
    assert rows.to_dict() == {("ceiling", "psnr"): 25, ("x", "psnr"): 24, ("x", "ssim"): 0.5}
    rows = summarise(by_patient(table[table["patient"] == "a"], METRICS), METRICS)
    assert ("ceiling", "ssim") in set(zip(rows["method"], rows["metric"], strict=True))


def test_a_visit_without_a_ceiling_leaves_its_patient_without_one():
    table = scores(
        patient=["a", "a", "a", "a"], method=["ceiling", "ceiling", "x", "x"], ssim=[0.9, np.nan, 0.8, 0.2]
    )
    assert set(summarise(by_patient(table, METRICS), METRICS)["method"]) == {"x"}


def test_a_reference_is_kept_where_only_some_scans_can_be_judged_at_all():
    """A metric of foci has no value on a scan without any, whatever is judged: its ceiling is still one."""
    methods = np.repeat(["ceiling", "repeat", "x"], 2)
    table = scores(patient=["a", "b"] * 3, method=methods, ssim=[0.9, np.nan, 0.6, np.nan, 0.8, np.nan])
    rows = summarise(by_patient(table, METRICS), METRICS).set_index("method")["mean"]
    assert rows.to_dict() == {"ceiling": 0.9, "repeat": 0.6, "x": 0.8}


def test_a_noise_corrected_error_below_zero_does_not_take_the_ceiling_away():
    """By chance it is, on half of the scans: they have no dB of their own, yet a share in the mean."""
    errors = [0.0010, -0.0008, 0.01, 0.01]
    dB = [30.0, np.nan, 20.0, 20.0]
    table = scores(patient=["a", "b"] * 2, method=np.repeat(["ceiling", "x"], 2), nc_nmse=errors, nc_psnr=dB)
    rows = summarise(by_patient(table, METRICS), METRICS).set_index(["method", "metric"])["mean"]
    assert rows["ceiling", "nc_psnr"] == pytest.approx(40)
