"""Epsilon of the rounds together, beside an accountant and a simulation."""

import math

import numpy as np
import pytest

from rbs.federated.privacy import epsilon


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (2.0, 20), (5.0, 20), (0.7, 10)])
def test_epsilon_is_at_most_that_of_an_accountant_and_close_to_it(noise, rounds):
    accountants = pytest.importorskip("opacus.accountants", reason="pip install opacus")
    accountant = accountants.RDPAccountant()
    for _ in range(rounds):
        accountant.step(noise_multiplier=noise, sample_rate=1.0)
    bound = accountant.get_epsilon(1e-5)
    assert 0.8 * bound < epsilon(noise, rounds, 1e-5) <= bound


def test_epsilon_is_that_of_the_distributions_themselves():
    # Log-likelihood ratios of the noise with and without a site of the full norm, ten rounds.
    noise, rounds, delta = 3.0, 10, 0.05
    rng = np.random.default_rng(1)
    x = rng.normal(1.0, noise, (400_000, rounds))
    ratio = ((2 * x - 1) / (2 * noise**2)).sum(axis=1)
    value = epsilon(noise, rounds, delta)
    assert np.maximum(0, 1 - np.exp(value - ratio)).mean() == pytest.approx(delta, rel=0.02)


def test_no_rounds_cost_nothing_and_no_noise_everything():
    assert epsilon(1.0, 0, 1e-5) == 0
    assert epsilon(0.0, 1, 1e-5) == math.inf
    assert epsilon(1.0, 2, 1e-5) > epsilon(1.0, 1, 1e-5) > epsilon(2.0, 1, 1e-5)
