"""Samples of rapid bone scans: which crop of which case, and how its pair is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from rbs.data.augmentation.geometric import LARGEST_SEED, flip_alike, log_uniform
from rbs.data.augmentation.lesion_crops import place_on_lesion
from rbs.data.augmentation.lesions import draw_foci
from rbs.data.augmentation.places import draw_places, flip_places
from rbs.data.augmentation.scene_mixing import draw_scene
from rbs.data.augmentation.texture import draw_texture
from rbs.data.datasets import CaseDataset, CropDataset, Sample, place_crop
from rbs.data.facts import FactsOf, facts_entry
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.degradation.thinning import Thinning, split
from rbs.scans.censoring import completed, cut_counts
from rbs.scans.counts import block_sums
from rbs.scans.scan import Array, Spacing, View

Pairs = Literal["measured", "split", "rapid", "expectation"]

_KEPT = 600
"""Numbered rapid scans kept in memory, 1 MB each of two views of 256 x 1024, in every process."""

_TRIES = 4
_ENOUGH = 0.5
"""A crop is taken when its mean count is this share of the scan's: most of a scan is air."""

_WHOLE_SCAN_EXPOSURE = 0.5
"""Rapid exposure simulated for validation where no rapid scan was acquired."""


class Crops(CropDataset):
    """Random training crops; the index counts on over epochs (see `EpochSampler`).

    Args:
        cases: Cases.
        scans: Their arrays.
        pairs: See `RBSDataModule`, as `lesion_crops` and `places`.
        exposures: Range of simulated exposures.
        single_view_probability: Share of samples that show one view twice.
        foci: Mean number of foci put into a crop.
        scenes: Share of crops that show scenes instead of the scan.
        textures: Share of crops whose expectation gets texture.
        activities: Range of factors on the expectation of a crop.
        lesion_crops: Share of crops placed on hot spots and growth plates.
        scale: See `RBSDataModule`, as `facts`.
        facts: Likewise.
        places: Rows of the entry "places".
        noise: Filter of the noise of rapid scans drawn from an expectation.
        options: Further arguments of `CropDataset`.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scans: Sequence[LoadedCase],
        *,
        pairs: Pairs,
        exposures: tuple[float, float],
        single_view_probability: float,
        foci: float,
        scenes: float,
        textures: float = 0.0,
        activities: tuple[float, float] = (1.0, 1.0),
        lesion_crops: float = 0.0,
        scale: int = 1,
        facts: FactsOf | None = None,
        places: int = 0,
        noise: NoiseFilter = WHITE,
        **options: Any,
    ) -> None:
        super().__init__(cases, scans, **options)
        self.scale, self.facts = scale, facts
        self.noise = noise
        self.pairs, self.exposures = pairs, exposures
        self.single_view_probability, self.foci, self.scenes = single_view_probability, foci, scenes
        self.textures, self.activities = textures, activities
        self.lesion_crops, self.places = lesion_crops, places
        # Labels do not fit what scenes show.
        self.labels = not scenes and all(scan.labels is not None for scan in scans)
        self.truth = self.labels and all(scan.expectation is not None for scan in scans)
        self.moved = pairs == "measured" and any(scan.motion is not None for scan in scans)
        self._drawn: dict[tuple[int, int], tuple[Array, float]] = {}
        self.censored = pairs != "expectation" and any(scan.cut for scan in scans)

    def __getitem__(self, index: int) -> Sample:
        row, rng = self.draw_case(index)
        scan = self.images[row]
        views = _choose_views(scan.views, self.single_view_probability, rng)
        shown = sorted(set(views))
        top, left = self._place(scan, shown, rng)
        height, width = self.crop
        crop = top, left, height, width

        def cut(whole: Array | None) -> Any:
            return None if whole is None else whole[shown, top : top + height, left : left + width]

        realisation = None if self.realisations is None else int(rng.integers(self.realisations))
        whole, source_exposure = source(scan, self.pairs)
        counts, expectation, degraded = cut(whole), cut(scan.expectation), cut(scan.expectation_rapid)
        if self.scenes and rng.random() < self.scenes:
            assert scan.expectation is not None  # checked in RBSDataModule.setup
            expectation = draw_scene(scan.expectation[shown], self.crop, rng)
        if self.textures:
            expectation = self._textured(expectation, scan.spacing_mm, index)
        if self.activities != (1.0, 1.0):
            assert expectation is not None  # checked in RBSDataModule.setup
            own = np.random.default_rng((self.seed, 7, index))  # all else is as without
            activity = np.float32(log_uniform(self.activities, own))
            expectation = expectation * activity
            degraded = None if degraded is None else degraded * activity
        if self.foci:
            known = counts / source_exposure if expectation is None else expectation
            foci = draw_foci(known, scan.spacing_mm, self.foci, rng)
            if self.places:
                own = np.random.default_rng((self.seed, 5, index))  # all else is as without places
                places = draw_places(known, scan.spacing_mm, foci.places, self.places, own)
            counts = foci.count(counts, source_exposure, rng)
            expectation = None if expectation is None else foci.expect(expectation)
        if realisation is None:
            # Counts of pixels are independent: thinning the crop is thinning the scan.
            relative = float(rng.uniform(*self.exposures))
            rapid = self._simulate(counts, expectation if degraded is None else degraded, relative, scan, rng)
            exposure, whole_rapid = relative * source_exposure, None
        else:
            whole_thinned, exposure = self._thinned(row, realisation)
            rapid, whole_rapid = cut(whole_thinned), completed(whole_thinned, self._cut(scan))
        if self.pairs in ("split", "rapid"):
            target, target_exposure = counts - rapid, source_exposure - exposure
        else:
            target, target_exposure = expectation if self.pairs == "expectation" else counts, 1.0
        if self.censored:
            # As `split` cuts the parts of a cut scan: what is shown owes nothing to the target.
            target = cut_counts(target, scan.cut)
            rapid = completed(rapid, scan.cut, rng) if whole_rapid is None else cut(whole_rapid)
        arrays = {"rapid": rapid, "target": target}
        if self.labels:
            arrays["labels"] = cut(scan.labels)
            arrays |= {name: cut(labels) for name, labels in self.other_labels(row).items()}
        if self.truth:
            arrays["expectation"] = expectation
        if self.moved:
            arrays["displacement"] = displacement(scan, crop)
        arrays, flip = flip_alike(arrays, int(rng.integers(LARGEST_SEED)))
        moved = {"displacement": _turned(arrays.pop("displacement"), flip)} if self.moved else {}
        # The same counts on coarser pixels: sums of Poisson counts are Poisson.
        arrays["rapid"] = summed(arrays["rapid"], self.scale)
        channels = [shown.index(view) for view in views]
        arrays = {name: array[channels] for name, array in arrays.items()} | moved
        sample = self.sample(
            row, arrays, exposure=exposure, target_exposure=target_exposure, crop=crop, flip=flip
        )
        sample["spacing_mm"] = torch.tensor(scan.spacing_mm, dtype=torch.float32)
        sample |= facts_entry(self.facts, self.cases, self.images, row)
        if self.censored:
            sample["cut"] = torch.tensor(scan.cut)
        if self.places:
            sample["places"] = torch.from_numpy(flip_places(places, self.crop, flip))
        return sample | self.prior(whole_rapid, exposure, scan.spacing_mm, crop, flip, views)

    def _textured(self, expectation: Array | None, spacing_mm: Spacing, index: int) -> Array:
        """The expectation of a crop with texture, or without."""
        assert expectation is not None  # checked in RBSDataModule.setup
        own = np.random.default_rng((self.seed, 6, index))  # crops and exposures are as without texture
        return draw_texture(expectation, spacing_mm, own) if own.random() < self.textures else expectation

    def _place(self, scan: LoadedCase, shown: list[int], rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of a crop."""
        if self.lesion_crops and rng.random() < self.lesion_crops:
            assert scan.labels is not None  # checked in RBSDataModule.setup
            placed = place_on_lesion(scan.labels[shown], self.crop, rng)
            if placed is not None:
                return placed
        body = scan.standard[shown]
        return place_crop(body, self.crop, rng, enough=_ENOUGH * body.mean(), tries=_TRIES)

    def realisation(self, row: int, number: int) -> tuple[Array, float, Spacing]:
        """A whole rapid scan (V, H, W) of a case, the one whose crops are shown under this number.

        Measured pairs have the acquired scan alone.
        """
        thinned, exposure = self._thinned(row, number)
        scan = self.images[row]
        return completed(thinned, self._cut(scan)), exposure, scan.spacing_mm

    def _cut(self, scan: LoadedCase) -> int:
        """Counts up to this number are missing in what is drawn from a scan."""
        return scan.cut if self.censored else 0

    def _thinned(self, row: int, number: int) -> tuple[Array, float]:
        """The same before the counts that were cut are drawn."""
        scan = self.images[row]
        if self.pairs == "measured":
            assert scan.rapid is not None
            assert scan.exposure is not None  # both checked in RBSDataModule.setup
            return scan.rapid, scan.exposure
        if (row, number) in self._drawn:
            return self._drawn[row, number]
        rng = np.random.default_rng((self.seed, 3, row, number))
        # Few realisations spread over all exposures: each has its share of the range.
        low, high = self.exposures
        relative = float(low + (high - low) * (number + rng.random()) / (self.realisations or 1))
        whole, source_exposure = source(scan, self.pairs)
        expected = scan.expectation if scan.expectation_rapid is None else scan.expectation_rapid
        counts = compact(self._simulate(whole, expected, relative, scan, rng))
        if len(self._drawn) < _KEPT:
            self._drawn[row, number] = counts, relative * source_exposure
        return counts, relative * source_exposure

    def _simulate(
        self,
        counts: Array,
        expectation: Array | None,
        relative: float,
        scan: LoadedCase,
        rng: np.random.Generator,
    ) -> Array:
        """A rapid scan of exposure `relative` to that of `counts`."""
        if self.pairs == "expectation":
            assert expectation is not None  # checked in RBSDataModule.setup
            return self.noise.expose(relative * expectation, scan.spacing_mm, rng)
        return Thinning(relative)(counts, rng)


