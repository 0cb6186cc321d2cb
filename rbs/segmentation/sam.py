"""Segment Anything Models: Meta's three sizes and a small one, of `segment_anything`'s classes.

Kirillov et al., "Segment Anything", ICCV 2023 (arXiv 2304.02643).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from rbs.errors import CheckpointError, RbsError
from rbs.utils.checkpoint import read_tensors, require_weights
from rbs.utils.files import whole_file
from rbs.weights.shipped import FOLDER, check_recorded, file_sha256

Size = Literal["vit_t", "vit_b", "vit_l", "vit_h"]

SHIPPED = FOLDER / "sam_vit_t.safetensors"
"""Base weights of vit_t, trained on drawn shapes (`make pretrain-sam`)."""

_ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"
META_CHECKPOINTS = {
    "vit_h": ("sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
    "vit_l": ("sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_b": ("sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
}
"""File name and SHA-256 of Meta's checkpoints (Apache-2.0); names hold digits of the MD5 sum."""


@dataclass(frozen=True)
class Architecture:
    """The sizes of a SAM.

    Attributes:
        image_size: Side of the square input, pixels of the model's own grid.
        embed_dim: Width of the image encoder.
        depth: Its number of blocks.
        heads: Its attention heads.
        global_blocks: Blocks that attend to the whole image; the others attend within windows.
        window: Side of a window, tokens.
        channels: Channels of the image embedding and of the mask decoder.
        decoder_mlp: Hidden width of the decoder's transformer.
        decoder_heads: Attention heads of the decoder.
        doublings: Number of times the decoder doubles the resolution of the embedding.
    """

    image_size: int
    embed_dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14
    channels: int = 256
    decoder_mlp: int = 2048
    decoder_heads: int = 8
    doublings: int = 2

    patch = 16

    @property
    def tokens(self) -> int:
        """Side of the token grid."""
        return self.image_size // self.patch

    def encoder(self) -> ImageEncoderViT:
        """The image encoder, randomly initialised."""
        return ImageEncoderViT(
            img_size=self.image_size,
            patch_size=self.patch,
            embed_dim=self.embed_dim,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=self.global_blocks,
            window_size=self.window,
            out_chans=self.channels,
        )

    def decoder(self, masks: int = 3) -> MaskDecoder:
        """The mask decoder, randomly initialised, for `masks` masks beside SAM's single one.

        SAM doubles its embedding twice. `doublings` above 2 adds layers: a growth plate is 2-4 scan
        pixels thick, and masks of 4-pixel cells cannot show it.
        """
        decoder = MaskDecoder(
            num_multimask_outputs=masks,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=self.channels, mlp_dim=self.decoder_mlp, num_heads=self.decoder_heads
            ),
            transformer_dim=self.channels,
            iou_head_depth=3,
            iou_head_hidden_dim=self.channels,
        )
        width = self.channels // 8
        for _ in range(self.doublings - 2):
            decoder.output_upscaling.extend(
                [nn.ConvTranspose2d(width, width, kernel_size=2, stride=2), nn.GELU()]
            )
        return decoder

    def build(self) -> Sam:
        """The whole model, randomly initialised, in evaluation mode."""
        prompts = PromptEncoder(
            embed_dim=self.channels,
            image_embedding_size=(self.tokens, self.tokens),
            input_image_size=(self.image_size, self.image_size),
            mask_in_chans=16,
        )
        return Sam(image_encoder=self.encoder(), prompt_encoder=prompts, mask_decoder=self.decoder()).eval()


ARCHITECTURES: dict[str, Architecture] = {
    "vit_t": Architecture(
        512, 192, 6, 4, (2, 5), window=8, channels=128, decoder_mlp=512, decoder_heads=4, doublings=3
    ),
    "vit_b": Architecture(1024, 768, 12, 12, (2, 5, 8, 11)),
    "vit_l": Architecture(1024, 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": Architecture(1024, 1280, 32, 16, (7, 15, 23, 31)),
}


def build_sam(size: Size, checkpoint: Path | None = None) -> Sam:
    """A SAM with its weights.

    Args:
        size: "vit_h", "vit_l", "vit_b": Meta's models; "vit_t": the small one of this package.
        checkpoint: Its weights, .pth or .safetensors. None takes the shipped file for vit_t and
            downloads Meta's otherwise, once (see `find_checkpoint`).

    Raises:
        CheckpointError: The file is missing or damaged, does not fit the size, or cannot be
            downloaded.
    """
    path = find_checkpoint(size, checkpoint)
    check_recorded(path, sha256 := file_sha256(path))
    if path.name == META_CHECKPOINTS.get(size, ("", ""))[0] and sha256 != META_CHECKPOINTS[size][1]:
        fault = "it is not the file that Meta published under this name"
        raise CheckpointError(fault, file=path, remedy="remove it to download it again")
    sam = ARCHITECTURES[size].build()
    try:
        if path.suffix == ".safetensors":
            state, _ = read_tensors(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        require_weights(state, path)
        sam.load_state_dict(state)
    except CheckpointError:
        raise
    except Exception as error:
        fault = f"it does not hold the weights of {size} ({str(error).splitlines()[0]})"
        raise CheckpointError(
            fault, file=path, remedy="choose the size that the file was trained as"
        ) from error
    return sam


def find_checkpoint(size: Size, checkpoint: Path | None = None) -> Path:
    """Path of the weights of `size`: the given file, the shipped one, or Meta's, downloaded once.

    Downloads go to the folder RBS_HOME (default ~/.cache/rbs) and are checked by SHA-256.

    Raises:
        CheckpointError: The file is missing or cannot be downloaded.
    """
    path = Path(checkpoint) if checkpoint is not None else SHIPPED if size == "vit_t" else _cached(size)
    if path.exists():
        return path
    if checkpoint is not None or size == "vit_t":
        remedy = (
            "train it with `make pretrain-sam`"
            if size == "vit_t"
            else "leave the checkpoint out to download it"
        )
        raise CheckpointError("there is no such file", file=path, remedy=remedy)
    name, sha256 = META_CHECKPOINTS[size]
    try:
        with whole_file(path, overwrite=True) as part:
            torch.hub.download_url_to_file(_ADDRESS + name, str(part), hash_prefix=sha256)
    except (OSError, RuntimeError, RbsError) as error:
        fault = f"the checkpoint of {size} could not be downloaded from {_ADDRESS + name} ({error})"
        remedy = "put the file there, or name a copy with --model.checkpoint, or its folder with RBS_HOME"
        raise CheckpointError(fault, file=path, remedy=remedy) from error
    return path


def _cached(size: Size) -> Path:
    home = os.environ.get("RBS_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "rbs") / META_CHECKPOINTS[size][0]
