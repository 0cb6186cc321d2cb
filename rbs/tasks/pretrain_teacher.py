"""Pretraining the small SAM on drawn shapes, by prompts, as SAM itself was trained on photographs.

Loss after Kirillov et al. (arXiv 2304.02643, appendix A): focal + dice + squared error of the
predicted intersection over union. Of the three masks that SAM proposes beside its single one, only
the best is trained. The focal loss counts less than there (5, not 20) and favours the object (alpha
0.75): with few steps the model else stays at "nothing anywhere", for the objects cover a few per
cent of the picture.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from rbs.segmentation.sam import ARCHITECTURES
from rbs.segmentation.teacher import encode_window, picture_of, window_positions
from rbs.tasks.task import TrainingTask
from rbs.utils.files import whole_file, write_json
from rbs.weights.shipped import file_sha256


class PretrainTeacher(TrainingTask):
    """Train vit_t from nothing.

    Args:
        lr: Highest learning rate.
        weight_decay: Weight decay of AdamW.
        warmup_steps: Steps over which the learning rate rises.
        output: Folder that gets `sam_vit_t.safetensors` and its card `sam_vit_t.json`. None writes
            nothing.
    """

    def __init__(
        self, lr: float = 1e-3, weight_decay: float = 0.05, warmup_steps: int = 60, output: Path | None = None
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output, betas=(0.9, 0.98))
        self.save_hyperparameters()
        self.sam: Sam = ARCHITECTURES["vit_t"].build()
        _aim(self.sam)
        self.sam.prompt_encoder.mask_downscaling.requires_grad_(False)  # no mask is ever given as a prompt

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        """Loss of one batch of drawn shapes, placed somewhere on SAM's input."""
        spare = ARCHITECTURES["vit_t"].tokens - batch["counts"].shape[-1] // ARCHITECTURES["vit_t"].patch
        top, left = (int(torch.randint(spare + 1, ())) for _ in range(2))
        losses, single = self._losses(batch, top, left)
        self.log_dict(
            {f"train_{name}": loss for name, loss in losses.items()} | {"train_dice": single.mean()}
        )
        return self.total(batch, losses)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        """Dice of SAM's single mask for point and for box prompts."""
        _, single = self._losses(batch, 0, 0)
        points = single[:, : _points(single.shape[1])]
        boxes = single[:, _points(single.shape[1]) :]
        values = {"val_dice_point": points.mean(), "val_dice_box": boxes.mean()}
        self.log_dict(values, batch_size=len(single), prog_bar=True)

    def write(self, folder: Path) -> None:
        """Write the weights in half precision, and their card."""
        if not self.trainer.is_global_zero:
            return
        output = folder / "sam_vit_t.safetensors"
        state = {
            name: tensor.detach().cpu().half().contiguous() for name, tensor in self.sam.state_dict().items()
        }
        with whole_file(output, overwrite=True) as part:
            save_file(state, part)
        metrics = {name: round(float(value), 4) for name, value in self.trainer.callback_metrics.items()}
        card = {
            "what": "Segment Anything, size vit_t, pretrained on drawn shapes; half precision",
            "sha256": file_sha256(output),
            "licence": "Apache-2.0",
            "data": "drawn by rbs.synthetic.shapes; no patient data",
            "command": "rbs fit --config experiments/pretrain_sam.yaml",
            "seed": torch.initial_seed(),
            "steps": self.trainer.global_step,
            "metrics": {name: value for name, value in metrics.items() if name.startswith("val_")},
        }
        write_json(output.with_suffix(".json"), card)

    def _losses(self, batch: dict[str, Tensor], top: int, left: int) -> tuple[dict[str, Tensor], Tensor]:
        """Named losses, and the Dice of the single mask of each prompt, (B, P)."""
        picture = picture_of(batch["counts"], self.sam.pixel_mean, self.sam.pixel_std)
        embeddings = encode_window(self.sam.image_encoder, picture, top, left)
        logits, quality = self._predict(embeddings, batch["points"], batch["boxes"], top, left)
        target = F.adaptive_avg_pool2d(batch["masks"].float(), (logits.shape[-2], logits.shape[-1]))
        target = target[:, :, None].expand_as(logits)
        focal = sigmoid_focal_loss(logits, target, alpha=0.75).mean((-2, -1))
        overlap = _dice(logits.sigmoid(), target)
        mask_loss = 5 * focal + (1 - overlap)
        best = mask_loss[:, :, 1:].min(dim=2).values
        found, there = logits > 0, target > 0.5
        union = (found | there).sum((-2, -1)).clamp(min=1)
        iou = (found & there).sum((-2, -1)) / union
        losses = {"mask": (mask_loss[:, :, 0] + best).mean(), "iou": F.mse_loss(quality, iou)}
        losses["total"] = losses["mask"] + losses["iou"]
        return losses, _dice(found.float(), there.float())[:, :, 0].detach()

    def _predict(
        self, embeddings: Tensor, points: Tensor, boxes: Tensor, top: int, left: int
    ) -> tuple[Tensor, Tensor]:
        """Mask logits (B, P, 4, hm, wm) and quality (B, P, 4); the first half of P by points."""
        prompts, decoder = self.sam.prompt_encoder, self.sam.mask_decoder
        b, p = points.shape[:2]
        rows, columns = embeddings.shape[-2:]
        patch = ARCHITECTURES["vit_t"].patch
        offset = points.new_tensor([left * patch, top * patch])
        n = _points(p)
        spots = (points[:, :n] + offset).reshape(-1, 1, 2)
        by_point, _ = prompts((spots, spots.new_ones(len(spots), 1)), None, None)
        by_box, _ = prompts(None, (boxes[:, n:] + offset.repeat(2)).reshape(-1, 4), None)
        both = [by_point.unflatten(0, (b, n)), by_box.unflatten(0, (b, p - n))]
        sparse = torch.cat(both, dim=1).flatten(0, 1)
        # The decoder takes one image and many prompts. Of several images, the embeddings come in by
        # way of the dense prompts, which it adds to the (here empty) image.
        no_mask = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = embeddings.repeat_interleave(p, dim=0) + no_mask
        positions = window_positions(prompts, rows, columns, top, left)
        masks, quality = decoder.predict_masks(torch.zeros_like(embeddings[:1]), positions, sparse, dense)
        return masks.unflatten(0, (b, p)), quality.unflatten(0, (b, p))


@torch.no_grad()
def _aim(sam: Sam) -> None:
    """Start SAM so that a prompt attends to the place it points at.

    SAM's positional code is made for prompts that fill its picture; ours are a few hundredths of it
    wide, so its frequencies are raised. Queries and keys of the decoder's cross-attention start
    alike, so that equal positions attend to each other: to find that from a random start costs more
    steps than all the rest.
    """
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(4)
    transformer = sam.mask_decoder.transformer
    crossings = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossings += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in crossings:
        attention.q_proj.weight.mul_(2.5)
        attention.k_proj.weight.copy_(attention.q_proj.weight)


def _points(prompts: int) -> int:
    return prompts // 2


def _dice(a: Tensor, b: Tensor) -> Tensor:
    return (2 * (a * b).sum((-2, -1)) + 1) / (a.sum((-2, -1)) + b.sum((-2, -1)) + 1)
