"""The frozen analyser of semantic consistency: AlexNet, trained on photographs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.segmentation.labels import LABELLED
from rbs.weights.external import load_alexnet, require_alexnet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

ENLARGED = 2
"""Factor by which pictures are enlarged: bones are narrower than cells of 16 pixels."""

_LAYERS = 8
"""Layers of `features` up to the third ReLU, 384 channels in cells of 16 pixels of the picture."""
_CELL = 16


class ImageNetAnalyser(nn.Module):
    """Features of restorations in AlexNet's third ReLU, in cells of 8 pixels of the restoration.

    Zhang et al. (arXiv 2403.16368) compare restorations in the features of a VGG. AlexNet does the
    same at a tenth of the cost, and LPIPS, which needs the same file, is best with it. The network
    sees the picture that SAM is shown (`rbs.segmentation.labels`): counts as a grey value that
    saturates, in three equal channels; frames in their colours.

    It is frozen and differentiable in its input. Keep it outside the module tree of what is
    trained: its weights are found anew, not saved.

    Args:
        domain: Name of the image domain of the restorations.

    Raises:
        CheckpointError: The weights are missing or damaged.
    """

    def __init__(self, domain: DomainName = "roots") -> None:
        super().__init__()
        self.images = DOMAINS[domain]
        self.layers = load_alexnet(require_alexnet())[:_LAYERS]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, V, 384, h, w) of restorations.

        Args:
            x: Counts at standard scale (B, V, H, W), or frames (B, 3, H, W), of which V is 1.
        """
        # What SCM compares differs by thousandths, which bfloat16 does not hold.
        with torch.autocast(x.device.type, enabled=False):
            picture = LABELLED[self.images.shows].picture(self.images.views(x.float())) / 255
            picture = (picture.expand(-1, 3, -1, -1) - self.mean) / self.std
            picture = F.interpolate(picture, scale_factor=ENLARGED, mode="bilinear", align_corners=False)
            # With 15 pixels around multiples of 16, layers without padding of their own leave
            # exactly one cell for 16 pixels, in their middle.
            bottom, right = -picture.shape[-2] % _CELL, -picture.shape[-1] % _CELL
            picture = F.pad(picture, (8, 7 + right, 8, 7 + bottom), mode="replicate")
            features = self.layers(picture.contiguous(memory_format=torch.channels_last))
        return features.unflatten(0, (len(x), -1))
