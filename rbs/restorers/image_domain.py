"""Image domains: the transforms between images and the scale on which networks add to them.

A restorer gets its domain by name, and cascade, losses, teacher and tasks use that domain. Nothing
else in the method depends on whether images are scans of counts or colour frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rbs.utils.image_ops import filter_radius, gaussian

DomainName = Literal["roots", "counts", "colours"]
ImageKind = Literal["scans", "frames"]

LOCAL_MEAN_SIGMA_PX = 2.0
"""Width of the Gaussian that makes the local-mean channels, pixels."""


def reach_of_input(sigma_px: float) -> int:
    """Reach of `Domain.network_input` and of the head's convolution, pixels."""
    return filter_radius(max(LOCAL_MEAN_SIGMA_PX, sigma_px)) + 1


ROOT_SCALE = 2.0
"""Divisor of square roots: scans of 0.1 to 50 counts a pixel then lie between 0.2 and 3.5."""

COUNTS_SCALE = 4.0
"""Divisor of counts: those of 0.1 to 50 a pixel then lie between 0.03 and 12."""

FLOOR = 1e-4
"""Counts added under the square root and subtracted after squaring: its slope at zero is finite."""


class Domain(ABC):
    """The transform between images (B, C, H, W) and the scale of networks; here the identity.

    The C channels are the views of a scan, or the three colours of the one view a frame is.

    Attributes:
        name: Name in YAML and weight files.
        shows: Kind of the images.
        values: What their pixels hold, in a word.
        shape: Their shape, in words.
        channels: Channels networks read and write. A scan of one view is given twice.
        view_channels: Channels of one view, which is what SAM and SPI look at.
        input_channels: Channels of `network_input`.
        input_scale: Divisor that makes network input of order one.
    """

    name: ClassVar[DomainName]
    shows: ClassVar[ImageKind]
    values: ClassVar[str]
    shape: ClassVar[str]
    channels: ClassVar[int]
    view_channels: ClassVar[int]
    input_channels: ClassVar[int]
    input_scale: ClassVar[float]

    def fits(self, x: Tensor) -> bool:
        """True for images of this domain: (B, C, H, W) with one view or all."""
        whole_views = range(self.view_channels, self.channels + 1, self.view_channels)
        return x.ndim == 4 and x.shape[1] in whole_views

    def views(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) view by view, (B * V, C / V, H, W)."""
        return x.unflatten(1, (-1, self.view_channels)).flatten(0, 1)

    def network_input(self, x: Tensor, p: Tensor, sigma_px: float) -> tuple[Tensor, Tensor]:
        """Input of a backbone, and the image that a restorer adds to.

        Args:
            x: Images of all channels, (B, channels, H, W), float32.
            p: Their exposure, (B, 1, 1, 1).
            sigma_px: Width of the Gaussian filter the restoration is relative to, pixels.

        Returns:
            The input, (B, input_channels, H, W): images, their local mean and `noise_channels`; and
            the filtered images on the scale of `forward`, (B, channels, H, W).
        """
        local = self.forward(gaussian(x, LOCAL_MEAN_SIGMA_PX))
        channels = [self.image_channels(x, p) / self.input_scale, local / self.input_scale]
        return torch.cat([*channels, *self.noise_channels(x, p)], 1), self.forward(gaussian(x, sigma_px))

    def image_channels(self, x: Tensor, p: Tensor) -> Tensor:
        """The images themselves as networks read them, before `input_scale`."""
        return x

    def noise_channels(self, x: Tensor, p: Tensor) -> list[Tensor]:
        """The known noise of the images, each (B, 1, H, W); none where it is not known."""
        return []

    def forward(self, x: Tensor) -> Tensor:
        """Images on the scale on which networks add to them."""
        return x

    @abstractmethod
    def inverse(self, transformed: Tensor) -> Tensor:
        """Images from the scale of `forward`, limited to values that images can have."""

    def stabilised(self, x: Tensor) -> Tensor:
        """Images on the scale on which equal differences matter equally; SKD compares there."""
        return x


class SquareRoots(Domain):
    r"""Counts at standard scale as square roots: their noise is of known, constant size.

    Raw counts of a rapid scan are Poisson with mean :math:`p\lambda`, where :math:`\lambda` is the
    expectation of the standard scan and :math:`p` the exposure; restorers take them at standard
    scale, :math:`x = r/p`. Then

    .. math::
        s = \sqrt{x + \tfrac{3}{8p}}, \qquad \operatorname{std}(s) \approx \frac{1}{2\sqrt p}

    for every :math:`\lambda` (Anscombe, Biometrika 1948;35:246), so the backbone reads an image of
    known, constant noise beside its local mean and that noise level. The restoration is computed
    on the same scale, relative to a Gaussian filter, and is never below zero:

    .. math::
        f(x) = \Big(\sqrt{G_\sigma x + \epsilon} + \delta\Big)^2 - \epsilon .
    """

    name: ClassVar[DomainName] = "roots"
    shows = "scans"
    values = "counts"
    shape = "(B, 1 or 2 views, H, W)"
    channels, view_channels, input_channels = 2, 1, 5
    input_scale = ROOT_SCALE

    def image_channels(self, x: Tensor, p: Tensor) -> Tensor:
        """See `Domain.image_channels`: Anscombe's roots."""
        return torch.sqrt(x + 3 / (8 * p))

    def noise_channels(self, x: Tensor, p: Tensor) -> list[Tensor]:
        """See `Domain.noise_channels`: the standard deviation of those roots."""
        return [(0.5 / torch.sqrt(p)).expand(-1, 1, *x.shape[-2:])]

    def forward(self, x: Tensor) -> Tensor:
        """See `Domain.forward`: roots."""
        return torch.sqrt(x + FLOOR)

    def inverse(self, transformed: Tensor) -> Tensor:
        """See `Domain.inverse`: squares."""
        return (transformed**2 - FLOOR).clamp(min=0)

    def stabilised(self, x: Tensor) -> Tensor:
        """See `Domain.stabilised`: roots; a bright bladder then does not outweigh the skeleton."""
        return torch.sqrt(x + 0.375)


