"""Observers against analytic Hotelling detectability and scikit-learn-free closed forms."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from rbs.evaluation.observers import observers
from rbs.evaluation.observers.observers import (
    FIRST_CHANNEL,
    WINDOW,
    amplitude_for,
    auc,
    auc_of_snr,
    channelised_auc,
)
from rbs.losses import observer
from rbs.utils.observer_channels import dog_channels

BACKGROUND = 25.0


@pytest.fixture(scope="module")
def shape():
    """A Gaussian of 5 pixels FWHM and amplitude 1."""
    y, x = np.mgrid[:WINDOW, :WINDOW] - WINDOW // 2
    return np.exp(-(x**2 + y**2) * 4 * math.log(2) / 5**2)


def outputs(images, channels):
    return images.reshape(*images.shape[:-2], -1) @ channels.T


@pytest.fixture(scope="module")
def white(shape):
    """Channel outputs without and with a signal of Hotelling SNR 2 in white normal noise, 20 places."""
    rng, channels = np.random.default_rng(0), dog_channels(WINDOW, FIRST_CHANNEL)
    signal = 2.0 / np.linalg.norm(shape) * shape
    noise = rng.normal(size=(2, 20, 100, WINDOW, WINDOW))
    noise += rng.normal(0, 50, (20, 1, 1, 1))  # a place's own level is no noise
    return outputs(noise[0], channels), outputs(noise[1] + signal, channels), channels, signal


def test_detectability_in_white_noise_is_the_analytic_one(white):
    absent, present, channels, signal = white
    s = channels @ signal.ravel()
    analytic = math.sqrt(s @ np.linalg.solve(channels @ channels.T, s))
    # The channels hold nearly all of the signal, never more than all.
    assert 0.95 * 2.0 < analytic < 2.0
    found = channelised_auc(absent, present)
    error = found.std() / math.sqrt(len(found))
    assert error < 0.01
    # A template estimated from as few draws loses a little.
    assert found.mean() == pytest.approx(auc_of_snr(analytic), abs=3 * error + 0.004)


def test_internal_noise_lowers_detectability_as_its_covariance_says(white):
    absent, present, channels, signal = white
    internal = 1.5 * np.diag(np.diag(channels @ channels.T))
    s = channels @ signal.ravel()
    analytic = math.sqrt(s @ np.linalg.solve(channels @ channels.T + internal, s))
    found = channelised_auc(absent, present, internal)
    assert found.mean() == pytest.approx(auc_of_snr(analytic), abs=0.012)
    assert found.mean() < channelised_auc(absent, present).mean() - 0.03


def test_averaged_internal_noise_is_that_of_noise_drawn():
    rng = np.random.default_rng(1)
    absent, present = rng.normal(size=(1, 200)), rng.normal(1, 1, (1, 200))
    drawn = [
        auc(absent + rng.normal(0, 2, absent.shape), present + rng.normal(0, 2, present.shape))[0]
        for _ in range(50)
    ]
    assert auc(absent, present, 2.0)[0] == pytest.approx(
        np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(50)
    )


def test_auc_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(2)
    absent, present = rng.poisson(3, (4, 11)), rng.poisson(5, (4, 9))  # with ties
    expected = [mannwhitneyu(p, a).statistic / (9 * 11) for a, p in zip(absent, present, strict=True)]
    np.testing.assert_allclose(auc(absent, present), expected)


def test_nothing_to_see_is_chance(white):
    absent = white[0]
    assert channelised_auc(absent[:, ::2], absent[:, 1::2]).mean() == pytest.approx(0.5, abs=0.03)


def test_the_ideal_observer_reaches_the_auc_its_signal_was_made_for(shape):
    background = np.full(shape.shape, BACKGROUND)
    signal = amplitude_for(background, shape, 1.8) * shape
    rng = np.random.default_rng(3)
    ratio = np.log1p(signal / background)
    scores = [
        (rng.poisson(mean, (800, *shape.shape)) * ratio).sum(axis=(1, 2))
        for mean in (background, background + signal)
    ]
    assert auc(scores[0][None], scores[1][None])[0] == pytest.approx(auc_of_snr(1.8), abs=0.02)


def test_a_weak_signal_has_hotellings_snr(shape):
    background = np.full(shape.shape, BACKGROUND)
    signal = 0.01 * shape
    expected = math.sqrt((signal**2 / background).sum())
    assert observers.ideal_snr(background, signal) == pytest.approx(expected, rel=1e-3)


def test_half_the_counts_are_the_root_of_half_the_snr(shape):
    background, signal = np.full(shape.shape, BACKGROUND), 4 * shape
    whole = observers.ideal_snr(background, signal)
    assert observers.ideal_snr(background / 2, signal / 2) == pytest.approx(whole / math.sqrt(2))
    assert observers.snr_of_auc(auc_of_snr(whole)) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("window", "first"), [(WINDOW, FIRST_CHANNEL), (observer.WINDOW, observer.FIRST_CHANNEL)]
)
def test_channels_pass_bands_and_no_level(window, first):
    channels = dog_channels(window, first)
    np.testing.assert_allclose(np.linalg.norm(channels, axis=1), 1)
    peaks = []
    for template in channels:
        response = np.abs(np.fft.fft(template.reshape(window, window).sum(axis=0), 512))[:256]
        peaks.append(np.argmax(response))
        assert response[0] < 0.1 * response.max()
    assert np.all(np.diff(peaks) > 0)


def test_bootstrap_of_groups():
    """An interval of the mean of children, not of places that share one child's luck."""
    rng = np.random.default_rng(4)
    children = rng.normal(size=40)
    values, groups = np.repeat(children, 5), np.repeat(np.arange(40), 5)
    mean, low, high = observers.bootstrap_mean(values, groups, 0)
    half = norm.ppf(0.975) * children.std() / math.sqrt(40)
    assert mean == pytest.approx(children.mean())
    assert high - low == pytest.approx(2 * half, rel=0.15)
    assert math.isnan(observers.bootstrap_mean(values[:5], groups[:5], 0)[1])
    assert math.isnan(observers.bootstrap_mean(np.array([np.nan]), np.array([0]), 0)[0])
