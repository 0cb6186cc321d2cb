"""Coverage of stated uncertainties that are known to be right or wrong."""

import numpy as np
import pytest

from rbs.evaluation.calibration import LEVELS, calibration_error, coverage


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
