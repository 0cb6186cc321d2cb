"""Training samples and whole scans for restoring rapid bone scans.

What a network learns to restore is decided by the pair it is shown. If the simulated rapid scan R is thinned
out of its target S, squared error converges to R + (1 - p) E[lambda | R]: the noise of R is kept. So no pair
here shares a count: the target is the disjoint remainder S - R, an independent scan, or the expectation
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tqdm import tqdm

from rbs.data.augment import LARGEST_SEED, flip_alike
from rbs.data.manifest import Case, LoadedCase, Manifest, load_case
from rbs.errors import ManifestError, RbsError
from rbs.scans.counts import split, thin
from rbs.scans.scan import Array, View

Pairs = Literal["measured", "split", "expectation"]
Sample = dict[str, Any]

GRID = 16
"""Crops begin and end on multiples of this many pixels, so that they fall on whole cells of cached priors."""

_TRIES = 4
_ENOUGH = 0.5
"""A crop is taken when its mean count is this share of the scan's; after `_TRIES` refusals the fullest is."""

_WHOLE_SCAN_FRACTION = 0.5
"""Rapid exposure simulated for validation where no rapid scan was acquired."""


class RBSDataModule(L.LightningDataModule):
    """Rapid bone scans and their targets, from a manifest.

    Training batches hold random crops of both views, of B samples:

    ===================  ==================  ================================================================
    rapid                float32 (B,2,h,w)   raw counts of the rapid scan
    fraction             float32 (B,)        exposure of `rapid` relative to the standard scan
    target               float32 (B,2,h,w)   counts at the target's own exposure, sharing none with `rapid`
    target_fraction      float32 (B,)        exposure of `target` relative to the standard scan
    labels               int64 (B,2,h,w)     region labels; only if every training case has a truth file
    expectation          float32 (B,2,h,w)   expected counts of the standard scan; where labels are
    case                 int64 (B,)          row within the split
    crop                 int64 (B,4)         top, left, height, width in the aligned scan; multiples of 16
    flip                 bool (B,2)          left-right and up-down flips, applied after cropping
    views                int64 (B,2)         aligned view each channel shows: [0,1], or [v,v] for one twice
    patient              list[str]           identifiers
    ===================  ==================  ================================================================

    Validation and test batches are one whole scan each, not flipped, with as many channels V as it has views,
    so `views` is (1,V); truth is there if the case has it. They use the acquired rapid and standard scan;
    where there is no rapid scan, half of the standard scan's counts (drawn once and for all) is the input and
    the other the target.

    No file is opened before `setup`. The scans a stage needs are then read once and kept in RAM in compact
    types (about 5 MB for two views of 256x1024 with truth), which worker processes share.

    Args:
        manifest: The CSV that lists the cases.
        pairs: "split" deals the standard scan's counts into a rapid scan of random exposure and a disjoint
            remainder as the target; "measured" takes the acquired rapid and standard scans; "expectation"
            draws a fresh rapid scan from the known expectation, which is the target (phantoms only).
        fractions: Smallest and largest exposure of simulated rapid scans; the exposure is uniform between.
        crop: Rows and columns of training crops, multiples of 16.
        batch_size: Training crops a batch (a rank).
        samples_per_epoch: Training crops an epoch, over all ranks.
        num_workers: Processes that prepare batches.
        single_view_probability: Share of two-view crops that show one of their views twice instead, so that
            the restorer also learns scans of one view.
        seed: Seed of all random choices. A sample depends on it, the epoch and its place in the epoch alone:
            not on the number of workers or ranks.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str | Path = "data/phantoms/manifest.csv",
        *,
        pairs: Pairs = "split",
        fractions: tuple[float, float] = (0.25, 0.75),
        crop: tuple[int, int] = (256, 128),
        batch_size: int = 8,
        samples_per_epoch: int = 1000,
        num_workers: int = 2,
        single_view_probability: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(crop) < GRID or any(size % GRID for size in crop):
            raise RbsError(
                f"the crop {tuple(crop)} is not made of multiples of {GRID}", remedy="try 256 x 128"
            )
        if not 0 < fractions[0] <= fractions[1] < 1:
            raise RbsError(
                f"the fractions {tuple(fractions)} do not rise within 0 to 1", remedy="try 0.25 and 0.75"
            )
        if not 0 <= single_view_probability <= 1:
            raise RbsError(f"single_view_probability {single_view_probability} is not within 0 to 1")
        if min(batch_size, samples_per_epoch) < 1:
            raise RbsError("batch_size and samples_per_epoch must be at least 1")
        if seed < 0:
            raise RbsError(f"the seed {seed} is negative")
        self.manifest = Path(manifest)
        self.pairs: Pairs = pairs
        self.fractions = fractions
        self.crop = crop
        self.batch_size = batch_size
        self.samples_per_epoch = samples_per_epoch
        self.num_workers = num_workers
        self.single_view_probability = single_view_probability
        self.seed = seed
        self._manifest: Manifest | None = None
        self._kept: dict[str, list[LoadedCase]] = {}

    def setup(self, stage: str) -> None:
        """Read the scans the stage needs ("fit": train and val, "validate": val, "test" and "predict": test).

        Raises:
            ManifestError: The manifest or a case is not usable, a split is empty, a scan is smaller than the
                crop, or `pairs` asks for what a case has not.
            ScanError: A scan cannot be read.
        """
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for name in wanted.get(stage, ()):
            self._load(name)
        if stage == "fit":
            self._check_training()

    def cases(self, split: str) -> list[Case]:
        """The cases of "train", "val" or "test"; the batch entry `case` indexes this list.

        Raises:
            ManifestError: The manifest is not usable.
        """
        if self._manifest is None:
            self._manifest = Manifest.read(self.manifest)
        return self._manifest.split(split)

    def loaded(self, split: str, index: int) -> LoadedCase:
        """The whole arrays of one case, counts as float32, read now if the split was not set up.

        Raises:
            ManifestError: The case is not usable.
            ScanError: A scan cannot be read.
        """
        if split not in self._kept:
            return load_case(self.cases(split)[index])
        kept = self._kept[split][index]
        rapid = None if kept.rapid is None else kept.rapid.astype(np.float32)
        return replace(kept, rapid=rapid, standard=kept.standard.astype(np.float32))

    def training_ranges(self) -> dict[str, list[float]]:
        """What the training scans span, so that weights can tell later what they were not trained on.

        Returns:
            Lowest and highest "spacing_mm" (mm), "counts_per_pixel" (mean of a raw rapid view) and
            "fraction" (exposure of rapid scans).
        """
        scans = self._kept["train"]
        spacing = [value for scan in scans for value in scan.spacing_mm]
        if self.pairs == "measured":
            fractions = [scan.fraction for scan in scans if scan.fraction is not None]
            means = [float(view.mean()) for scan in scans if scan.rapid is not None for view in scan.rapid]
        else:
            fractions = list(self.fractions)
            standard = [float(view.mean()) for scan in scans for view in scan.standard]
            means = [min(standard) * fractions[0], max(standard) * fractions[1]]
        spans = {"spacing_mm": spacing, "counts_per_pixel": means, "fraction": fractions}
        return {name: [round(min(values), 4), round(max(values), 4)] for name, values in spans.items()}

    def train_dataloader(self) -> DataLoader:
        """Batches of random crops, other ones each epoch."""
        dataset = Crops(
            self.cases("train"),
            self._kept["train"],
            pairs=self.pairs,
            fractions=self.fractions,
            crop=self.crop,
            length=self.samples_per_epoch,
            single_view_probability=self.single_view_probability,
            seed=self.seed,
        )
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return self._loader(dataset, self.batch_size, EpochSampler(dataset, num_replicas=ranks, rank=rank))

    def val_dataloader(self) -> DataLoader:
        """Whole validation scans, one at a time."""
        return self._loader(WholeScans(self.cases("val"), self._kept["val"], seed=self.seed), 1, None)

    def test_dataloader(self) -> DataLoader:
        """Whole test scans, one at a time."""
        return self._loader(WholeScans(self.cases("test"), self._kept["test"], seed=self.seed), 1, None)

    def predict_dataloader(self) -> DataLoader:
        """As `test_dataloader`."""
        return self.test_dataloader()

    def _loader(self, dataset: Dataset[Sample], batch_size: int, sampler: EpochSampler | None) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _load(self, name: str) -> None:
        if name in self._kept:
            return
        cases = self.cases(name)
        if not cases:
            raise ManifestError(
                f"no patient is in split '{name}'", file=self.manifest, remedy=f"give some the split {name}"
            )
        bar = tqdm(cases, desc=f"reading {name} scans", unit="case", leave=False)
        self._kept[name] = [_compact(load_case(case)) for case in bar]

    def _check_training(self) -> None:
        cases, kept = self.cases("train"), self._kept["train"]
        needed = {"measured": ("rapid", "a rapid scan"), "expectation": ("expectation", "a truth file")}
        if self.pairs in needed:
            attribute, name = needed[self.pairs]
            without = [
                case.patient
                for case, scan in zip(cases, kept, strict=True)
                if getattr(scan, attribute) is None
            ]
            if without:
                raise ManifestError(
                    f"pairs: {self.pairs} needs {name} of every training patient; {', '.join(without[:5])}"
                    f"{' and others' if len(without) > 5 else ''} has none",
                    file=self.manifest,
                    remedy="use pairs: split",
                )
        # All crops of a batch have one size, so the smallest scan bounds it.
        for axis, name in enumerate(("rows", "columns")):
            sizes = [scan.standard.shape[1 + axis] for scan in kept]
            size = min(sizes)
            smallest = sizes.index(size)
            if size < self.crop[axis]:
                raise ManifestError(
                    f"the scan of patient {cases[smallest].patient} has {size} {name}, fewer than the crop's"
                    f" {self.crop[axis]}",
                    file=cases[smallest].standard[0],
                    remedy=f"use crops of at most {size // GRID * GRID} {name} or leave the patient out",
                )


class EpochSampler(DistributedSampler):
    """Numbers samples through all epochs: epoch e yields e n to (e + 1) n - 1, dealt over the ranks.

    The number alone tells a worker process which sample to draw, also one that lives on from an earlier
    epoch. Lightning calls `set_epoch`, and leaves samplers of this base class in place under several ranks.

    Args:
        dataset: Its length is n.
        num_replicas: Number of ranks. Where it does not divide n, the first samples are repeated.
        rank: This rank.
    """

    def __init__(self, dataset: Dataset[Sample], *, num_replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset)  # type: ignore[arg-type]
        return (first + index for index in super().__iter__())


class Crops(Dataset[Sample]):
    """Random training crops; the index counts on over epochs (see `EpochSampler`).

    Args:
        cases: Cases.
        scans: Their arrays.
        pairs: See `RBSDataModule`, as all that follow.
        fractions: Range of simulated exposures.
        crop: Rows and columns.
        length: Samples an epoch.
        single_view_probability: Share of samples that show one view twice.
        seed: Seed.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scans: Sequence[LoadedCase],
        *,
        pairs: Pairs,
        fractions: tuple[float, float],
        crop: tuple[int, int],
        length: int,
        single_view_probability: float,
        seed: int,
    ) -> None:
        self.cases, self.scans = cases, scans
        self.pairs, self.fractions, self.crop = pairs, fractions, crop
        self.length, self.single_view_probability, self.seed = length, single_view_probability, seed
        self.truth = all(scan.labels is not None for scan in scans)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        # Every len(scans) samples in a row show every case once, in an order of their own.
        lap, place = divmod(index, len(self.scans))
        row = int(np.random.default_rng((self.seed, 0, lap)).permutation(len(self.scans))[place])
        rng = np.random.default_rng((self.seed, 1, index))
        scan = self.scans[row]
        views = _choose_views(scan.views, self.single_view_probability, rng)
        shown = sorted(set(views))
        top, left = _place_crop(scan.standard[shown], self.crop, rng)
        height, width = self.crop

        def cut(whole: Array | None) -> Array:
            assert whole is not None  # checked in RBSDataModule.setup
            return whole[shown, top : top + height, left : left + width]

        arrays, fraction, target_fraction = self._pair(scan, cut, rng)
        if self.truth:
            arrays |= {"labels": cut(scan.labels), "expectation": cut(scan.expectation)}
        arrays, flip = flip_alike(arrays, int(rng.integers(LARGEST_SEED)))
        channels = [shown.index(view) for view in views]
        return _sample(
            {name: array[channels] for name, array in arrays.items()},
            fraction=fraction,
            target_fraction=target_fraction,
            case=row,
            crop=(top, left, height, width),
            flip=flip,
            views=views,
            patient=self.cases[row].patient,
        )

    def _pair(
        self, scan: LoadedCase, cut: Any, rng: np.random.Generator
    ) -> tuple[dict[str, Array], float, float]:
        """Rapid and target crop and their exposures."""
        if self.pairs == "measured":
            return {"rapid": cut(scan.rapid), "target": cut(scan.standard)}, float(scan.fraction or 0), 1.0
        p = float(rng.uniform(*self.fractions))
        if self.pairs == "expectation":
            expectation = cut(scan.expectation)
            return {"rapid": rng.poisson(p * expectation), "target": expectation}, p, 1.0
        # Counts of pixels are independent: dealing the crop's is dealing the scan's.
        standard = cut(scan.standard)
        rapid = thin(standard, p, rng)
        return {"rapid": rapid, "target": standard - rapid}, p, 1 - p


