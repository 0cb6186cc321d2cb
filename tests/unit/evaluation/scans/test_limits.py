"""Ceilings and the noise-corrected error against simulation."""

import math

import numpy as np
import pytest

from rbs.evaluation.scans.limits import ceiling_psnr
from rbs.scans.fidelity import noise_corrected_mse


@pytest.fixture(scope="module")
def expectation():
    """Two smooth views of 0 to 9 standard counts a pixel, (2, 256, 256)."""
    y, x = np.mgrid[0:256, 0:256] / 256
    return np.stack([9 * x * y, 4 + 3 * np.sin(9 * x)])


def decibel(a, b):
    return 10 * math.log10(a / b)


@pytest.mark.parametrize("exposure", [1.0, 0.5])
def test_ceiling_is_the_psnr_of_the_expectation(expectation, exposure):
    reference = np.random.default_rng(2).poisson(exposure * expectation) / exposure
    simulated = decibel(12.0**2, ((expectation - reference) ** 2).mean())
    assert ceiling_psnr(expectation.mean(), 12.0, exposure) == pytest.approx(simulated, abs=0.1)


@pytest.mark.parametrize("exposure", [1.0, 0.5])
def test_noise_corrected_error_is_unbiased(expectation, exposure):
    rng = np.random.default_rng(3)
    rapid = rng.poisson(0.5 * expectation) / 0.5
    smooth = (rapid + np.roll(rapid, 1, 1) + np.roll(rapid, 1, 2)) / 3
    mask = expectation > 1
    true = ((smooth - expectation)[mask] ** 2).mean()
    draws = [
        noise_corrected_mse(smooth, rng.poisson(exposure * expectation), exposure, mask) for _ in range(30)
    ]
    error = np.std(draws) / math.sqrt(len(draws))
    assert abs(np.mean(draws) - true) < 4 * error
    assert error < 0.02 * true


def test_noise_corrected_error_needs_its_correction(expectation):
    reference = np.random.default_rng(4).poisson(expectation)
    everywhere = np.ones(expectation.shape, dtype=bool)
    perfect = noise_corrected_mse(expectation, reference, 1.0, everywhere)
    assert abs(perfect) < 0.05 * ((expectation - reference) ** 2).mean()
