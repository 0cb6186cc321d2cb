"""What an image is: the one place that tells scans of counts and colour frames apart.

A restorer is told its domain by name; cascade, losses, teacher and tasks ask that domain. Nothing
else in the method knows which kind of image it works on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rbs.scans.scan import REGIONS
from rbs.utils.image_ops import gaussian

DomainName = Literal["roots", "counts", "colours"]

LOCAL_MEAN_SIGMA_PX = 2.0
"""Width of the Gaussian that makes the local-mean channels, pixels."""

ROOT_SCALE = 2.0
"""Square roots are divided by this: scans of 0.1 to 50 counts a pixel then lie between 0.2 and
3.5."""

COUNTS_SCALE = 4.0
"""Counts are divided by this: those of 0.1 to 50 a pixel then lie between 0.03 and 12."""

FLOOR = 1e-4
"""Counts added under the square root, and taken off after squaring, so that its slope is finite at
zero."""

GREY_HALF = 3.0
"""Root-counts that are drawn half-way to white."""


class Domain(ABC):
    """What networks, losses and scores must know of the images (B, C, H, W) they work on.

    The C channels are the views of a scan, or the three colours of the one view a frame is.

    Attributes:
        name: As restorers and teachers are told it.
        shows: What the images are, in a word.
        values: What their pixels hold, in a word.
        shape: Their shape, in words.
        channels: Channels networks are shown and answer. A scan of one view is shown twice.
        view_channels: Channels of one view, which is what SAM and SPI look at.
        seen_channels: Channels `see` makes of them.
        scale: What networks see is divided by this, to be of order one.
        regions: What the teacher tells apart; labels hold k + 1 for regions[k], and 0 for
            background.
        upright: Whether the teacher may rely on what is up.
        labelled_by: What of a case holds the labels.
        how_to_label: What to do where that is missing.
        levels: How the teacher's tables call the two qualities of a batch, input and target.
        display: Numbers `picture` depends on, by name: a teacher is good for them alone.
    """

    name: ClassVar[DomainName]
    shows: ClassVar[Literal["scans", "frames"]]
    values: ClassVar[str]
    shape: ClassVar[str]
    channels: ClassVar[int]
    view_channels: ClassVar[int]
    seen_channels: ClassVar[int]
    scale: ClassVar[float]
    regions: ClassVar[tuple[str, ...]]
    upright: ClassVar[bool]
    labelled_by: ClassVar[str]
    how_to_label: ClassVar[str]
    levels: ClassVar[tuple[str, str]]
    display: ClassVar[Mapping[str, float]]

    def fits(self, x: Tensor) -> bool:
        """Whether these are images of this domain: (B, C, H, W) with one view or all."""
        whole_views = range(self.view_channels, self.channels + 1, self.view_channels)
        return x.ndim == 4 and x.shape[1] in whole_views

    def views(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) view by view, (B * V, C / V, H, W)."""
        return x.unflatten(1, (-1, self.view_channels)).flatten(0, 1)

    def see(self, x: Tensor, p: Tensor, sigma_px: float) -> tuple[Tensor, Tensor]:
        """What a restorer works on.

        Args:
            x: Images of all channels, (B, channels, H, W), float32.
            p: Their exposure, (B, 1, 1, 1).
            sigma_px: Width of the Gaussian filter its answer is relative to, pixels.

        Returns:
            What the backbone sees, (B, seen_channels, H, W): images, their local mean and whatever
            `known` says; and what the answer is relative to, (B, channels, H, W).
        """
        local = self.start(gaussian(x, LOCAL_MEAN_SIGMA_PX))
        seen = [self.own(x, p) / self.scale, local / self.scale, *self.known(x, p)]
        return torch.cat(seen, dim=1), self.start(gaussian(x, sigma_px))

    @abstractmethod
    def own(self, x: Tensor, p: Tensor) -> Tensor:
        """The images themselves as networks see them, before `scale`."""

    @abstractmethod
    def known(self, x: Tensor, p: Tensor) -> list[Tensor]:
        """What is known of their noise, each (B, 1, H, W)."""

    @abstractmethod
    def start(self, x: Tensor) -> Tensor:
        """Images on the scale on which networks add to them."""

    @abstractmethod
    def answer(self, start: Tensor, delta: Tensor) -> Tensor:
        """Images again: from `start` of some, and what a network adds there."""

    @abstractmethod
    def compared(self, x: Tensor) -> Tensor:
        """Images on the scale on which equal differences matter alike; SKD compares there."""

    @abstractmethod
    def picture(self, views: Tensor) -> Tensor:
        """Views (N, view_channels, h, w) as grey or RGB values 0..255, (N, 1 or 3, h, w), shown to SAM."""


