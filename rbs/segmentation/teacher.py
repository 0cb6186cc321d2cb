"""The teacher: SAM with a prompt-free decoder of one mask a region of the skeleton, or a lesion.

The decoder follows SAMed (Zhang & Liu, "Customized Segment Anything Model for Medical Image
Segmentation", arXiv 2304.13785): SAM's own, with as many masks as there are regions and no prompt
but its learned "no prompt" embedding. The masks exclude each other, so their probabilities are a
softmax with a background logit of zero:

    p_k = exp(z_k) / (1 + sum_j exp(z_j))
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rbs.restorers.image_domain import DomainName
from rbs.segmentation.labels import LABELLED, LabelledImages
from rbs.segmentation.prior import SemanticPrior
from rbs.segmentation.sam import ARCHITECTURES, Size
from rbs.segmentation.segmenter import Segmenter
from rbs.segmentation.tiles import CANVAS, Layout, pack, plan, unpack

_TOKENS_AT_ONCE = 4096


class Teacher(Segmenter):
    """The segmenter made of SAM; each view is processed independently of all others.

    SAM is shown counts at standard scale, pixel by pixel: exposure and spacing are arguments as of
    every segmenter, and have no effect.

    Args:
        size: The size of `sam`.
        sam: The Segment Anything Model it is made from. Its image and prompt encoders are taken
            over.
        mask_decoder: Decoder with one mask a region. None copies that of `sam`, each region
            starting from one of its three masks.
        domain: Name of the domain of its images: "colours" are frames, all else are scans.

    Attributes:
        labelled: Its images as they are shown to SAM, and the regions in them.
        digest: SHA-256 that identifies weights and settings; empty until the teacher is saved or
            loaded.
        recomputes: True where activations of the encoder are computed again for the gradients.
    """

    reads_crops = True

    def __init__(
        self, size: Size, sam: Sam, mask_decoder: MaskDecoder | None = None, domain: DomainName = "roots"
    ) -> None:
        super().__init__(domain)
        self.labelled = LABELLED[self.images.shows]
        architecture = ARCHITECTURES[size]
        self.size: Size = size
        self.image_encoder: ImageEncoderViT = sam.image_encoder
        self.prompt_encoder: PromptEncoder = sam.prompt_encoder
        self.mask_decoder: MaskDecoder = mask_decoder or region_decoder(
            size, sam.mask_decoder, len(self.labels)
        )
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", sam.pixel_mean.clone(), persistent=False)
        self.register_buffer("pixel_std", sam.pixel_std.clone(), persistent=False)
        self.patch = architecture.patch
        self.tokens = architecture.tokens
        self.embedding_dim = architecture.channels
        self.embedding_stride = CANVAS // architecture.tokens
        self.mask_stride = self.embedding_stride // 2**architecture.doublings
        self.digest = ""
        self.recomputes = False

    def logits_with_features(
        self, x: Tensor, exposure: Tensor, spacing_mm: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Segmenter.logits_with_features`; logits of background are 0.

        The feature is SAM's image embedding, views side by side in its channels, (B, V C, h, w).
        """
        self.check(x, exposure, spacing_mm)
        height, width = x.shape[2:]
        layout = plan(height, width, self.embedding_stride)
        packed = [self._encode(views, layout) for views in self._portions(self.images.views(x), layout)]
        grid = torch.cat([unpack(self.decode(embedding), layout) for embedding in packed])
        pixels = F.interpolate(grid, scale_factor=self.mask_stride, mode="bilinear")
        embedding = torch.cat([unpack(part, layout) for part in packed])
        logits = pixels[..., :height, :width].unflatten(0, (len(x), -1))
        return logits, [embedding.unflatten(0, (len(x), -1)).flatten(1, 2)]

    def embedding(self, features: list[Tensor]) -> Tensor:
        """See `Segmenter.embedding`."""
        return features[0]

    def prior(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> SemanticPrior:
        """See `Segmenter.prior`; masks are those of the decoder's own grid."""
        self.check(x, exposure, spacing_mm)
        layout = plan(x.shape[2], x.shape[3], self.embedding_stride)
        embeddings, masks = [], []
        for views in self._portions(self.images.views(x), layout):
            packed = self._encode(views, layout)
            probabilities = self.decode(packed).softmax(dim=1)[:, 1:]
            embeddings.append(unpack(packed, layout))
            masks.append(unpack(probabilities, layout))
        embedding, regions = (torch.cat(p).unflatten(0, (len(x), -1)) for p in (embeddings, masks))
        return SemanticPrior(embedding, regions, self.embedding_stride, self.mask_stride)

    def embed(self, x: Tensor, exposure: Tensor, spacing_mm: Tensor) -> Tensor:
        """See `Segmenter.embed`: the image embedding.

        The cost of a crop is proportional to its area: it is read at the same zoom as whole scans,
        on the corner of SAM's input that it fills.
        """
        self.check(x, exposure, spacing_mm)
        layout = plan(x.shape[2], x.shape[3], self.embedding_stride)
        parts = [
            unpack(self._encode(views, layout), layout)
            for views in self._portions(self.images.views(x), layout)
        ]
        return torch.cat(parts).unflatten(0, (len(x), -1))

    def encode_packed(self, views: Tensor) -> Tensor:
        """Embedding of the packed picture, (N, C, rows, columns), of views (N, 1 or 3, H, W)."""
        layout = plan(views.shape[2], views.shape[3], self.embedding_stride)
        return torch.cat([self._encode(portion, layout) for portion in self._portions(views, layout)])

    def decode(self, packed: Tensor) -> Tensor:
        """Logits (N, 1 + K, hm, wm) of background (0) and regions from a packed embedding."""
        return F.pad(self._decode(packed), (0, 0, 0, 0, 1, 0))

    def pack_labels(self, labels: Tensor) -> Tensor:
        """Labels (N, 1, H, W) packed and sampled on the grid of the masks, (N, hm, wm)."""
        layout = plan(labels.shape[2], labels.shape[3], self.embedding_stride)
        middle, step = self.mask_stride * layout.shrink // 2, self.mask_stride * layout.shrink
        return pack(labels, layout)[:, 0, middle::step, middle::step]

    def _portions(self, views: Tensor, layout: Layout) -> Iterator[Tensor]:
        rows, columns = layout.grid
        return iter(views.split(max(1, _TOKENS_AT_ONCE // (rows * columns))))

    def _encode(self, views: Tensor, layout: Layout) -> Tensor:
        """Packed embedding (N, C, rows, columns) of views (N, 1 or 3, H, W)."""
        picture = picture_of(pack(views, layout), self.pixel_mean, self.pixel_std, self.labelled)
        rows, columns = layout.grid
        size = (rows * self.patch, columns * self.patch)
        if picture.shape[-2:] != size:
            picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
        return encode_window(self.image_encoder, picture, recomputes=self.recomputes)

    def _decode(self, packed: Tensor) -> Tensor:
        """Region logits (N, K, hm, wm) of a packed embedding."""
        _, _, rows, columns = packed.shape
        no_prompt = packed.new_zeros(1, 0, self.embedding_dim)
        no_mask = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, rows, columns)
        position = window_positions(self.prompt_encoder, rows, columns)
        return self.mask_decoder(packed, position, no_prompt, no_mask, multimask_output=True)[0]


def picture_of(
    views: Tensor, pixel_mean: Tensor, pixel_std: Tensor, labelled: LabelledImages = LABELLED["scans"]
) -> Tensor:
    """Views (N, 1 or 3, h, w) of scans or frames as SAM's normalised colours (N, 3, h, w)."""
    return (labelled.picture(views) - pixel_mean) / pixel_std


def encode_window(
    encoder: ImageEncoderViT, picture: Tensor, top: int = 0, left: int = 0, *, recomputes: bool = False
) -> Tensor:
    """SAM's image encoder on a picture smaller (or somewhat larger) than its input.

    Args:
        encoder: `segment_anything`'s ImageEncoderViT.
        picture: Normalised colours, (N, 3, h, w), multiples of the patch.
        top: Row of SAM's token grid on which the picture's first row lies.
        left: Column of SAM's token grid on which the picture's first column lies.
        recomputes: Compute blocks again for their gradients, so that one at a time is in memory
            (Chen et al., arXiv 1604.06174).

    Returns:
        Embedding, (N, C, h / patch, w / patch). Equal to encoder(picture) for a picture of SAM's
        own size.
    """
    tokens = encoder.patch_embed(picture)
    rows, columns = tokens.shape[1:3]
    positions = encoder.pos_embed
    if rows <= positions.shape[1] and columns <= positions.shape[2]:
        positions = positions[:, top : top + rows, left : left + columns]
    else:
        positions = F.interpolate(positions.permute(0, 3, 1, 2), (rows, columns), mode="bilinear").permute(
            0, 2, 3, 1
        )
    tokens = tokens + positions
    for block in encoder.blocks:
        tokens = checkpoint(block, tokens, use_reentrant=False) if recomputes else block(tokens)
    return encoder.neck(tokens.permute(0, 3, 1, 2))


def window_positions(
    prompt_encoder: PromptEncoder, rows: int, columns: int, top: int = 0, left: int = 0
) -> Tensor:
    """Positional encoding (1, C, rows, columns) for the decoder of a window of `encode_window`."""
    whole = prompt_encoder.get_dense_pe()
    if rows <= whole.shape[2] and columns <= whole.shape[3]:
        return whole[..., top : top + rows, left : left + columns]
    return prompt_encoder.pe_layer((rows, columns))[None]


def region_decoder(size: Size, base: MaskDecoder, regions: int) -> MaskDecoder:
    """A decoder of `regions` masks that starts from SAM's: region k from its mask 1 + k mod 3."""
    decoder = ARCHITECTURES[size].decoder(regions)
    sources = [0] + [1 + k % base.num_multimask_outputs for k in range(regions)]
    state = decoder.state_dict()
    for name, tensor in base.state_dict().items():
        if name == "mask_tokens.weight" or name.startswith("iou_prediction_head.layers.2."):
            state[name] = tensor[sources]
        elif not name.startswith("output_hypernetworks_mlps."):
            state[name] = tensor
    for k, source in enumerate(sources):
        for name, tensor in base.output_hypernetworks_mlps[source].state_dict().items():
            state[f"output_hypernetworks_mlps.{k}.{name}"] = tensor
    decoder.load_state_dict(state)
    return decoder
