"""NAFNet that enlarges, with semantics: the parts of Ren et al., each of which may be left out.

Ren et al., IEEE/ACM TCBB 2023;20:2598, transfer features of an image-description network into
super-resolution, and add dynamic perceptual convolution and distilled polarised self-attention. The
formulas are ours and stand in the file of each part.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbs.restorers.dynamic_convolution import DynamicConvolution
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.polarised_attention import PolarisedAttention
from rbs.restorers.semantic_features import SemanticNetwork, load_semantic_network
from rbs.restorers.semantic_transfer import SemanticTransfer
from rbs.scans.facts import NUMBERS


class SemanticNAFNet(NAFNet):
    """NAFNet x2 that may read a frozen semantic network, and facts of the child.

    Its condition is facts (B, F) instead of channels, see `rbs.scans.facts`; without it all count
    as unknown. The semantic network is a part of it, and of its weight file.

    It restores scans only.

    Args:
        semantic: File of a trained semantic network; or, as weight files hold it, the arguments of
            one whose weights follow. None where neither `transfer` nor `dynamic` needs it.
        transfer: Whether semantic features enter beside the scan.
        dynamic: Whether a convolution is mixed by pooled semantic features, facts and exposure.
        attention: Whether features pass polarised self-attention.
        transfer_width: Channels by which semantic features enter.
        width: See `NAFNet`, as the others.
        enc_blocks: Likewise.
        middle_blocks: Likewise.
        dec_blocks: Likewise.
        sigma_px: Likewise.

    Raises:
        ValueError: A part needs a semantic network, but none is given.
        CheckpointError: The file of the semantic network cannot be used.
    """

    def __init__(
        self,
        semantic: Path | dict[str, Any] | None = None,
        transfer: bool = True,
        dynamic: bool = True,
        attention: bool = True,
        transfer_width: int = 8,
        width: int = 24,
        enc_blocks: Sequence[int] = (1, 1, 2),
        middle_blocks: int = 2,
        dec_blocks: Sequence[int] = (1, 1, 1),
        sigma_px: float = 1.5,
    ) -> None:
        if semantic is None and (transfer or dynamic):
            raise ValueError("transfer and dynamic convolution read a semantic network, but none is given")
        entering = transfer_width if transfer else 0
        super().__init__(
            width, enc_blocks, middle_blocks, dec_blocks, sigma_px, condition_channels=entering, scale=2
        )
        network: SemanticNetwork | None = None
        if isinstance(semantic, Path):
            network = load_semantic_network(semantic)
        elif semantic is not None:
            network = SemanticNetwork(**semantic)
        reads = transfer or dynamic
        self.network = network.requires_grad_(False) if network is not None and reads else None
        self.semantic = self.network.spec()["init_args"] if self.network is not None else None
        self.transfer, self.dynamic, self.attention = transfer, dynamic, attention
        self.transfer_width = transfer_width
        self.reads_facts = dynamic
        # Attention looks at all pixels.
        self.reach = None
        channels = 0 if self.network is None else self.network.feature_channels
        self.transferred = SemanticTransfer(channels, transfer_width) if transfer else None
        self.mixed = DynamicConvolution(width, channels + NUMBERS + 1) if dynamic else None
        self.attending = PolarisedAttention(width) if attention else None

    def restore_with_features(
        self, x: Tensor, exposure: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Restorer`; the condition is facts of the children, (B, F), or None."""
        if not self.images.fits(x) or exposure.shape != x.shape[:1]:
            return super().restore_with_features(x, exposure)  # which refuses it
        semantic = None if self.network is None else self._semantic(x, exposure)
        facts = x.new_zeros(len(x), NUMBERS) if condition is None else condition
        if facts.shape != (len(x), NUMBERS):
            raise ValueError(f"facts must be {(len(x), NUMBERS)}, not {tuple(facts.shape)}")

        def features_of(given: Tensor) -> Tensor:
            features = self.features(given)
            if self.mixed is not None and semantic is not None:
                pooled, velocity = semantic.mean(dim=(2, 3)), exposure.float().log()[:, None]
                features = self.mixed(features, torch.cat([pooled, facts, velocity], dim=1))
            return features if self.attending is None else self.attending(features)

        entering = None
        if self.transferred is not None and semantic is not None:
            entering = self.transferred(semantic, (x.shape[-2], x.shape[-1]))
        return self._restored(x, exposure, entering, features_of)

    def train(self, mode: bool = True) -> SemanticNAFNet:
        """See `torch.nn.Module.train`; the semantic network stays as it is."""
        super().train(mode)
        if self.network is not None:
            self.network.eval()
        return self

    def _semantic(self, x: Tensor, exposure: Tensor) -> Tensor:
        assert self.network is not None
        with torch.no_grad():
            return self.network.features(x.float().expand(-1, self.images.channels, -1, -1), exposure)
