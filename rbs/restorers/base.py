"""The base of all restorers: the physics of an image domain, padding, one view or two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.enlarging import cut_in_four
from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.utils.checkpoint import describe
from rbs.utils.image_ops import gaussian


class Restorer(nn.Module, ABC):
    r"""A network from rapid scans to the expectation of standard ones, or from poor to good frames.

    Its domain (`rbs.restorers.image_domain`) tells scans from frames and gives the transform t
    between images and the scale on which the network adds to a Gaussian filter of the image,

    .. math::
        f(x) = t^{-1}\big(t(G_\sigma x) + \delta\big) ,

    the square root for counts, the identity for colours. :math:`\delta` comes from a
    zero-initialised convolution: an untrained restorer *is* the Gaussian filter, or the identity
    where :math:`\sigma = 0` and for colours.

    A subclass builds its backbone, of `input_channels`, after calling this constructor and
    implements `features`. It keeps every argument of its own constructor as an attribute of the
    same name: `spec` reads them back.

    A restorer can be conditioned: on `condition_channels` further channels of its input, such as
    the regions a segmenter found (`rbs.distillation.spi`). `start_from` copies the weights of one
    that is not, and to begin with no further channel has an effect.

    Geometry: the restoration of images (B, C, H, W) is (B, C, H scale, W scale) of the same field
    of view, with pixels `spacing_out` wide. Scans keep their counts: with `scale` 2 a pixel is cut
    into four, which hold its counts together,

    .. math::
        f(x) = t^{-1}\big(t(U\, G_\sigma x) + \delta\big)

    with U of `rbs.restorers.enlarging`. The backbone works on the pixels of the image; the four
    :math:`\delta` of a pixel come from one convolution and a pixel shuffle (Shi et al., CVPR 2016,
    arXiv 1609.05158).

    Args:
        feature_channels: Channels C of the feature map the backbone returns.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity,
            as colours always do.
        multiple: Heights and widths the backbone accepts are multiples of this; others are padded
            by replication.
        domain: Name of the image domain: "roots" and "counts" are scans, "colours" are frames.
        condition_channels: Channels of the condition; 0 for a restorer that has none.
        scale: Rows and columns of the restoration per row and column of the image: 1, or of scans
            2.

    Raises:
        ValueError: An argument is out of range: weight files from elsewhere may state anything.

    Attributes:
        images: The domain.
        input_channels: Channels the backbone is given: 5 of a scan, 6 of a frame, and those of the
            condition.
        reach: Pixels beyond which a pixel of the image has no effect on one of the restoration,
            except by averages over the whole image; None where there is no such limit.
        reads_facts: True if its condition is not channels but facts of each child, (B, F), see
            `rbs.scans.facts`; None where nothing is known.
    """

    reach: int | None = None
    reads_facts: bool = False

    def __init__(
        self,
        feature_channels: int,
        *,
        sigma_px: float,
        multiple: int = 1,
        domain: DomainName = "roots",
        condition_channels: int = 0,
        scale: int = 1,
    ) -> None:
        super().__init__()
        if feature_channels < 1 or not 0 <= sigma_px <= 64 or not 1 <= multiple <= 256:
            asked = f"{feature_channels} feature channels, sigma_px {sigma_px}, multiples of {multiple}"
            raise ValueError(f"{asked} pixels are out of range")
        if not 0 <= condition_channels <= 4096:
            raise ValueError(f"{condition_channels} channels of a condition are out of range")
        if scale not in (1, 2) or (scale == 2 and DOMAINS[domain].shows != "scans"):
            raise ValueError(f"a scale of {scale} of {DOMAINS[domain].shows}: scans may have 1 or 2")
        self.feature_channels = feature_channels
        self.sigma_px = sigma_px
        self.multiple = multiple
        self.domain: DomainName = domain
        self.images = DOMAINS[domain]
        self.condition_channels, self.scale = condition_channels, scale
        self.input_channels = self.images.input_channels + condition_channels
        answers = self.images.channels * scale**2
        self.head = nn.Conv2d(feature_channels, answers, 3, padding=1, padding_mode="replicate")
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The backbone: (B, input_channels, H, W) to (B, feature_channels, H, W)."""

    def forward(self, x: Tensor, exposure: Tensor, condition: Tensor | None = None) -> Tensor:
        """Restore an image.

        Args:
            x: Rapid scan at standard scale (raw counts / exposure), counts (B, V, H, W), V = 1 or
                2; or frames, sRGB values 0..1, (B, 3, H, W). Any H and W.
            exposure: Exposure p of the rapid scan relative to the standard one, (B,); of a frame 1.
            condition: Further channels of the same pixels, (B, condition_channels, H, W); None for
                a restorer that has none.

        Returns:
            Non-negative counts at standard scale, or sRGB values 0..1, float32, (B, C, H scale,
            W scale).

        Raises:
            ValueError: `x` is no image of the domain, `exposure` is not (B,), or the condition is
                not the one the restorer has.
        """
        return self.restore_with_features(x, exposure, condition)[0]

    def restore_with_features(
        self, x: Tensor, exposure: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Restore, and return the features of the backbone (B, feature_channels, H, W), too."""
        return self._restored(x, exposure, condition, self.features)

    def _restored(
        self, x: Tensor, exposure: Tensor, condition: Tensor | None, features_of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The same by another way from the backbone's input to its features."""
        if not self.images.fits(x):
            raise ValueError(f"{self.images.shows} must be {self.images.shape}, not {tuple(x.shape)}")
        if exposure.shape != x.shape[:1]:
            raise ValueError(
                f"one exposure an image: expected shape ({x.shape[0]},), not {tuple(exposure.shape)}"
            )
        channels, height, width = x.shape[1:]
        given = None if condition is None else tuple(condition.shape)
        wanted = (len(x), self.condition_channels, height, width) if self.condition_channels else None
        if given != wanted:
            raise ValueError(f"the condition must be {wanted}, not {given}")
        # A single view is given twice and the two restorations are averaged: one set of weights
        # serves scans of one view and of two.
        x = x.expand(-1, self.images.channels, -1, -1)
        # Squares and square roots of counts lose the Poisson noise in bfloat16: physics stays in
        # float32.
        with torch.autocast(x.device.type, enabled=False):
            x, p = x.float(), exposure.float()[:, None, None, None]
            channels_in, start = self.images.network_input(x, p, self.sigma_px)
            if self.scale > 1:
                start = self.images.forward(cut_in_four(gaussian(x, self.sigma_px)))
        if condition is not None:
            channels_in = torch.cat([channels_in, condition], 1)
        # Padded sizes are written as multiples: an export is slow to compare sums with a remainder.
        each = self.multiple
        rows, columns = ((side + each - 1) // each * each for side in (height, width))
        padded = F.pad(channels_in, (0, columns - width, 0, rows - height), mode="replicate")
        # Convolutions of few channels run faster with channels last, on a CPU and under bfloat16 on
        # a GPU.
        features = features_of(padded.contiguous(memory_format=torch.channels_last))
        features = features[..., :height, :width]
        delta = self.head(features)
        if self.scale > 1:
            delta = F.pixel_shuffle(delta, self.scale)
        with torch.autocast(x.device.type, enabled=False):
            restored = self.images.inverse(start + delta.float())
        if channels < self.images.channels:
            restored = restored.mean(dim=1, keepdim=True)
        return restored, features

    def start_from(self, other: Restorer, *, head: bool = True) -> None:
        """Take the weights of another restorer, which may have fewer channels of condition.

        The columns of the channels that only this one has are zero: it restores as the other does
        until training moves them, and their gradient is that of any weight.

        Args:
            other: Of the same class and arguments, but for `sigma_px` and `condition_channels`, and
                without its head `scale`.
            head: Take the last convolution, too; otherwise it is zero, and this one is the filter
                it starts from.

        Raises:
            RuntimeError: The two are built otherwise.
        """
        given = other.state_dict()
        if not head:
            given |= {name: own for name, own in self.state_dict().items() if name.startswith("head.")}
        for name, own in self.state_dict().items():
            further = own.shape[1] - given[name].shape[1] if own.ndim == 4 and name in given else 0
            if further > 0:
                given[name] = F.pad(given[name], (0, 0, 0, 0, 0, further))
        self.load_state_dict(given)
        if not head:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def spacing_out(self, spacing_mm: tuple[float, float]) -> tuple[float, float]:
        """Row and column spacing of the restoration, mm, from that of the image."""
        return spacing_mm[0] / self.scale, spacing_mm[1] / self.scale

    def spec(self) -> dict[str, Any]:
        """Class path and arguments to build it again, untrained: {"class_path", "init_args"}."""
        return describe(self)
