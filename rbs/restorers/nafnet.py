"""NAFNet: U-shaped, of gated, activation-free blocks (Chen et al., ECCV 2022, arXiv 2204.04676)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rbs.restorers.base import Restorer
from rbs.restorers.image_domain import DomainName, reach_of_input
from rbs.restorers.spandrel_arch import architecture


class NAFNet(Restorer):
    """NAFNet with the blocks of `spandrel`. The defaults have 0.97 M parameters.

    Args:
        width: Channels at full resolution; they double at every level.
        enc_blocks: Blocks of each encoder level; as many levels as numbers.
        middle_blocks: Blocks at the coarsest level.
        dec_blocks: Blocks of each decoder level, coarsest first; as many numbers as `enc_blocks`.
        sigma_px: Width of the Gaussian filter it starts from, pixels; 0 starts from the identity.
        domain: Name of the image domain, see `Restorer`.
        condition_channels: Channels of the condition, see `Restorer`.
        scale: Rows and columns of the restoration per row and column of the image, see `Restorer`.
    """

    def __init__(
        self,
        width: int = 24,
        enc_blocks: Sequence[int] = (1, 1, 2),
        middle_blocks: int = 2,
        dec_blocks: Sequence[int] = (1, 1, 1),
        sigma_px: float = 1.5,
        domain: DomainName = "roots",
        condition_channels: int = 0,
        scale: int = 1,
    ) -> None:
        if len(enc_blocks) != len(dec_blocks):
            raise ValueError(f"enc_blocks has {len(enc_blocks)} levels but dec_blocks {len(dec_blocks)}")
        super().__init__(
            width,
            sigma_px=sigma_px,
            multiple=2 ** len(enc_blocks),
            domain=domain,
            condition_channels=condition_channels,
            scale=scale,
        )
        self.width, self.middle_blocks = width, middle_blocks
        self.enc_blocks, self.dec_blocks = list(enc_blocks), list(dec_blocks)
        # A convolution of 3 x 3 a block, and one before them all; the steps between levels overlap
        # nowhere.
        levels = (*enc_blocks, middle_blocks, *dec_blocks)
        scales = (*range(len(enc_blocks)), len(enc_blocks), *reversed(range(len(enc_blocks))))
        blocks = sum(number * 2**scale for number, scale in zip(levels, scales, strict=True))
        self.reach = reach_of_input(sigma_px) + 1 + blocks
        self.backbone = architecture("NAFNet").NAFNet(
            img_channel=self.input_channels,
            width=width,
            middle_blk_num=middle_blocks,
            enc_blk_nums=self.enc_blocks,
            dec_blk_nums=self.dec_blocks,
        )
        # Its last convolution adds to the input image; `Restorer.head` takes its place, and an
        # unused parameter would stop distributed training.
        del self.backbone.ending
        for block in list(self.backbone.modules()):
            for name in {"norm1", "norm2"} & set(dict(block.named_children())):
                setattr(block, name, ChannelNorm(getattr(block, name)))

    def features(self, x: Tensor) -> Tensor:
        """Decoder features, (B, input_channels, H, W) to (B, width, H, W)."""
        net = self.backbone
        x = net.intro(x)
        skips = []
        for encoder, down in zip(net.encoders, net.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = net.middle_blks(x)
        for decoder, up, skip in zip(net.decoders, net.ups, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return x


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels of (B, C, H, W), by PyTorch's own kernel.

    The normalisation of `spandrel` computes the same step by step, which took a third of the time
    of restoring a scan.

    Args:
        norm: The normalisation of `spandrel`; its weights are copied.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(len(norm.weight), eps=norm.eps)  # type: ignore[arg-type]
        self.load_state_dict(norm.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; fast where channels lie last in memory, as `Restorer` lays them."""
        last = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)
