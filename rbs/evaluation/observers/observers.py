"""Model observers: can a focus at a known place still be told from none?

*Channelised Hotelling observer* (Myers & Barrett, J Opt Soc Am A 1987;4:2447; dense
difference-of-Gaussian channels: Abbey & Barrett, J Opt Soc Am A 2001;18:473). An image g becomes
the channel outputs v = C'g; with s the difference of their means and K the mean of their
covariances with and without the signal,

    w = (K + N)^-1 s,       t = w'v,       AUC = mean over pairs of Φ((t1 - t0) / (√2 sqrt(w'Nw))),

N the covariance of internal noise (0: the step function). AUC is found on other images than w was
trained on.

*Ideal observer*: where the expectations b and b + s of Poisson counts n are known exactly, nothing
beats the likelihood ratio Σ n ln(1 + s/b) - Σ s. It sees counts: what is made of counts cannot hold
more. At exposure p its SNR is √p of that of a standard scan, so its AUC, the bound of all, is known
without any draw:

    AUC(p) = Φ(√(p/2) SNR) = Φ(√p Φ^-1(AUC(1))),       0.950 at p = 1, 0.878 at p = 1/2.

Its score is taken for normal; a test finds the exact AUC of Poisson counts within 0.0005 of this.
"""

from __future__ import annotations

import math

import numpy as np

from rbs.scans.scan import Array

FIRST_CHANNEL = 0.02
"""σ of the first channel, cycles/pixel. Abbey & Barrett begin at 0.005, too wide for 49 pixels."""
WINDOW = 49
"""Edge of the observer's window, pixels; odd."""

RESAMPLES = 2000


def hotelling_template(absent: Array, present: Array, internal: Array | None = None) -> Array:
    """The template w = (K + N)^-1 s.

    Args:
        absent: Channel outputs without the signal, (places, draws, channels). Places differ in
            background and noise is what is left within a place.
        present: The same with it.
        internal: N, (channels, channels); None for no internal noise.

    Returns:
        (channels,).
    """
    s = (present.mean(axis=1) - absent.mean(axis=1)).mean(axis=0)
    covariance = (within_covariance(absent) + within_covariance(present)) / 2
    if internal is not None:
        covariance = covariance + internal
    # Pseudo-inverse: a restoration without any noise in a channel says nothing there, it is no
    # error.
    return np.asarray(np.linalg.pinv(covariance, hermitian=True) @ s)


def within_covariance(outputs: Array) -> Array:
    """Covariance of (places, draws, channels) about each place's mean, (channels, channels)."""
    places, draws, channels = outputs.shape
    centred = (outputs - outputs.mean(axis=1, keepdims=True)).reshape(-1, channels)
    return np.asarray(centred.T @ centred / (places * (draws - 1)))


def channelised_auc(absent: Array, present: Array, internal: Array | None = None) -> Array:
    """AUC of the channelised Hotelling observer at each place, trained on half of the draws.

    Args:
        absent: Channel outputs (places, draws, channels), two draws at least on either side of the
            middle.
        present: The same with the signal.
        internal: N, (channels, channels).

    Returns:
        (places,): mean of both halves.
    """
    middle = absent.shape[1] // 2
    halves = (slice(None, middle), slice(middle, None))
    found = []
    for train, test in (halves, halves[::-1]):
        w = hotelling_template(absent[:, train], present[:, train], internal)
        noise = 0.0 if internal is None else math.sqrt(float(w @ internal @ w))
        found.append(auc(absent[:, test] @ w, present[:, test] @ w, noise))
    return np.asarray(np.mean(found, axis=0))


def auc(absent: Array, present: Array, internal_sd: float = 0.0) -> Array:
    """Area under the ROC curve of scores, within each place: the Mann-Whitney statistic, ties half.

    Args:
        absent: Scores without the signal (places, draws).
        present: Scores with it (places, draws).
        internal_sd: Standard deviation of normal internal noise of each score, over which the mean
            is taken.

    Returns:
        (places,).
    """
    from scipy.special import ndtr

    difference = present[:, :, None] - absent[:, None, :]
    if internal_sd > 0:
        return np.asarray(ndtr(difference / (math.sqrt(2) * internal_sd)).mean(axis=(1, 2)))
    return np.asarray(((difference > 0) + 0.5 * (difference == 0)).mean(axis=(1, 2)))


def ideal_snr(background: Array, signal: Array) -> float:
    """Detectability of the ideal observer: distance of mean scores over their standard deviation.

    With L = ln(1 + s/b): (ΣsL) / sqrt(Σ(b + s/2) L²). For a weak signal it is sqrt(Σ s²/b),
    Hotelling's.

    Args:
        background: b, expectation without the signal, positive.
        signal: s.
    """
    ratio = np.log1p(signal / background)
    noise = float(((background + signal / 2) * ratio**2).sum())
    return float((signal * ratio).sum()) / math.sqrt(noise) if noise > 0 else 0.0


def auc_of_snr(snr: float) -> float:
    """AUC = Φ(SNR / √2) of normal scores of equal variance."""
    from scipy.special import ndtr

    return float(ndtr(snr / math.sqrt(2)))


def snr_of_auc(area: float) -> float:
    """SNR = √2 Φ^-1(AUC) of normal scores of equal variance."""
    from scipy.special import ndtri

    return float(math.sqrt(2) * ndtri(area))


def amplitude_for(background: Array, shape: Array, snr: float) -> float:
    """Strength of a signal of this shape at which the ideal observer has this SNR.

    Args:
        background: b, positive.
        shape: The signal at amplitude 1.
        snr: Positive.
    """
    from scipy.optimize import brentq

    weak = snr / math.sqrt(float((shape**2 / background).sum()))
    high = weak
    while ideal_snr(background, high * shape) < snr:
        high *= 2
    return float(brentq(lambda a: ideal_snr(background, a * shape) - snr, 0.0, high, rtol=1e-6))


def bootstrap_mean(values: Array, groups: Array, seed: int) -> tuple[float, float, float]:
    """Mean and its 95 % interval by resampling whole groups, such as children.

    Args:
        values: (n,), NaN left out.
        groups: The group of each value.
        seed: Seed.

    Returns:
        Mean, low, high; the last two NaN with fewer than two groups.
    """
    kept = np.isfinite(values)
    values, groups = values[kept], np.unique(groups[kept], return_inverse=True)[1]
    if not values.size:
        return math.nan, math.nan, math.nan
    sums, sizes = np.bincount(groups, values), np.bincount(groups)
    if len(sums) < 2:
        return float(values.mean()), math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