class WholeScans(Dataset[Sample]):
    """Whole scans as acquired, for validation and test.

    Args:
        cases: Cases.
        scans: Their arrays.
        seed: Seed of the thinning where a case has no rapid scan.
    """

    def __init__(self, cases: Sequence[Case], scans: Sequence[LoadedCase], *, seed: int) -> None:
        self.cases, self.scans, self.seed = cases, scans, seed

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, row: int) -> Sample:
        scan = self.scans[row]
        if scan.rapid is not None and scan.fraction is not None:
            arrays, fraction, target_fraction = (
                {"rapid": scan.rapid, "target": scan.standard},
                scan.fraction,
                1.0,
            )
        else:
            fraction, target_fraction = _WHOLE_SCAN_FRACTION, 1 - _WHOLE_SCAN_FRACTION
            rng = np.random.default_rng((self.seed, 2, row))
            rapid, rest = split(scan.standard, (fraction, target_fraction), rng)
            arrays = {"rapid": rapid, "target": rest}
        if scan.labels is not None and scan.expectation is not None:
            arrays |= {"labels": scan.labels, "expectation": scan.expectation}
        return _sample(
            arrays,
            fraction=fraction,
            target_fraction=target_fraction,
            case=row,
            crop=(0, 0, *scan.standard.shape[1:]),
            flip=(False, False),
            views=tuple(range(len(scan.views))),
            patient=self.cases[row].patient,
        )


