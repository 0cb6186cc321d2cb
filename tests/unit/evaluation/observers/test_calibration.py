"""Coverage of stated uncertainties that are known to be right or wrong."""

import numpy as np
import pytest

from rbs.evaluation.observers.calibration import (
    LEVELS,
    bootstrap_deviation,
    calibration_by_counts,
    calibration_by_truth,
    calibration_error,
    coverage,
)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    truth = rng.gamma(2.0, 3.0, (2, 200, 100))
    deviation = 0.3 * np.sqrt(truth)
    return truth, deviation, truth + deviation * rng.normal(size=truth.shape), truth > 0.5


def test_true_uncertainties_cover_what_they_claim(case):
    truth, deviation, estimate, mask = case
    found = coverage(estimate, deviation, truth, mask)
    assert len(found) == 10 * len(LEVELS)
    for entry in found:
        error = np.sqrt(entry.level * (1 - entry.level) / entry.pixels)
        assert abs(entry.covered - entry.level) < 4.5 * error
    assert calibration_error(found) < 0.01
    counts = [entry.mean_count for entry in found[:: len(LEVELS)]]
    assert np.all(np.diff(counts) > 0)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_overconfidence_and_caution_have_their_sign(case, factor):
    truth, deviation, estimate, mask = case
    found = coverage(estimate, factor * deviation, truth, mask)
    assert all((entry.covered > entry.level) == (factor > 1) for entry in found)
    assert calibration_error(found) > 0.1


def test_one_deviation_for_all_is_found_out_by_decile(case):
    """Right on average over the pixels, too narrow where counts are many."""
    truth, deviation, estimate, mask = case
    same = np.full_like(deviation, np.sqrt((deviation[mask] ** 2).mean()))
    found = [entry for entry in coverage(estimate, same, truth, mask) if entry.level == 0.683]
    assert found[0].covered > 0.9
    assert found[-1].covered < 0.6


def test_no_uncertainty_is_refused(case):
    truth, deviation, estimate, mask = case
    with pytest.raises(ValueError, match="non-negative"):
        coverage(estimate, -deviation, truth, mask)
    with pytest.raises(ValueError, match="ten pixels"):
        coverage(estimate, deviation, truth, np.zeros_like(mask))


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_counts_judge_as_the_truth_does(factor):
    """Independent normal errors: of pixels and of blocks alike the error is as stated but for the factor."""
    rng = np.random.default_rng(3)
    truth = rng.gamma(4.0, 2.0, (2, 320, 256))
    deviation = np.sqrt(truth)  # as large as the judge's own noise
    estimate = truth + deviation * rng.normal(size=truth.shape)
    counts, mask = rng.poisson(0.5 * truth), np.ones(truth.shape, bool)
    for block, tolerance in ((1, 0.03), (16, 0.12)):
        judged = calibration_by_counts(estimate, factor * deviation, counts, 0.5, mask, block)
        assert judged.error == pytest.approx(1 / factor, rel=tolerance)
        by_truth = calibration_by_truth(estimate, factor * deviation, truth, mask, block)
        assert by_truth == pytest.approx(1 / factor, rel=tolerance)
    # q T of an estimate with errors is a poor variance where it is small: judged where it is good.
    estimate = truth * (1 + 0.01 * rng.normal(size=truth.shape))
    assert calibration_by_counts(estimate, 0.01 * truth, counts, 0.5, mask).z == pytest.approx(1, rel=0.02)


def test_errors_that_go_together_make_a_block_less_sure():
    """An error that all pixels of a block share: its deviation is n times a pixel's, not sqrt(n) times."""
    rng = np.random.default_rng(4)
    truth, mask = np.full((1, 320, 320), 5.0), np.ones((1, 320, 320), bool)
    error = np.kron(rng.normal(size=(1, 20, 20)), np.ones((1, 16, 16)))
    assert calibration_by_truth(truth + error, np.ones_like(truth), truth, mask, 16) == pytest.approx(
        16, rel=0.15
    )
    counts = rng.poisson(truth)
    by_counts = calibration_by_counts(truth + error, np.ones_like(truth), counts, 1.0, mask, 16)
    assert by_counts.error == pytest.approx(16, rel=0.15)


def test_blocks_that_are_hardly_evaluated_are_left_out():
    mask = np.zeros((1, 40, 40), bool)
    mask[0, :16, :16] = True
    mask[0, 16:18, :16] = True
    estimate, truth = np.where(mask, 1.0, 99.0), np.zeros((1, 40, 40))
    estimate[0, 16:18, :16] = 1000
    assert calibration_by_truth(estimate, np.ones_like(truth), truth, mask, 16) == pytest.approx(16)


def test_the_bootstrap_finds_the_deviation_of_a_linear_filter():
    """Closed form: of r / p it is sqrt(T / p); of a method that answers alike whatever it is given, 0."""
    truth = np.full((1, 40, 40), 6.0)
    found = bootstrap_deviation(lambda rapid: rapid / 0.5, truth, 0.5, 40, 1)
    assert np.mean(found**2) == pytest.approx(12.0, rel=0.03)
    assert (bootstrap_deviation(lambda rapid: truth, truth, 0.5, 3, 1) == 0).all()
