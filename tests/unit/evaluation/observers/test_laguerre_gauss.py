"""Laguerre-Gauss channels against the analytic Hotelling detectability, in white and correlated noise."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from rbs.evaluation.observers.laguerre_gauss import CHANNELS, laguerre_gauss_channels
from rbs.evaluation.observers.observers import FIRST_CHANNEL, WINDOW, channelised_auc
from rbs.utils.observer_channels import dog_channels

FWHM_MM, SPACING = 12.0, (2.26, 2.0)
PLACES, DRAWS = 12, 60


@pytest.fixture(scope="module")
def channels():
    return laguerre_gauss_channels(FWHM_MM, SPACING)


@pytest.fixture(scope="module")
def shape():
    """The focus the channels are made for, round in mm."""
    y, x = ((np.arange(WINDOW) - WINDOW // 2) * s for s in SPACING)
    return np.exp(-4 * math.log(2) * (y[:, None] ** 2 + x**2) / FWHM_MM**2)


def transfer(kind):
    """Amplitude of stationary noise by frequency: white, or smoothed as a restorer leaves it."""
    f = np.fft.fftfreq(WINDOW)
    squared = f[:, None] ** 2 + f**2
    return np.ones_like(squared) if kind == "white" else 0.1 + np.exp(-2 * (math.pi * 1.5) ** 2 * squared)


@pytest.mark.parametrize("kind", ["white", "correlated"])
def test_detectability_is_nearly_hotellings(channels, shape, kind):
    amplitude = transfer(kind)
    # Hotelling's SNR of stationary noise, from its power spectrum; the signal is scaled to 2.
    whole = math.sqrt((np.abs(np.fft.fft2(shape)) ** 2 / amplitude**2).sum() / WINDOW**2)
    signal = 2.0 / whole * shape
    rng = np.random.default_rng(0)
    white = rng.normal(size=(2, PLACES, DRAWS, WINDOW, WINDOW))
    noise = np.fft.ifft2(np.fft.fft2(white) * amplitude).real
    noise += rng.normal(0, 50, (PLACES, 1, 1, 1))  # a place's own level is no noise
    coloured = np.fft.ifft2(np.fft.fft2(channels.reshape(-1, WINDOW, WINDOW)) * amplitude).real
    coloured = coloured.reshape(CHANNELS, -1)
    s = channels @ signal.ravel()
    analytic = math.sqrt(s @ np.linalg.solve(coloured @ coloured.T, s))
    # Symmetric templates hold all of a symmetric signal, never more than all.
    assert 0.98 * 2.0 < analytic < 2.0 + 1e-9
    absent, present = (n.reshape(PLACES, DRAWS, -1) @ channels.T for n in (noise[0], noise[1] + signal))
    found = channelised_auc(absent, present)
    error = found.std() / math.sqrt(PLACES)
    assert error < 0.015
    # A template estimated from so few draws loses a little.
    assert found.mean() == pytest.approx(norm.cdf(analytic / math.sqrt(2)), abs=3 * error + 0.006)


def test_the_first_is_the_focus_and_all_are_orthonormal(channels, shape):
    np.testing.assert_allclose(channels[0], (shape / np.linalg.norm(shape)).ravel())
    np.testing.assert_allclose(channels @ channels.T, np.eye(CHANNELS), atol=0.02)


def test_they_are_other_channels_than_those_a_loss_trains_on(channels):
    """A good part of every Laguerre-Gauss channel but the smoothest lies outside the other six."""
    basis = np.linalg.qr(dog_channels(WINDOW, FIRST_CHANNEL).T)[0]
    inside = np.linalg.norm(channels @ basis, axis=1)
    assert inside.max() < 0.999
    assert inside.min() < 0.8
