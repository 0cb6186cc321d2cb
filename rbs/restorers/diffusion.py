"""Conditional diffusion, after SR3 (Saharia et al., IEEE TPAMI 2023;45:4713, arXiv 2104.07636)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor

from rbs.restorers.base import Restorer

DELTA_SCALE = 0.15
"""Spread of the error of a Gaussian filter within the body of phantoms, square-root counts."""

TRAINING_STEPS = 1000
"""Noise levels, the linear schedule of Ho et al., NeurIPS 2020, arXiv 2006.11239."""


def nearly_denoised(u: Tensor, scheduler: DDIMScheduler, predict: Callable[[Tensor, int], Tensor]) -> Tensor:
    """All steps of DDIM but the last: `predict` of the result at level 0 is what is drawn.

    Args:
        u: Noise, (B, C, H, W).
        scheduler: With its number of steps set.
        predict: From noisy u and the noise level to u without noise.
    """
    # MONAI's list of steps differs from those it takes; these agree and end at the least noise.
    steps = scheduler.num_inference_steps
    stride = scheduler.num_train_timesteps // steps
    for t in range((steps - 1) * stride, 0, -stride):
        u = scheduler.step(predict(u, t), t, u)[0]
    return u


class Diffusion(Restorer):
    r"""Clean scans given the rapid one, by a few steps of DDIM (Song et al., arXiv 2010.02502).

    The model draws the correction of the Gaussian filter in the square-root domain, which for the
    clean scan :math:`\lambda` is

    .. math::
        u = \frac{1}{0.15}\Big(\sqrt{\lambda + \epsilon} - \sqrt{G_\sigma x + \epsilon}\Big),

    of about unit variance within the body. The network is given :math:`u_t =
    \sqrt{\bar\alpha_t}\, u + \sqrt{1 - \bar\alpha_t}\, n` beside the input channels of every
    restorer, and predicts u; the prediction of the last step is the restoration. The starting noise
    is always the same, so a scan is always restored alike. A diffusion model draws samples like its
    targets, noise included: `rbs.tasks.diffusion.DiffusionTask` trains it against the known
    expectation of phantoms. It restores scans only: its corrections are scaled for square roots of
    counts.

    MONAI's U-Net normalises groups of channels over its field of view, and attends within it: scans
    larger than a training crop are processed in overlapping tiles of that size at every step.

    Args:
        channels: Channels of each level, finest first, multiples of `groups`.
        groups: Groups of channels that are normalised together.
        steps: Steps of DDIM.
        tile: Rows and columns of a tile, pixels; those of the training crops.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 96),
        groups: int = 8,
        steps: int = 5,
        tile: int = 128,
        sigma_px: float = 1.5,
    ) -> None:
        if not (1 <= steps <= TRAINING_STEPS and 16 <= tile <= 4096):
            raise ValueError(f"{steps} steps and tiles of {tile} pixels are out of range")
        super().__init__(channels[0], sigma_px=sigma_px, multiple=2 ** (len(channels) - 1))
        self.channels, self.groups, self.steps, self.tile = list(channels), groups, steps, tile
        self.backbone = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=self.input_channels + self.images.channels,
            out_channels=self.images.channels,
            num_res_blocks=1,
            channels=self.channels,
            attention_levels=[False] * len(channels),
            norm_num_groups=groups,
            num_head_channels=channels[-1],
        )
        self.backbone.out = self.backbone.out[:-1]  # `Restorer.head` takes the place of the convolution
        self._scheduler = DDIMScheduler(TRAINING_STEPS, clip_sample=False, prediction_type="sample")
        self._scheduler.set_timesteps(steps)

    def features(self, x: Tensor) -> Tensor:
        """Features of the last step of DDIM, (B, 5, H, W) to (B, channels[0], H, W)."""
        noise = torch.randn(1, 2, *x.shape[-2:], generator=torch.Generator().manual_seed(0))
        u = noise.to(x.device).expand(len(x), -1, -1, -1)

        def predict(u: Tensor, t: int) -> Tensor:
            return self.head(self._tiled(torch.cat([x, u], dim=1), t)).float() / DELTA_SCALE

        u = nearly_denoised(u, self._scheduler, predict)
        return self._tiled(torch.cat([x, u], dim=1), 0)

    def _tiled(self, given: Tensor, t: int) -> Tensor:
        """The backbone at noise level t, in tiles where the scan is larger than one."""
        height, width = given.shape[-2:]

        def backbone(tiles: Tensor) -> Tensor:
            return self.backbone(tiles, torch.full((len(tiles),), t, device=tiles.device))

        if max(height, width) <= self.tile:
            return backbone(given)
        tile = (min(self.tile, height), min(self.tile, width))
        joined = sliding_window_inference(given, tile, 4, backbone, overlap=0.25, mode="gaussian")
        assert isinstance(joined, Tensor)  # as the backbone returns one
        return joined

    def denoising_error(self, x: Tensor, exposure: Tensor, clean: Tensor) -> Tensor:
        """Mean squared error of the predicted u at random noise levels, the training loss.

        Args:
            x: Rapid scan at standard scale, counts (B, V, H, W), V = 1 or 2, H and W multiples of
                `multiple`.
            exposure: Its exposure relative to the standard scan, (B,).
            clean: The expectation of the standard scan, counts (B, V, H, W).
        """
        with torch.autocast(x.device.type, enabled=False):  # as in `restore_with_features`
            x, p = x.float().expand(-1, 2, -1, -1), exposure.float()[:, None, None, None]
            channels, root = self.images.network_input(x, p, self.sigma_px)
        u = (self.images.forward(clean) - root) / DELTA_SCALE
        noise = torch.randn_like(u)
        t = torch.randint(TRAINING_STEPS, (len(x),), device=x.device)
        noisy = self._scheduler.add_noise(u, noise, t)
        predicted = self.head(self.backbone(torch.cat([channels, noisy], dim=1), t)).float() / DELTA_SCALE
        return ((predicted - u) ** 2).mean()
