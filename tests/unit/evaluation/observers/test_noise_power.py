"""Noise power spectrum and impulse response against Poisson noise and Gaussian filters."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.evaluation.observers import noise_power as noise

SPACING = (2.0, 3.0)
WINDOWS = [(v, r, c) for v in range(2) for r in range(0, 64, 16) for c in range(0, 48, 16)]


@pytest.fixture(scope="module")
def draws():
    return np.random.default_rng(0).poisson(6.0, (12, 2, 64, 48))


def test_integral_is_the_variance(draws):
    filtered = gaussian_filter(draws.astype(float), (0, 0, 1.2, 1.2))
    spectrum = noise.noise_power_spectrum(filtered, WINDOWS, SPACING)
    assert noise.spectrum_variance(spectrum, SPACING) == pytest.approx(filtered.var(axis=0, ddof=1).mean())


def test_poisson_noise_is_white_and_known(draws):
    spectrum = noise.noise_power_spectrum(draws, WINDOWS, SPACING)
    assert spectrum.mean() == pytest.approx(6.0 * 2 * 3, rel=0.02)
    for frequency, power in noise.radial_spectrum(spectrum, SPACING):
        assert 0 < frequency < 1 / 6 * 1.1
        assert power == pytest.approx(36, rel=0.15)


def test_filtered_noise_has_the_filters_transfer_function_squared(draws):
    sigma_mm = 3.0
    filtered = gaussian_filter(draws.astype(float), (0, 0, sigma_mm / 2, sigma_mm / 3), mode="wrap")
    spectrum = noise.noise_power_spectrum(filtered, WINDOWS, SPACING)
    for frequency, power in noise.radial_spectrum(spectrum, SPACING)[:3]:
        expected = 36 * math.exp(-((2 * math.pi * sigma_mm * frequency) ** 2))
        assert power == pytest.approx(expected, rel=0.25, abs=0.3)
    assert noise.mean_frequency(spectrum, SPACING) < 0.6 * noise.mean_frequency(
        noise.noise_power_spectrum(draws, WINDOWS, SPACING), SPACING
    )


def test_windows_lie_in_soft_tissue_and_do_not_overlap():
    labels, mask = np.zeros((2, 70, 60), np.uint8), np.ones((2, 70, 60), bool)
    labels[0, 30:34], mask[1, :, 40:] = 2, False
    taken = np.zeros(labels.shape, int)
    found = noise.soft_tissue_windows(labels, mask)
    for view, row, column in found:
        taken[view, row : row + 16, column : column + 16] += 1
    assert taken.max() == 1
    assert taken.sum() == len(found) * 256
    assert not taken[(labels > 0) | ~mask].any()
    assert len(found) == 3 * 3 + 4 * 2
    assert noise.soft_tissue_windows(labels + 1, mask) == []


@pytest.mark.parametrize("fwhm_mm", [7.0, 11.0])
def test_impulse_response_of_a_gaussian_filter(fwhm_mm):
    """Width and gain of what is known, through Poisson noise."""
    rng = np.random.default_rng(1)
    spacing, sigma = (2.26, 2.26), fwhm_mm / 2.3548 / 2.26
    without = rng.poisson(1.0, (6, 2, 100, 100))
    places = [(v, r, c) for v in (0, 1) for r in (20, 50, 80) for c in (20, 50, 80)]
    extra = np.zeros_like(without)
    for place in places:
        extra[(slice(None), *place)] = rng.poisson(0.5 * 60, 6)
    filtered = [gaussian_filter(2.0 * image, (0, 0, sigma, sigma)) for image in (without + extra, without)]
    mean, response = noise.impulse_response(*filtered, places, 60, spacing)
    assert mean.shape == (25, 25)
    assert response.fwhm_mm == pytest.approx(fwhm_mm, rel=0.03)
    assert response.gain == pytest.approx(1, abs=4 * math.sqrt(30 / 108) / 30)


def test_impulse_response_of_doing_nothing_is_a_pixel():
    impulse = np.zeros((1, 1, 41, 41))
    impulse[0, 0, 20, 20] = 5
    assert noise.impulse_response(impulse, 0 * impulse, [(0, 20, 20)], 5, (2.0, 3.0))[1] == noise.Response(
        pytest.approx(math.sqrt(6)), pytest.approx(1)
    )


def test_what_shows_no_impulse_has_no_width():
    nothing = np.zeros((1, 1, 41, 41))
    response = noise.impulse_response(nothing, nothing, [(0, 20, 20)], 5, SPACING)[1]
    assert math.isnan(response.fwhm_mm)
    assert response.gain == 0