def _sample(
    arrays: dict[str, Array],
    *,
    fraction: float,
    target_fraction: float,
    case: int,
    crop: tuple[int, ...],
    flip: tuple[bool, bool],
    views: tuple[int, ...],
    patient: str,
) -> Sample:
    """A sample of the batch described at `RBSDataModule`, as tensors."""
    types = {"labels": np.int64}
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array, dtype=types.get(name, np.float32)))
        for name, array in arrays.items()
    }
    return tensors | {
        "fraction": torch.tensor(fraction, dtype=torch.float32),
        "target_fraction": torch.tensor(target_fraction, dtype=torch.float32),
        "case": torch.tensor(case),
        "crop": torch.tensor(crop),
        "flip": torch.tensor(flip),
        "views": torch.tensor(views),
        "patient": patient,
    }


def _choose_views(views: tuple[View, ...], single: float, rng: np.random.Generator) -> tuple[int, int]:
    """Which aligned view each of the two channels shows."""
    if len(views) == 1:
        return 0, 0
    if rng.random() < single:
        view = int(rng.integers(len(views)))
        return view, view
    return 0, 1


def _place_crop(counts: Array, crop: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a crop that has some of the body in it.

    Most of a scan is air. A random place is taken if its mean count (V, h, w) is at least half of the whole
    scan's, otherwise another is tried; after four the fullest is taken, so that empty margins stay rare but
    not unseen.
    """
    enough = _ENOUGH * counts.mean()
    best, fullest = (0, 0), -1.0
    for _ in range(_TRIES):
        top, left = (
            int(rng.integers((size - length) // GRID + 1)) * GRID
            for size, length in zip(counts.shape[1:], crop, strict=True)
        )
        mean = float(counts[:, top : top + crop[0], left : left + crop[1]].mean())
        if mean >= enough:
            return top, left
        if mean > fullest:
            best, fullest = (top, left), mean
    return best


def _compact(case: LoadedCase) -> LoadedCase:
    """The same case, its counts as uint16 (what NM files hold) where they fit."""

    def narrow(counts: Array) -> Array:
        return counts.astype(np.uint16 if counts.max() <= np.iinfo(np.uint16).max else np.int32)

    return replace(
        case, rapid=None if case.rapid is None else narrow(case.rapid), standard=narrow(case.standard)
    )
