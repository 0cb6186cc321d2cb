"""Base classes of the data sets, for scans and for frames: random crops, whole images, batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler, default_collate

from rbs.data.augmentation.geometric import library
from rbs.distillation.prior_cache import PriorSource
from rbs.errors import RbsError
from rbs.scans.scan import Array, Spacing
from rbs.segmentation.prior import SemanticPrior

Sample = dict[str, Any]

GRID = 16
"""Crops begin and end on multiples of this many pixels, whole cells of semantic priors."""

_TYPES: dict[str, Any] = {"labels": np.int64, "other_labels": np.int64, "valid": np.bool_}


def require_grid(crop: Sequence[int]) -> None:
    """Refuse crops whose rows or columns are no multiples of `GRID`.

    Raises:
        RbsError: They are not.
    """
    if min(crop) < GRID or any(size % GRID for size in crop):
        fault = f"the crop {tuple(crop)} is not made of multiples of {GRID}"
        raise RbsError(fault, remedy="try 128 x 128")


def other_patients(cases: Sequence[Any], row: int) -> Iterator[int]:
    """Rows of other patients, the next one first."""
    for number in range(row + 1, row + len(cases)):
        if cases[number % len(cases)].patient != cases[row].patient:
            yield number % len(cases)


class EpochSampler(DistributedSampler):
    """Numbers of samples through all epochs: e n to (e + 1) n - 1 in epoch e, over the ranks.

    The number alone tells a worker process which sample to draw, also one that lives on from an
    earlier epoch. Lightning calls `set_epoch`, and leaves samplers of this base class in place
    under several ranks.

    Args:
        dataset: Its length is n.
        num_replicas: Number of ranks. Where it does not divide n, the first samples are repeated.
        rank: This rank.
    """

    def __init__(self, dataset: Dataset[Any], *, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)  # type: ignore[arg-type]
        return (first + index for index in super().__iter__())


class CaseDataset(Dataset[Sample], ABC):
    """Samples of cases whose images are in memory; one sample a case.

    Args:
        cases: Rows of the manifest.
        images: Their arrays.
        seed: Seed of all random choices.

    Attributes:
        placebo: Add the entry "other_labels" to samples: the labels of another patient in their
            place.
    """

    placebo = False

    def __init__(self, cases: Sequence[Any], images: Sequence[Any], *, seed: int) -> None:
        self.cases, self.images, self.seed = cases, images, seed

    def __len__(self) -> int:
        return len(self.images)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """The sample of this number."""

    def other_labels(self, row: int) -> dict[str, Array]:
        """The entry "other_labels", (V, H, W) on the grid of a case; {} unless both have labels.

        They are those of the next patient (`laid_on`).
        """
        own = self.images[row].labels
        if not self.placebo or own is None:
            return {}
        number = next(other_patients(self.cases, row), None)
        other = None if number is None else self.images[number].labels
        if other is None:
            return {}
        return {"other_labels": laid_on(own.shape, other)}

    def sample(
        self,
        row: int,
        arrays: dict[str, Array],
        *,
        exposure: float = 1.0,
        target_exposure: float = 1.0,
        crop: tuple[int, int, int, int] | None = None,
        flip: tuple[bool, bool] = (False, False),
    ) -> Sample:
        """A sample of the batch that the data module describes, as tensors.

        Args:
            row: The case.
            arrays: Images, (C, h, w) each, "rapid" among them.
            exposure: Exposure of "rapid".
            target_exposure: Exposure of "target".
            crop: Top, left, height, width; None for the whole image.
            flip: Left-right and up-down flips.
        """
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array, dtype=_TYPES.get(name, np.float32)))
            for name, array in arrays.items()
        }
        return tensors | {
            "exposure": torch.tensor(exposure, dtype=torch.float32),
            "target_exposure": torch.tensor(target_exposure, dtype=torch.float32),
            "case": torch.tensor(row),
            "crop": torch.tensor(crop or (0, 0, *arrays["rapid"].shape[1:])),
            "flip": torch.tensor(flip),
            "patient": self.cases[row].patient,
        }


class CropDataset(CaseDataset):
    """Random training crops; the index counts on over epochs (see `EpochSampler`).

    Args:
        cases: Rows of the manifest.
        images: Their arrays.
        realisations: Number of rapid images simulated of each case, or None.
        crop: Rows and columns.
        length: Samples an epoch.
        seed: Seed of all random choices.
        priors: Semantic priors of whole rapid images, from which each sample gets that of its crop.
    """

    def __init__(
        self,
        cases: Sequence[Any],
        images: Sequence[Any],
        *,
        realisations: int | None,
        crop: tuple[int, int],
        length: int,
        seed: int,
        priors: PriorSource | None = None,
    ) -> None:
        super().__init__(cases, images, seed=seed)
        self.realisations, self.crop, self.length, self.priors = realisations, crop, length, priors
        library()

    def __len__(self) -> int:
        return self.length

    @abstractmethod
    def realisation(self, row: int, number: int) -> tuple[Array, float, Spacing]:
        """A whole simulated rapid image (C, H, W) of a case, its exposure, and its spacing, mm."""

    def draw_case(self, index: int) -> tuple[int, np.random.Generator]:
        """The case of a sample, and the random numbers of everything else in it.

        Every len(images) samples in a row show every case once, in an order of their own.
        """
        lap, place = divmod(index, len(self.images))
        row = int(np.random.default_rng((self.seed, 0, lap)).permutation(len(self.images))[place])
        return row, np.random.default_rng((self.seed, 1, index))

    def prior(
        self,
        rapid: Array | None,
        exposure: float,
        spacing_mm: Spacing,
        crop: tuple[int, int, int, int],
        flip: tuple[bool, bool],
        views: Sequence[int],
    ) -> Sample:
        """The entry "prior" of a sample, cut from that of its whole rapid image; {} without priors.

        Args:
            rapid: The whole image (C, H, W); None where each crop is simulated afresh.
            exposure: Its exposure.
            spacing_mm: Its row and column spacing, mm; of a frame 1.
            crop: Top, left, height, width.
            flip: Left-right and up-down flips, applied after cropping.
            views: View that each channel of the sample shows.
        """
        if self.priors is None or rapid is None:
            return {}
        prior = self.priors(rapid, exposure, spacing_mm).crop(*crop).flip(*flip).decoded()
        shown = list(views)
        return {"prior": replace(prior, embedding=prior.embedding[:, shown], masks=prior.masks[:, shown])}


def collate(samples: Sequence[Sample]) -> Sample:
    """A batch of samples, their priors joined."""
    batch: Sample = default_collate([{k: v for k, v in s.items() if k != "prior"} for s in samples])
    if "prior" in samples[0]:
        batch["prior"] = SemanticPrior.cat([sample["prior"] for sample in samples])
    return batch


def laid_on(shape: tuple[int, ...], labels: Array) -> Array:
    """Labels (V, H, W) on a grid of another shape: cut, or background; views are repeated."""
    laid = np.zeros(shape, labels.dtype)
    _, height, width = (min(sides) for sides in zip(shape, labels.shape, strict=True))
    laid[:, :height, :width] = labels[[v % len(labels) for v in range(shape[0])], :height, :width]
    return laid


def place_crop(
    image: Array, crop: tuple[int, int], rng: np.random.Generator, *, enough: float, tries: int
) -> tuple[int, int]:
    """Top and left of a random crop of which enough is shown.

    Args:
        image: Counts, or 1 where pixels are valid, (C, H, W).
        crop: Rows and columns.
        rng: Source of everything random.
        enough: Mean of `image` over the crop from which a place is taken.
        tries: Places tried; after as many refusals the fullest is taken, so that empty margins stay
            rare but not unseen.
    """
    best, fullest = (0, 0), -1.0
    for _ in range(tries):
        top, left = (
            int(rng.integers((size - length) // GRID + 1)) * GRID
            for size, length in zip(image.shape[1:], crop, strict=True)
        )
        mean = float(image[:, top : top + crop[0], left : left + crop[1]].mean())
        if mean >= enough:
            return top, left
        if mean > fullest:
            best, fullest = (top, left), mean
    return best
