"""AUC by place: bounds in closed form, paired differences, internal noise, restoring functions."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from rbs.evaluation.observers import simulation
from rbs.evaluation.observers.areas import bound, detection_areas, place_areas, summarise_areas
from rbs.evaluation.observers.observers import amplitude_for, snr_of_auc
from rbs.evaluation.scans.metrics import Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.scan import REGIONS


def exact_auc(background, signal):
    """P(t1 > t0) of the likelihood ratio of Poisson counts, from its characteristic function.

    t1 - t0 is a sum of independent Poisson counts times ±L, L = ln(1 + s/b); Gil-Pelaez.
    """
    weight = np.log1p(signal / background)
    kept = weight > 1e-5 * weight.max()
    b, s, weight = background[kept], signal[kept], weight[kept]
    step = 0.02 / math.sqrt(((2 * b + s) * weight**2).sum())
    u = (np.arange(400) + 0.5) * step
    phase = np.multiply.outer(u, weight)
    size = np.exp((np.cos(phase) - 1) @ (2 * b + s))
    return 0.5 + float((size * np.sin(np.sin(phase) @ s) / u).sum()) * step / math.pi


@pytest.mark.parametrize("exposure", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(("level", "fwhm"), [(1.0, 4.0), (8.0, 4.0), (8.0, 9.0)])
def test_the_bound_is_the_exact_auc_of_the_likelihood_ratio(exposure, level, fwhm):
    y, x = np.mgrid[:49, :49] - 24
    shape, background = np.exp(-4 * math.log(2) * (x**2 + y**2) / fwhm**2), np.full((49, 49), level)
    signal = amplitude_for(background, shape, snr_of_auc(0.95)) * shape
    assert bound(exposure) == pytest.approx(exact_auc(exposure * background, exposure * signal), abs=0.002)


def test_bounds_of_whole_and_half_the_counts():
    assert bound(1.0) == pytest.approx(0.95)
    assert bound(0.5) == pytest.approx(0.878, abs=0.0005)


def child(patient, methods, places=20, draws=16, seed=0):
    """Outputs of three channels, the second method's with a factor on the signal."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, places, draws, 3))
    arrays = {"size_mm": np.full(places, 10.0), "row": np.arange(places), "column": np.arange(places)}
    arrays |= {"patient": np.array(patient), "exposure": np.array(0.5)}
    for channels in ("dog", "laguerre_gauss"):
        for name, (scale, signal) in methods.items():
            shift = signal * np.eye(3)[0]
            arrays[f"absent/{channels}/{name}"] = scale * noise[0]
            arrays[f"present/{channels}/{name}"] = scale * (noise[1] + shift)
    return arrays


def means(rows, quantity):
    return {row["method"]: row["mean"] for row in rows if row["quantity"] == quantity}


def test_differences_are_paired_place_by_place():
    methods = {"rapid": (1, 1.5), "first": (1, 1.0), "second": (1, 1.2), "standard": (1, 2.0)}
    areas = place_areas([child("a", methods), child("b", methods, seed=1), {}], "first")
    rows = [row for row in summarise_areas(areas, 0) if row["channels"] == "laguerre_gauss"]
    area, minus = means(rows, "auc"), means(rows, "auc_minus_first")
    assert set(minus) == {"rapid", "second", "standard"}  # not itself, and no bounds
    assert minus["second"] == pytest.approx(area["second"] - area["first"])
    assert means(rows, "auc_minus_rapid")["first"] == pytest.approx(area["first"] - area["rapid"])
    assert area["ideal rapid"] == pytest.approx(bound(0.5))
    assert area["ideal standard"] == pytest.approx(0.95)
    width = {
        row["quantity"]: row["high"] - row["low"]
        for row in rows
        if row["method"] == "second" and row["n"] == 40
    }
    assert width["auc_minus_first"] < width["auc"]  # the same noise in both
    assert list(areas.columns[:6]) == ["patient", "row", "column", "size_mm", "channels", "method"]


def test_without_a_restorer_only_the_rapid_scan_is_compared_with():
    areas = place_areas([child("a", {"rapid": (1, 1.0), "standard": (1, 2.0)})])
    quantities = {row["quantity"] for row in summarise_areas(areas, 0)}
    assert quantities == {"auc", "auc_minus_rapid", "auc_internal_noise"}
    assert summarise_areas(place_areas([{}]), 0) == []


def test_internal_noise_is_the_standard_scans():
    """Twice the display scale of a method's answer is twice its signal over the reader's noise."""
    methods = {"standard": (1, 1.5), "double": (2, 1.5), "half": (0.5, 1.5), "rapid": (1, 1.5)}
    rows = summarise_areas(place_areas([child("a", methods, 30)]), 0)
    plain, noisy = means(rows, "auc"), means(rows, "auc_internal_noise")
    assert plain["double"] == pytest.approx(plain["half"])
    assert noisy["half"] < noisy["standard"] < noisy["double"] < plain["double"]


def test_restoring_functions_are_judged_on_drawn_children(monkeypatch):
    monkeypatch.setattr(simulation, "APART", 12)
    truth = np.full((2, 110, 90), 4.0)
    labels = np.full(truth.shape, REGIONS.index("spine") + 1, np.uint8)
    target = Target(np.random.default_rng(0).poisson(truth), 1.0, (2.26, 2.26), truth, labels)
    pairs = [ScanPair(patient, target.standard / 2, 0.5, target) for patient in ("P1", "P2")]
    functions = {"same": lambda pair: 2 * pair.rapid, "blind": lambda pair: pair.target.expectation.copy()}
    areas = detection_areas(iter(pairs), functions, draws=8)
    assert set(areas["patient"]) == {"P1", "P2"}
    assert set(areas["size_mm"]) == {5.0, 10.0, 20.0}
    assert set(areas["channels"]) == {"dog", "laguerre_gauss"}
    wide = areas.pivot_table(index=["channels", "size_mm"], columns="method", values="auc")
    pd.testing.assert_series_equal(wide["same"], wide["rapid"], check_names=False)
    assert (wide["blind"] == 0.5).all()
    assert wide["standard"].mean() > wide["same"].mean()
    assert norm.ppf(wide["ideal standard"].iloc[0]) == pytest.approx(snr_of_auc(0.95) / math.sqrt(2))
    blind = areas[areas["method"] == "blind"]
    np.testing.assert_allclose(blind["auc_minus_first"], blind["auc_minus_rapid"])
    assert blind["auc_minus_first"].mean() < -0.1
