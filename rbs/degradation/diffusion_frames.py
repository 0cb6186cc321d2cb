"""DDPM-LQ of frames: a diffusion model of clean and of poor frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rbs.degradation.bridge import GOOD, POOR, Bridge
from rbs.degradation.frames import FrameDegradation
from rbs.degradation.learned import Terms
from rbs.scans.scan import Array

MOMENTS = 32
"""Poor frames whose mean and contrast are kept."""


class FrameDiffusion(Bridge, FrameDegradation):
    """`Bridge` from clean frames to poor ones, then sampling of the poor side.

    The bridge hardly changes what noise hides last, the mean and the contrast of a whole frame.
    They are measured, not learned: frames are standardised one by one, and a degraded frame gets
    those of a poor frame that is drawn. Blur, haze and uneven light are carried over the bridge,
    from its deepest level of noise to `shallow`. What is finer than the noise of that level, noise
    of the sensor above all, is sampled from the noised frame, as SDEdit does (Meng et al., ICLR
    2022), by as many steps of DDIM (Song et al., ICLR 2021).

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
        self.register_buffer("moments", torch.ones(MOMENTS, 2, 3))
        self.moments: Tensor

    def prepare(self, moments: Array, longest_side: int) -> None:
        """See `FrameDegradation.prepare`: some moments, evenly by brightness, are kept."""
        super().prepare(moments, longest_side)
        places = np.linspace(0, len(moments) - 1, MOMENTS).round().astype(int)
        chosen = moments[np.argsort(moments[:, 0].mean(axis=1))[places]]
        self.moments.copy_(torch.from_numpy(chosen))

    def losses(self, good: Tensor, poor: Tensor, place: Tensor) -> Terms:
        """See `FrameDegradation.losses`."""
        u = _standardised(torch.cat([good, poor]))
        t = torch.randint(self.depth + 1, (len(u),), device=u.device)
        sides = torch.tensor([GOOD] * len(good) + [POOR] * len(poor), device=u.device)
        noise = torch.randn_like(u)
        found = self._velocity(self._scheduler.add_noise(u, noise, t), t, sides)
        error = (found - self._scheduler.get_velocity(u, noise, t)) ** 2
        terms = {"good": error[: len(good)].mean(), "poor": error[len(good) :].mean()}
        return {**terms, "total": terms["good"] + terms["poor"]}

    def degrade(self, good: Tensor, generator: torch.Generator) -> Tensor:
        """See `DegradationModel.degrade`."""
        drawn = torch.randint(MOMENTS, (len(good),), generator=generator)
        mean, spread = self.moments[drawn][..., None, None].unbind(dim=1)
        u = self._sampled(self._bridged(_standardised(good), self.shallow, generator), generator)
        return (_standardised(u) * spread + mean).clamp(0, 1)

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


def _standardised(frames: Tensor) -> Tensor:
    """Frames of mean 0 and standard deviation 1 in each colour."""
    spread, mean = torch.std_mean(frames, dim=(2, 3), keepdim=True)
    return (frames - mean) / spread.clamp(min=0.01)
