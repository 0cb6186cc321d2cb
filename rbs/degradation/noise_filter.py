"""The filter that a camera applies before export, found in the noise of its scans.

The noise of raw counts is white: whatever the anatomy, its power is the sum of the counts at every
frequency. A Butterworth filter of response H leaves correlated noise, which no expectation carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rbs.scans.scan import Array, Spacing

_Image = TypeVar("_Image", Array, Tensor)

_BIN_PER_MM = 0.004
_WHITE = 0.8
"""Power relative to that of raw counts above which noise is white near the highest frequency."""
_MOST_SIGNAL = 30.0
"""Power relative to that of raw counts above which anatomy leaves nothing to be seen of noise."""


@dataclass(frozen=True)
class NoiseFilter:
    r"""Butterworth filter as workstations apply it, or none.

    .. math::
        H(f) = \frac{1}{1 + (f / f_c)^{2n}}

    (Germano, J Nucl Med 2001;42:1499).

    Attributes:
        cutoff_per_mm: f_c, cycles a millimetre; infinite for none.
        order: n.
    """

    cutoff_per_mm: float = np.inf
    order: float = 1.0

    @property
    def white(self) -> bool:
        """True where noise is left as it is."""
        return not np.isfinite(self.cutoff_per_mm)

    def response(self, frequency: Array) -> Array:
        """H at frequencies, cycles a millimetre."""
        return 1 / (1 + (frequency / self.cutoff_per_mm) ** (2 * self.order))

    def response_of(self, shape: tuple[int, ...], spacing_mm: Spacing) -> Array:
        """H of the real Fourier transform of images (..., H, W)."""
        down = np.fft.fftfreq(shape[-2], spacing_mm[0])
        return self.response(np.hypot(down[:, None], np.fft.rfftfreq(shape[-1], spacing_mm[1])))

    def filtered(self, image: _Image, spacing_mm: Spacing) -> _Image:
        """Images (..., H, W), which repeat at their borders, filtered; differentiable."""
        if self.white:
            return image
        x = torch.as_tensor(image)
        response = torch.as_tensor(self.response_of(tuple(x.shape), spacing_mm), dtype=x.dtype)
        found = torch.fft.irfft2(torch.fft.rfft2(x) * response.to(x.device), s=x.shape[-2:])
        return found if isinstance(image, Tensor) else found.numpy()

    def expose(self, expectation: Array, spacing_mm: Spacing, rng: np.random.Generator) -> Array:
        """Counts as the camera exports them.

        Args:
            expectation: Expected counts of what is exported, (..., H, W).
            spacing_mm: Row and column spacing, mm.
            rng: Source of randomness.

        Returns:
            Whole counts of the same shape, Poisson's where nothing is filtered.
        """
        drawn = rng.poisson(expectation)
        if self.white:
            return drawn
        noise = self.filtered(drawn - expectation.astype(np.float64), spacing_mm)
        return np.maximum(np.rint(expectation + noise), 0).astype(drawn.dtype)

    def expose_tensor(self, expectation: Tensor, spacing_mm: Spacing) -> Tensor:
        r"""The same for training: what is drawn follows changes of its mean and of its noise.

        The noise n of the mean m is drawn, and its gradient is that of
        :math:`m + \sqrt{m / \lfloor m\rfloor}\, n`, with none through :math:`\lfloor m\rfloor`.
        """
        mean = expectation.clamp(min=0)
        noise = torch.poisson(mean.detach()) - mean.detach()
        # Where next to nothing is expected, one count would be a huge gradient.
        noise = (mean.clamp(min=0.1) / mean.detach().clamp(min=0.1)).sqrt() * noise
        counts = mean + self.filtered(noise, spacing_mm)
        if not self.white:
            counts = counts + (counts.detach().round() - counts.detach())
        return counts.clamp(min=0)


WHITE = NoiseFilter()


def noise_power(scans: Sequence[Array], spacing_mm: Spacing) -> tuple[Array, Array]:
    """Radial power of scans relative to that of the noise of raw counts.

    Args:
        scans: Counts (V, H, W) each.
        spacing_mm: Row and column spacing, mm.

    Returns:
        Frequencies, cycles a millimetre, up to the highest that both axes have; and the power.
    """
    highest = 0.5 / max(spacing_mm)
    edges = np.arange(0, highest + _BIN_PER_MM, _BIN_PER_MM)
    power, bins, counts = np.zeros(len(edges) + 1), np.zeros(len(edges) + 1), 0.0
    for scan in scans:
        down = np.fft.fftfreq(scan.shape[1], spacing_mm[0])
        frequency = np.hypot(down[:, None], np.fft.rfftfreq(scan.shape[2], spacing_mm[1]))
        place = np.digitize(frequency, edges).ravel()
        size = np.bincount(place, minlength=len(power))
        for view in scan:
            total = float(view.sum())
            found = np.abs(np.fft.rfft2(view.astype(np.float64))) ** 2
            # Weighted by counts, so that one sparse scan does not decide.
            power += np.bincount(place, found.ravel(), minlength=len(power))
            bins += size * total
            counts += total
    inner = slice(1, len(edges))
    return (edges[:-1] + edges[1:]) / 2, power[inner] / np.maximum(bins[inner], 1)


def finest_power(scan: Array, spacing_mm: Spacing) -> float:
    """Power near the highest frequency of a scan (V, H, W) relative to that of raw counts.

    It is 1 of raw counts, less of filtered ones, and the factor of rescaled ones.
    """
    return _finest(*noise_power([scan], spacing_mm))


def _finest(frequency: Array, power: Array) -> float:
    return float(np.median(power[frequency > 0.8 * frequency[-1]]))


def estimate_noise_filter(scans: Sequence[Array], spacing_mm: Spacing) -> NoiseFilter:
    r"""The filter that scans went through before export, or `WHITE`.

    The power of a filtered scan relative to its counts is

    .. math::
        R(f) = H(f)^2 \Big(1 + \frac{e^{a - b f^2}}{f^3}\Big) + c ,

    with the power of anatomy, which falls fast, and c that of rounding to whole counts. The five
    unknowns are fitted where anatomy does not outweigh all else.

    Args:
        scans: Counts (V, H, W) each.
        spacing_mm: Row and column spacing, mm.
    """
    from scipy.optimize import least_squares

    frequency, power = noise_power(scans, spacing_mm)
    if _finest(frequency, power) > _WHITE:
        return WHITE
    used = (power < _MOST_SIGNAL) & (frequency > frequency[power.argmax()])
    frequency, power = frequency[used], power[used]

    def model(values: Array) -> Array:
        cutoff, order, a, b, floor = values
        # Beyond this power nothing differs, and nothing overflows.
        anatomy = np.exp(np.clip(a - b * frequency**2, -50, 50)) / frequency**3
        return NoiseFilter(cutoff, order).response(frequency) ** 2 * (1 + anatomy) + floor

    def misfit(values: Array) -> Array:
        return np.log(model(values)) - np.log(power)

    low, high = [0.02, 1, -30, 0, 1e-6], [1.0, 12, 20, 5000, 0.5]
    floor = float(np.clip(power.min(), 2e-6, 0.4))
    starts = [[cutoff, 5, -8, 300, floor] for cutoff in (0.06, 0.09, 0.13)]
    best = min((least_squares(misfit, s, bounds=(low, high)) for s in starts), key=lambda fit: fit.cost)
    return NoiseFilter(float(best.x[0]), float(best.x[1]))
