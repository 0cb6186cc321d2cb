"""The two rows that no method made."""

import numpy as np
import pytest

from rbs.evaluation.scans.limits import ceiling_psnr
from rbs.evaluation.scans.metrics import METRICS, Target
from rbs.evaluation.scans.pairs import ScanPair
from rbs.evaluation.scans.references import CEILING, REPEAT, reference_images, reference_scores

SPACING = (2.3, 2.3)


def pair_of(patient="P1", *, truth=True, seed=0):
    y, x = np.mgrid[0:192, 0:176]
    body = np.where((y - 96) ** 2 + (x - 88) ** 2 < 70**2, 6.0, 0.1)
    expectation = np.stack([body, body])
    rng = np.random.default_rng(seed)
    standard = rng.poisson(expectation)
    target = Target(standard, 1.0, SPACING, expectation if truth else None)
    return ScanPair(patient, rng.poisson(expectation / 2), 0.5, target)


def test_the_repeat_is_a_scan_of_its_own_fixed_by_the_patient():
    first, again = pair_of(), pair_of(seed=1)
    image = reference_images(first)[REPEAT]
    np.testing.assert_array_equal(image, reference_images(again)[REPEAT])
    assert not np.array_equal(image, reference_images(pair_of("P2"))[REPEAT])
    λ, inside = first.target.expectation, first.target.expectation > 1
    # Poisson: whole counts of the right mean and variance, and nothing in common with the target's
    # noise.
    assert (image == np.rint(image)).all()
    assert image[inside].mean() == pytest.approx(6, rel=0.01)
    assert image[inside].var() == pytest.approx(6, rel=0.03)
    shared = np.corrcoef((image - λ)[inside], (first.target.counts - λ)[inside])[0, 1]
    assert abs(shared) < 4 / np.sqrt(inside.sum())


def test_the_repeat_lies_three_decibels_below_the_ceiling():
    """A second noisy scan has twice the error that the first one's noise alone makes."""
    found = reference_scores(pair_of(), METRICS)
    assert found[CEILING]["psnr"] - found[REPEAT]["psnr"] == pytest.approx(10 * np.log10(2), abs=0.05)
    assert found[CEILING]["psnr_truth"] == np.inf
    assert found[CEILING]["ssim_truth"] == pytest.approx(1)
    assert found[CEILING]["ssim"] > found[REPEAT]["ssim"]
    assert found[CEILING]["ms_ssim"] > found[REPEAT]["ms_ssim"]
    target = pair_of().target
    analytic = ceiling_psnr(target.mean_count, target.peak)
    assert found[CEILING]["psnr"] == pytest.approx(analytic, abs=0.05)


def test_of_a_real_scan_only_the_ceiling_of_psnr_is_known():
    pair = pair_of(truth=False)
    assert reference_images(pair) == {}
    found = reference_scores(pair, METRICS)
    assert set(found[CEILING]) == {m.name for m in METRICS}
    assert [name for name, value in found[CEILING].items() if not np.isnan(value)] == ["psnr"]
    assert found[CEILING]["psnr"] == ceiling_psnr(pair.target.mean_count, pair.target.peak)
    assert np.isnan(list(found[REPEAT].values())).all()
