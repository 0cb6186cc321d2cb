"""Clean and poor frames of different patients, from which a degradation is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from rbs.data import unpaired
from rbs.data.datasets import place_crop
from rbs.data.endoscopy import LoadedFrame, load_frame, require_room
from rbs.data.frames_manifest import FrameRow, FramesManifest, is_frames_manifest
from rbs.data.manifest import manifest_record
from rbs.data.matching import patient_key
from rbs.degradation.frames import noise_of
from rbs.endoscopy.colour import from_8_bits
from rbs.endoscopy.duplicates import near_duplicates
from rbs.endoscopy.perceptual_hash import PerceptualHash, perceptual_hash
from rbs.errors import ManifestError

_TRIES = 8
_ENOUGH = 0.95
"""A crop is taken when this share of it is valid."""

_OTHERS = "give clean and poor frames of different patients, or train on the pairs themselves"


class UnpairedFramesDataModule(unpaired.UnpairedImages):
    """Crops of clean frames, and of poor frames of other patients.

    Frames of the split "train" are used. No poor one shows what a clean one of any split shows, and
    none is of its group: restorers are trained and tested on these.

    Training batches hold "good" and "poor", sRGB 0..1, float32 (B, 3, h, w), and "place", float32
    (B, 4): top, left, bottom and right of the good crop in parts of its frame.

    Args:
        good: Manifest of clean frames.
        poor: Manifest of poor frames, which stand in its column "frame".
        crop: Rows and columns of crops, multiples of 16.
        longest_side: Longer frames are reduced to this when read, pixels; None leaves them as they
            are. Restorers are trained at the same.
        batch_size: Crops of each side in a batch.
        samples_per_epoch: Crops of each side in an epoch.
        num_workers: Processes that prepare batches.
        seed: Seed of all random choices.

    Attributes:
        sides: Clean and poor frames, after `setup`.

    Raises:
        RbsError: An argument is out of range.
    """

    sides: tuple[list[LoadedFrame], list[LoadedFrame]]

    def __init__(
        self,
        good: str | Path = "data/good/manifest.csv",
        poor: str | Path = "data/poor/manifest.csv",
        *,
        crop: tuple[int, int] = (128, 128),
        longest_side: int | None = 320,
        batch_size: int = 4,
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
        require_room(longest_side, crop)
        self.longest_side = longest_side

    def setup(self, stage: str) -> None:
        """Read both sides.

        Raises:
            ManifestError: A manifest is not usable, a side has too few frames, a frame is smaller
                than the crop, or both sides have a frame or a group in common.
            FrameError: A picture cannot be used.
        """
        if hasattr(self, "sides"):
            return
        listed, other = (_listed(file) for file in (self.good, self.poor))
        poor = other.rows("train")
        _refuse_common_groups(listed.frames, poor, self.poor)
        good, held = listed.rows("train"), [row for row in listed.frames if row.split != "train"]
        clean, held_out, found = (self._read(rows) for rows in (good, held, poor))
        _refuse_common_frames([*good, *held], [*clean, *held_out], poor, found, self.poor)
        self.sides = clean, found

    def _read(self, rows: Sequence[FrameRow]) -> list[LoadedFrame]:
        found = []
        for row in tqdm(rows, desc="reading frames", unit="frame", leave=False):
            frame = load_frame(FrameRow(row.frame, row.split), self.longest_side)
            if row.split == "train" and any(
                size < length for size, length in zip(frame.clean.shape[1:], self.crop, strict=True)
            ):
                height, width = frame.clean.shape[1:]
                fault = f"the frame has {height} x {width} pixels, fewer than the crop's {tuple(self.crop)}"
                raise ManifestError(fault, file=row.frame, remedy="use smaller crops, or leave it out")
            found.append(frame)
        return found

    def measured(self) -> dict[str, Any]:
        """See `UnpairedImages.measured`."""
        moments = []
        for frame in self.sides[1]:
            seen = from_8_bits(frame.clean[:, frame.valid[0]])
            noise = noise_of(from_8_bits(frame.clean), frame.valid[0])
            moments.append([seen.mean(), seen.std(axis=1).mean(), noise])
        return {"moments": np.array(moments, np.float32), "longest_side": self.longest_side or 0}

    def provenance(self) -> dict[str, Any]:
        """See `UnpairedImages.provenance`."""
        good, poor = self.sides
        return {
            "good": {**manifest_record(self.good), "frames": len(good)},
            "poor": {**manifest_record(self.poor), "frames": len(poor)},
            "longest_side": self.longest_side,
            "shows": "frames",
        }

    def _crops(self) -> _Crops:
        return _Crops(self.sides, self.crop, self.samples_per_epoch, self.seed)


@dataclass(frozen=True)
class _Crops(Dataset[dict[str, torch.Tensor]]):
    """A crop of a clean frame and one of a poor frame; the index counts on over epochs."""

    sides: tuple[list[LoadedFrame], list[LoadedFrame]]
    crop: tuple[int, int]
    length: int
    seed: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        (good, place), (poor, _) = (self._crop(side[rng.integers(len(side))], rng) for side in self.sides)
        return {"good": good, "poor": poor, "place": place}

    def _crop(self, frame: LoadedFrame, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A crop of a frame, perhaps flipped from left to right, and its place."""
        top, left = place_crop(frame.valid, self.crop, rng, enough=_ENOUGH, tries=_TRIES)
        shown = frame.clean[:, top : top + self.crop[0], left : left + self.crop[1]]
        rows, columns = frame.clean.shape[1:]
        right = left + self.crop[1]
        if rng.random() < 0.5:
            shown, left, right = shown[:, :, ::-1], columns - right, columns - left
        place = (top / rows, left / columns, (top + self.crop[0]) / rows, right / columns)
        return torch.from_numpy(from_8_bits(np.ascontiguousarray(shown))), torch.tensor(place)


