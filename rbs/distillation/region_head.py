"""Multi-task learning: a head that finds regions in the features of a restorer."""

from __future__ import annotations

from torch import Tensor, nn

from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.segmentation.label_map import LABEL_MAPS
from rbs.segmentation.objective import DiceCrossEntropy


class RegionHead(nn.Module):
    """Loss of regions that a 1x1 convolution finds in features of a restorer.

    Labels train the backbone beside the reconstruction (Caruana, "Multitask Learning", Machine
    Learning 1997;28:41-75): the cheapest rival of distillation, as labels are all it needs. The
    head is thrown away with the training.

    Args:
        feature_channels: Channels C of the features.
        domain: Name of the image domain of the restorer.
    """

    def __init__(self, feature_channels: int, domain: DomainName = "roots") -> None:
        super().__init__()
        images = DOMAINS[domain]
        classes = 1 + len(LABEL_MAPS[images.shows])
        self.views = images.channels // images.view_channels
        self.logits = nn.Conv2d(feature_channels, self.views * classes, 1)
        self.loss = DiceCrossEntropy(classes)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar: that of segmenters, `rbs.segmentation.objective.DiceCrossEntropy`.

        Args:
            features: (B, C, H, W).
            labels: k + 1 for region k, 0 for background, (B, V, H, W). A scan of one view is
                restored as two equal ones, whose logits are averaged.
        """
        logits = self.logits(features).float().unflatten(1, (self.views, -1))
        if labels.shape[1] < self.views:
            logits = logits.mean(dim=1, keepdim=True)
        return self.loss(logits.flatten(0, 1), labels.flatten(0, 1))
