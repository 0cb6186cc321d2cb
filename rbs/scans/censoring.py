r"""Cut counts: scans in which an export set the counts 1, ..., k to 0 (`Scan.cut`).

A pixel of 0 is then a censored observation: all it says is :math:`N \le k`. Leaving such pixels
out, or taking the 0 for the count, both bias every mean; the likelihood does not. With the
truncated exponential series :math:`e_k(\lambda) = \sum_{n=0}^{k} \lambda^n / n!` a Poisson count of
mean :math:`\lambda` has

.. math::
    P(N \le k) = e_k(\lambda)\, e^{-\lambda}, \qquad
    \operatorname{E}[N \mid N \le k] = \lambda\, e_{k-1}(\lambda) / e_k(\lambda) .

The suite needs four things that follow:

* *Thinning.* A part of a scan is at most as large as the scan, pixel by pixel. Where the scan was
  cut the parts would have been cut as well; everywhere else they are drawn as always. Cutting the
  parts leaves exactly what an export of independent scans R and Q would have left: they are
  independent, and each is a cut Poisson scan (`rbs.degradation.thinning.split`).
* *Likelihood.* A target pixel that was cut has the loss :math:`-\log P(N \le k)`
  (`rbs.losses.PoissonDeviance`).
* *Completion.* Restorers, filters and masks need a count in every pixel. Those that were cut are
  drawn from :math:`P(N \mid N \le k)` at a mean that the pixels around them tell (`completed`), or
  take their conditional expectation (`expected`).
* *Selection.* A noise-corrected error leaves out the pixels that an export may well cut, chosen by
  their neighbours (`rarely_cut`): by their own count, those that noise made large would be kept.
"""

from __future__ import annotations

import zlib

import numpy as np

from rbs.scans.body import smooth
from rbs.scans.scan import Array

WINDOWS_PX = (6.0, 3.0, 1.5)
"""Widths of the Gaussian windows of `local_mean`, pixels, from coarse to fine."""

PRIOR = 0.05
"""Weight of the coarser window's mean in the next one, relative to that of the window."""

RARELY = 0.1
"""Probability of being cut below which a pixel is judged. The few that were cut all the same are
drawn, which moves the noise-corrected error of a phantom by less than 2 %."""

_STEPS = 15
"""Steps of Newton's method, which converges from above."""


def cut_counts(counts: Array, cut: int) -> Array:
    """Set counts up to `cut` to 0, as an export does; the same array where `cut` is 0."""
    return np.where(counts > cut, counts, 0).astype(counts.dtype) if cut else counts


def series(mean: Array, last: int) -> Array:
    r"""The truncated exponential series :math:`\sum_{n=0}^{last} mean^n / n!`; 0 for last < 0."""
    total, term = np.zeros_like(mean), np.ones_like(mean)
    for n in range(last + 1):
        total += term
        term = term * mean / (n + 1)
    return total


def local_mean(counts: Array, cut: int, *, own: bool = True) -> Array:
    r"""Mean count around each pixel of a cut scan, by local maximum likelihood.

    In a window of weights w the share of cut pixels is :math:`c = \sum w\,[N \le k]` and the sum of
    the others is :math:`s = \sum w N\,[N > k]`. The weighted likelihood of one mean in the window,
    with that of a coarser window, :math:`\lambda_0`, as a conjugate prior of weight b,

    .. math::
        c \log e_k(\lambda) + s \log \lambda - \lambda + b\,(\lambda_0 \log \lambda - \lambda) ,

    is largest where :math:`(1 + b) \lambda = s + b \lambda_0 + c\, \lambda\, e_{k-1}(\lambda) /
    e_k(\lambda)`, the fixed point of the EM algorithm (Dempster, Laird & Rubin, J. R. Stat. Soc. B
    39 (1977) 1-38). What remains of both sides is convex in :math:`\lambda`, so that Newton's
    method from above falls to it without overshooting. Local likelihood: Tibshirani & Hastie, J.
    Am. Stat. Assoc. 82 (1987) 559-567.

    Args:
        counts: Whole counts (V, H, W); those up to `cut` are taken for cut, whatever they are.
        cut: k, at least 1.
        own: Whether a pixel takes part in its own mean. Without, the mean is independent of the
            pixel's noise.

    Returns:
        Means, float64 (V, H, W).
    """
    counts = np.asarray(counts, np.float64)
    missing = (counts <= cut).astype(np.float64)
    known = np.where(counts > cut, counts, 0.0)
    mean: Array | None = None
    for sigma in WINDOWS_PX:
        share, total = (_windowed(image, sigma, own) for image in (missing, known))
        if mean is not None:
            share, total = share / (1 + PRIOR), (total + PRIOR * mean) / (1 + PRIOR)
        mean = _most_likely(share, total, cut)
    assert mean is not None
    return mean


