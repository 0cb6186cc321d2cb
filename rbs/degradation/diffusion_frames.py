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

    def degrade(self, good: Tensor, generator: torch.Generator, field: Tensor) -> Tensor:
        """See `FrameDegradation.degrade`."""
        brightness, contrast, noise = self.moments[torch.randint(MOMENTS, (), generator=generator)]
        mean, spread = _moments(good, field)
        u = self._bridged(_standardised(good, field), self.shallow, generator)
        u = _standardised(u, field)
        # The contrast of a poor frame is that of its scene and of its noise; so is that of u.
        present = noise_of(u[0].numpy(), field.numpy())
        scene = ((contrast**2 - noise**2) / max(1 - present**2, 0.1)).clamp(min=0).sqrt()
        scene = torch.where(present * scene > noise, contrast, scene)
        missing = (noise**2 - (present * scene) ** 2).clamp(min=0).sqrt()
        colours = u * spread * scene / spread.mean() + mean * brightness / mean.mean().clamp(min=0.01)
        return (colours + missing * torch.randn(u.shape, generator=generator)).clamp(0, 1)


def _moments(frames: Tensor, field: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each colour of frames, within a field, (B, 3, 1, 1) each."""
    pixels = frames.flatten(2) if field is None else frames[..., field]
    spread, mean = torch.std_mean(pixels, dim=2)
    return mean[..., None, None], spread.clamp(min=0.01)[..., None, None]


def _standardised(frames: Tensor, field: Tensor | None = None) -> Tensor:
    """Frames of mean 0 and standard deviation 1 in each colour, within a field."""
    mean, spread = _moments(frames, field)
    return (frames - mean) / spread
