"""Classical peers: they keep counts, they denoise, and they are tuned on what they are given alone."""

from dataclasses import replace

import numpy as np
import pytest
from moving_body import SPACING as SPACING_OF_BODY
from moving_body import expectation, passes, rigid
from scipy.ndimage import gaussian_filter

from rbs.evaluation.classical import Pair, gaussian, non_local_means, tune
from rbs.evaluation.metrics import Target, nc_nmse
from rbs.scans.register import estimate_motion

SPACING = (2.0, 2.0)


def pair_of(truth, seed, patient="P1"):
    rng = np.random.default_rng(seed)
    return Pair(patient, rng.poisson(truth / 2), 0.5, Target(rng.poisson(truth), 1.0, SPACING, truth))


@pytest.fixture
def truth():
    blobs = np.random.default_rng(0).random((2, 96, 64)) > 0.995
    return 2 + 400 * gaussian_filter(blobs.astype(float), (0, 3, 3))


def test_gaussian_is_scipys_in_millimetres(truth):
    pair = pair_of(truth, 1)
    expected = gaussian_filter(pair.rapid / 0.5, (0, 1.5, 1.5), mode="reflect")
    np.testing.assert_allclose(gaussian(pair, 3.0), expected)
    assert gaussian(pair, 3.0).sum() == pytest.approx(pair.rapid.sum() / 0.5)


def test_non_local_means_denoises(truth):
    pair = pair_of(truth, 2)
    estimate = non_local_means(pair, 0.7)
    assert ((estimate - truth) ** 2).mean() < 0.3 * ((pair.rapid / 0.5 - truth) ** 2).mean()


def test_non_local_means_is_unbiased_where_the_body_is_flat():
    """The algebraic inverse of Anscombe's transform would lose 15 % of 1.5 counts a pixel."""
    flat = np.full((1, 128, 128), 3.0)
    assert non_local_means(pair_of(flat, 3), 2.0).mean() == pytest.approx(3.0, rel=0.01)


def test_tuning_finds_the_parameter_that_is_best_for_the_truth(truth):
    candidates = (0.5, 2.0, 4.0, 6.0, 12.0)
    pairs = [pair_of(truth, seed, f"P{seed}") for seed in range(3)]
    best, table = tune(gaussian, candidates, pairs)
    errors = {s: np.mean([((gaussian(p, s) - truth) ** 2).mean() for p in pairs]) for s in candidates}
    assert best == min(errors, key=errors.get)
    assert list(table) == list(candidates)


def test_tuning_weighs_patients_not_scans():
    """Three scans of one patient count once: the other two patients decide."""
    flat = np.full((1, 32, 32), 4.0)
    pairs = [pair_of(flat, seed, name) for seed, name in enumerate("aaabc")]
    calls = []

    def method(pair, value):
        calls.append(pair.patient)
        good = 1.0 if pair.patient == "a" else 2.0
        return flat + abs(value - good)

    assert tune(method, (1.0, 2.0), pairs)[0] == 2.0
    assert len(calls) == 10


def test_tuning_on_nothing_is_refused():
    with pytest.raises(ValueError, match="validation"):
        tune(gaussian, (1.0,), [])


def test_an_estimate_of_a_child_that_moved_is_judged_where_the_target_lies():
    u = rigid(5.0, -3.0, 0.3)
    standard, rapid = passes(u)
    motion = estimate_motion(standard, rapid, SPACING_OF_BODY)
    target = Target(standard, 1.0, SPACING_OF_BODY, expectation(u))
    pair = Pair("P", rapid, 0.5, target, motion=motion)
    still = replace(pair, motion=None)
    smooth = gaussian(pair, 3.0)
    assert still.on_target(smooth) is smooth
    gained = nc_nmse(pair.on_target(smooth), target) / nc_nmse(still.on_target(smooth), target)
    assert gained < 0.5
    # What has the noise of counts keeps it: whole pixels move, and the total changes at the borders alone.
    raw = pair.on_target(rapid, raw=True)
    assert set(np.unique(raw)) <= set(np.unique(rapid))
    assert raw.sum() == pytest.approx(rapid.sum(), rel=0.01)
    assert not np.array_equal(raw, rapid)
    best, moved = tune(gaussian, (1.5, 3.0, 6.0), [pair])
    _, unmoved = tune(gaussian, (1.5, 3.0, 6.0), [still])
    assert moved[best] < 0.5 * min(unmoved.values())