def _windowed(image: Array, sigma: float, own: bool) -> Array:
    """Weighted mean in a Gaussian window around each pixel, perhaps without the pixel itself."""
    found = smooth(image, sigma, (1.0, 1.0))
    if own:
        return found
    side = 2 * round(4 * sigma) + 1  # of the whole window
    point = np.zeros((1, side, side))
    point[0, side // 2, side // 2] = 1
    weight = smooth(point, sigma, (1.0, 1.0)).max()
    return np.maximum((found - weight * image) / (1 - weight), 0.0)


def _most_likely(share: Array, total: Array, cut: int) -> Array:
    """Solve mean = total + share * E[N | N <= cut] by Newton's method."""
    mean = total + share * cut
    for _ in range(_STEPS):
        whole = series(mean, cut)
        ratio = series(mean, cut - 1) / whole
        slope = ratio + mean * (series(mean, cut - 2) / whole - ratio**2)  # of mean * ratio
        excess = mean - share * mean * ratio - total
        mean = np.maximum(mean - excess / np.maximum(1 - share * slope, 1e-12), 0.0)
    return mean


def completed(counts: Array, cut: int, rng: np.random.Generator | None = None) -> Array:
    """Draw the counts that were cut, given that they were and the mean around them.

    Where that mean is right the result is again a Poisson scan.

    Args:
        counts: Whole counts (V, H, W); those up to `cut` are drawn anew, whatever they are.
        cut: Nothing is done where it is 0.
        rng: Source of randomness; None draws the same counts for the same scan each time.

    Returns:
        Whole counts of the type and shape of `counts`.
    """
    if not cut:
        return counts
    missing = counts <= cut
    if rng is None:
        rng = np.random.default_rng(zlib.crc32(cut_counts(counts, cut).astype(np.int64).tobytes()))
    mean = local_mean(counts, cut)[missing]
    # The inverse of the distribution function P(N <= n | N <= k) = e_n / e_k.
    level = rng.random(mean.shape) * series(mean, cut)
    whole = counts.copy()
    whole[missing] = sum(level > series(mean, n) for n in range(cut))
    return whole


def expected(counts: Array, cut: int, mean: Array) -> Array:
    r"""Put :math:`\operatorname{E}[N \mid N \le k]` where counts were cut: the E-step of EM.

    Args:
        counts: Whole counts (V, H, W); those up to `cut` are replaced, whatever they are.
        cut: k, at least 1.
        mean: Poisson mean of each pixel, (V, H, W).

    Returns:
        float64 (V, H, W).
    """
    mean = np.asarray(mean, np.float64)
    return np.where(counts > cut, counts, mean * series(mean, cut - 1) / series(mean, cut))


def rarely_cut(counts: Array, cut: int) -> Array:
    """Pixels whose neighbours say that an export would have cut them with less than `RARELY`.

    The pixel itself has no say: the choice is independent of its noise, so that a mean over the
    chosen ones is not biased by it.

    Args:
        counts: Whole counts (V, H, W); those up to `cut` are taken for cut, whatever they are.
        cut: All pixels are chosen where it is 0.

    Returns:
        bool (V, H, W).
    """
    if not cut:
        return np.ones(counts.shape, bool)
    mean = local_mean(counts, cut, own=False)
    return series(mean, cut) * np.exp(-mean) < RARELY
