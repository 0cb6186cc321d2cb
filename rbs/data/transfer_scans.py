"""Labelled scans beside those of a transfer set, whose labels only a teacher knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rbs.data.datasets import Sample
from rbs.data.labelled_scans import LabelledScans, LabelledScansDataModule
from rbs.data.manifest import Case, Manifest
from rbs.errors import ManifestError, RbsError

UNLABELLED = -1
"""Label of every pixel of a scan of the transfer set."""


class TransferScansDataModule(LabelledScansDataModule):
    """Batches of labelled scans and of a transfer set, for `rbs.tasks.distil_segmenter`.

    The labels of the transfer set, if there are any, are not used: they are `UNLABELLED`.

    Args:
        manifest: The CSV that lists the labelled cases.
        transfer: The CSV that lists the transfer set, whose training patients are taken: unlabelled
            scans, or those that `rbs.tasks.draw_scans` wrote. None draws phantom children without
            end.
        transfer_share: Share of the samples that come from the transfer set; 1 shows no label.
        options: Further arguments of `LabelledScansDataModule`.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str = "data/phantoms/manifest.csv",
        *,
        transfer: Path | None = None,
        transfer_share: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(manifest, **options)
        if not 0 < transfer_share <= 1:
            raise RbsError(f"a transfer share of {transfer_share:g}", remedy="give one above 0, up to 1")
        self.transfer, self.transfer_share = transfer, transfer_share

    def setup(self, stage: str) -> None:
        """See `CropDataModule.setup`; in training the transfer set is read, too."""
        if stage == "fit" and "transfer" not in self._kept:
            self._kept["transfer"] = [] if self.transfer is None else self._read("transfer")
        super().setup(stage)

    def cases(self, split: str) -> list[Case]:
        """See `CropDataModule.cases`; the split "transfer" is the transfer set.

        Raises:
            ManifestError: One of the manifests is not usable.
        """
        if split != "transfer":
            return super().cases(split)
        if self.transfer is None:
            return []
        cases = Manifest.read(self.transfer).split("train")
        if not cases:
            fault, remedy = "it lists no training patient", "give its scans the split train"
            raise ManifestError(fault, file=self.transfer, remedy=remedy)
        return cases

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of whole scans, with labels and without."""
        labelled = self._scans("train", seed=self.seed)
        # Another seed: where both draw phantoms, they draw others.
        unlabelled = self._scans("transfer", seed=self.seed + 1)
        return self._training_loader(_Both(labelled, unlabelled, self.transfer_share), self.batch_size)


class _Both(Dataset[Sample]):
    """Samples of both sets in turn, each set in its own order without gaps.

    Args:
        labelled: Samples with labels.
        unlabelled: Samples whose labels are not used.
        share: Share of the latter.
    """

    def __init__(self, labelled: LabelledScans, unlabelled: LabelledScans, share: float) -> None:
        self.labelled, self.unlabelled, self.share = labelled, unlabelled, share

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> Sample:
        before, after = (int(np.floor(n * self.share + 1e-9)) for n in (index, index + 1))
        sample = self.labelled[index - before] if before == after else self.unlabelled[before]
        sample.pop("expectation", None)  # which one of the sets may lack
        if before < after:
            sample["labels"] = torch.full_like(sample["labels"], UNLABELLED)
        return sample
