"""Noise residuals of count images: what tells a copy of counts from another draw of them.

The camera blurs: the expected counts of a scan hold next to nothing above `PASSBAND`, where the
noise of its counts, which is white, stands alone. So what two scans have in common there is counts,
not anatomy. With the high-pass filter h (passband of the share f of all frequencies) and the mean m
of the counts nearby,

    z = (h * counts) / sqrt(f m)

has variance 1 for Poisson counts at every level.

Two scans with the expected counts A and B, of which S are in both (the same events), have
Cov(a, b) = Var(s) = S, so that

    c = mean(z_a z_b) = S / sqrt(A B):

* independent scans, of one expectation or of two: 0, with a standard error of 1/sqrt(f n) over n
  pixels (a sum of n products of z, of which f n are independent);
* a copy thinned to the share p (A = p B, S = A): sqrt(p);
* two thinned copies of one scan, to p and q: sqrt(p q), as p q of its counts are in both;
* a share q of the rapid scan's counts in the standard scan, at the relative exposure A/B = e:
  q sqrt(e).

What is in both without a shared count (the anatomy that coarse pixels leave in the passband, a
fixed pattern, noise of a source that is not Poisson and was divided) also adds to the variances. By
the Cauchy-Schwarz inequality it adds no more than sqrt((var z_a - 1)(var z_b - 1)) to c, and shared
counts do not add to the variance of z. So that much is taken off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter

from rbs.scans.scan import Array

PASSBAND = 0.35
"""Lowest spatial frequency of a residual, cycles per pixel. At a resolution of 9 mm (FWHM) and
pixels of 2.3 mm the camera passes 1e-3 of it."""
AXIS = 0.03
"""Frequencies along rows or columns that are left out, cycles per pixel: stripes of the detector or
of the bed's steps."""
BLUR = 3.0
"""Standard deviation of the Gaussian that gives the mean counts nearby, pixels."""
LEAST_MEAN = 0.25
"""Mean counts a pixel below which a pixel is left out."""
LARGEST = 5.0
"""Standard deviations to which a residual is limited, so that no hot pixel decides."""
WINDOW = (128, 128)
"""Rows and columns that a sketch is made of."""

_UNEXPLAINED = 8.0
"""Standard errors that no chance reaches: one in 1e15, for 1e6 shifts, mirrorings and frames."""
_BASELINE = 0.95
"""Least variance of z: the mean nearby, estimated from the same counts, takes up to 5 %."""
_DOUBT = 1.3
"""Factor by which unequal pixels may make the common variance exceed the bound of their means."""
_ALIKE = 7.0
"""Standard errors of a sketch that no chance reaches: one in 1e12, for 1e5 pairs of frames."""
_BLOCK = 8


@dataclass(frozen=True)
class Residual:
    """Residual of a frame.

    Attributes:
        z: float32 (rows, columns), 0 where there are too few counts.
        pixels: Number of the others.
        passband: Share f of all frequencies.
    """

    z: Array
    pixels: int
    passband: float

    @property
    def independent(self) -> float:
        """Number of independent values, f n."""
        return self.passband * self.pixels


@dataclass(frozen=True)
class Sketch:
    """Counts of a frame in short, the same for a shifted or mirrored one.

    The periodograms of two residuals with the correlation c have the correlation c^2, which takes a
    product of two short vectors: all frames of a manifest are compared with each other.

    Attributes:
        digest: Hash of the sums of rows and of columns, sorted, those of 0 left out: turning and
            empty margins do not change it either. Empty for a frame without counts.
        periodogram: Amplitudes relative to those of the frequencies nearby, int8, mean 0.
        independent: Number of independent amplitudes; 0 for a frame of too few counts.
    """

    digest: str
    periodogram: Array
    independent: float


def residual_of(frame: Array) -> Residual:
    """The residual z of counts (rows, columns); see the module."""
    counts = np.asarray(frame, np.float32)
    blur, high, share = _filters(counts.shape)
    spectrum = fft.rfft2(counts)
    mean = fft.irfft2(spectrum * blur, s=counts.shape)
    noise = fft.irfft2(spectrum * high, s=counts.shape)
    enough = mean > LEAST_MEAN
    z = np.where(enough, noise / np.sqrt(share * np.maximum(mean, LEAST_MEAN)), 0)
    return Residual(np.clip(z, -LARGEST, LARGEST).astype(np.float32), int(enough.sum()), share)


