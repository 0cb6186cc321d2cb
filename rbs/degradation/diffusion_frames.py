"""DDPM-LQ of frames: a diffusion model of clean and of poor frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rbs.degradation.bridge import GOOD, POOR, Bridge
from rbs.degradation.frames import FrameDegradation
from rbs.degradation.learned import Terms
from rbs.endoscopy.colour import from_8_bits
from rbs.scans.scan import Array


class FrameDiffusion(Bridge, FrameDegradation):
    """`Bridge` from clean frames to poor ones, then sampling of the poor side.

    Light, haze and blur are carried over the bridge, from its deepest level of noise to `shallow`.
    What is finer than the noise of that level, noise of the sensor above all, differs from frame to
    frame: it is sampled from the noised frame, as SDEdit does (Meng et al., ICLR 2022), by as many
    steps of DDIM (Song et al., ICLR 2021).

    Args:
        channels: Channels of each level of the U-Net, finest first, multiples of `groups`.
        groups: Groups of channels that are normalised together.
        patch: Side of the blocks of pixels that are laid into channels.
        steps: Steps of the bridge, and of the sampling.
        depth: Noise level at which the bridge begins, of 1000.
        shallow: That at which it ends.
        tile: Rows and columns of tiles; smaller frames are degraded whole.
    """

    def __init__(
        self,
        channels: Sequence[int] = (24, 32, 48),
        groups: int = 8,
        patch: int = 4,
        steps: int = 3,
        depth: int = 600,
        shallow: int = 120,
        tile: Sequence[int] = (256, 320),
    ) -> None:
        super().__init__(3, channels, groups, patch, steps, depth, tile)
        if not steps <= shallow < depth:
            raise ValueError(f"{steps} steps from level {shallow} of {depth}")
        self.shallow = shallow
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("spread", torch.ones(3, 1, 1))
        self.mean: Tensor
        self.spread: Tensor

    def prepare(self, good: Sequence[Array], longest_side: int) -> None:
        """See `FrameDegradation.prepare`: means and spreads of colours, too."""
        super().prepare(good, longest_side)
        pixels = torch.cat([torch.from_numpy(from_8_bits(frame)).flatten(1) for frame in good], dim=1)
        self.mean.copy_(pixels.mean(dim=1)[:, None, None])
        self.spread.copy_(pixels.std(dim=1).clamp(min=1e-3)[:, None, None])

    def losses(self, good: Tensor, poor: Tensor, place: Tensor) -> Terms:
        """See `FrameDegradation.losses`."""
        u = (torch.cat([good, poor]) - self.mean) / self.spread
        t = torch.randint(self.depth + 1, (len(u),), device=u.device)
        sides = torch.tensor([GOOD] * len(good) + [POOR] * len(poor), device=u.device)
        noise = torch.randn_like(u)
        found = self._velocity(self._scheduler.add_noise(u, noise, t), t, sides)
        error = (found - self._scheduler.get_velocity(u, noise, t)) ** 2
        terms = {"good": error[: len(good)].mean(), "poor": error[len(good) :].mean()}
        return {**terms, "total": terms["good"] + terms["poor"]}

    def degrade(self, good: Tensor, generator: torch.Generator) -> Tensor:
        """See `DegradationModel.degrade`."""
        u = self._bridged((good - self.mean) / self.spread, self.shallow, generator)
        return self._sampled(u, generator) * self.spread + self.mean

    def _sampled(self, u: Tensor, generator: torch.Generator) -> Tensor:
        """Poor frames from those whose finest detail is hidden by noise of the level `shallow`."""
        levels = torch.linspace(self.shallow, 0, self.steps + 1).round().long()
        alphas = self._scheduler.alphas_cumprod[levels]
        x = alphas[0].sqrt() * u + (1 - alphas[0]).sqrt() * torch.randn(u.shape, generator=generator)
        for t, alpha, following in zip(levels[:-1].tolist(), alphas, alphas[1:], strict=False):
            velocity = self._tiled(x, t, POOR)
            u = alpha.sqrt() * x - (1 - alpha).sqrt() * velocity
            noise = (1 - alpha).sqrt() * x + alpha.sqrt() * velocity
            x = following.sqrt() * u + (1 - following).sqrt() * noise
        return u
