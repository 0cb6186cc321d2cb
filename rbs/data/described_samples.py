"""Samples of described children: counts drawn afresh, mirrored, zoomed, with further foci."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, default_collate

from rbs.data.augmentation.geometric import log_uniform
from rbs.data.described_children import PART_NUMBERS, DescribedChild, with_more_foci
from rbs.description.sentences import LEFT, PARTS, RIGHT, SENTENCES, TOPICS, Statement
from rbs.restorers.semantic_features import STRIDE
from rbs.scans.scan import Array

COLUMNS = 128
"""Columns of the coarse scans."""

SENTENCE_NUMBERS = {statement: number for number, (_, statement, _) in enumerate(SENTENCES)}
"""Number of the sentence of each statement."""

_SORTED = 4
"""Batches that are sorted by length together."""

_MIRRORED = [PART_NUMBERS[region, {LEFT: RIGHT, RIGHT: LEFT}.get(side, side)] for region, side in PARTS]


class DescribedSamples(Dataset[dict[str, Any]]):
    """Samples; the index counts on over epochs (see `EpochSampler`).

    Args:
        children: Patients and what is known of them.
        length: Samples an epoch.
        seed: Seed of all random choices.
        exposures: Smallest and largest exposure; None for rapid scans of children as they are.
        zoom: Smallest and largest factor on rows and columns.
        single_view_probability: Share of samples that show one view twice.
        added: Share of samples with further foci.
    """

    RAPID = 0.5

    def __init__(
        self,
        children: Sequence[tuple[str, DescribedChild]],
        *,
        length: int,
        seed: int,
        exposures: tuple[float, float] | None,
        zoom: tuple[float, float],
        single_view_probability: float = 0.0,
        added: float = 0.0,
    ) -> None:
        self.children, self.length, self.seed = children, length, seed
        self.exposures, self.zoom = exposures, zoom
        self.single_view_probability, self.added = single_view_probability, added

    def __len__(self) -> int:
        return self.length

    def _row(self, index: int) -> int:
        """Place of the child of a sample in the list."""
        lap, place = divmod(index, len(self.children))
        order = np.random.default_rng((self.seed, 0, lap)).permutation(len(self.children))
        return int(order[place]) if self.exposures else place

    def rows(self, index: int) -> int:
        """Scanned rows of the child of a sample."""
        return int(self.children[self._row(index)][1].expectation.shape[1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, 1, index))
        patient, child = self.children[self._row(index)]
        exposure = log_uniform(self.exposures, rng) if self.exposures else self.RAPID
        zoom = log_uniform(self.zoom, rng) if self.exposures else 1.0
        if rng.random() < self.added:
            child = with_more_foci(child, rng)
        expectation, labels, left = _zoomed(child, zoom)
        size = expectation.shape[1] // STRIDE, COLUMNS // STRIDE
        hot, cold = (places * zoom + (0, left) for places in (child.hot, child.cold))
        foci = np.stack([_cells(places, size) for places in (hot, cold)])
        where = np.stack([_cells(hot[child.parts == part], size) for part in range(len(PARTS))])
        statements = child.statements
        if self.exposures and rng.random() < 0.5:
            expectation, labels, foci = (array[..., ::-1] for array in (expectation, labels, foci))
            where = where[_MIRRORED, :, ::-1]
            statements = mirrored(statements)
        rapid = rng.poisson(expectation * exposure).astype(np.float32)
        if rng.random() < self.single_view_probability:
            rapid = np.repeat(rapid[[int(rng.integers(2))]], 2, axis=0)
        return {
            "rapid": torch.from_numpy(rapid),
            "exposure": torch.tensor(exposure, dtype=torch.float32),
            "sentences": torch.tensor([SENTENCE_NUMBERS[statement] for statement in statements]),
            "labels": torch.from_numpy(np.ascontiguousarray(labels)),
            "foci": torch.from_numpy(np.ascontiguousarray(foci)),
            "where": torch.from_numpy(np.ascontiguousarray(where)),
            "patient": patient,
        }


class LengthBatches(Dataset[dict[str, Any]]):
    """Batches of samples of about one length; the index counts on over epochs.

    Args:
        scans: The samples.
        batch_size: Samples a batch.
    """

    def __init__(self, scans: DescribedSamples, batch_size: int) -> None:
        self.scans, self.batch_size = scans, batch_size

    def __len__(self) -> int:
        return max(len(self.scans) // self.batch_size, 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        group, place = divmod(index, _SORTED)
        size = self.batch_size * _SORTED
        numbers = sorted(range(group * size, (group + 1) * size), key=self.scans.rows)
        # The short ones do not always come first.
        place = int(np.random.default_rng((self.scans.seed, 2, group)).permutation(_SORTED)[place])
        own = numbers[place * self.batch_size : (place + 1) * self.batch_size]
        return padded([self.scans[number] for number in own])


def padded(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples, rows added below the shorter ones."""
    rows = max(sample["foci"].shape[1] for sample in samples)
    for sample in samples:
        for name, each in (("rapid", STRIDE), ("labels", STRIDE), ("foci", 1), ("where", 1)):
            sample[name] = F.pad(sample[name], (0, 0, 0, rows * each - sample[name].shape[1]))
    batch: dict[str, Any] = default_collate(samples)
    return batch


def mirrored(statements: Sequence[Statement]) -> tuple[Statement, ...]:
    """The true statement of each topic of the mirrored child."""
    swapped = {statement.mirrored() for statement in statements}
    return tuple(next(one for one in topic.sentences if one in swapped) for topic in TOPICS)


def _zoomed(child: DescribedChild, zoom: float) -> tuple[Array, Array, int]:
    """Expectation and labels, zoomed, their rows a multiple of 8; and columns added on the left."""
    expectation = torch.from_numpy(child.expectation.astype(np.float32))[None]
    labels = torch.from_numpy(child.labels)[None].float()
    if zoom != 1:
        size = [round(side * zoom) for side in expectation.shape[-2:]]
        expectation = F.interpolate(expectation, size, mode="bilinear") / zoom**2
        labels = F.interpolate(labels, size, mode="nearest")
    rows, columns = expectation.shape[-2:]
    left = (COLUMNS - columns) // 2
    margins = (left, COLUMNS - columns - left, 0, -rows % STRIDE)
    return F.pad(expectation[0], margins).numpy(), F.pad(labels[0], margins).byte().numpy(), left


def _cells(places: Array, size: tuple[int, int]) -> Array:
    """1 in the cells (h, w) that hold a place (n, 2), pixels."""
    cells = np.zeros(size, np.float32)
    for row, column in (places // STRIDE).astype(int):
        if 0 <= row < size[0] and 0 <= column < size[1]:
            cells[row, column] = 1
    return cells
