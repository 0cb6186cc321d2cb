"""Training of a segmenter from one labelled scan, guided by image reconstruction."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from rbs.segmentation.reconstruction import ReconstructionTeacher, hint
from rbs.segmentation.segmenter import EncoderDecoder
from rbs.tasks.segmentation import SegmentationTask
from rbs.tasks.task import Batch, labels_of


class OneLabelTask(SegmentationTask):
    r"""Dice and cross-entropy on carried labels, and the hint of a reconstruction teacher.

    .. math::
        L = L_\text{labels} + \sum_{l=1}^{2} (1 - \cos(s_l, t_l)) + L_\text{reconstruction}

    s and t are the last two decoder levels of student and teacher (OS-MedSeg, arXiv 2408.03616,
    with both weights 1). Teacher and student learn at the same time: the first from the
    reconstruction alone, the second from the other terms.

    Args:
        segmenter: The student.
        hinted: False trains on the labels alone.
        lr: See `SegmentationTask`, as all that follow.
        weight_decay: Likewise.
        warmup_steps: Likewise.
        output: Likewise.
    """

    def __init__(
        self,
        segmenter: EncoderDecoder,
        hinted: bool = True,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 50,
        output: Path | None = None,
    ) -> None:
        super().__init__(
            segmenter, lr=lr, weight_decay=weight_decay, warmup_steps=warmup_steps, output=output
        )
        self.teacher = ReconstructionTeacher(segmenter) if hinted else None

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """See `SegmentationTask.losses`."""
        inputs = self.inputs(batch)
        logits, features = self.segmenter.logits_with_features(*inputs)
        labels = labels_of(batch, self.labelled)
        terms = {"labels": self.objective(logits.flatten(0, 1), labels.flatten(0, 1))}
        if self.teacher is not None:
            terms["reconstruction"], guide = self.teacher(*inputs)
            terms["hint"] = hint(features, guide)
        return terms | {"total": sum(terms.values(), start=terms["labels"].new_zeros(()))}
