r"""A loss for the observer: what a focus looks like in the channels of vision must survive.

A restorer of the least error flattens faint foci, which are few pixels. DEMIST (Rahman et al., IEEE
TRPMS 2024, doi 10.1109/TRPMS.2024.3379215, PMC11101197) adds the difference of channel outputs at
places of a detection task.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rbs.errors import RbsError
from rbs.losses import Loss
from rbs.utils.observer_channels import dog_channels

WINDOW = 33
"""Edge of the channels' window, pixels; odd. A third of a crop of 96 pixels, and wider than the
widest inserted focus (30 mm, 13 pixels), to which a ring of background belongs."""
FIRST_CHANNEL = 0.03
"""Width of the first channel, cycles/pixel: as wide in space as so small a window can hold."""


class ObserverLoss(Loss):
    r"""Squared difference of channel outputs at places with and without a focus.

    .. math::
        \frac{1}{P V} \sum_{p, v} \left\| C^\mathsf{T} \big(\sqrt{I} - \sqrt{\lambda}\big)_{p, v}
        \right\|^2

    with C difference-of-Gaussian channels of length 1 about place p, the P places of all samples
    and their V views. Square roots make errors as large as the noise weigh alike at all levels; 3/8
    is added below them, so that the gradient is finite where nothing is expected. Of a window that
    reaches beyond the crop, the part inside is compared. Only against known expectations: the
    square of the target's noise would outweigh any focus.

    Judge what it brings by other channels than these.

    Args:
        weight: Its factor in the total.
    """

    uses = ("places",)
    needs_expectation = True

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        channels = torch.from_numpy(dog_channels(WINDOW, FIRST_CHANNEL)).float()
        self.register_buffer("channels", channels, persistent=False)
        self.channels: Tensor

    def forward(
        self, estimate: Tensor, target: Tensor, exposure: Tensor, places: Tensor | None = None
    ) -> Tensor:
        """See `Loss.forward`; `places` are row, column and presence, (B, P, 3), -1 where none is.

        Raises:
            RbsError: There are no places.
        """
        if places is None:
            fault = "ObserverLoss needs places with and without a focus, but the batch has none"
            raise RbsError(fault, remedy="set --data.foci 4 and --data.places 16, with pairs: expectation")
        roots = [torch.sqrt(image + 0.375) for image in (estimate, target / exposure[:, None, None, None])]
        windows = windows_at(roots[0] - roots[1], places[..., :2].clamp(min=0))
        outputs = windows.flatten(-2) @ self.channels.T.to(windows.dtype)
        known = (places[..., 2] >= 0).to(outputs.dtype)
        of_place = outputs.square().sum(dim=-1).mean(dim=-1)
        return (of_place * known).sum() / known.sum().clamp(min=1)


def windows_at(images: Tensor, places: Tensor) -> Tensor:
    """Windows about places, 0 beyond the image.

    Args:
        images: (B, V, H, W).
        places: Rows and columns of the middle, inside the image, (B, P, 2).

    Returns:
        (B, P, V, WINDOW, WINDOW).
    """
    padded = F.pad(images, (WINDOW // 2,) * 4)
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    inside = torch.arange(WINDOW, device=images.device)
    rows, columns = (places[..., axis, None] + inside for axis in (0, 1))
    # Indices apart from each other bring their shape to the front: (B, P, rows, columns, V).
    return padded[sample, :, rows[..., None], columns[..., None, :]].movedim(-1, 2)
