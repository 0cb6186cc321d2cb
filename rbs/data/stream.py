"""Phantom children without end: every training batch shows new children."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from rbs.data.bone_scans import RBSDataModule
from rbs.data.datasets import Sample, collate
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.data.samples import Crops
from rbs.errors import RbsError
from rbs.scans.scan import align
from rbs.synthetic.cohort import Acquisition, Patient, draw_patient
from rbs.synthetic.skeleton import SPACING_MM, VIEWS

_STREAM = 0x5742
"""Sets the children of a stream apart from those of a cohort with the same seed."""
_ACQUISITION = Acquisition()
SURVEYED = 16
"""Children of a stream that stand for all."""


class PhantomStreamDataModule(RBSDataModule):
    """Training crops of phantom children drawn on the fly; other scans come from a manifest.

    Batches are those of `RBSDataModule`. Child n depends on the seed and n alone, whatever the
    number of workers and ranks, and is never one of a cohort that `rbs simulate` writes, with
    whatever seed. A worker holds one child at a time.

    Args:
        manifest: The CSV of the validation and test cases.
        crops_per_child: Crops of each child, in one batch; divides `batch_size` and
            `samples_per_epoch`.
        options: Further arguments of `RBSDataModule`, all but `realisations`; no `degrader`
            and no `facts`.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str | Path = "data/phantoms/manifest.csv",
        *,
        crops_per_child: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(manifest, realisations=None, **options)
        batch, epoch = self.batch_size, self.samples_per_epoch
        if crops_per_child < 1 or batch % crops_per_child or epoch % crops_per_child:
            raise RbsError(
                f"{crops_per_child} crops a child do not divide batches of {batch} and epochs of {epoch}"
                " crops",
                remedy="choose crops_per_child so that it divides both",
            )
        if self.facts is not None:
            fault = "the facts of children of a stream are not kept"
            raise RbsError(fault, remedy="write them with `rbs simulate`, and use RBSDataModule")
        if self.degrader is not None:
            fault = "children of a stream are not degraded, each of which is shown once"
            raise RbsError(fault, remedy="write them with `rbs simulate`, and use RBSDataModule")
        self.crops_per_child = crops_per_child

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of random crops of children that are shown once."""
        children = self.batch_size // self.crops_per_child
        return self._training_loader(self._children(), children, collate_fn=_collate)

    def _children(self) -> Children:
        return Children(
            length=self.samples_per_epoch // self.crops_per_child,
            crops=self.crops_per_child,
            seed=self.seed,
            settings=self._options() | {"length": self.crops_per_child},
        )

    def _surveyed(self) -> list[LoadedCase]:
        return [draw_child(self.seed, number)[1] for number in range(SURVEYED)]

    def _read(self, split: str) -> list[LoadedCase]:
        return [] if split == "train" else super()._read(split)

    def _check_training(self) -> None:
        """A phantom has all that any kind of pair needs."""


class Children(Dataset[list[Sample]]):
    """Item n is all crops of child n; the index counts on over epochs (see `EpochSampler`).

    Args:
        length: Children an epoch.
        crops: Crops a child.
        seed: Seed.
        settings: Arguments of `Crops`.
    """

    def __init__(self, *, length: int, crops: int, seed: int, settings: dict[str, Any]) -> None:
        self.length, self.crops, self.seed, self.settings = length, crops, seed, settings

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> list[Sample]:
        case, child = draw_child(self.seed, number)
        crops = Crops([case], [child], **self.settings)
        # Crops are numbered through the whole stream, so that no two children are cropped alike.
        return [crops[number * self.crops + crop] for crop in range(self.crops)]


def draw_child(seed: int, number: int, lesions: int | None = None) -> tuple[Case, LoadedCase]:
    """Child `number` of the stream of a seed, as it would be read from its files.

    Args:
        seed: Of the stream.
        number: Of the child.
        lesions: Number of its lesions; None draws it.
    """
    seeds = np.random.SeedSequence([seed, number], spawn_key=(_STREAM,))
    patient = draw_patient(seeds, _ACQUISITION, lesions)
    return Case(f"stream-{number}", "train", (), ()), loaded_patient(patient)


def loaded_patient(patient: Patient) -> LoadedCase:
    """A drawn patient as it would be read from its files."""
    truth = patient.phantom
    return LoadedCase(
        rapid=align(patient.rapid, VIEWS),
        standard=align(patient.standard, VIEWS),
        exposure=_ACQUISITION.standard_velocity / _ACQUISITION.rapid_velocity,
        labels=align(truth.labels, VIEWS),
        expectation=align(truth.expectation, VIEWS),
        views=VIEWS,
        spacing_mm=(SPACING_MM, SPACING_MM),
    )


def _collate(children: Sequence[list[Sample]]) -> Any:
    return collate([sample for child in children for sample in child])