def _listed(file: Path) -> FramesManifest:
    """A manifest with enough frames in the split "train".

    Raises:
        ManifestError: They are too few, or the manifest lists scans.
    """
    if file.is_file() and not is_frames_manifest(file):
        fault = "it lists no frames, and a degradation of frames is learned from them"
        raise ManifestError(fault, file=file, remedy="give a manifest of frames")
    listed = FramesManifest.read(file)
    if (number := sum(row.split == "train" for row in listed.frames)) < unpaired.FEWEST:
        fault = (
            f"{number} of its frames are in split train, and a degradation is learned from {unpaired.FEWEST}"
        )
        raise ManifestError(fault, file=file, remedy="add frames, or give more of them the split train")
    return listed


def _refuse_common_groups(good: Sequence[FrameRow], poor: Sequence[FrameRow], manifest: Path) -> None:
    """Refuse a video or patient on both sides; a frame without one stands alone."""
    known = {patient_key(row.group): row for row in good if row.grouped}
    for row in poor:
        if row.grouped and patient_key(row.group) in known:
            fault = f"group {row.group} is that of {known[patient_key(row.group)].frame} of the good frames"
            raise ManifestError(fault, file=manifest, remedy=_OTHERS)


def _refuse_common_frames(
    good_rows: Sequence[FrameRow],
    good: Sequence[LoadedFrame],
    poor_rows: Sequence[FrameRow],
    poor: Sequence[LoadedFrame],
    manifest: Path,
) -> None:
    """Refuse a poor frame that shows what a clean one shows."""
    hashes = [_hash(frame) for frame in (*good, *poor)]
    groups = ["good"] * len(good) + ["poor"] * len(poor)
    for pair in near_duplicates(hashes, groups, progress=False):
        own, other = poor_rows[pair.second - len(good)], good_rows[pair.first]
        fault = f"{own.frame} shows what {other.frame} of the good frames shows"
        raise ManifestError(fault, file=manifest, remedy=_OTHERS)


def _hash(frame: LoadedFrame) -> PerceptualHash:
    return perceptual_hash(from_8_bits(frame.clean), frame.valid[0])
