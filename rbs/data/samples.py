"""Samples of rapid bone scans: which crop of which case, and how its pair is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

from rbs.data.augmentation.geometric import LARGEST_SEED, flip_alike
from rbs.data.augmentation.lesions import draw_foci
from rbs.data.augmentation.scene_mixing import draw_scene
from rbs.data.manifest import Case, LoadedCase
from rbs.degradation.thinning import Thinning, split
from rbs.scans.scan import Array, View

Pairs = Literal["measured", "split", "rapid", "expectation"]
Sample = dict[str, Any]

GRID = 16
"""Crops begin and end on multiples of this many pixels, so that they fall on whole cells of cached
priors."""

_TRIES = 4
_ENOUGH = 0.5
"""A crop is taken when its mean count is this share of the scan's; after `_TRIES` refusals the
fullest is."""

_WHOLE_SCAN_EXPOSURE = 0.5
"""Rapid exposure simulated for validation where no rapid scan was acquired."""


class EpochSampler(DistributedSampler):
    """Numbers samples through all epochs: epoch e yields e n to (e + 1) n - 1, dealt over the ranks.

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


class Crops(Dataset[Sample]):
    """Random training crops; the index counts on over epochs (see `EpochSampler`).

    Args:
        cases: Cases.
        scans: Their arrays.
        pairs: See `RBSDataModule`, as all that follow.
        realisations: Number of simulated rapid scans a case, or None.
        exposures: Range of simulated exposures.
        crop: Rows and columns.
        length: Samples an epoch.
        single_view_probability: Share of samples that show one view twice.
        foci: Mean number of foci put into a crop.
        scenes: Share of crops that show scenes instead of the scan.
        seed: Seed.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scans: Sequence[LoadedCase],
        *,
        pairs: Pairs,
        realisations: int | None,
        exposures: tuple[float, float],
        crop: tuple[int, int],
        length: int,
        single_view_probability: float,
        foci: float,
        scenes: float,
        seed: int,
    ) -> None:
        self.cases, self.scans = cases, scans
        self.pairs, self.realisations, self.exposures, self.crop = pairs, realisations, exposures, crop
        self.length, self.single_view_probability = length, single_view_probability
        self.foci, self.scenes, self.seed = foci, scenes, seed
        # Labels do not fit what scenes show.
        self.truth = not scenes and all(scan.labels is not None for scan in scans)
        self.moved = pairs == "measured" and any(scan.motion is not None for scan in scans)

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

        def cut(whole: Array | None) -> Any:
            return None if whole is None else whole[shown, top : top + height, left : left + width]

        realisation = None if self.realisations is None else int(rng.integers(self.realisations))
        whole, source_exposure = source(scan, self.pairs)
        counts, expectation = cut(whole), cut(scan.expectation)
        if self.scenes and rng.random() < self.scenes:
            assert scan.expectation is not None  # checked in RBSDataModule.setup
            expectation = draw_scene(scan.expectation[shown], self.crop, rng)
        if self.foci:
            known = counts / source_exposure if expectation is None else expectation
            foci = draw_foci(known, scan.spacing_mm, self.foci, rng)
            counts = foci.count(counts, source_exposure, rng)
            expectation = None if expectation is None else foci.expect(expectation)
        if realisation is None:
            # Counts of pixels are independent: dealing the crop's is dealing the scan's.
            relative = float(rng.uniform(*self.exposures))
            rapid, exposure = self._simulate(counts, expectation, relative, rng), relative * source_exposure
        else:
            dealt, exposure = self.realisation(row, realisation)
            rapid = cut(dealt)
        if self.pairs in ("split", "rapid"):
            target, target_exposure = counts - rapid, source_exposure - exposure
        else:
            target, target_exposure = expectation if self.pairs == "expectation" else counts, 1.0
        arrays = {"rapid": rapid, "target": target}
        if self.truth:
            arrays |= {"labels": cut(scan.labels), "expectation": expectation}
        if self.moved:
            arrays["displacement"] = displacement(scan, (top, left, height, width))
        arrays, flip = flip_alike(arrays, int(rng.integers(LARGEST_SEED)))
        moved = {"displacement": _turned(arrays.pop("displacement"), flip)} if self.moved else {}
        channels = [shown.index(view) for view in views]
        return _sample(
            {name: array[channels] for name, array in arrays.items()} | moved,
            exposure=exposure,
            target_exposure=target_exposure,
            case=row,
            realisation=realisation,
            crop=(top, left, height, width),
            flip=flip,
            views=views,
            patient=self.cases[row].patient,
        )

    def realisation(self, row: int, realisation: int) -> tuple[Array, float]:
        """See `RBSDataModule.realisation`."""
        scan = self.scans[row]
        if self.pairs == "measured":
            assert scan.rapid is not None
            assert scan.exposure is not None  # both checked in RBSDataModule.setup
            return scan.rapid, scan.exposure
        rng = np.random.default_rng((self.seed, 3, row, realisation))
        # Few realisations spread over all exposures: each has its share of the range.
        low, high = self.exposures
        relative = float(low + (high - low) * (realisation + rng.random()) / (self.realisations or 1))
        whole, source_exposure = source(scan, self.pairs)
        return self._simulate(whole, scan.expectation, relative, rng), relative * source_exposure

    def _simulate(
        self, counts: Array, expectation: Array | None, relative: float, rng: np.random.Generator
    ) -> Array:
        """A rapid scan of exposure `relative` to that of `counts`."""
        if self.pairs == "expectation":
            assert expectation is not None  # checked in RBSDataModule.setup
            return rng.poisson(relative * expectation)
        return Thinning(relative)(counts, rng)


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
        if scan.rapid is not None and scan.exposure is not None:
            arrays, exposure, target_exposure = (
                {"rapid": scan.rapid, "target": scan.standard},
                scan.exposure,
                1.0,
            )
        else:
            exposure, target_exposure = _WHOLE_SCAN_EXPOSURE, 1 - _WHOLE_SCAN_EXPOSURE
            rng = np.random.default_rng((self.seed, 2, row))
            rapid, rest = split(scan.standard, (exposure, target_exposure), rng)
            arrays = {"rapid": rapid, "target": rest}
        if scan.labels is not None and scan.expectation is not None:
            arrays |= {"labels": scan.labels, "expectation": scan.expectation}
        if scan.motion is not None:
            arrays["displacement"] = displacement(scan, (0, 0, *scan.standard.shape[1:]))
        return _sample(
            arrays,
            exposure=exposure,
            target_exposure=target_exposure,
            case=row,
            realisation=None,
            crop=(0, 0, *scan.standard.shape[1:]),
            flip=(False, False),
            views=tuple(range(len(scan.views))),
            patient=self.cases[row].patient,
        )


def source(scan: LoadedCase, pairs: Pairs) -> tuple[Array, float]:
    """The scan whose counts are dealt to simulate a rapid one, (V, H, W), and its exposure."""
    if pairs != "rapid":
        return scan.standard, 1.0
    assert scan.rapid is not None
    assert scan.exposure is not None  # both checked in RBSDataModule.setup
    return scan.rapid, scan.exposure


def displacement(scan: LoadedCase, crop: tuple[int, int, int, int]) -> Array:
    """Where what the standard scan shows in a crop (top, left, height, width) lies in the rapid one.

    Returns:
        float32 (2, height, width), pixels: down, right. Zero where the patient did not move.
    """
    top, left, height, width = crop
    if scan.motion is None:
        return np.zeros((2, height, width), np.float32)
    u = scan.motion.field((height, width), scan.spacing_mm, top, left)
    return (u / np.reshape(scan.spacing_mm, (2, 1, 1))).astype(np.float32)


def _turned(u: Array, flip: tuple[bool, bool]) -> Array:
    """Displacements whose pixels were flipped (left-right, up-down): they then point the other way."""
    left_right, up_down = flip
    return u * np.array([-1 if up_down else 1, -1 if left_right else 1], u.dtype)[:, None, None]


def _sample(
    arrays: dict[str, Array],
    *,
    exposure: float,
    target_exposure: float,
    case: int,
    realisation: int | None,
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
    numbered = {} if realisation is None else {"realisation": torch.tensor(realisation)}
    return (
        tensors
        | numbered
        | {
            "exposure": torch.tensor(exposure, dtype=torch.float32),
            "target_exposure": torch.tensor(target_exposure, dtype=torch.float32),
            "case": torch.tensor(case),
            "crop": torch.tensor(crop),
            "flip": torch.tensor(flip),
            "views": torch.tensor(views),
            "patient": patient,
        }
    )


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

    Most of a scan is air. A random place is taken if its mean count (V, h, w) is at least half of
    the whole scan's, otherwise another is tried; after four the fullest is taken, so that empty
    margins stay rare but not unseen.
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
