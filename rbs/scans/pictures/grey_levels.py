"""The scale of a picture of counts, read off its grey histogram.

Where grey = round(s x count), some greys do not occur (s > 1) or stand for two counts (s < 1): the
histogram has gaps or peaks under a smooth envelope. The profile r(g) of a scale s is the number of
counts per grey, blurred by sigma (a JPEG encoder's rounding), over its local mean; the envelope w
is the smooth curve for which the local means of w r and of the histogram agree, found for each
profile by iteration:

    h(g) ~ Poisson(mu(g)),   mu(g) = w(g) r(g; s, sigma),   L = sum_g h log mu - mu

All scales compete in one table, multiples and fractions of the true one among them, and those that
alias on the integers (0.8, 1.33 and 4 have one period): the gaps tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import convolve1d, gaussian_filter1d
from scipy.special import ndtr

from rbs.scans.scan import Array

SCALES = (0.8, 4.0)
"""Range of the scales, grey levels a count."""

FIRST, LAST = 3, 254
"""Fitted greys: below, the low counts may be cut and the zeros smear; 255 is saturated."""

BLURS = (0.0, 0.3, 0.45, 0.7, 1.0)
"""Standard deviations of the greys about those of counts: 0 (PNG), 0.3 (JPEG quality 100), more."""

NEAR = 0.01
"""Relative difference up to which two scales are taken for one and the same."""

_SAME = 0.05
"""Share of the pixels whose greys tell two scales apart, up to which these give the same counts."""

_COARSE, _FINE = 1e-3, 1e-4
"""Steps of the two searches: round scales are hit exactly, since 1.5 x 3 and 1.5 x 5 are ties."""

_CANDIDATES = 24
"""Scales of the first search that are examined again."""

_LOCAL = 3.0
"""Standard deviation of a local mean, greys: enough to smooth the gaps of the largest scale."""

_STRAY = 1e-3
"""Share of pixels that may be no counts (a burnt-in letter) and must not outweigh the rest."""

_ROUNDS = 16
"""Iterations of the envelope: it bends as the histogram does, and cannot follow gaps."""

_MISFIT = 0.01
"""Log-likelihood a pixel by which the envelope may be wrong."""

_EMPTY = 1e-3
"""Pixels of a grey of which there are none: keeps the logarithm finite."""


@dataclass(frozen=True)
class GreyLevels:
    """Grey levels of counts, fitted to a histogram.

    Attributes:
        scale: s, grey levels a count.
        standard_error: Of the scale.
        blur: Standard deviation of the greys about those of counts.
        confidence: log10 of the odds of this scale against the best one that differs by more than
            `NEAR`; no gaps at all count as scale 1.
        agreement: Gain in likelihood over a smooth histogram, relative to that of true counts, with
            four standard deviations in its favour: the lowest of the octaves of grey. A profile
            that is bent (a gamma curve) or shifted may fit some of them, not all.
    """

    scale: float
    standard_error: float
    blur: float
    confidence: float
    agreement: float


def fit_grey_levels(histogram: Array, low: float = SCALES[0], high: float = SCALES[1]) -> GreyLevels:
    """Fit scale and blur to the histogram of an 8-bit picture.

    Args:
        histogram: Number of pixels of each grey, (256,), with some in `FIRST` to `LAST`.
        low: The smallest scale, within `SCALES`.
        high: The largest.
    """
    h = np.asarray(histogram, dtype=np.float64)[FIRST : LAST + 1]
    # Where the lowest counts were cut, the profile begins with the first one left.
    skip = int((h[:12] >= 0.2 * h.max()).argmax())
    h = h[skip:]
    scales, ratios, profiles = _table()
    wanted = slice(*np.searchsorted(scales, (low * (1 - NEAR), high * (1 + NEAR))))
    scales, ratios, profiles = scales[wanted], ratios[:, wanted, skip:], profiles[:, wanted, skip:]
    smooth = _envelopes(h, np.ones((1, h.size)))[0]
    plain = _likelihood(h, smooth)
    gain = profiles @ h - ratios @ smooth
    candidates = scales[_peaks(gain.max(axis=0), scales)]
    # The most promising ones once more, each with the envelope that suits it best.
    profiles = _profiles(candidates)[..., skip:]
    gain = _likelihood(h, profiles * _envelopes(h, profiles)) - plain
    blur, k = np.unravel_index(gain.argmax(), gain.shape)
    # And the best in small steps: the likelihood is flat where several scales give the same greys.
    low, high = candidates[k] * (1 - 1.5 * NEAR), candidates[k] * (1 + 1.5 * NEAR)
    near = _grid(low, high, _FINE)
    fits = _profiles(near)[blur, :, skip:] * _envelopes(h, profiles[blur, k])
    fine = _likelihood(h, fits) - plain
    weight = np.exp(fine - fine.max())
    scale = float((weight * near).sum() / weight.sum())
    error = float(np.sqrt((weight * (near - scale) ** 2).sum() / weight.sum() + _FINE**2 / 12))
    apart = [
        abs(np.log(other / scale)) > NEAR and _differ(h, FIRST + skip, other, scale) for other in candidates
    ]
    rivals = gain[:, np.array(apart)].ravel()
    rival = max([*rivals, 0.0] if abs(np.log(scale)) > NEAR else [*rivals, -np.inf])
    mu = fits[fine.argmax()]
    # From grey 4: grey 3 takes what JPEG spreads of the many pixels below it.
    octave = np.log2(np.arange(FIRST + skip, LAST + 1) + 0.5).astype(int)
    ratio = np.log(mu / smooth)
    gained, possible, variance, pixels = (
        np.bincount(octave, part)[max(2, octave[0]) :]
        for part in (h * ratio - mu + smooth, mu * ratio - mu + smooth, mu * ratio**2, h)
    )
    agreement = (gained + 4 * np.sqrt(variance) + _MISFIT * pixels) / np.maximum(possible, 1e-3)
    confidence = float((fine.max() - rival) / np.log(10))
    return GreyLevels(scale, error, BLURS[blur], confidence, float(agreement.min()))


def _differ(h: Array, first: int, one: float, other: float) -> bool:
    """True if two scales give other counts to the pixels h of the greys from `first` on."""
    number = [np.bincount(greys_of_counts(scale), minlength=256)[first : LAST + 1] for scale in (one, other)]
    return bool(h[number[0] != number[1]].sum() > _SAME * h.sum())


def greys_of_counts(scale: float) -> Array:
    """The grey of each count up to white, int (counts,)."""
    greys = np.rint(scale * np.arange(int(256 / scale) + 2)).astype(np.int64)
    return greys[greys <= 255]


def _envelopes(h: Array, profiles: Array) -> Array:
    """Smooth w for which the local means of w r and of the histogram agree.

    Args:
        h: Histogram of the fitted greys, (greys,).
        profiles: r, (..., greys).
    """
    mean = _local_mean(h) + _EMPTY
    envelopes = np.broadcast_to(mean, profiles.shape)
    for _ in range(_ROUNDS):
        envelopes = envelopes * mean / (_local_mean(envelopes * profiles) + _EMPTY)
    return envelopes


def _likelihood(h: Array, mu: Array) -> Array:
    """Poisson log-likelihood of the histogram, without its factorials."""
    return np.log(mu) @ h - mu.sum(axis=-1)


def _local_mean(values: Array) -> Array:
    return gaussian_filter1d(values, _LOCAL, axis=-1, mode="constant")


def _peaks(gain: Array, scales: Array) -> Array:
    """Indices of the highest scales, each the best within half of `NEAR`."""
    left = gain.copy()
    found: list[int] = []
    while len(found) < _CANDIDATES and np.isfinite(left).any():
        k = int(left.argmax())
        found.append(k)
        left[np.abs(scales / scales[k] - 1) < NEAR / 2] = -np.inf
    return np.array(found)


def _profiles(scales: Array) -> Array:
    """The profiles r of the fitted greys, (blurs, scales, greys)."""
    counts = np.stack([np.bincount(greys_of_counts(scale), minlength=256) for scale in scales]).astype(
        np.float64
    )
    profiles = []
    for blur in BLURS:
        profile = (1 - _STRAY) * convolve1d(counts, _kernel(blur), axis=1, mode="nearest")
        profile += _STRAY / np.asarray(scales)[:, None]
        profiles.append(profile / gaussian_filter1d(profile, _LOCAL, axis=1, mode="nearest"))
    return np.stack(profiles)[..., FIRST : LAST + 1]


def _kernel(blur: float) -> Array:
    """Normal errors of this standard deviation, rounded to whole greys, -4 to 4."""
    edges = np.arange(-4.5, 5.0)
    return np.diff(ndtr(edges / blur)) if blur else (edges[:-1] == -0.5).astype(np.float64)


def _grid(low: float, high: float, step: float) -> Array:
    """Multiples of the step, as the decimals they are."""
    return np.round(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step, 4)


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array, Array]:
    """All scales, and r and log r of each, float32."""
    # Near 1 the few gaps and double greys move by many greys for a small change of scale.
    scales = np.union1d(
        _grid(SCALES[0] * (1 - 2 * NEAR), SCALES[1] * (1 + 2 * NEAR), _COARSE), _grid(0.9, 1.1, 2 * _FINE)
    )
    profiles = _profiles(scales).astype(np.float32)
    return scales, profiles, np.log(profiles)
