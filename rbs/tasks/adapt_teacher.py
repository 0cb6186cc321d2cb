"""Adapting SAM to bone scans or frames: masks of regions without prompts, from labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbs.restorers.image_domain import DOMAINS, DomainName
from rbs.segmentation.adapters import Mode, save_teacher, start, trainable_teacher
from rbs.segmentation.dice import DiceTally, regions_found, regions_prompted, update_rows
from rbs.segmentation.objective import DiceCrossEntropy
from rbs.segmentation.sam import Size, build_sam, find_checkpoint
from rbs.tasks.task import Batch, TrainingTask, WarmupCosine, images_of, labels_of

_BATCHES_SEEN = 16
_VIEWS_A_STEP = 4
"""The decoder alone learns from the views of so many batches, at so many a step."""

_STATES = {"state_dict", "current_model_state"}
"""Entries of a checkpoint with weights: the averaged ones, and those of the last step."""

Find = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a scan (V, H, W) or frame (3, H, W) and its labels: masks of regions found, and labels as
large."""


class AdaptTeacher(TrainingTask):
    """Training of the mask decoder and, by `mode`, the image encoder on labelled images.

    The loss is `DiceCrossEntropy`. First the decoder alone learns for `decoder_steps` quick steps,
    from embeddings of a few scans that are computed once: the encoder is better not moved by a
    decoder that draws at random. At the end of training the teacher is written, and Dice per region
    on the validation patients; with mode "lora" also that of the untouched SAM when the true
    regions are shown to it by boxes ("base").

    Args:
        mode: "lora", "dora" and "ia3" adapt the encoder, see `rbs.segmentation.adapters`, "decoder"
            leaves it as it is, "full" trains all of it.
        size: SAM's size.
        rank: Rank of LoRA and DoRA.
        domain: What it looks at: scans ("roots") with the regions of the skeleton, or frames
            ("colours") with the lesion.
        checkpoint: SAM's base weights; None for the shipped ones, or Meta's, downloaded once.
        lr: Peak learning rate.
        weight_decay: Weight decay of AdamW.
        warmup_steps: Steps over which the learning rate rises.
        decoder_steps: Steps of the decoder alone, before those of the trainer.
        output: Folder that gets the teacher, as `teacher/` (mode "lora") or `teacher_<mode>/`, and
            the table `dice.csv`, which may hold other modes already. None writes nothing.
    """

    def __init__(
        self,
        mode: Mode = "lora",
        size: Size = "vit_t",
        rank: int = 8,
        domain: DomainName = "roots",
        checkpoint: Path | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 20,
        decoder_steps: int = 300,
        output: Path | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output)
        self.save_hyperparameters()
        self.mode, self.size, self.rank = mode, size, rank
        self.checkpoint, self.decoder_steps = checkpoint, decoder_steps
        # Without weights yet, but of the final shape: weight averaging copies the module before
        # `setup`.
        self.teacher = trainable_teacher(size, mode, rank, domain)
        self.images = DOMAINS[domain]
        self.objective = DiceCrossEntropy(1 + len(self.teacher.labels))
        self.labelled = self.teacher.labelled
        self._tally = DiceTally(self.teacher.labels)

    def setup(self, stage: str) -> None:
        """Load SAM's base weights.

        Raises:
            CheckpointError: They are missing or do not fit.
        """
        start(self.teacher, build_sam(self.size, self.checkpoint))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Loss of a batch, each scan at one of its noise levels."""
        images, labels = (self._upright(batch, x) for x in (self._any_level(batch), self._labels(batch)))
        logits = self.teacher.logits(*_inputs(images))
        loss = self.objective(logits.flatten(0, 1), labels.flatten(0, 1))
        self.log("train_loss", loss, batch_size=len(images))
        return self.total(batch, {"total": loss})

    def on_fit_start(self) -> None:
        """Teach the decoder alone, unless an interrupted training goes on."""
        if self.trainer.ckpt_path is not None:
            return
        embeddings, labels = self._embedded()
        no_mask = self.teacher.prompt_encoder.no_mask_embed
        decoder = [*self.teacher.mask_decoder.parameters(), *no_mask.parameters()]
        peak, steps = 2e-3, self.decoder_steps
        optimizer = torch.optim.AdamW(decoder, lr=peak, weight_decay=self.hparams["weight_decay"])
        schedule = WarmupCosine(optimizer, min(10, steps), steps)
        draws = torch.Generator().manual_seed(0)
        for _ in range(steps):
            views = torch.randint(len(embeddings), (_VIEWS_A_STEP,), generator=draws)
            optimizer.zero_grad()
            self.objective(self.teacher.decode(embeddings[views].float()), labels[views]).backward()
            torch.nn.utils.clip_grad_norm_(decoder, 1.0)
            optimizer.step()
            schedule.step()
        # Each process saw scans of its own; from here on all must hold the same weights.
        common = {name: tensor for name, tensor in self.state_dict().items() if "image_encoder" not in name}
        self.load_state_dict(self.trainer.strategy.broadcast(common), strict=False)

    @torch.no_grad()
    def _embedded(self) -> tuple[Tensor, Tensor]:
        """Packed embeddings (N, C, h, w) of some training views, and labels on their grid."""
        embeddings, labels = [], []
        loader = self.datamodule.train_dataloader()
        for batch in islice(loader, _BATCHES_SEEN):
            for _, images in self._levels(batch):
                views = self.images.views(self._upright(batch, images)).to(self.device)
                embeddings.append(self.teacher.encode_packed(views).half())
                truth = self._upright(batch, self._labels(batch)).flatten(0, 1)[:, None].to(self.device)
                labels.append(self.teacher.pack_labels(truth))
        return torch.cat(embeddings), torch.cat(labels)

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self._tally = DiceTally(self.teacher.labels)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Find the regions of whole scans or frames of both qualities."""
        self._count(self._tally, batch, self._found)

    def on_validation_epoch_end(self) -> None:
        """Log the mean Dice over regions."""
        self._tally.gather()
        for row in self._tally.rows(self.mode, "val"):
            self.log(f"val_dice_{row['level']}", float(row["mean"] or "nan"), prog_bar=True)

    def _found(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return regions_found(self.teacher, *_inputs(image[None].to(self.device)))[0], labels.to(self.device)

    def write(self, folder: Path) -> None:
        """Write the teacher and its table."""
        tallies: dict[str, DiceTally] = {
            self.mode: self._tally if self._tally.counted else self._tallied(self._found)
        }
        if self.mode == "lora":
            sam = build_sam(self.size, self.checkpoint).to(self.device)
            tallies["base"] = self._tallied(
                lambda image, labels: regions_prompted(
                    self.size, sam, image.to(self.device), labels.to(self.device), self.images
                )
            )
        if not self.trainer.is_global_zero:
            return
        base = find_checkpoint(self.size, self.checkpoint)
        name = "teacher" if self.mode == "lora" else f"teacher_{self.mode}"
        save_teacher(folder / name, self.teacher, mode=self.mode, rank=self.rank, base=base)
        rows = [row for mode, tally in tallies.items() for row in tally.rows(mode, "val")]
        update_rows(folder / "dice.csv", rows)

    @torch.no_grad()
    def _tallied(self, find: Find) -> DiceTally:
        """Dice on the validation scans, each process its share."""
        tally = DiceTally(self.teacher.labels)
        scans = self.datamodule.val_dataloader()
        for batch in islice(scans, self.global_rank, None, self.trainer.world_size):
            self._count(tally, batch, find)
        tally.gather()
        return tally

    # --- images and labels of a batch

    def _count(self, tally: DiceTally, batch: Batch, find: Find) -> None:
        for level, images in self._levels(batch):
            rows = zip(batch["case"].tolist(), batch["patient"], images, self._labels(batch), strict=True)
            for case, patient, image, labels in rows:
                tally.add(case, patient, level, *find(image, labels))

    def _labels(self, batch: Batch) -> Tensor:
        return labels_of(batch, self.labelled)

    def _levels(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """The images as acquired, at both noise levels."""
        poor, good = self.labelled.levels
        yield poor, images_of(batch, self.images)
        yield good, images_of(batch, self.images, "target")

    def _any_level(self, batch: Batch) -> Tensor:
        """Each image of the batch at a random one of its levels.

        Where the expectation is known it is the third level: a teacher is later shown restored
        scans, which hold hardly any noise.
        """
        levels = [images for _, images in self._levels(batch)]
        if "expectation" in batch:
            levels.append(batch["expectation"])
        chosen = torch.randint(len(levels), (len(levels[0]),))
        return torch.stack([levels[level][i] for i, level in enumerate(chosen.tolist())])

    def _upright(self, batch: Batch, images: Tensor) -> Tensor:
        """Undo the up-down flips of (B, C, h, w) where the images have an upright position."""
        flipped = batch["flip"][:, 1].to(images.device)[:, None, None, None]
        return torch.where(flipped, images.flip(-2), images) if self.labelled.upright else images

    # --- checkpoints without what is frozen: SAM's base weights have a file of their own

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out what is not trained."""
        super().on_save_checkpoint(checkpoint)
        frozen = {name for name, weight in self.named_parameters() if not weight.requires_grad}
        for part in _STATES & checkpoint.keys():
            checkpoint[part] = {name: w for name, w in checkpoint[part].items() if name not in frozen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put back what was left out, from the base weights that `setup` has loaded."""
        for part in _STATES & checkpoint.keys():
            checkpoint[part] = self.state_dict() | checkpoint[part]


def _inputs(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of a teacher, on which exposure and spacing have no effect."""
    return images, images.new_ones(len(images)), images.new_ones(len(images), 2)