class Counts(SquareRoots):
    r"""Counts without variance stabilisation, for the ablation of the domain restorers work in.

    .. math::
        f(x) = \max(G_\sigma x + \delta, 0)

    The channels are the same, scan, local mean and noise level; the noise of the first grows with
    the square root of the counts.
    """

    name: ClassVar[DomainName] = "counts"
    input_scale = COUNTS_SCALE

    def image_channels(self, x: Tensor, p: Tensor) -> Tensor:
        """See `Domain.image_channels`: as they are."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """See `Domain.forward`: as they are."""
        return x

    def inverse(self, transformed: Tensor) -> Tensor:
        """See `Domain.inverse`: never below zero."""
        return transformed.clamp(min=0)


class Colours(Domain):
    r"""Colour frames: sRGB values from 0 to 1, red, green and blue, one view of three channels.

    Networks read and write them as they are encoded, which is nearly as they are perceived:

    .. math::
        f(x) = \min(\max(x + \delta, 0), 1)

    The restoration is relative to the frame itself, for every `sigma_px`: what a frame lacks may be
    sharpness or light, and no filter is a better start. Their noise is not known, and `p` has no
    effect.
    """

    name: ClassVar[DomainName] = "colours"
    shows = "frames"
    values = "colours"
    shape = "(B, 3 colours, H, W)"
    channels, view_channels, input_channels = 3, 3, 6
    input_scale = 1.0

    def network_input(self, x: Tensor, p: Tensor, sigma_px: float) -> tuple[Tensor, Tensor]:
        """See `Domain.network_input`: relative to the frame itself."""
        return super().network_input(x, p, 0.0)

    def inverse(self, transformed: Tensor) -> Tensor:
        """See `Domain.inverse`: values within 0..1.

        The gradient is that of the identity. That of the clamp is zero for black and saturated
        pixels, so no loss could correct a network that goes too far.
        """
        return transformed.detach().clamp(0, 1) + (transformed - transformed.detach())


DOMAINS: Mapping[DomainName, Domain] = {
    domain.name: domain for domain in (SquareRoots(), Counts(), Colours())
}
