"""Diffusion bridge between good and poor images: a network of both sides, and the way between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rbs.degradation.learned import DegradationModel

TRAINING_STEPS = 1000
GOOD, POOR = 0, 1


class Bridge(DegradationModel):
    r"""Diffusion bridge from good images to poor ones, after DDIB (Su et al., arXiv 2203.08382).

    One network D knows both sides: given standardised images u with Gaussian noise of level
    :math:`\sigma`, and whose they are, it predicts u. DDIB takes a good image to noise by the
    probability flow of the good side, :math:`dx/d\sigma = (x - D(x)) / \sigma`, and back by that of
    the poor side. Here the two flows are subtracted level by level, from the deepest to the lowest,

    .. math::
        u \leftarrow u + \log\frac{\sigma_k}{\sigma_{k+1}}
        \big(D_{poor}(u + \sigma_k n_k) - D_{good}(u + \sigma_k n_k)\big) ,

    which to first order is the same (of Gaussian images of power P each frequency is multiplied by
    :math:`\sqrt{P_{poor} / P_{good}}`), and errors that both sides share cancel: a network trained
    for minutes does not return from noise to where it came from.

    Args:
        image_channels: Channels of an image.
        channels: Channels of each level of the U-Net, finest first, multiples of `groups`.
        groups: Groups of channels that are normalised together.
        patch: Side of the blocks of pixels that are laid into channels.
        steps: Steps of the bridge.
        depth: Noise level at which the bridge begins, of 1000.
        tile: Rows and columns of tiles in which larger images are degraded: the U-Net normalises
            over what it sees.
    """

    def __init__(
        self,
        image_channels: int,
        channels: Sequence[int],
        groups: int,
        patch: int,
        steps: int,
        depth: int,
        tile: Sequence[int],
    ) -> None:
        from monai.networks.nets import DiffusionModelUNet  # monai takes seconds to import
        from monai.networks.schedulers import DDPMScheduler

        super().__init__()
        if not (1 <= patch <= 8 and 1 <= steps <= depth < TRAINING_STEPS):
            raise ValueError(f"patches of {patch} pixels, {steps} steps from level {depth}")
        self.channels, self.groups, self.patch = list(channels), groups, patch
        self.steps, self.depth, self.tile = steps, depth, list(tile)
        self.multiple = patch * 2 ** (len(channels) - 1)
        self.backbone = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=image_channels * patch**2,
            out_channels=image_channels * patch**2,
            num_res_blocks=1,
            channels=self.channels,
            attention_levels=[False] * len(channels),
            norm_num_groups=groups,
            num_head_channels=channels[-1],
            num_class_embeds=2,
        )
        self._scheduler = DDPMScheduler(TRAINING_STEPS, clip_sample=False)

    def _alphas(self, t: Tensor) -> Tensor:
        return self._scheduler.alphas_cumprod.to(t.device)[t][:, None, None, None]

    def _velocity(self, noisy: Tensor, t: Tensor, side: Tensor) -> Tensor:
        rows, columns = (-size % self.multiple for size in noisy.shape[-2:])
        padded = torch.nn.functional.pad(noisy, (0, columns, 0, rows), mode="replicate")
        patches = torch.nn.functional.pixel_unshuffle(padded, self.patch)
        found = self.backbone(patches, t, class_labels=side).float()
        pixels = torch.nn.functional.pixel_shuffle(found, self.patch)
        return pixels[..., : noisy.shape[-2], : noisy.shape[-1]]

    def _predict(self, noisy: Tensor, t: Tensor, side: Tensor) -> Tensor:
        """u, by MONAI's v-prediction: little of the network shows where there is little noise."""
        alpha = self._alphas(t)
        return alpha.sqrt() * noisy - (1 - alpha).sqrt() * self._velocity(noisy, t, side)

    def _bridged(self, u: Tensor, lowest: int, generator: torch.Generator) -> Tensor:
        """Standardised good images as poor ones, from the deepest level of noise to `lowest`."""
        levels = torch.linspace(self.depth, lowest, self.steps + 1).round().long()
        sigmas = (1 / self._scheduler.alphas_cumprod[levels] - 1).sqrt()
        for t, sigma, following in zip(levels[:-1].tolist(), sigmas, sigmas[1:], strict=False):
            noisy = (u + sigma * torch.randn(u.shape, generator=generator)) / (1 + sigma**2).sqrt()
            poor, own = (self._tiled(noisy, t, side) for side in (POOR, GOOD))
            # u is predicted as sqrt(alpha) x - sqrt(1 - alpha) v.
            share = sigma / (1 + sigma**2).sqrt()
            u = u + (sigma / following).log() * share * (own - poor)
        return u

    def _tiled(self, u: Tensor, t: int, side: int) -> Tensor:
        """The network at one level, in tiles where the image is larger than one."""
        from monai.inferers import sliding_window_inference

        def velocity(tiles: Tensor) -> Tensor:
            whole = torch.full((len(tiles),), t, device=u.device)
            return self._velocity(tiles, whole, torch.full_like(whole, side))

        tile = [min(own, size) for own, size in zip(self.tile, u.shape[-2:], strict=True)]
        if tile == list(u.shape[-2:]):
            return velocity(u)
        joined = sliding_window_inference(u, tile, 4, velocity, overlap=0.25, mode="gaussian")
        assert isinstance(joined, Tensor)  # as the network returns one
        return joined
