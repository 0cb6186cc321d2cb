"""DDPM-LQ: a diffusion model of good and of poor scans, by which the ones become the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rbs.degradation.bridge import GOOD, POOR, Bridge
from rbs.degradation.learned import ScanDegradation, Terms
from rbs.degradation.noise_filter import NoiseFilter
from rbs.degradation.parts import independent_parts
from rbs.scans.scan import Array, Spacing
from rbs.utils.image_ops import gaussian


class DiffusionDegrader(Bridge, ScanDegradation):
    r"""`Bridge` from good scans to poor ones, whose standardised images are roots of counts.

    SDEdit, which predicts a poor scan from the noised good one, would lose the details that the
    noise hides.

    Poor scans without noise do not exist. A part of the counts of each (`independent_parts`), of
    the same level m for all, is made noisier, from the noise it has to that of a level t, and what
    the network predicts is compared with the rest, by the squared error over its variance: that is
    least for the expectation. Levels below the noise of a part cannot be learned (ambient
    diffusion: Daras et al., NeurIPS 2023): the bridge ends at the lowest that can. Roots are the
    mean that roots of counts have,

    .. math::
        \operatorname{E}\sqrt{N + \tfrac38} \approx
        \sqrt{\mu + \tfrac38 - \tfrac v4 \big(1 - e^{-1.26 \mu}\big)}, \qquad \mu = m \lambda,

    with v the variance that a filter leaves, so that air, too, looks alike on both sides.

    Args:
        channels: Channels of each level of the U-Net, finest first, multiples of `groups`.
        groups: Groups of channels that are normalised together.
        patch: Side of the blocks of pixels that are laid into channels.
        steps: Steps of the bridge.
        depth: Noise level at which the bridge begins, of 1000.
        tile: Rows and columns of tiles, those of the training crops: the U-Net normalises over what
            it sees.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 48, 64),
        groups: int = 8,
        patch: int = 4,
        steps: int = 5,
        depth: int = 500,
        tile: Sequence[int] = (128, 256),
    ) -> None:
        super().__init__(1, channels, groups, patch, steps, depth, tile)
        for name in ("mean", "spread", "part", "variance"):
            self.register_buffer(name, torch.ones(()))
        self.mean: Tensor
        self.spread: Tensor
        self.part: Tensor
        self.variance: Tensor

    def prepare(
        self, good: Sequence[Array], levels: Sequence[float], spacing_mm: Spacing, noise: NoiseFilter
    ) -> None:
        """See `ScanDegradation.prepare`: level of the parts and spread of roots, too."""
        super().prepare(good, levels, spacing_mm, noise)
        self.part.fill_(0.8 * min(levels))
        self.variance.fill_(float((noise.response_of((256, 256), spacing_mm) ** 2).mean()))
        roots = torch.cat([self._roots(self.part.new_tensor(scan)).flatten() for scan in good])
        self.mean.copy_(roots.mean())
        self.spread.copy_(roots.std().clamp(min=1e-3))

    def losses(self, good: Tensor, poor: Tensor, level: Tensor) -> Terms:
        """See `ScanDegradation.losses`."""
        share = (self.part / level).clamp(max=0.8)
        first, second = independent_parts(poor, share, self.noise, self.spacing_mm)
        noisy_good, t_good = self._noisy_good(good)
        noisy_poor, t_poor = self._noisy_poor(first)
        noisy, t = torch.cat([noisy_good, noisy_poor]), torch.cat([t_good, t_poor])
        sides = torch.tensor([GOOD] * len(good) + [POOR] * len(poor), device=good.device)
        found_good, found_poor = self._predict(noisy, t, sides).split([len(good), len(poor)])
        # Errors of u over 1 - alpha are those of v, of one size at all levels.
        weight_good, weight_poor = (1 / (1 - self._alphas(t))).split([len(good), len(poor)])
        rest = ((1 - share) / share)[:, None, None, None]
        mean = self.part * good
        terms = {
            "good": (weight_good * self._error(found_good, mean, mean, 1.0)).mean(),
            "poor": (weight_poor * self._error(found_poor, second / rest, first, rest)).mean(),
        }
        return {**terms, "total": terms["good"] + terms["poor"]}

    def _error(self, found: Tensor, wanted: Tensor, about: Tensor, times: Tensor | float) -> Tensor:
        """Squared error of expected counts of a part, over the variance of `times` of them.

        Both sides have the same measure: each would be biased by it in its own way otherwise.

        Args:
            found: Predicted u.
            wanted: Counts of a part.
            about: What they are about, for their variance.
            times: The exposure of what `wanted` was counted in, relative to the part.
        """
        variance = times * gaussian(about, 2.0).clamp(min=0) + 0.25
        return (times * (self.part * self._expectation(found) - wanted)) ** 2 / variance

    def _noisy_good(self, good: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.randint(self.depth + 1, (len(good),), device=good.device)
        u = self._standardised(good)
        return self._scheduler.add_noise(u, torch.randn_like(u), t), t

    def _noisy_poor(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Roots of parts with the noise of levels above their own.

        What is added is white noise less the noise that is there, frequency by frequency.
        """
        t = torch.randint(self.lowest, self.depth + 1, (len(first),), device=first.device)
        alpha = self._alphas(t)
        response = self.noise.response_of(tuple(first.shape), self.spacing_mm)
        present = torch.as_tensor(response, dtype=first.dtype, device=first.device) * self._sigma()
        added = ((1 - alpha) / alpha - present**2).clamp(min=0).sqrt()
        noise = torch.fft.irfft2(torch.fft.rfft2(torch.randn_like(first)) * added, s=first.shape[-2:])
        roots = ((first.clamp(min=0) + 0.375) / self.part).sqrt()
        return alpha.sqrt() * ((roots - self.mean) / self.spread + noise), t

    def _sigma(self) -> float:
        """Standard deviation of the noise of a part, before any filter, in u."""
        return float(0.5 / self.part.sqrt() / self.spread)

    @property
    def lowest(self) -> int:
        """The lowest level that has the noise of a part."""
        alpha = self._scheduler.alphas_cumprod
        return min(int(((1 - alpha) / alpha < self._sigma() ** 2).sum()), self.depth)

    def _roots(self, expectation: Tensor) -> Tensor:
        """Mean roots of counts of a part, over that of its level."""
        mu = self.part * expectation.clamp(min=0)
        missing = 0.25 * self.variance * (1 - torch.exp(-1.26 * mu))
        return ((mu + 0.375 - missing) / self.part).sqrt()

    def _standardised(self, expectation: Tensor) -> Tensor:
        return (self._roots(expectation) - self.mean) / self.spread

    def _expectation(self, u: Tensor) -> Tensor:
        """Inverse of `_standardised`, by Newton's steps."""
        squares = self.part * (u * self.spread + self.mean).clamp(min=0) ** 2 - 0.375
        share = 0.25 * self.variance
        mu = (squares + share).clamp(min=0)
        for _ in range(4):
            tail = torch.exp(-1.26 * mu)
            mu = (mu - (mu - share * (1 - tail) - squares) / (1 - 1.26 * share * tail)).clamp(min=0)
        return mu / self.part

    def degrade(self, good: Tensor, generator: torch.Generator) -> Tensor:
        """See `ScanDegradation.degrade`."""
        return self._expectation(self._bridged(self._standardised(good), self.lowest, generator))
