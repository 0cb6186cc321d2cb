"""Classical peers: they keep counts, they denoise, and they are tuned on what they are given alone."""

from dataclasses import replace

import numpy as np
import pytest
from moving_body import SPACING as SPACING_OF_BODY
from moving_body import expectation, passes, rigid
from scipy.ndimage import gaussian_filter

from rbs.evaluation.peers import Classical, best, tune
from rbs.evaluation.scans import classical
from rbs.evaluation.scans.classical import (
    BM3D,
    CLASSICAL,
    available,
    bm3d,
    gaussian,
    median,
    non_local_means,
    stabilised,
    total_variation,
    wavelet,
)
from rbs.evaluation.scans.metrics import Target, nc_nmse
from rbs.evaluation.scans.pairs import ScanPair
from rbs.scans.registration import estimate_motion

SPACING = (2.0, 2.0)


def pair_of(truth, seed, patient="P1"):
    rng = np.random.default_rng(seed)
    return ScanPair(patient, rng.poisson(truth / 2), 0.5, Target(rng.poisson(truth), 1.0, SPACING, truth))


@pytest.fixture
def truth():
    blobs = np.random.default_rng(0).random((2, 96, 64)) > 0.995
    return 2 + 400 * gaussian_filter(blobs.astype(float), (0, 3, 3))


def test_gaussian_is_scipys_in_millimetres(truth):
    pair = pair_of(truth, 1)
    expected = gaussian_filter(pair.rapid / 0.5, (0, 1.5, 1.5), mode="reflect")
    np.testing.assert_allclose(gaussian(pair, 3.0), expected)
    assert gaussian(pair, 3.0).sum() == pytest.approx(pair.rapid.sum() / 0.5)


def mean_error(estimate, truth):
    return ((estimate - truth) ** 2).mean()


@pytest.mark.parametrize(
    ("restore", "value"), [(non_local_means, 1.4), (total_variation, 1.4), (wavelet, 1.0), (median, 5)]
)
def test_peers_denoise(truth, restore, value):
    pair = pair_of(truth, 2)
    assert mean_error(restore(pair, value), truth) < 0.3 * mean_error(pair.rapid / 0.5, truth)


@pytest.mark.parametrize(
    ("restore", "value"), [(non_local_means, 2.0), (total_variation, 2.0), (wavelet, 1.0)]
)
def test_peers_behind_anscombe_are_unbiased_where_the_body_is_flat(restore, value):
    """The algebraic inverse of Anscombe's transform would lose 15 % of 1.5 counts a pixel."""
    flat = np.full((1, 128, 128), 3.0)
    assert restore(pair_of(flat, 3), value).mean() == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize(("restore", "value"), [(non_local_means, 2.0), (total_variation, 2.0)])
def test_strong_smoothing_across_structures_keeps_the_counts(truth, restore, value, monkeypatch):
    pair = pair_of(truth, 4)
    kept, mended = restore(pair, value).sum() / truth.sum(), restore(pair, value)
    monkeypatch.setattr(classical, "put_back", lambda estimate, *_: estimate)
    lost, plain = restore(pair, value).sum() / truth.sum(), restore(pair, value)
    assert lost < 0.985
    assert kept == pytest.approx(1, abs=0.01)
    assert mean_error(mended, truth) < mean_error(plain, truth)


def test_a_denoiser_that_does_nothing_gives_back_the_counts(truth):
    """The exact inverse of a transformed count is the mean that has this transform: above it by about 1/4."""
    pair = pair_of(100 + truth, 6)
    np.testing.assert_allclose(stabilised(pair, lambda view: view), pair.rapid / 0.5 + 0.5, atol=0.05)


def test_the_median_is_scipys_of_odd_squares(truth):
    pair = pair_of(truth, 7)
    inner = np.s_[:, 40, 30]
    expected = np.median(pair.rapid[:, 39:42, 29:32] / 0.5, axis=(1, 2))
    np.testing.assert_array_equal(median(pair, 3)[inner], expected)


def test_bm3d_is_a_row_only_where_its_package_is(monkeypatch):
    monkeypatch.setattr(classical, "has_bm3d", lambda: False)
    assert available() == CLASSICAL
    monkeypatch.setattr(classical, "has_bm3d", lambda: True)
    assert available() == (*CLASSICAL, BM3D)


def test_bm3d_denoises_and_keeps_counts(truth, with_bm3d):
    pair = pair_of(truth, 8)
    restored = bm3d(pair, 1.2)
    assert mean_error(restored, truth) < 0.3 * mean_error(pair.rapid / 0.5, truth)
    assert restored.sum() == pytest.approx(truth.sum(), rel=0.02)


def of(restore, candidates):
    return Classical("name", "label", restore, "value", candidates)


def test_tuning_finds_the_parameter_that_is_best_for_the_truth(truth):
    candidates = (0.5, 2.0, 4.0, 6.0, 12.0)
    pairs = [pair_of(truth, seed, f"P{seed}") for seed in range(3)]
    table, other = tune([of(gaussian, candidates), of(median, (3, 5))], pairs)
    errors = {s: np.mean([((gaussian(p, s) - truth) ** 2).mean() for p in pairs]) for s in candidates}
    assert best(table) == min(errors, key=errors.get)
    assert list(table) == list(candidates)
    assert other == tune([of(median, (3, 5))], pairs)[0]


def test_tuning_weighs_patients_not_scans():
    """Three scans of one patient count once: the other two patients decide."""
    flat = np.full((1, 32, 32), 4.0)
    pairs = [pair_of(flat, seed, name) for seed, name in enumerate("aaabc")]
    calls = []

    def method(pair, value):
        calls.append(pair.patient)
        good = 1.0 if pair.patient == "a" else 2.0
        return flat + abs(value - good)

    assert best(tune([of(method, (1.0, 2.0))], pairs)[0]) == 2.0
    assert len(calls) == 10


def test_tuning_on_nothing_is_refused():
    with pytest.raises(ValueError, match="validation"):
        tune([of(gaussian, (1.0,))], [])


def test_an_estimate_of_a_child_that_moved_is_judged_where_the_target_lies():
    u = rigid(5.0, -3.0, 0.3)
    standard, rapid = passes(u)
    motion = estimate_motion(standard, rapid, SPACING_OF_BODY)
    target = Target(standard, 1.0, SPACING_OF_BODY, expectation(u))
    pair = ScanPair("P", rapid, 0.5, target, motion=motion)
    still = replace(pair, motion=None)
    smooth = gaussian(pair, 3.0)
    assert still.to_target(smooth) is smooth
    gained = nc_nmse(pair.to_target(smooth), target) / nc_nmse(still.to_target(smooth), target)
    assert gained < 0.5
    # What has the noise of counts keeps it: whole pixels move, and the total changes at the borders
    # alone.
    raw = pair.to_target(rapid, raw=True)
    assert set(np.unique(raw)) <= set(np.unique(rapid))
    assert raw.sum() == pytest.approx(rapid.sum(), rel=0.01)
    assert not np.array_equal(raw, rapid)
    (moved,) = tune([of(gaussian, (1.5, 3.0, 6.0))], [pair])
    (unmoved,) = tune([of(gaussian, (1.5, 3.0, 6.0))], [still])
    assert moved[best(moved)] < 0.5 * min(unmoved.values())
