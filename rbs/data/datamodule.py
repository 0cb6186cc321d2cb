"""Base class of the data modules, for scans and for frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from rbs.data.datasets import CaseDataset, CropDataset, EpochSampler, collate, require_grid
from rbs.distillation.prior_cache import PriorSource
from rbs.errors import RbsError

_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


class CropDataModule(L.LightningDataModule, ABC):
    """Random training crops and whole validation and test images, from a manifest read in `setup`.

    Args:
        manifest: The CSV that lists the cases.
        realisations: Number of rapid images simulated of each case; None simulates one afresh for
            every crop.
        crop: Rows and columns of training crops, multiples of 16.
        batch_size: Training crops a batch (a rank).
        samples_per_epoch: Training crops an epoch, over all ranks.
        num_workers: Processes that prepare batches.
        seed: Seed of all random choices. A sample depends on it, the epoch and its place in the
            epoch alone: not on the number of workers or ranks.

    Attributes:
        placebo: Add to every sample the labels of another patient, as "other_labels".

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str | Path,
        *,
        realisations: int | None,
        crop: tuple[int, int],
        batch_size: int = 8,
        samples_per_epoch: int = 1000,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_grid(crop)
        if min(batch_size, samples_per_epoch) < 1 or (realisations is not None and realisations < 1):
            raise RbsError("batch_size, samples_per_epoch and realisations must be at least 1")
        if seed < 0:
            raise RbsError(f"the seed {seed} is negative")
        self.manifest = Path(manifest)
        self.realisations, self.crop = realisations, crop
        self.batch_size, self.samples_per_epoch = batch_size, samples_per_epoch
        self.num_workers, self.seed = num_workers, seed
        self.priors: PriorSource | None = None
        self.placebo = False
        self._kept: dict[str, list[Any]] = {}

    @abstractmethod
    def cases(self, split: str) -> list[Any]:
        """The cases of "train", "val" or "test"; the batch entry `case` indexes this list.

        Raises:
            ManifestError: The manifest is not usable.
        """

    @abstractmethod
    def training_ranges(self) -> dict[str, Any]:
        """Ranges of the training images, which weights carry so that they are checked in use."""

    @abstractmethod
    def _read(self, split: str) -> list[Any]:
        """Read the images of a split."""

    @abstractmethod
    def _check_training(self) -> None:
        """Refuse training images that do not fit the settings."""

    @abstractmethod
    def _crops(self) -> CropDataset:
        """The training set."""

    @abstractmethod
    def _whole(self, split: str) -> CaseDataset:
        """The images of a split, whole."""

    def setup(self, stage: str) -> None:
        """Read the images the stage needs: "fit" train and val, "validate" val, "test" test.

        Raises:
            ManifestError: The manifest or a case is not usable, a split is empty, an image is
                smaller than the crop, or a case lacks what the settings ask for.
            ScanError: A scan cannot be read.
            FrameError: A picture cannot be used.
        """
        for split in _SPLITS.get(stage, ()):
            if split not in self._kept:
                self._kept[split] = self._read(split)
        if stage == "fit":
            self._check_training()

    def attach_priors(self, priors: PriorSource, fill: PriorSource | None = None) -> None:
        """Add to training samples the entry "prior": of the very counts that a crop shows.

        Args:
            priors: Called for each sample by the process that prepares it.
            fill: Called first with every whole rapid image, each rank its share, so that `priors`
                only has to read files. None: `priors` computes, which it does in this process.

        Raises:
            RbsError: Rapid images are drawn afresh for each crop, so that no whole one exists.
        """
        if self.realisations is None:
            raise RbsError(
                "priors of whole rapid scans need numbered ones, but each crop has a rapid scan of its own",
                remedy="set --data.realisations 4, or --model.prior.source online",
            )
        if fill is None:
            self.num_workers = 0
        else:
            ranks, rank = self._ranks()
            crops = self._crops()
            numbers = list(product(range(len(crops.images)), range(self.realisations)))[rank::ranks]
            for row, number in tqdm(numbers, desc="semantic priors", unit="scan", disable=rank != 0):
                fill(*crops.realisation(row, number))
        self.priors = priors

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of random crops, other ones each epoch."""
        crops = self._crops()
        crops.placebo = self.placebo
        return self._training_loader(crops, self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        """Whole validation images, one at a time."""
        return self._whole_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Whole test images, one at a time."""
        return self._whole_loader("test")

    def _whole_loader(self, split: str) -> DataLoader[Any]:
        whole = self._whole(split)
        whole.placebo = self.placebo
        return self._loader(whole, 1)

    def _options(self) -> dict[str, Any]:
        """Arguments of `CropDataset` for the training set."""
        return {
            "realisations": self.realisations,
            "crop": self.crop,
            "length": self.samples_per_epoch,
            "seed": self.seed,
            "priors": self.priors,
        }

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _training_loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Any]:
        ranks, rank = self._ranks()
        sampler = EpochSampler(dataset, num_replicas=ranks, rank=rank)
        return self._loader(dataset, batch_size, sampler=sampler, **options)

    def _loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **{"collate_fn": collate, **options},
        )
