"""Training samples and whole frames for restoring endoscopy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from rbs.data.augmentation.geometric import LARGEST_SEED, flip_alike
from rbs.data.frames_manifest import FrameRow, FramesManifest
from rbs.data.samples import GRID, EpochSampler, Sample
from rbs.degradation.optical import Optical, Preset, enlarge
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.files import read_frame, reduced
from rbs.endoscopy.pairs import mask_of, refuse_other_scene, refuse_other_size
from rbs.errors import FrameError, ManifestError, RbsError

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

_TRIES = 8
_ENOUGH = 0.75
"""A crop is taken when this share of it is valid; after `_TRIES` refusals the one with most is."""


@dataclass(frozen=True)
class LoadedFrame:
    """The pictures of a row, as they are kept in memory.

    Attributes:
        clean: uint8 (3, H, W), sRGB.
        valid: False on black borders, insets and burned-in text, bool (1, H, W).
        low: The acquired low-quality picture on the grid of `clean`, uint8 (3, H, W); None without
            one.
        labels: 1 in lesions, uint8 (1, H, W); None without a mask.
    """

    clean: Array
    valid: Array
    low: Array | None = None
    labels: Array | None = None


class EndoscopyDataModule(L.LightningDataModule):
    """Degraded colour frames and the clean ones, from a frames manifest.

    Batches are those of `rbs.data.bone_scans.RBSDataModule`, in colours. Training batches hold
    random crops of B frames:

    ===================  ==================  ================================================================
    rapid                float32 (B,3,h,w)   degraded frame, sRGB 0..1
    exposure             float32 (B,)        ones
    target               float32 (B,3,h,w)   clean frame
    target_exposure      float32 (B,)        ones
    valid                bool (B,1,h,w)      False on black borders, insets and burned-in text
    labels               int64 (B,1,h,w)     0 background, 1 lesion; only if every training frame has a mask
    case                 int64 (B,)          row within the split
    realisation          int64 (B,)          which of the frame's degradations, if `realisations` is a number
    crop                 int64 (B,4)         top, left, height, width; multiples of 16
    flip                 bool (B,2)          left-right and up-down flips, applied after cropping
    views                int64 (B,1)         zeros: a frame is one view
    patient              list[str]           the group: video, patient, or the frame itself
    ===================  ==================  ================================================================

    Validation and test batches are one whole frame each, always degraded the same way. Where the
    manifest names pictures of low quality, they take the place of the degraded ones.

    No file is opened before `setup`. The frames a stage needs are then read once and kept in RAM in
    eight bits (a quarter of a megabyte for 320 x 256 pixels), which worker processes share.

    Args:
        manifest: The CSV that lists the frames.
        preset: What clean frames are degraded by; see `rbs.degradation.optical`.
        realisations: Number of degradations of each frame; None draws one afresh for every crop.
            Numbered ones exist as whole frames (`realisation`), for whoever must see the whole.
        crop: Rows and columns of training crops, multiples of 16.
        batch_size: Training crops a batch (a rank).
        samples_per_epoch: Training crops an epoch, over all ranks.
        longest_side: Longer frames are reduced to this when read, before they are degraded, pixels;
            None leaves them as they are.
        num_workers: Processes that prepare batches.
        seed: Seed of all random choices. A sample depends on it, the epoch and its place in the
            epoch alone: not on the number of workers or ranks.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str | Path = "data/frames/manifest.csv",
        *,
        preset: Preset = "mixed",
        realisations: int | None = None,
        crop: tuple[int, int] = (128, 128),
        batch_size: int = 8,
        samples_per_epoch: int = 1000,
        longest_side: int | None = 320,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(crop) < GRID or any(size % GRID for size in crop):
            raise RbsError(
                f"the crop {tuple(crop)} is not made of multiples of {GRID}", remedy="try 128 x 128"
            )
        if min(batch_size, samples_per_epoch) < 1 or (realisations is not None and realisations < 1):
            raise RbsError("batch_size, samples_per_epoch and realisations must be at least 1")
        if longest_side is not None and longest_side < max(crop):
            raise RbsError(
                f"frames of {longest_side} pixels do not hold crops of {tuple(crop)}",
                remedy="raise longest_side or lower crop",
            )
        if seed < 0:
            raise RbsError(f"the seed {seed} is negative")
        self.manifest = Path(manifest)
        self.preset: Preset = preset
        self.realisations = realisations
        self.crop, self.batch_size, self.samples_per_epoch = crop, batch_size, samples_per_epoch
        self.longest_side, self.num_workers, self.seed = longest_side, num_workers, seed
        self._manifest: FramesManifest | None = None
        self._kept: dict[str, list[LoadedFrame]] = {}

    def setup(self, stage: str) -> None:
        """Read the frames the stage needs ("fit": train and val, "validate": val, "test", "predict": test).

        Raises:
            ManifestError: The manifest is not usable, a split is empty, or a frame is smaller than
                the crop.
            FrameError: A picture cannot be used.
        """
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for name in wanted.get(stage, ()):
            if name not in self._kept:
                rows = self.cases(name)
                bar = tqdm(rows, desc=f"reading {name} frames", unit="frame", leave=False)
                self._kept[name] = [load_frame(row, self.longest_side) for row in bar]
        if stage == "fit":
            self._check_training()

    def cases(self, split: str) -> list[FrameRow]:
        """The rows of "train", "val" or "test"; the batch entry `case` indexes this list.

        Raises:
            ManifestError: The manifest is not usable, or the split is empty.
        """
        if self._manifest is None:
            self._manifest = FramesManifest.read(self.manifest)
        return self._manifest.rows(split)

    def realisation(self, case: int, realisation: int) -> tuple[Array, float]:
        """A whole degraded training frame, the one whose crops are shown under this number.

        Args:
            case: Row in the training split.
            realisation: Its number, below `realisations`.

        Returns:
            sRGB values (3, H, W), and 1: frames have no exposure.
        """
        return self._crops().realisation(case, realisation), 1.0

    def training_ranges(self) -> dict[str, Any]:
        """What the training frames are, so that weights can tell later what they were trained for."""
        acquired = all(frame.low is not None for frame in self._kept["train"])
        return {"preset": None if acquired else self.preset, "longest_side": self.longest_side}

    def train_dataloader(self) -> DataLoader[Sample]:
        """Batches of random crops, other ones each epoch."""
        dataset = self._crops()
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return self._loader(dataset, self.batch_size, EpochSampler(dataset, num_replicas=ranks, rank=rank))

    def val_dataloader(self) -> DataLoader[Sample]:
        """Whole validation frames, one at a time."""
        return self._loader(self._whole("val"), 1, None)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Whole test frames, one at a time."""
        return self._loader(self._whole("test"), 1, None)

    def predict_dataloader(self) -> DataLoader[Sample]:
        """As `test_dataloader`."""
        return self.test_dataloader()

    def _crops(self) -> FrameCrops:
        return FrameCrops(
            self.cases("train"),
            self._kept["train"],
            preset=self.preset,
            realisations=self.realisations,
            crop=self.crop,
            length=self.samples_per_epoch,
            seed=self.seed,
        )

    def _whole(self, split: str) -> WholeFrames:
        return WholeFrames(self.cases(split), self._kept[split], preset=self.preset, seed=self.seed)

    def _loader(
        self, dataset: Dataset[Sample], batch_size: int, sampler: EpochSampler | None
    ) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _check_training(self) -> None:
        rows, kept = self.cases("train"), self._kept["train"]
        acquired = sum(frame.low is not None for frame in kept)
        if 0 < acquired < len(kept):
            raise ManifestError(
                f"{acquired} of {len(kept)} training frames have a picture of low quality",
                file=self.manifest,
                remedy="name one for all of them, or for none",
            )
        if acquired:
            log.info("frames are restored from their acquired pictures: preset %s is not used", self.preset)
        for row, frame in zip(rows, kept, strict=True):
            height, width = frame.clean.shape[1:]
            if height < self.crop[0] or width < self.crop[1]:
                raise ManifestError(
                    f"the frame has {height} x {width} pixels, fewer than the crop's {self.crop[0]} x"
                    f" {self.crop[1]}",
                    file=row.frame,
                    remedy="use smaller crops, a larger longest_side, or leave the frame out",
                )


class FrameCrops(Dataset[Sample]):
    """Random training crops; the index counts on over epochs (see `EpochSampler`).

    Args:
        rows: Rows of the manifest.
        frames: Their pictures.
        preset: See `EndoscopyDataModule`, as all that follow.
        realisations: Number of degradations a frame, or None.
        crop: Rows and columns.
        length: Samples an epoch.
        seed: Seed.
    """

    def __init__(
        self,
        rows: Sequence[FrameRow],
        frames: Sequence[LoadedFrame],
        *,
        preset: Preset,
        realisations: int | None,
        crop: tuple[int, int],
        length: int,
        seed: int,
    ) -> None:
        self.rows, self.frames, self.preset, self.realisations = rows, frames, preset, realisations
        self.crop, self.length, self.seed = crop, length, seed
        self.labelled = all(frame.labels is not None for frame in frames)
        self._dealt: dict[tuple[int, int], Array] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        # Every len(frames) samples in a row show every frame once, in an order of their own.
        lap, place = divmod(index, len(self.frames))
        row = int(np.random.default_rng((self.seed, 0, lap)).permutation(len(self.frames))[place])
        rng = np.random.default_rng((self.seed, 1, index))
        frame = self.frames[row]
        top, left = _place_crop(frame.valid[0], self.crop, rng)
        realisation = None if self.realisations is None else int(rng.integers(self.realisations))
        # The whole frame is degraded, though a crop is shown: light and haze belong to the field of
        # view.
        afresh = (self.seed, 4, index)
        low = _low(frame, self.preset, afresh) if realisation is None else self.realisation(row, realisation)
        height, width = self.crop
        cut = np.s_[:, top : top + height, left : left + width]
        arrays = {"rapid": low[cut], "target": _values(frame.clean[cut]), "valid": frame.valid[cut]}
        if self.labelled:
            assert frame.labels is not None
            arrays["labels"] = frame.labels[cut]
        arrays, flip = flip_alike(arrays, int(rng.integers(LARGEST_SEED)))
        return _sample(
            arrays,
            case=row,
            realisation=realisation,
            crop=(top, left, height, width),
            flip=flip,
            patient=self.rows[row].group,
        )

    def realisation(self, row: int, realisation: int) -> Array:
        """See `EndoscopyDataModule.realisation`."""
        if (row, realisation) not in self._dealt:
            low = _low(self.frames[row], self.preset, (self.seed, 3, row, realisation))
            self._dealt[row, realisation] = np.rint(255 * low).astype(np.uint8)
        return _values(self._dealt[row, realisation])


class WholeFrames(Dataset[Sample]):
    """Whole frames for validation and test, always degraded the same way.

    Args:
        rows: Rows of the manifest.
        frames: Their pictures.
        preset: What they are degraded by.
        seed: Seed.
    """

    def __init__(
        self, rows: Sequence[FrameRow], frames: Sequence[LoadedFrame], *, preset: Preset, seed: int
    ) -> None:
        self.rows, self.frames, self.preset, self.seed = rows, frames, preset, seed

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, row: int) -> Sample:
        frame = self.frames[row]
        low = _low(frame, self.preset, (self.seed, 2, row))
        arrays = {"rapid": low, "target": _values(frame.clean), "valid": frame.valid}
        if frame.labels is not None:
            arrays["labels"] = frame.labels
        crop = (0, 0, *frame.clean.shape[1:])
        return _sample(
            arrays, case=row, realisation=None, crop=crop, flip=(False, False), patient=self.rows[row].group
        )


def load_frame(row: FrameRow, longest_side: int | None) -> LoadedFrame:
    """Read the pictures of a row.

    Args:
        row: The row.
        longest_side: Longer frames are reduced to this, pixels; None leaves them.

    Raises:
        FrameError: A picture cannot be used, or shows nothing.
        ManifestError: The mask or the picture of low quality has another size than the frame, or
            the latter shows another scene.
    """
    whole = read_frame(row.frame)
    clean = reduced(whole, longest_side)
    valid = field_of_view(clean)
    if not valid.any():
        raise FrameError("it shows nothing", file=row.frame, remedy="leave it out")
    low = labels = None
    if row.low is not None:
        refuse_other_size(row.frame, row.low)
        low = reduced(_at_size(read_frame(row.low), whole.shape[1:]), longest_side)
        refuse_other_scene(row.frame, clean, row.low, low, valid)
        low = _bytes(low)
    if row.mask is not None:
        marked = mask_of(row.frame, row.mask)[None].astype(np.float32)
        labels = (reduced(marked, longest_side) > 0.5).astype(np.uint8)
    return LoadedFrame(_bytes(clean), valid[None], low, labels)


def _at_size(picture: Array, shape: tuple[int, ...]) -> Array:
    """A picture of a frame's size or half of it at the frame's size, as restoring one begins."""
    if picture.shape[1:] == shape:
        return picture
    more = [(0, max(0, length - 2 * half)) for length, half in zip(shape, picture.shape[1:], strict=True)]
    return enlarge(np.pad(picture, [(0, 0), *more], mode="edge"), shape)


def _low(frame: LoadedFrame, preset: Preset, seed: Sequence[int]) -> Array:
    """The picture to restore, sRGB 0..1: the acquired one, or the clean one degraded."""
    if frame.low is not None:
        return _values(frame.low)
    return Optical(preset, frame.valid[0])(_values(frame.clean), np.random.default_rng(seed))


def _bytes(frame: Array) -> Array:
    return np.rint(255 * np.clip(frame, 0, 1)).astype(np.uint8)


def _values(frame: Array) -> Array:
    return frame.astype(np.float32) / np.float32(255)


def _sample(
    arrays: dict[str, Array],
    *,
    case: int,
    realisation: int | None,
    crop: tuple[int, ...],
    flip: tuple[bool, bool],
    patient: str,
) -> Sample:
    """A sample of the batch described at `EndoscopyDataModule`, as tensors."""
    types: dict[str, Any] = {"labels": np.int64, "valid": np.bool_}
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array, dtype=types.get(name, np.float32)))
        for name, array in arrays.items()
    }
    numbered = {} if realisation is None else {"realisation": torch.tensor(realisation)}
    return (
        tensors
        | numbered
        | {
            "exposure": torch.tensor(1.0),
            "target_exposure": torch.tensor(1.0),
            "case": torch.tensor(case),
            "crop": torch.tensor(crop),
            "flip": torch.tensor(flip),
            "views": torch.tensor([0]),
            "patient": patient,
        }
    )


def _place_crop(valid: Array, crop: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a crop most of which is valid (H, W)."""
    best, most = (0, 0), -1.0
    for _ in range(_TRIES):
        top, left = (
            int(rng.integers((size - length) // GRID + 1)) * GRID
            for size, length in zip(valid.shape, crop, strict=True)
        )
        share = float(valid[top : top + crop[0], left : left + crop[1]].mean())
        if share >= _ENOUGH:
            return top, left
        if share > most:
            best, most = (top, left), share
    return best