class WholeScans(CaseDataset):
    """Whole scans as acquired, for validation and test; rapid ones simulated where missing.

    Args:
        cases: Cases.
        scans: Their arrays.
        seed: Seed of all random choices.
        scale: See `RBSDataModule`, as `facts`.
        facts: Likewise.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scans: Sequence[LoadedCase],
        *,
        seed: int,
        scale: int = 1,
        facts: FactsOf | None = None,
    ) -> None:
        super().__init__(cases, scans, seed=seed)
        self.scale, self.facts = scale, facts

    def __getitem__(self, row: int) -> Sample:
        scan: LoadedCase = self.images[row]
        if scan.rapid is not None and scan.exposure is not None:
            rapid, target = scan.rapid, scan.standard
            exposure, target_exposure = scan.exposure, 1.0
        else:
            exposure, target_exposure = _WHOLE_SCAN_EXPOSURE, 1 - _WHOLE_SCAN_EXPOSURE
            rng = np.random.default_rng((self.seed, 2, row))
            parts = split(scan.standard, (exposure, target_exposure), rng, scan.cut)
            rapid, target = (completed(part, scan.cut) for part in parts)
        rapid = summed(rapid, self.scale)
        arrays = {"rapid": rapid, "target": target, "spacing_mm": np.array(scan.spacing_mm)}
        if scan.labels is not None:
            arrays |= {"labels": scan.labels, **self.other_labels(row)}
        if scan.expectation is not None:
            arrays["expectation"] = scan.expectation
        if scan.motion is not None:
            arrays["displacement"] = displacement(scan, (0, 0, *scan.standard.shape[1:]))
        sample = self.sample(row, arrays, exposure=exposure, target_exposure=target_exposure)
        sample |= facts_entry(self.facts, self.cases, self.images, row)
        return sample | ({"cut": torch.tensor(scan.cut)} if scan.cut else {})


def compact(counts: Array) -> Array:
    """The same counts as uint16, which is what NM files hold, where they fit."""
    return counts.astype(np.uint16 if counts.max() <= np.iinfo(np.uint16).max else np.int32)


def summed(counts: Array, scale: int) -> Array:
    """Counts (V, H, W) on pixels `scale` times as wide."""
    return counts if scale == 1 else block_sums(counts, scale, scale)


def divisible(scan: LoadedCase, scale: int) -> LoadedCase:
    """The case without the last rows and columns that fill no pixel `scale` times as wide."""
    rows, columns = (side // scale * scale for side in scan.standard.shape[1:])
    if (rows, columns) == scan.standard.shape[1:]:
        return scan

    def cut(array: Array | None) -> Any:
        return None if array is None else array[:, :rows, :columns]

    return replace(
        scan,
        rapid=cut(scan.rapid),
        standard=cut(scan.standard),
        labels=cut(scan.labels),
        expectation=cut(scan.expectation),
        expectation_rapid=cut(scan.expectation_rapid),
    )


def source(scan: LoadedCase, pairs: Pairs) -> tuple[Array, float]:
    """The scan that is thinned to simulate a rapid one, (V, H, W), and its exposure."""
    if pairs != "rapid":
        return scan.standard, 1.0
    assert scan.rapid is not None
    assert scan.exposure is not None  # both checked in RBSDataModule.setup
    return scan.rapid, scan.exposure


def displacement(scan: LoadedCase, crop: tuple[int, int, int, int]) -> Array:
    """Displacement from a crop (top, left, height, width) of the standard scan to the rapid one.

    Returns:
        float32 (2, height, width), pixels: down, right. Zero where the patient did not move.
    """
    top, left, height, width = crop
    if scan.motion is None:
        return np.zeros((2, height, width), np.float32)
    u = scan.motion.field((height, width), scan.spacing_mm, top, left)
    return (u / np.reshape(scan.spacing_mm, (2, 1, 1))).astype(np.float32)


def _turned(u: Array, flip: tuple[bool, bool]) -> Array:
    """Displacements whose pixels were flipped (left-right, up-down) with their sign changed."""
    left_right, up_down = flip
    return u * np.array([-1 if up_down else 1, -1 if left_right else 1], u.dtype)[:, None, None]


def _choose_views(views: tuple[View, ...], single: float, rng: np.random.Generator) -> tuple[int, int]:
    """The aligned view that each of the two channels shows."""
    if len(views) == 1:
        return 0, 0
    if rng.random() < single:
        view = int(rng.integers(len(views)))
        return view, view
    return 0, 1
