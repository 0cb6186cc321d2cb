"""A diffusion model that draws expected scans of a given label map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rbs.restorers.diffusion import TRAINING_STEPS, nearly_denoised
from rbs.restorers.image_domain import DOMAINS
from rbs.segmentation.label_map import LABEL_MAPS


class ScanDiffusion(nn.Module):
    r"""Denoising diffusion (Ho et al., NeurIPS 2020, arXiv 2006.11239) conditioned on label maps.

    It draws the standardised roots of the expected counts of both views,

    .. math::
        u = (\sqrt{\lambda + \epsilon} - m) / s ,

    with mean m and spread s over the training scans. The network is given :math:`u_t =
    \sqrt{\bar\alpha_t}\, u + \sqrt{1 - \bar\alpha_t}\, n` and the label map, one channel a region,
    and predicts u. As in `rbs.segmentation.segmenter.EncoderDecoder`, blocks of `patch` x `patch`
    pixels are laid into channels. Draws take a few steps of DDIM (Song et al., arXiv 2010.02502).

    A diffusion model draws samples like its targets, noise included: it is to be trained on
    expectations.

    Args:
        channels: Channels of each level, finest first, multiples of `groups`.
        groups: Groups of channels that are normalised together.
        patch: Side of the blocks.
    """

    def __init__(self, channels: Sequence[int] = (48, 64, 96, 128), groups: int = 8, patch: int = 4) -> None:
        from monai.networks.nets import DiffusionModelUNet  # monai takes seconds to import
        from monai.networks.schedulers import DDIMScheduler

        super().__init__()
        self.images, self.labels = DOMAINS["roots"], LABEL_MAPS["scans"]
        self.channels, self.groups, self.patch = list(channels), groups, patch
        self.multiple = patch * 2 ** (len(channels) - 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))
        self.mean: Tensor
        self.spread: Tensor
        drawn = self.images.channels * patch**2
        self.backbone = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=drawn * (1 + len(self.labels)),
            out_channels=drawn,
            num_res_blocks=1,
            channels=self.channels,
            attention_levels=[False] * len(channels),
            norm_num_groups=groups,
            num_head_channels=channels[-1],
        )
        self._scheduler = DDIMScheduler(TRAINING_STEPS, clip_sample=False, prediction_type="sample")

    def standardise(self, expectation: Tensor) -> None:
        """Take mean and spread of the roots from expected scans (N, 2, H, W)."""
        roots = self.images.forward(expectation.float())
        self.mean.copy_(roots.mean())
        self.spread.copy_(roots.std().clamp(min=1e-3))

    def denoising_error(self, expectation: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error of the predicted u at random noise levels, the training loss.

        Args:
            expectation: Expected counts of the standard scan, (B, 2, H, W).
            labels: Their labels, int (B, 2, H, W).
        """
        u = (self.images.forward(expectation.float()) - self.mean) / self.spread
        t = torch.randint(TRAINING_STEPS, (len(u),), device=u.device)
        noisy = self._scheduler.add_noise(u, torch.randn_like(u), t)
        return ((self._predict(noisy, self._condition(labels), t) - u) ** 2).mean()

    @torch.no_grad()
    def draw(self, labels: Tensor, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Expected counts (B, 2, H, W) of scans with these labels, int (B, 2, H, W).

        Args:
            labels: Label maps.
            steps: Steps of DDIM.
            generator: Source of the starting noise; on the CPU.
        """
        u = torch.randn(labels.shape, generator=generator).to(labels.device)
        condition = self._condition(labels)

        def predict(u: Tensor, t: int) -> Tensor:
            return self._predict(u, condition, torch.full((len(u),), t, device=u.device))

        self._scheduler.set_timesteps(steps)
        u = predict(nearly_denoised(u, self._scheduler, predict), 0)
        return self.images.inverse((u * self.spread + self.mean).clamp(min=0))

    def _condition(self, labels: Tensor) -> Tensor:
        """Masks of the regions of both views, blocks of pixels in channels."""
        masks = torch.stack([labels == k + 1 for k in range(len(self.labels))], dim=2)
        return F.pixel_unshuffle(self._padded(masks.flatten(1, 2).float()), self.patch)

    def _predict(self, noisy: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        given = torch.cat([F.pixel_unshuffle(self._padded(noisy), self.patch), condition], dim=1)
        found = F.pixel_shuffle(self.backbone(given, t).float(), self.patch)
        return found[..., : noisy.shape[2], : noisy.shape[3]]

    def _padded(self, maps: Tensor) -> Tensor:
        rows, columns = (-size % self.multiple for size in maps.shape[-2:])
        return F.pad(maps, (0, columns, 0, rows))
