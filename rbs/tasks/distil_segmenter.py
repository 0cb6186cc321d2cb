"""Task-specific distillation: a large teacher of the same regions teaches a small segmenter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rbs.distillation.segmenter import feature_distance, output_divergence
from rbs.errors import CheckpointError, RbsError
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.segmenter import Segmenter
from rbs.tasks.segmentation import SegmentationTask
from rbs.tasks.task import Batch, labels_of
from rbs.weights.shipped import teacher_folder

_NEEDED = "give a segmenter.safetensors, or the folder of a teacher of `make adapt-sam`, as --model.teacher"


class DistilSegmenter(SegmentationTask):
    r"""Training of a segmenter by a frozen teacher, with labels where a scan has them.

    After Liang et al., "Task-Specific Knowledge Distillation from the Vision Foundation Model for
    Enhanced Medical Image Segmentation" (arXiv 2503.06976): the teacher was fine-tuned on the
    labelled scans first, and teaches on a transfer set that may be larger
    (`rbs.data.transfer_scans`). The loss is

    .. math::
        L = L_\text{labels} + w_o L_\text{outputs} + w_f L_\text{features} ,

    Dice and cross-entropy on the labelled scans of the batch, if any, and on all of them
    `output_divergence` and `feature_distance` of `rbs.distillation.segmenter`. Features are those
    of the prior's embedding; the student's pass a convolution of 1 x 1 that is trained along and
    thrown away.

    With `output_weight` 0, an unadapted SAM as the teacher and no labels this is task-agnostic
    distillation, whose weights a training from labels starts from (`init_from`).

    Args:
        segmenter: The student.
        teacher: Weight file of a segmenter, folder of an adapted SAM, or "shipped".
        embedding_dim: Channels of the teacher's embedding.
        temperature: Temperature of both softmaxes.
        output_weight: Factor of the divergence of outputs.
        feature_weight: Factor of the distance of features; 0 trains on outputs alone.
        init_from: See `SegmentationTask`, as the next four.
        lr: Likewise.
        weight_decay: Likewise.
        warmup_steps: Likewise.
        output: Likewise.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        teacher: Path | None = None,
        embedding_dim: int = 128,
        temperature: float = 2.0,
        output_weight: float = 1.0,
        feature_weight: float = 0.5,
        init_from: Path | None = None,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        output: Path | None = None,
    ) -> None:
        super().__init__(segmenter, init_from, lr, weight_decay, warmup_steps, output=output)
        if temperature <= 0 or min(output_weight, feature_weight) < 0 or not output_weight + feature_weight:
            raise RbsError(
                f"a temperature of {temperature:g}, weights {output_weight:g} and {feature_weight:g}",
                remedy="give a temperature above 0, and a weight above 0 to outputs, features or both",
            )
        self.teacher, self.temperature = teacher, temperature
        self.output_weight, self.feature_weight = output_weight, feature_weight
        self.projection = nn.Conv2d(segmenter.embedding_dim, embedding_dim, 1) if feature_weight else None
        # A dict hides the teacher from the module tree: it is neither trained nor saved.
        self._outside: dict[str, Segmenter] = {}
        self._digest = ""

    def setup(self, stage: str) -> None:
        """Load the teacher, and the weights to start from.

        Raises:
            RbsError: No teacher is named, or it does not fit the student.
            CheckpointError: A file cannot be read.
        """
        super().setup(stage)
        if stage != "fit":
            return
        if self.teacher is None:
            raise RbsError("distillation needs a teacher, but none is named", remedy=_NEEDED)
        loaded = load_segmenter(teacher_folder(self.teacher))
        teacher, self._digest = loaded.segmenter, loaded.sha256
        if teacher.labels != self.segmenter.labels:
            fault = f"it finds the regions {', '.join(teacher.labels.names)}, which the student does not"
            raise CheckpointError(fault, file=self.teacher, remedy="name a teacher of the same images")
        if self.projection is not None and teacher.embedding_dim != self.projection.out_channels:
            remedy = f"set --model.embedding_dim {teacher.embedding_dim}"
            fault = f"its embedding has {teacher.embedding_dim} channels, not {self.projection.out_channels}"
            raise CheckpointError(fault, file=self.teacher, remedy=remedy)
        self._outside["teacher"] = teacher.requires_grad_(False).eval()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss: "labels" if a scan has them, "outputs", "features", and "total"."""
        inputs = self.inputs(batch)
        logits, features = self.segmenter.logits_with_features(*inputs)
        teacher = self._outside["teacher"].to(self.device)
        with torch.no_grad():
            wanted, taught = teacher.logits_with_features(*inputs)
        terms: dict[str, Tensor] = {}
        labels = labels_of(batch, self.labelled)
        labelled = (labels >= 0).flatten(1).all(dim=1)
        if labelled.any():
            terms["labels"] = self.objective(logits[labelled].flatten(0, 1), labels[labelled].flatten(0, 1))
        # Without outputs and labels every weight still has a gradient: distributed training asks.
        total = sum(terms.values(), 0 * logits.sum())
        if self.output_weight:
            terms["outputs"] = output_divergence(logits, wanted, self.temperature)
            total = total + self.output_weight * terms["outputs"]
        if self.projection is not None:
            shape = logits.shape[-2:]
            projected = self.projection(_embedding(self.segmenter, features, shape))
            terms["features"] = feature_distance(projected, _embedding(teacher, taught, shape))
            total = total + self.feature_weight * terms["features"]
        return terms | {"total": total}

    def started_from(self) -> dict[str, str | None]:
        """See `SegmentationTask.started_from`; with the digest of the teacher."""
        return super().started_from() | {"teacher": self._digest}


def _embedding(segmenter: Segmenter, features: list[Tensor], shape: torch.Size) -> Tensor:
    """The embedding of images of `shape` rows and columns, without the cells of their padding.

    A SAM sees each view by itself: the mean over views.
    """
    rows, columns = (-(-size // segmenter.embedding_stride) for size in shape)
    maps = segmenter.embedding(features)[..., :rows, :columns]
    return maps.unflatten(1, (-1, segmenter.embedding_dim)).mean(dim=1)
