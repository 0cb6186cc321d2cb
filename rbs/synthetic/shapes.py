"""Drawn shapes with prompts, which the small SAM learns to segment before it sees a scan.

Each picture holds expected counts of random shapes (tubes, bars, blobs, rings, rows of arcs,
polygons), blurred as a gamma camera blurs, and a Poisson draw of them. Nothing in it is anatomy.
"""

from __future__ import annotations

from collections.abc import Iterator

import lightning
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rbs.scans.scan import Array

Generator = np.random.Generator

_SIDES = (64, 128, 64, 256, 64, 128, 64, 512)

_SMALLEST = 12
"""Objects of fewer visible pixels are not asked for."""


def draw(rng: Generator, side: int) -> tuple[Array, Array]:
    """One picture.

    Args:
        rng: Source of all that is random in it.
        side: Rows and columns, pixels.

    Returns:
        Counts, float32 (side, side), at the scale of a standard scan, and the object that each
        pixel shows, uint8 (side, side), 0 where none does.
    """
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bed = (
        gaussian_filter(rng.normal(size=(16, 16)), 2, mode="wrap").repeat(side // 16, 0).repeat(side // 16, 1)
    )
    expected = np.exp(rng.uniform(-2, 1.2) + 6 * gaussian_filter(bed, side / 24)).astype(np.float32)
    objects = np.zeros((side, side), np.uint8)
    count = max(2, int(rng.integers(4, 10) * (side / 256) ** 1.4))
    added = rng.random() < 0.5
    for number in range(1, count + 1):
        shape = _SHAPES[rng.integers(len(_SHAPES))](rng, x, y, side)
        grain = 1 + rng.uniform(0, 0.3) * np.sin((x * rng.normal() + y * rng.normal()) / rng.uniform(4, 30))
        strength = np.exp(rng.uniform(0.2, 3.2)) * grain
        expected = np.where(shape, strength + expected * added, expected)
        objects[shape] = number
    expected = gaussian_filter(expected, rng.uniform(0.5, 1.8))
    if rng.random() < 0.15:
        return expected.astype(np.float32), objects
    exposure = np.exp(rng.uniform(np.log(0.25), np.log(2)))
    return (rng.poisson(exposure * expected) / exposure).astype(np.float32), objects


def draw_batch(rng: Generator, images: int, side: int, prompts: int) -> dict[str, Tensor]:
    """A batch of pictures with prompts for random objects in them.

    Returns:
        "counts" float32 (B, 1, side, side); "masks" uint8 (B, P, side, side), the objects asked
        for; "points" float32 (B, P, 2), a pixel (x, y) of each; "boxes" float32 (B, P, 4), a loose
        box (x0, y0, x1, y1) of each.
    """
    batch: dict[str, list[Array]] = {"counts": [], "masks": [], "points": [], "boxes": []}
    while len(batch["counts"]) < images:
        counts, objects = draw(rng, side)
        areas = np.bincount(objects.ravel())
        there = [number for number in range(1, len(areas)) if areas[number] >= _SMALLEST]
        if not there:
            continue
        asked = objects == rng.choice(there, prompts, replace=len(there) < prompts)[:, None, None]
        batch["counts"].append(counts[None])
        batch["masks"].append(asked.astype(np.uint8))
        batch["points"].append(np.stack([_point(rng, mask) for mask in asked]))
        batch["boxes"].append(np.stack([_box(rng, mask) for mask in asked]))
    return {name: torch.from_numpy(np.stack(arrays)) for name, arrays in batch.items()}


class ShapesDataModule(lightning.LightningDataModule):
    """Batches of drawn shapes, the same for the same (seed, epoch, index).

    Pictures are 64, 128, 256 or 512 pixels wide, the small ones in more and fuller batches: they
    teach edges at many steps a minute, the large ones SAM's whole input.

    Args:
        batch_size: Pictures of 64 x 64 in a batch.
        prompts: Objects asked for in a picture.
        samples_per_epoch: Pictures an epoch if all were small; the number of batches is this by
            `batch_size`.
        validation_batches: Batches in the validation set, which does not change.
        num_workers: Processes that draw.
        seed: Seed of the drawing.
    """

    def __init__(
        self,
        batch_size: int = 16,
        prompts: int = 6,
        samples_per_epoch: int = 1600,
        validation_batches: int = 16,
        num_workers: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Freshly drawn batches each epoch."""
        return self._loader(max(1, self.hparams["samples_per_epoch"] // self.hparams["batch_size"]), stream=0)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The same batches each time."""
        return self._loader(self.hparams["validation_batches"], stream=1)

    def _loader(self, batches: int, stream: int) -> DataLoader[dict[str, Tensor]]:
        data = Batches(self.hparams["seed"], stream, self.hparams["batch_size"], self.hparams["prompts"])
        numbers = _Numbers(batches, repeat=stream == 1)
        return DataLoader(data, batch_size=None, sampler=numbers, num_workers=self.hparams["num_workers"])


class Batches(Dataset[dict[str, Tensor]]):
    """Batch i of a stream, drawn from the seed (seed, stream, i)."""

    def __init__(self, seed: int, stream: int, batch_size: int, prompts: int) -> None:
        self.seed, self.stream, self.batch_size, self.prompts = seed, stream, batch_size, prompts

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, self.stream, index))
        side = _SIDES[index % len(_SIDES)]
        images = min(self.batch_size, max(1, 2 * self.batch_size * 64**2 // side**2))
        return draw_batch(rng, images, side, self.prompts)


class _Numbers(Sampler[int]):
    """Numbers of the batches of an epoch: those after the last epoch's, or the same again."""

    def __init__(self, batches: int, repeat: bool) -> None:
        self.batches, self.repeat, self.epoch = batches, repeat, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[int]:
        start = 0 if self.repeat else self.epoch * self.batches
        return iter(range(start, start + self.batches))

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch from Lightning, so that a resumed run draws as an uninterrupted one."""
        self.epoch = epoch


def _point(rng: Generator, mask: Array) -> Array:
    rows, columns = np.nonzero(mask)
    i = rng.integers(len(rows))
    return np.array([columns[i], rows[i]], np.float32)


def _box(rng: Generator, mask: Array) -> Array:
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float32)
    loose = np.maximum(1.0, 0.05 * np.tile(box[2:] - box[:2], 2))
    return np.clip(box + rng.normal(size=4) * loose, 0, len(mask) - 1).astype(np.float32)


def _centre(rng: Generator, side: int) -> Array:
    return rng.uniform(0.08, 0.92, size=2) * side


def _tube(rng: Generator, x: Array, y: Array, side: int) -> Array:
    """A thick line of one to three straight pieces."""
    return _line(rng, x, y, side, radius=rng.uniform(2, 12), length=rng.uniform(20, 140))


def _bar(rng: Generator, x: Array, y: Array, side: int) -> Array:
    """A short line two to five pixels thick."""
    return _line(rng, x, y, side, radius=rng.uniform(1, 2.5), length=rng.uniform(8, 40), pieces=1)


def _line(
    rng: Generator, x: Array, y: Array, side: int, *, radius: float, length: float, pieces: int | None = None
) -> Array:
    start, angle = _centre(rng, side), rng.uniform(0, 2 * np.pi)
    inside = np.zeros_like(x, bool)
    pieces = int(rng.integers(1, 4)) if pieces is None else pieces
    for _ in range(pieces):
        way = length / pieces * np.array([np.cos(angle), np.sin(angle)])
        along = ((x - start[0]) * way[0] + (y - start[1]) * way[1]) / (way @ way)
        along = along.clip(0, 1)
        inside |= np.hypot(x - start[0] - along * way[0], y - start[1] - along * way[1]) <= radius
        start, angle = start + way, angle + rng.normal(0, 0.6)
    return inside


def _polar(rng: Generator, x: Array, y: Array, side: int) -> tuple[Array, Array]:
    """Radius and angle about a random centre, in coordinates turned and stretched at random."""
    centre, turn, stretch = _centre(rng, side), rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.35))
    u = (x - centre[0]) * np.cos(turn) + (y - centre[1]) * np.sin(turn)
    v = (y - centre[1]) * np.cos(turn) - (x - centre[0]) * np.sin(turn)
    return np.hypot(u * stretch, v / stretch), np.arctan2(v / stretch, u * stretch)


def _blob(rng: Generator, x: Array, y: Array, side: int) -> Array:
    """An ellipse with a wavy edge."""
    radius, angle = _polar(rng, x, y, side)
    wave = sum(rng.normal(0, 0.12) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 4))
    return radius <= np.exp(rng.uniform(1.0, 3.7)) * (1 + wave)


def _ring(rng: Generator, x: Array, y: Array, side: int) -> Array:
    """A closed band."""
    radius, _ = _polar(rng, x, y, side)
    return np.abs(radius - rng.uniform(8, 50)) <= rng.uniform(1, 5)


def _arcs(rng: Generator, x: Array, y: Array, side: int) -> Array:
    """One to six arcs in a row, like ribs."""
    radius, angle = _polar(rng, x, y, side)
    pitch, first = rng.uniform(8, 16), rng.uniform(20, 60)
    number = np.round((radius - first) / pitch)
    near = np.abs(radius - first - number * pitch) <= rng.uniform(1.5, 0.35 * pitch)
    return near & (number >= 0) & (number < rng.integers(1, 7)) & (np.abs(angle) < rng.uniform(0.3, 1.2))


def _polygon(rng: Generator, x: Array, y: Array, side: int) -> Array:
    """A convex polygon: what lies within three to seven half-planes."""
    radius, angle = _polar(rng, x, y, side)
    corners = rng.integers(3, 8)
    size = np.exp(rng.uniform(1.5, 3.7))
    normals = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
    return np.all([radius * np.cos(angle - normal) <= size for normal in normals], axis=0)


_SHAPES = (_tube, _tube, _bar, _blob, _ring, _arcs, _polygon)