class SquareRoots(Domain):
    r"""Counts at standard scale, seen as square roots: their noise is of known, constant size.

    Raw counts of a rapid scan are Poisson with mean :math:`p\lambda`, where :math:`\lambda` is the
    expectation of the standard scan and :math:`p` the exposure; restorers take them at standard
    scale,
    :math:`x = r/p`. Then

    .. math::
        s = \sqrt{x + \tfrac{3}{8p}}, \qquad \operatorname{std}(s) \approx \frac{1}{2\sqrt p}

    whatever :math:`\lambda` (Anscombe, Biometrika 1948;35:246), so the backbone sees an image of
    known, constant noise beside its local mean and that noise level. The answer is given on the
    same scale, relative to a Gaussian filter, and is never below zero:

    .. math::
        f(x) = \Big(\sqrt{G_\sigma x + \epsilon} + \delta\Big)^2 - \epsilon .
    """

    name: ClassVar[DomainName] = "roots"
    shows = "scans"
    values = "counts"
    shape = "(B, 1 or 2 views, H, W)"
    channels, view_channels, seen_channels = 2, 1, 5
    scale = ROOT_SCALE
    regions = REGIONS
    upright = True
    labelled_by = "truth file"
    how_to_label = "adapt it on phantoms: --data.manifest data/phantoms/manifest.csv (see `rbs simulate`)"
    levels = ("rapid", "standard")
    display: ClassVar[Mapping[str, float]] = {"grey_half": GREY_HALF}

    def own(self, x: Tensor, p: Tensor) -> Tensor:
        """See `Domain.own`: Anscombe's roots."""
        return torch.sqrt(x + 3 / (8 * p))

    def known(self, x: Tensor, p: Tensor) -> list[Tensor]:
        """See `Domain.known`: the standard deviation of those roots."""
        return [(0.5 / torch.sqrt(p)).expand(-1, 1, *x.shape[-2:])]

    def start(self, x: Tensor) -> Tensor:
        """See `Domain.start`: roots."""
        return torch.sqrt(x + FLOOR)

    def answer(self, start: Tensor, delta: Tensor) -> Tensor:
        """See `Domain.answer`: squares."""
        return ((start + delta) ** 2 - FLOOR).clamp(min=0)

    def compared(self, x: Tensor) -> Tensor:
        """See `Domain.compared`: roots, so that a bright bladder does not outweigh the skeleton."""
        return torch.sqrt(x + 0.375)

    def picture(self, views: Tensor) -> Tensor:
        """See `Domain.picture`: a grey value that saturates.

        Soft tissue and a full bladder both keep their contrast:

            z = sqrt(counts + 3/8) - sqrt(3/8),    grey = 255 z / (z + GREY_HALF)

        The root evens out the Poisson noise. Nothing is taken from the image itself: a crop looks
        as it does within its scan.
        """
        root = (views.clamp(min=0) + 0.375).sqrt() - math.sqrt(0.375)
        return 255 * root / (root + GREY_HALF)


class Counts(SquareRoots):
    r"""Counts without variance stabilisation, for the ablation of the domain restorers work in.

    .. math::
        f(x) = \max(G_\sigma x + \delta, 0)

    The channels are the same, scan, local mean and noise level; the noise of the first grows with
    the square root of the counts.
    """

    name: ClassVar[DomainName] = "counts"
    scale = COUNTS_SCALE

    def own(self, x: Tensor, p: Tensor) -> Tensor:
        """See `Domain.own`: as they are."""
        return x

    def start(self, x: Tensor) -> Tensor:
        """See `Domain.start`: as they are."""
        return x

    def answer(self, start: Tensor, delta: Tensor) -> Tensor:
        """See `Domain.answer`: a sum."""
        return (start + delta).clamp(min=0)


class Colours(Domain):
    r"""Colour frames: sRGB values from 0 to 1, red, green and blue, one view of three channels.

    They are seen and answered as they are encoded, which is nearly as they are perceived:

    .. math::
        f(x) = \min(\max(x + \delta, 0), 1)

    The answer is relative to the frame itself, whatever `sigma_px`: what a frame lacks may be
    sharpness or light, and no filter is a better start than it. Nothing is known of its noise. `p`
    takes no part.
    """

    name: ClassVar[DomainName] = "colours"
    shows = "frames"
    values = "colours"
    shape = "(B, 3 colours, H, W)"
    channels, view_channels, seen_channels = 3, 3, 6
    scale = 1.0
    regions = ("lesion",)
    upright = False
    labelled_by = "mask"
    how_to_label = (
        "give every frame of train and val a mask in the manifest, or adapt it on drawn ones:"
        " --data.manifest data/mucosa/manifest.csv (see `rbs simulate --kind endoscopy`)"
    )
    levels = ("degraded", "clean")
    display: ClassVar[Mapping[str, float]] = {}

    def see(self, x: Tensor, p: Tensor, sigma_px: float) -> tuple[Tensor, Tensor]:
        """See `Domain.see`: relative to the frame itself."""
        return super().see(x, p, 0.0)

    def own(self, x: Tensor, p: Tensor) -> Tensor:
        """See `Domain.own`: as it is."""
        return x

    def known(self, x: Tensor, p: Tensor) -> list[Tensor]:
        """See `Domain.known`: nothing."""
        return []

    def start(self, x: Tensor) -> Tensor:
        """See `Domain.start`: as it is."""
        return x

    def answer(self, start: Tensor, delta: Tensor) -> Tensor:
        """See `Domain.answer`: a sum within 0..1.

        The gradient is that of the sum. That of the clamp is zero for black and saturated pixels,
        so that where a network goes too far, no loss could call it back.
        """
        colours = start + delta
        return colours.detach().clamp(0, 1) + (colours - colours.detach())

    def compared(self, x: Tensor) -> Tensor:
        """See `Domain.compared`: as it is."""
        return x

    def picture(self, views: Tensor) -> Tensor:
        """See `Domain.picture`: the colours SAM was made for."""
        return 255 * views.clamp(0, 1)


DOMAINS: Mapping[DomainName, Domain] = {
    domain.name: domain for domain in (SquareRoots(), Counts(), Colours())
}
