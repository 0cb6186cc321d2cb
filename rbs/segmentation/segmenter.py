"""Segmenters: networks from whole scans, or frames, to the regions of a label map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.segmentation.label_map import LABEL_MAPS
from rbs.segmentation.prior import SemanticPrior
from rbs.utils.checkpoint import describe

PIXEL_AREA_MM2 = 2.26**2
"""Area for which counts are stated to the network: a pixel of 2.26 mm."""

EMBEDDING_STRIDE = 16
"""Side of a cell of the embedding of an encoder-decoder's prior, pixels: crops lie on this grid."""


def facts_of(
    exposure: float, spacing_mm: tuple[float, float], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Exposure (1,) and pixel spacing, mm, (1, 2) of a scan, as `Segmenter.forward` takes them."""
    p, spacing = (torch.tensor([fact], dtype=torch.float32, device=device) for fact in (exposure, spacing_mm))
    return p, spacing


class Segmenter(nn.Module, ABC):
    """A network that gives each pixel the probability of each region.

    A region is known by where it lies in the body, so segmenters are given whole scans: any number
    of counts, one view or two, any matrix.

    Args:
        domain: Name of the image domain: "roots" for scans, "colours" for frames.

    Attributes:
        images: The domain.
        labels: Regions; channel 0 of the output is background, channel 1 + k region k.
        embedding_dim: Channels of the embedding of its prior.
        embedding_stride: Side of a cell of that embedding, pixels.
        reads_crops: True where crops mean to it what the whole does.
    """

    embedding_dim: int
    embedding_stride: int
    reads_crops: bool

    def __init__(self, domain: DomainName = "roots") -> None:
        super().__init__()
        self.domain: DomainName = domain
        self.images = DOMAINS[domain]
        self.labels = LABEL_MAPS[self.images.shows]

    @abstractmethod
    def logits_with_features(
        self, x: Tensor, exposure: Tensor, spacing_mm: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits and features of decoder levels.

        Args:
            x: Scans at standard scale (raw counts / exposure), counts (B, V, H, W), V = 1 or 2,
                aligned; or frames, sRGB values 0..1, (B, 3, H, W).
            exposure: Exposure relative to the standard scan, (B,); of a restored scan that of the
                rapid scan it was made of; of a frame 1.
            spacing_mm: Row and column spacing, mm, (B, 2); of a frame 1.

        Returns:
            Logits (B, V, 1 + K, H, W) and features (B, C, h, w), coarsest level first.
        """

    def logits(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """Logits (B, V, 1 + K, H, W) of background and regions; arguments as of `forward`."""
        return self.logits_with_features(x, exposure, spacing_mm)[0]

    def forward(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """Probabilities (B, V, 1 + K, H, W) of background and regions.

        Args:
            x: Scans at standard scale, counts (B, V, H, W), or frames (B, 3, H, W).
            exposure: Exposure relative to the standard scan, (B,).
            spacing_mm: Row and column spacing, mm, (B, 2).
        """
        return self.logits(x, exposure, spacing_mm).float().softmax(dim=2)

    def prior(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> SemanticPrior:
        """The semantic prior of whole scans or frames; arguments as of `forward`."""
        logits, features = self.logits_with_features(x, exposure, spacing_mm)
        masks = logits.softmax(dim=2)[:, :, 1:]
        return SemanticPrior(self._by_view(features, logits), masks, self.embedding_stride, 1)

    def embed(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """The embedding of the prior alone, (B, V, C, h, w); arguments as of `forward`."""
        logits, features = self.logits_with_features(x, exposure, spacing_mm)
        return self._by_view(features, logits)

    def _by_view(self, features: list[Tensor], logits: Tensor) -> Tensor:
        """The embedding of a prior, (B, V, C, h, w): what both views give together, for each."""
        height, width = (-(-size // self.embedding_stride) for size in logits.shape[-2:])
        embedding = self.embedding(features)[..., :height, :width]
        return embedding[:, None].expand(-1, logits.shape[1], -1, -1, -1)

    def check(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> None:
        """Refuse arguments of other shapes than `forward` takes.

        Raises:
            ValueError: `x` is no image of the domain, or not each has an exposure and a spacing.
        """
        if not self.images.fits(x):
            raise ValueError(f"{self.images.shows} must be {self.images.shape}, not {tuple(x.shape)}")
        # `len(x)` would fix the number of images in an export.
        if exposure.shape != x.shape[:1] or spacing_mm.shape != (x.shape[0], 2):
            fault = f"an exposure and a spacing for each of {len(x)} {self.images.shows}"
            raise ValueError(f"{fault}, not {tuple(exposure.shape)} and {tuple(spacing_mm.shape)}")

    @abstractmethod
    def embedding(self, features: list[Tensor]) -> Tensor:
        """The level of `logits_with_features` that is the embedding of its prior, (B, C, h, w)."""

    def spec(self) -> dict[str, Any]:
        """Class path and arguments to build it again, untrained: {"class_path", "init_args"}."""
        return describe(self)


class EncoderDecoder(Segmenter):
    r"""A segmenter by an encoder and a decoder of its own, which sees both views together.

    Its input are the channels of the domain (`rbs.restorers.image_domain`), for scans roots of
    counts with noise of known size, their local mean, and that noise. Counts and exposure are
    stated for a pixel of one area: with pixels of another size, :math:`x' = x A_0 / A` and
    :math:`p' = p A / A_0`, so that :math:`x'` has the noise of the exposure :math:`p'`. Two more
    channels say where a pixel lies in the body, in standard deviations from the mean place of the
    square roots of counts. Blocks of `patch` x `patch` pixels are laid into channels first and
    taken apart at the end: the network computes on a coarser grid, and no pixel is averaged.

    A scan of one view is given twice and the two answers are averaged.

    A subclass builds a backbone of `input_channels` and implements `decode`. It keeps every
    argument of its own constructor as an attribute of the same name.

    Args:
        channels: Channels of the decoder levels, finest first; each has half the rows and columns
            of the one before.
        patch: Side of the blocks.
        domain: Name of the image domain. Crops of frames mean to it what the whole does, those of
            scans do not (`reads_crops`).
    """

    def __init__(self, channels: Sequence[int], *, patch: int = 2, domain: DomainName = "roots") -> None:
        super().__init__(domain)
        levels = len(channels)
        if min(channels, default=0) < 1 or patch not in (1, 2, 4) or levels > 8:
            raise ValueError(f"{levels} levels of {list(channels)} channels, blocks of {patch} pixels")
        self.patch = patch
        self.multiple = patch * 2 ** (levels - 1)
        self.embedding_stride = EMBEDDING_STRIDE
        self._embedding = (EMBEDDING_STRIDE // patch).bit_length()
        if self._embedding > levels:
            raise ValueError(f"{levels} levels with blocks of {patch} pixels do not reach the embedding")
        self.embedding_dim = channels[self._embedding - 1]
        self.reads_crops = self.images.shows == "frames"
        self.views = self.images.channels // self.images.view_channels
        self.input_channels = (self.images.input_channels + 2) * patch**2
        self.head = nn.Conv2d(channels[0], self.views * (1 + len(self.labels)) * patch**2, 1)

    @abstractmethod
    def decode(self, x: Tensor) -> list[Tensor]:
        """Features of the decoder levels, coarsest first.

        Args:
            x: (B, input_channels, H / patch, W / patch).

        Returns:
            Each level (B, C, h, w); the last of the size of `x`.
        """

    def embedding(self, features: list[Tensor]) -> Tensor:
        """See `Segmenter.embedding`: the decoder level of cells of `EMBEDDING_STRIDE` pixels."""
        return features[-self._embedding]

    def logits_with_features(
        self, x: Tensor, exposure: Tensor, spacing_mm: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Segmenter.logits_with_features`."""
        self.check(x, exposure, spacing_mm)
        views, height, width = x.shape[1] // self.images.view_channels, *x.shape[-2:]
        x = x.expand(-1, self.images.channels, -1, -1)
        # Squares of counts lose the Poisson noise in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            given = self._given(x.float(), exposure.float(), spacing_mm.float())
        # Padded sizes are written as multiples: an export compares the sizes of all levels, and is
        # slow to compare sums with a remainder. The coarsest level has two rows at least: instance
        # normalisation of one cell is undefined.
        each = self.multiple
        rows = torch.sym_max((height + each - 1) // each, 2) * each
        columns = (width + each - 1) // each * each
        padded = F.pad(given, (0, columns - width, 0, rows - height), mode="replicate")
        levels = self.decode(F.pixel_unshuffle(padded, self.patch))
        logits = F.pixel_shuffle(self.head(levels[-1]).float(), self.patch)[..., :height, :width]
        logits = logits.unflatten(1, (self.views, -1))
        if views < self.views:
            logits = logits.mean(dim=1, keepdim=True)
        return logits, levels

    def _given(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """Channels of the network before blocks are laid into them, (B, C, H, W)."""
        p = exposure[:, None, None, None]
        if self.images.shows == "scans":
            pixels = (spacing_mm[:, 0] * spacing_mm[:, 1] / PIXEL_AREA_MM2)[:, None, None, None]
            x, p = x / pixels, p * pixels
        channels, _ = self.images.network_input(x, p, 0.0)
        # Places have no slope: that of the root of no counts is infinite.
        return torch.cat([channels, _places(x.detach())], dim=1)


def _places(x: Tensor) -> Tensor:
    """Row and column of each pixel in standard deviations from the mean place, (B, 2, H, W)."""
    weight = x.sum(dim=1).clamp(min=0).sqrt()
    weight = weight / weight.sum(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    height, width = weight.shape[1:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype)
    columns = torch.arange(width, device=x.device, dtype=x.dtype)
    places = []
    for at, marginal in ((rows, weight.sum(dim=2)), (columns, weight.sum(dim=1))):
        mean = (marginal * at).sum(dim=1, keepdim=True)
        spread = (marginal * (at - mean) ** 2).sum(dim=1, keepdim=True).sqrt()
        places.append((at - mean) / spread.clamp(min=1))
    return torch.stack(
        [
            places[0][:, :, None].expand(-1, -1, width),
            places[1][:, None, :].expand(-1, height, -1),
        ],
        dim=1,
    )