def correlated(first: Array, second: Array) -> bool:
    """True if some frame of one scan holds counts of some frame of the other.

    Frames are compared at every shift by whole pixels; all mirrorings of all frames at once, at the
    price of sqrt(4 k) times the standard error for k pairs of frames.

    Args:
        first: Counts (frames, rows, columns).
        second: Likewise.
    """
    frames = [_trimmed(frame) for frame in (*first, *second)]
    # One size for all, a multiple of 32 so that the filters are computed for few.
    shape = tuple(-(-max(f.shape[axis] for f in frames) // 32) * 32 for axis in (0, 1))
    residuals = [residual_of(_padded(frame, shape)) for frame in frames]
    if not all(r.pixels for r in residuals):
        return False
    spectra = [fft.rfft2(r.z) / r.pixels**0.5 for r in residuals]
    excess = [max(float(np.vdot(r.z, r.z)) / r.pixels - _BASELINE, 0) for r in residuals]
    error = 1 / min(r.independent for r in residuals) ** 0.5
    own, other = range(len(first)), range(len(first), len(frames))

    def common(i: int, j: int) -> float:
        return _DOUBT * (excess[i] * excess[j]) ** 0.5

    for i, j in product(own, other):
        found = fft.irfft2(spectra[i].conj() * spectra[j], s=shape).max()
        if found > common(i, j) + _UNEXPLAINED * error:
            return True
    # A convolution is a correlation with the image turned by 180 degrees; a correlation of sums is
    # the sum of correlations.
    a, b = sum(spectra[i] for i in own), sum(spectra[j] for j in other)
    found = fft.irfft2(2 * a.real * (b + np.roll(b[::-1], 1, axis=0)), s=shape).max()
    pairs = len(own) * len(other)
    anatomy = 4 * max(common(i, j) for i, j in product(own, other))
    return bool(found > anatomy + _UNEXPLAINED * error * (4 * pairs) ** 0.5)


def sketch_of(frame: Array) -> Sketch:
    """Sketch of counts (rows, columns), its periodogram of the `WINDOW` about their centre."""
    sums = frame.sum(axis=1, dtype=np.int64), frame.sum(axis=0, dtype=np.int64)
    texts = sorted(np.sort(s[s != 0]).astype("<i8").tobytes() for s in sums)
    digest = hashlib.sha256(b" ".join(texts)).hexdigest() if sums[0].any() else ""
    residual = residual_of(_window(frame, sums))
    spectrum = np.abs(fft.rfft2(residual.z))
    # Mirroring a frame mirrors the frequencies.
    both = (spectrum + np.roll(spectrum[::-1], 1, axis=0))[: WINDOW[0] // 2 + 1]
    passed, share = _upper_half()
    local = uniform_filter(both * passed, 9) / np.maximum(share, 1e-2)
    values = (both / np.maximum(local, 1e-6) - 1)[passed]
    values -= values.mean()
    scale = 30 / max(float(values.std()), 1e-6)
    periodogram = np.clip(np.rint(values * scale), -127, 127).astype(np.int8)
    # A quarter of the frequencies: half of them are conjugates, half of these mirror images.
    return Sketch(digest, periodogram, residual.independent / 4)


def alike(sketches: Sequence[Sketch]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of frames that show the same counts, or a good part of them.

    A copy thinned to the share p is found for p above about 0.15.
    """
    if not sketches:
        return []
    values = np.stack([sketch.periodogram for sketch in sketches]).astype(np.float32)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1)
    independent = np.array([max(sketch.independent, 1.0) for sketch in sketches])
    found: list[tuple[int, int]] = []
    for start in range(0, len(values), 512):
        block = slice(start, start + 512)
        limits = _ALIKE / np.sqrt(np.minimum.outer(independent[block], independent))
        found += [
            (start + int(i), int(j))
            for i, j in np.argwhere(values[block] @ values.T > limits)
            if start + i < j
        ]
    return found


@lru_cache(maxsize=32)
def _filters(shape: tuple[int, int]) -> tuple[Array, Array, float]:
    """Blur and high-pass filter of a half spectrum, and the share of all frequencies that pass."""
    y, x = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    square = y**2 + x**2
    blur = np.exp(-2 * np.pi**2 * BLUR**2 * square)
    high = (square > PASSBAND**2) & (abs(y) > AXIS) & (abs(x) > AXIS)
    both_halves = np.where((x > 0) & (x < 0.5), 2, 1)
    share = float((high * both_halves).sum()) / (shape[0] * shape[1])
    return blur.astype(np.float32), high.astype(np.float32), share


@lru_cache(maxsize=1)
def _upper_half() -> tuple[Array, Array]:
    """Frequencies of a sketch that pass, and the share of those nearby that do."""
    passed = _filters(WINDOW)[1][: WINDOW[0] // 2 + 1] > 0
    return passed, uniform_filter(passed.astype(np.float32), 9)


def _padded(frame: Array, shape: tuple[int, ...]) -> Array:
    padded = np.zeros(shape, np.float32)
    padded[: frame.shape[0], : frame.shape[1]] = frame
    return padded


def _trimmed(frame: Array) -> Array:
    """The part of a frame that holds blocks of enough counts; all of one that has none."""
    rows, columns = (size // _BLOCK * _BLOCK for size in frame.shape)
    blocks = frame[:rows, :columns].reshape(rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK).sum((1, 3))
    used = blocks >= LEAST_MEAN * _BLOCK**2
    if not used.any():
        return frame
    ends = []
    for axis, size in enumerate(frame.shape):
        places = np.flatnonzero(used.any(axis=1 - axis)) * _BLOCK
        last = places[-1] + _BLOCK
        ends.append(slice(places[0], size if size - last < _BLOCK else last))
    return frame[tuple(ends)]


def _window(frame: Array, sums: Sequence[Array]) -> Array:
    """`WINDOW` about the centre of mass, by the sums of rows and of columns; 0 beyond the frame."""
    window = np.zeros(WINDOW, np.float32)
    source, target = [], []
    for total, length in zip(sums, WINDOW, strict=True):
        centre = round(float(total @ np.arange(len(total))) / max(float(total.sum()), 1))
        start = centre - length // 2
        first, last = max(start, 0), min(start + length, len(total))
        source.append(slice(first, last))
        target.append(slice(first - start, last - start))
    window[tuple(target)] = frame[tuple(source)]
    return window
