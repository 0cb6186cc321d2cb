"""Pretraining of a segmenter without labels, as a masked autoencoder."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from rbs.errors import RbsError
from rbs.segmentation.reconstruction import hidden_blocks
from rbs.segmentation.segmenter import EncoderDecoder
from rbs.tasks.segmentation import SegmentationTask
from rbs.tasks.task import Batch


class MaskedAutoencoder(SegmentationTask):
    r"""Training of all but the head of a segmenter: the counts of hidden blocks are found again.

    After He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377), for a
    convolutional network: blocks of the scan are set to zero counts in both views, and a
    convolution of 1 x 1 on the finest level predicts the roots of the counts. Their noise is of
    known size (Anscombe), so the error

    .. math::
        L = \frac{1}{|M|} \sum_{i \in M} 4p \left(\hat s_i - \sqrt{x_i + 3/8p}\right)^2

    over hidden pixels M, with the exposure p, tends to 1 where the expectation is known. A training
    from labels starts from its weights (`init_from`).

    Args:
        segmenter: The network, of scans.
        masked: Share of the blocks that are hidden.
        block: Side of a block, pixels.
        lr: See `SegmentationTask`, as the next three.
        weight_decay: Likewise.
        warmup_steps: Likewise.
        output: Likewise.

    Raises:
        RbsError: The network is one of frames, or the blocks are out of range.
    """

    def __init__(
        self,
        segmenter: EncoderDecoder,
        masked: float = 0.6,
        block: int = 16,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        output: Path | None = None,
    ) -> None:
        super().__init__(
            segmenter, lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, output=output
        )
        if segmenter.images.shows != "scans":
            fault = "the counts of hidden blocks are predicted, and the network is one of frames"
            raise RbsError(fault, remedy="set its domain to roots")
        if not 0 < masked < 1 or block < 1:
            fault = f"a share of {masked:g} of blocks of {block} pixels a side is hidden"
            raise RbsError(fault, remedy="hide a share between 0 and 1, of blocks of a pixel or more")
        self.masked, self.block, self.patch = masked, block, segmenter.patch
        # Not trained here; an unused parameter would stop distributed training.
        segmenter.head.requires_grad_(False)
        channels = segmenter.images.channels * self.patch**2
        self.reconstruction = nn.Conv2d(segmenter.head.in_channels, channels, 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss: "total" alone."""
        x, exposure, spacing_mm = self.inputs(batch)
        hidden = hidden_blocks(x, self.masked, self.block)
        _, levels = self.segmenter.logits_with_features(x * ~hidden, exposure, spacing_mm)
        found = F.pixel_shuffle(self.reconstruction(levels[-1]).float(), self.patch)
        found = found[:, : x.shape[1], : x.shape[2], : x.shape[3]]
        p = exposure[:, None, None, None]
        error = 4 * p * (found - (x + 3 / (8 * p)).sqrt()) ** 2
        return {"total": (error * hidden).sum() / (hidden.sum() * x.shape[1]).clamp(min=1)}

    def validation_step(self, batch: Batch, index: int) -> None:
        """Error of a whole rapid scan."""
        self.log("val/total", self.losses(batch)["total"], batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Nothing to count."""
