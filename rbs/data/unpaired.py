"""Good and poor images of different patients, from which a degradation is learned; scans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from rbs.data.common_patients import common_patients
from rbs.data.datasets import GRID, EpochSampler, place_crop, require_grid
from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Case, Manifest, manifest_record
from rbs.degradation.learned import good_on_grid, level_of
from rbs.degradation.noise_filter import NoiseFilter, estimate_noise_filter, finest_power
from rbs.errors import ManifestError, RbsError, ScanError
from rbs.scans.resampling import same_spacing
from rbs.scans.scan import Array, Spacing

FEWEST = 10
"""Scans of a side without which what is learned is those patients, not their camera."""

_TRIES = 4
_RESCALED = 1.2
"""Power near the highest frequency over that of raw counts, above which a scan was rescaled."""


@dataclass(frozen=True)
class Domain:
    """Scans of one side.

    Attributes:
        cases: Their rows of the manifest.
        images: Good expectations in multiples of their level, or poor counts, float32 (V, H, W).
        levels: Levels, counts (`rbs.degradation.learned.level_of`).
    """

    cases: list[Case]
    images: list[Array]
    levels: list[float]


class UnpairedImages(L.LightningDataModule, ABC):
    """Random crops of good images, and of poor ones of other patients.

    Args:
        good: Manifest of good images.
        poor: Manifest of poor ones.
        crop: Rows and columns of crops, multiples of 16.
        batch_size: Crops of each side in a batch.
        samples_per_epoch: Crops of each side in an epoch.
        num_workers: Processes that prepare batches.
        seed: Seed of all random choices.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        good: str | Path,
        poor: str | Path,
        *,
        crop: tuple[int, int],
        batch_size: int,
        samples_per_epoch: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        require_grid(crop)
        if min(batch_size, samples_per_epoch) < 1 or seed < 0:
            fault = f"batches of {batch_size}, {samples_per_epoch} samples an epoch, seed {seed}"
            raise RbsError(fault, remedy="give at least 1, and a seed of 0 or more")
        self.good, self.poor, self.crop = Path(good), Path(poor), crop
        self.batch_size, self.samples_per_epoch = batch_size, samples_per_epoch
        self.num_workers, self.seed = num_workers, seed

    @abstractmethod
    def measured(self) -> dict[str, Any]:
        """What a model takes of the images before it is trained (`DegradationModel.prepare`)."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Record of the images, for weights: no patient is named."""

    @abstractmethod
    def _crops(self) -> Dataset[dict[str, torch.Tensor]]:
        """Crops, whose index counts on over epochs."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of random crops, other ones each epoch."""
        crops = self._crops()
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = EpochSampler(crops, num_replicas=ranks, rank=rank)
        return DataLoader(
            crops,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


class UnpairedDataModule(UnpairedImages):
    """Crops of good expectations, and of counts of poor scans of other patients.

    Pixel size is a fact of the header: good expectations are laid on the pixels of the poor scans,
    counts kept, before anything is learned. Counts of poor scans may have been filtered before
    export; the filter is found in their noise. Patients of the split "train" are used, and those of
    the poor scans are in no split of the good ones: restorers are trained and tested on these.

    Training batches hold "good" and "poor", float32 (B, 1, h, w), one view each, and "level" (B,),
    the level of the poor scans.

    Args:
        good: Manifest of good scans whose expectation is known (truth files).
        poor: Manifest of poor scans; their scans stand in its column "standard".
        crop: Rows and columns of crops, multiples of 16, best as wide as the body; narrower where a
            scan is.
        batch_size: Crops of each side in a batch.
        samples_per_epoch: Crops of each side in an epoch.
        num_workers: Processes that prepare batches.
        seed: Seed of all random choices.

    Attributes:
        sides: The scans, after `setup`.
        shown: Rows and columns of crops, after `setup`.
        spacing_mm: Row and column spacing of all, mm.
        noise: Filter of the noise of the poor scans.

    Raises:
        RbsError: An argument is out of range.
    """

    sides: tuple[Domain, Domain]
    spacing_mm: Spacing
    noise: NoiseFilter

    def __init__(
        self,
        good: str | Path = "data/good/manifest.csv",
        poor: str | Path = "data/poor/manifest.csv",
        *,
        crop: tuple[int, int] = (96, 192),
        batch_size: int = 2,
        samples_per_epoch: int = 1000,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            good,
            poor,
            crop=crop,
            batch_size=batch_size,
            samples_per_epoch=samples_per_epoch,
            num_workers=num_workers,
            seed=seed,
        )
        self.shown = list(crop)

    def setup(self, stage: str) -> None:
        """Read both sides.

        Raises:
            ManifestError: A manifest is not usable, a side has too few scans or scans of several
                pixel sizes, a good scan has no truth, or both sides have a patient in common.
            ScanError: A scan cannot be read; a poor one was rescaled, or the pixels of a good one
                are too coarse.
        """
        if hasattr(self, "sides"):
            return
        listed, other = (_listed(file) for file in (self.good, self.poor))
        good, poor = listed.split("train"), other.split("train")
        refuse_common_patients(listed.cases, poor, self.poor)
        bar = tqdm(poor, desc="poor scans", leave=False)
        counted = [load_case(case, require_raw=False) for case in bar]
        self.spacing_mm = _one_spacing(poor, counted)
        counts = [scan.standard for scan in counted]
        for case, image in zip(poor, counts, strict=True):
            _refuse_rescaled(image, self.spacing_mm, case.standard[0])
        self.noise = estimate_noise_filter(counts, self.spacing_mm)
        levels = [level_of(image, self.spacing_mm) for image in counts]
        expected = [self._expected(case) for case in tqdm(good, desc="good scans", leave=False)]
        relative = [image / np.float32(level_of(image, self.spacing_mm)) for image in expected]
        self.sides = Domain(good, relative, [1.0] * len(good)), Domain(poor, counts, levels)
        for axis in (0, 1):
            smallest = min(image.shape[1 + axis] for image in (*relative, *counts))
            self.shown[axis] = min(self.crop[axis], smallest // GRID * GRID)
        if not min(self.shown):
            fault = f"a scan has fewer than {GRID} rows or columns on pixels of {self.spacing_mm} mm"
            raise ManifestError(fault, file=self.poor, remedy="leave it out")

    def _expected(self, case: Case) -> Array:
        """The expectation of a good scan on the pixels of the poor ones."""
        if case.truth is None:
            fault = f"patient {case.patient} has no truth file, and degrading acts on expected counts"
            remedy = "give phantoms as good scans, or restored scans as truth files"
            raise ManifestError(fault, file=self.good, remedy=remedy)
        scan = load_case(case)
        assert scan.expectation is not None  # of a case with a truth file
        try:
            return good_on_grid(scan.expectation, scan.spacing_mm, self.spacing_mm)
        except ScanError as error:
            raise ScanError(error.fault, file=case.standard[0], remedy=error.remedy) from error

    def provenance(self) -> dict[str, Any]:
        """See `UnpairedImages.provenance`."""
        good, poor = self.sides
        return {
            "good": {**manifest_record(self.good), "scans": len(good.cases)},
            "poor": {**manifest_record(self.poor), "scans": len(poor.cases)},
            "counts_per_pixel": [round(min(poor.levels), 4), round(max(poor.levels), 4)],
            "spacing_mm": [round(min(self.spacing_mm), 4), round(max(self.spacing_mm), 4)],
            "views": sorted({len(image) for image in (*good.images, *poor.images)}),
            "shows": "scans",
        }

    def measured(self) -> dict[str, Any]:
        """See `UnpairedImages.measured`."""
        good, poor = self.sides
        about = {"spacing_mm": self.spacing_mm, "noise": self.noise}
        return {"good": good.images, "levels": poor.levels, **about}

    def _crops(self) -> _Crops:
        rows, columns = self.shown
        return _Crops(self.sides, (rows, columns), self.samples_per_epoch, self.seed)


class _Crops(Dataset[dict[str, torch.Tensor]]):
    """A crop of a good scan and one of a poor scan; the index counts on over epochs."""

    def __init__(self, sides: tuple[Domain, Domain], crop: tuple[int, int], length: int, seed: int) -> None:
        self.sides, self.crop, self.length, self.seed = sides, crop, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        numbers = [int(rng.integers(len(side.images))) for side in self.sides]
        crops = [self._crop(side.images[n], rng) for side, n in zip(self.sides, numbers, strict=True)]
        level = torch.tensor(self.sides[1].levels[numbers[1]], dtype=torch.float32)
        return {"good": crops[0], "poor": crops[1], "level": level}

    def _crop(self, image: Array, rng: np.random.Generator) -> torch.Tensor:
        """A crop of one view that shows some of the body, perhaps flipped from left to right."""
        view = image[[int(rng.integers(len(image)))]]
        top, left = place_crop(view, self.crop, rng, enough=0.5 * float(view.mean()), tries=_TRIES)
        shown = view[:, top : top + self.crop[0], left : left + self.crop[1]]
        shown = shown[:, :, ::-1] if rng.random() < 0.5 else shown
        return torch.from_numpy(np.ascontiguousarray(shown, dtype=np.float32))


def _listed(file: Path) -> Manifest:
    """A manifest with enough scans in the split "train".

    Raises:
        ManifestError: They are too few, or the manifest lists frames.
    """
    try:
        listed = Manifest.read(file)
    except ManifestError as error:
        if "frame" in _first_line(file):
            fault = "it lists frames, and a degradation of counts is learned from scans"
            raise ManifestError(fault, file=file, remedy="give a manifest of scans") from error
        raise
    if (number := len(listed.split("train"))) < FEWEST:
        fault = f"{number} of its scans are in split train, and a degradation is learned from {FEWEST}"
        raise ManifestError(fault, file=file, remedy="add scans, or give more of them the split train")
    return listed


def _first_line(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            return [name.strip() for name in lines.readline().split(",")]
    except OSError:
        return []


def _one_spacing(cases: list[Case], scans: list[LoadedCase]) -> Spacing:
    first = scans[0].spacing_mm
    for case, scan in zip(cases, scans, strict=True):
        if not same_spacing(first, scan.spacing_mm):
            fault = f"its pixels are {scan.spacing_mm} mm, those of {cases[0].standard[0]} {first} mm"
            remedy = "train a degrader for each pixel size"
            raise ManifestError(fault, file=case.standard[0], remedy=remedy)
    return first


def _refuse_rescaled(counts: Array, spacing_mm: Spacing, file: Path) -> None:
    """Refuse counts (V, H, W) whose noise is that of no counts, filtered or not."""
    power = finest_power(counts, spacing_mm)
    if power > _RESCALED:
        fault = f"its finest detail has {power:.1f} times the noise of raw counts: they were rescaled"
        remedy = "export them without a factor; leave a scan with hot pixels out"
        raise ScanError(fault, file=file, remedy=remedy)


def refuse_common_patients(good: Sequence[Case], poor: Sequence[Case], manifest: Path) -> None:
    """Refuse a patient on both sides.

    Raises:
        ManifestError: There is one.
    """
    for case, other in common_patients(good, poor):
        fault = f"patient {other.patient} is patient {case.patient} of the good scans"
        remedy = "give good and poor scans of different patients, or train on the pairs themselves"
        raise ManifestError(fault, file=manifest, remedy=remedy)
