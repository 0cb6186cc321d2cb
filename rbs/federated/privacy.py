"""Differential privacy of sites: the epsilon of what all rounds together release."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.stats import norm


def epsilon(noise: float, rounds: int, delta: float) -> float:
    """Epsilon of the Gaussian mechanism, used once a round with every site taking part.

    Rounds compose to one mechanism of noise / sqrt(rounds), whose epsilon is exact (Balle and Wang,
    ICML 2018, theorem 8); an accountant of Renyi divergences gives an upper bound of it. Two
    federations are neighbours where the one has a site more.

    Args:
        noise: Standard deviation of the noise in a sum of updates, relative to the norm to which
            each update is clipped; 0 is without privacy.
        rounds: Sums that were released.
        delta: Probability that epsilon does not hold.
    """
    if rounds == 0:
        return 0.0
    if noise == 0:
        return math.inf
    sensitivity = math.sqrt(rounds) / noise

    def excess(value: float) -> float:
        tail = norm.logcdf(-sensitivity / 2 - value / sensitivity) + value
        return float(norm.cdf(sensitivity / 2 - value / sensitivity) - math.exp(tail) - delta)

    if excess(0.0) <= 0:
        return 0.0
    highest = sensitivity**2 / 2 + sensitivity * math.sqrt(2 * math.log(1 / delta))
    return float(brentq(excess, 0.0, highest))
