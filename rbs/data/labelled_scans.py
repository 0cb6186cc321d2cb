"""Whole labelled scans for segmenters, at any count level, pixel size and part of the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rbs.data.augmentation.geometric import log_uniform
from rbs.data.bone_scans import RBSDataModule
from rbs.data.datasets import Sample
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.data.stream import SURVEYED, draw_child
from rbs.degradation.thinning import Thinning
from rbs.errors import ManifestError, RbsError
from rbs.scans.counts import block_sums
from rbs.scans.scan import Array

_NOISELESS = 0.1
"""Share of samples that show the expectation itself: segmenters are also shown restored scans."""

_PARTIAL = 0.2
"""Share of samples that show a part of the body."""

_LEAST_PART = 0.4
"""Rows of the smallest part, of all."""


class LabelledScansDataModule(RBSDataModule):
    """Labelled scans, changed for each sample; validation on whole rapid scans, binned alike.

    A known expectation is drawn at another pixel size before its counts are: they stay Poisson.
    Counts that were measured are thinned only.

    Args:
        manifest: The CSV that lists the cases.
        children: Number of training patients, the first of the manifest; None for all; 0 draws
            phantom children without end instead (`rbs.data.stream`).
        lesions: Most lesions of a child of the stream, their number uniform from 0; None leaves it
            to the phantom, half of which have none.
        exposures: Smallest and largest exposure; its logarithm is uniform between.
        zoom: Smallest and largest factor on rows and columns of known expectations.
        crop: Rows and columns of training samples, before binning; scans, or parts of them, are
            laid on these.
        binning: Rows and columns of pixels whose counts are summed up, in validation alike: 2 makes
            a training four times as fast.
        single_view_probability: Share of two-view samples that show one of their views twice.
        batch_size: See `CropDataModule`, as the next three.
        samples_per_epoch: Likewise.
        num_workers: Likewise.
        seed: Likewise.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str = "data/phantoms/manifest.csv",
        *,
        children: int | None = None,
        lesions: int | None = None,
        exposures: tuple[float, float] = (0.1, 0.99),
        zoom: tuple[float, float] = (0.8, 1.25),
        crop: tuple[int, int] = (1024, 256),
        binning: int = 1,
        single_view_probability: float = 0.25,
        batch_size: int = 2,
        samples_per_epoch: int = 500,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(
            manifest,
            exposures=exposures,
            crop=crop,
            single_view_probability=single_view_probability,
            batch_size=batch_size,
            samples_per_epoch=samples_per_epoch,
            num_workers=num_workers,
            seed=seed,
        )
        if children is not None and children < 0:
            raise RbsError(f"{children} training children", remedy="give their number, 0 for a stream")
        if not 0.25 <= zoom[0] <= zoom[1] <= 4:
            raise RbsError(f"the zoom {zoom} does not rise within 0.25 to 4", remedy="try 0.8 and 1.25")
        if binning not in (1, 2, 4):
            raise RbsError(f"a binning of {binning}", remedy="sum up 1, 2 or 4 pixels a side")
        self.children, self.lesions, self.zoom, self.binning = children, lesions, zoom, binning

    def cases(self, split: str) -> list[Case]:
        """See `CropDataModule.cases`; in training the first `children` of them."""
        cases = super().cases(split)
        return cases[: self.children] if split == "train" else cases

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of whole scans."""
        return self._training_loader(self._scans("train", seed=self.seed), self.batch_size)

    def _scans(self, split: str, seed: int) -> LabelledScans:
        """Training samples of a split; of one without cases, of phantom children without end."""
        cases = self.cases(split)
        return LabelledScans(
            cases,
            self._kept[split],
            self._relative(cases),
            length=self.samples_per_epoch,
            seed=seed,
            lesions=self.lesions,
            exposures=self.exposures,
            zoom=self.zoom,
            canvas=(self.crop[0] // self.binning, self.crop[1] // self.binning),
            binning=self.binning,
            single_view_probability=self.single_view_probability,
        )

    def _relative(self, cases: Sequence[Case]) -> list[float]:
        """Exposure of the scan of each case relative to the standard scan."""
        return [1.0] * len(cases)

    def _read(self, split: str) -> list[LoadedCase]:
        if split == "train" and self.children == 0:
            return []
        return [binned(scan, self.binning) for scan in super()._read(split)]

    def _registered(self, split: str) -> bool:
        return False

    def _surveyed(self) -> list[LoadedCase]:
        if self.children == 0:
            return [binned(draw_child(self.seed, n)[1], self.binning) for n in range(SURVEYED)]
        return super()._surveyed()

    def training_ranges(self) -> dict[str, list[float]]:
        """See `RBSDataModule.training_ranges`; known expectations are zoomed."""
        return self._ranges

    @cached_property
    def _ranges(self) -> dict[str, list[float]]:
        low, high = self.exposures
        spacing: list[float] = []
        counts: list[float] = []
        for scan in self._surveyed():
            finest, coarsest = (1.0, 1.0) if scan.expectation is None else self.zoom[::-1]
            means = scan.standard.mean(axis=(1, 2))
            spacing += [min(scan.spacing_mm) / finest, max(scan.spacing_mm) / coarsest]
            counts += [low * float(means.min()) / finest**2, high * float(means.max()) / coarsest**2]
        relative = self._relative(self.cases("train")) or [1.0]
        exposure = [low * min(relative), high * max(relative)]
        spans = {"spacing_mm": spacing, "counts_per_pixel": counts, "exposure": exposure}
        return {name: [round(min(values), 4), round(max(values), 4)] for name, values in spans.items()}

    def _check_training(self) -> None:
        for case, scan in zip(self.cases("train"), self._kept["train"], strict=True):
            if scan.labels is None:
                fault = f"patient {case.patient} has neither a truth nor a label file"
                remedy = "label the scan, see docs/segment.md, or leave it out"
                raise ManifestError(fault, file=self.manifest, remedy=remedy)


class LabelledScans(Dataset[Sample]):
    """Training samples; the index counts on over epochs (see `EpochSampler`).

    Args:
        cases: Cases, empty for a stream of phantom children.
        scans: Their arrays.
        relative: Exposure of each case relative to the standard scan.
        length: Samples an epoch.
        seed: Seed of all random choices.
        lesions: See `LabelledScansDataModule`, as the next four.
        exposures: Likewise.
        zoom: Likewise.
        canvas: Likewise.
        binning: Of the stream; the arrays of `scans` are binned already.
        single_view_probability: Share of samples that show one view twice.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scans: Sequence[LoadedCase],
        relative: Sequence[float],
        *,
        length: int,
        seed: int,
        lesions: int | None,
        exposures: tuple[float, float],
        zoom: tuple[float, float],
        canvas: tuple[int, int],
        binning: int,
        single_view_probability: float,
    ) -> None:
        self.cases, self.scans, self.relative = cases, scans, relative
        self.length, self.seed = length, seed
        self.exposures, self.zoom, self.canvas = exposures, zoom, canvas
        self.lesions = lesions
        self.binning, self.single_view_probability = binning, single_view_probability
        # A batch holds expectations if all scans have one.
        self.known = all(scan.expectation is not None for scan in scans)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, 1, index))
        if self.cases:
            lap, place = divmod(index, len(self.cases))
            row = int(np.random.default_rng((self.seed, 0, lap)).permutation(len(self.cases))[place])
            case, scan, relative = self.cases[row], self.scans[row], self.relative[row]
        else:
            lesions = None if self.lesions is None else int(rng.integers(self.lesions + 1))
            row, (case, scan), relative = index, draw_child(self.seed, index, lesions), 1.0
            scan = binned(scan, self.binning)
        zoom = 1.0 if scan.expectation is None else log_uniform(self.zoom, rng)
        exposure = log_uniform(self.exposures, rng)
        known = scan.standard if scan.expectation is None else scan.expectation
        # Only scans of a transfer set have none, whose labels are not used.
        labels = np.zeros(known.shape, np.uint8) if scan.labels is None else scan.labels
        if zoom != 1:
            known = np.stack([_zoomed(view, zoom) for view in known]) / zoom**2
            labels = np.stack([_zoomed_labels(view, zoom) for view in labels])
        both = _placed(np.concatenate([known, labels]), self.canvas, rng)
        known, labels = both[: len(known)], both[len(known) :]
        if rng.random() < 0.5:
            known, labels = known[..., ::-1], labels[..., ::-1]
        if scan.expectation is None:
            rapid = Thinning(exposure)(known, rng)
        elif rng.random() < _NOISELESS:
            rapid = known * exposure
        else:
            rapid = rng.poisson(known * exposure)
        views = [0, len(rapid) - 1]
        if len(rapid) > 1 and rng.random() < self.single_view_probability:
            views = [int(rng.integers(2))] * 2
        expected = {"expectation": _tensor(known[views])} if self.known else {}
        return expected | {
            "rapid": _tensor(rapid[views]),
            "labels": torch.tensor(labels[views].astype(np.int64)),
            "exposure": torch.tensor(exposure * relative, dtype=torch.float32),
            "spacing_mm": torch.tensor(scan.spacing_mm, dtype=torch.float32) / zoom,
            "case": torch.tensor(row),
            "crop": torch.tensor((0, 0, *self.canvas)),
            "patient": case.patient,
        }


