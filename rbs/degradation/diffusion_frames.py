"""DDPM-LQ of frames: a diffusion model of clean and of poor frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rbs.degradation.bridge import GOOD, POOR, Bridge
from rbs.degradation.frames import FrameDegradation, noise_of
from rbs.degradation.learned import Terms
from rbs.scans.scan import Array

MOMENTS = 32
"""Poor frames of which mean, contrast and noise are kept."""


class FrameDiffusion(Bridge, FrameDegradation):
    """`Bridge` from clean frames to poor ones, and noise.

    Blur, haze and uneven light are carried over the bridge. What it hardly changes is measured, not
    learned, and taken from a poor frame that is drawn: the mean and the contrast of a whole frame,
    which noise hides last, so that frames are standardised one by one; and the noise of the sensor,
    which differs from frame to frame, and which is white. Colours stay those of the scene.

    Args:
        channels: Channels of each level of the U-Net, finest first, multiples of `groups`.
        groups: Groups of channels that are normalised together.
        patch: Side of the blocks of pixels that are laid into channels.
        steps: Steps of the bridge.
        depth: Noise level at which the bridge begins, of 1000.
        shallow: That at which it ends.
        tile: Rows and columns of tiles; smaller frames are degraded whole.
    """

    def __init__(
        self,
        channels: Sequence[int] = (24, 32, 48),
        groups: int = 8,
        patch: int = 4,
        steps: int = 4,
        depth: int = 600,
        shallow: int = 40,
        tile: Sequence[int] = (256, 320),
    ) -> None:
        super().__init__(3, channels, groups, patch, steps, depth, tile)
        if not 0 <= shallow < depth:
            raise ValueError(f"a bridge from level {depth} to {shallow}")
        self.shallow = shallow
        self.register_buffer("moments", torch.ones(MOMENTS, 3))
        self.moments: Tensor

    def prepare(self, moments: Array, longest_side: int) -> None:
        """See `FrameDegradation.prepare`: some moments, evenly by brightness, are kept."""
        super().prepare(moments, longest_side)
        places = np.linspace(0, len(moments) - 1, MOMENTS).round().astype(int)
        chosen = moments[np.argsort(moments[:, 0])[places]]
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
        wanted, own = self.moments[drawn][..., None, None, None], _moments(good)
        mean, spread = (
            of * wanted[:, place] / of.mean(dim=1, keepdim=True).clamp(min=0.01)
            for place, of in enumerate(own)
        )
        u = self._bridged(_standardised(good), self.shallow, generator)
        found = _standardised(u) * spread + mean
        present = good.new_tensor([noise_of(frame) for frame in found.numpy()])[:, None, None, None]
        missing = (wanted[:, 2] ** 2 - present**2).clamp(min=0).sqrt()
        return (found + missing * torch.randn(found.shape, generator=generator)).clamp(0, 1)


def _moments(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each colour of frames, (B, 3, 1, 1) each."""
    spread, mean = torch.std_mean(frames, dim=(2, 3), keepdim=True)
    return mean, spread.clamp(min=0.01)


def _standardised(frames: Tensor) -> Tensor:
    """Frames of mean 0 and standard deviation 1 in each colour."""
    mean, spread = _moments(frames)
    return (frames - mean) / spread