def _tensor(counts: Array) -> Tensor:
    return torch.tensor(np.ascontiguousarray(counts), dtype=torch.float32)


def binned(scan: LoadedCase, side: int) -> LoadedCase:
    """The case on pixels `side` times as wide: counts summed up, the label of one of their pixels.

    Rows and columns that fill no pixel are left out.
    """
    if side == 1:
        return scan

    def summed(counts: Array | None) -> Array | None:
        return None if counts is None else block_sums(counts, side, side).astype(np.float32)

    standard = summed(scan.standard)
    assert standard is not None
    rows, columns = standard.shape[1:]
    middle = side // 2
    return replace(
        scan,
        rapid=summed(scan.rapid),
        standard=standard,
        expectation=summed(scan.expectation),
        labels=None
        if scan.labels is None
        else scan.labels[:, middle::side, middle::side][:, :rows, :columns],
        spacing_mm=(side * scan.spacing_mm[0], side * scan.spacing_mm[1]),
    )


def _zoomed(view: Array, zoom: float) -> Array:
    """Expected density of a view on finer (above 1) or coarser pixels, bilinear."""
    return ndimage.zoom(view, zoom, order=1, grid_mode=True, mode="nearest")


def _zoomed_labels(view: Array, zoom: float) -> Array:
    return ndimage.zoom(view, zoom, order=0, grid_mode=True, mode="nearest")


def _placed(array: Array, canvas: tuple[int, int], rng: np.random.Generator) -> Array:
    """The whole array, or a part of its rows, somewhere on an empty canvas."""
    rows = array.shape[1]
    if rng.random() < _PARTIAL:
        kept = int(rows * rng.uniform(_LEAST_PART, 1))
        top = int(rng.integers(rows - kept + 1))
        array = array[:, top : top + kept]
    placed = np.zeros((len(array), *canvas), array.dtype)
    spans = []
    for size, room in zip(array.shape[1:], canvas, strict=True):
        # Where it does not fit, a part of it fills the canvas.
        shift = int(rng.integers(min(0, room - size), max(0, room - size) + 1))
        length = min(size, room)
        spans.append((max(0, shift), max(0, -shift), length))
    (down, top, height), (right, left, width) = spans
    placed[:, down : down + height, right : right + width] = array[:, top : top + height, left : left + width]
    return placed
