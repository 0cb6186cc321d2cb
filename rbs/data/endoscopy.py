"""Training samples and whole frames for restoring endoscopy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rbs.data.augmentation.geometric import LARGEST_SEED, flip_alike
from rbs.data.datamodule import CropDataModule
from rbs.data.datasets import CaseDataset, CropDataset, Sample, place_crop
from rbs.data.frames_manifest import FrameRow, FramesManifest
from rbs.degradation import Degrader
from rbs.degradation.frames import FrameDegrader, load_frame_degrader
from rbs.degradation.optical import Optical, Preset, enlarge
from rbs.endoscopy.colour import Mask, from_8_bits, in_8_bits
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.files import read_frame, reduced
from rbs.endoscopy.pairs import mask_of, refuse_other_scene, refuse_other_size
from rbs.errors import CheckpointError, FrameError, ManifestError, RbsError
from rbs.scans.scan import Array, Spacing

log = logging.getLogger(__name__)

_TRIES = 8
_ENOUGH = 0.75
"""A crop is taken when this share of it is valid."""


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


PIXEL = (1.0, 1.0)
"""Spacing of frames, whose pixels have no size in mm."""

DEFAULT_REALISATIONS = 2
"""Degradations of each frame by a degrader, where no number is given."""

DegraderOfField = Callable[[Mask], Degrader]
"""From the field of view of a frame to its degradation."""


class EndoscopyDataModule(CropDataModule):
    """Degraded colour frames and the clean ones, from a frames manifest.

    Batches are those of `rbs.data.bone_scans.RBSDataModule`, in colours. Training batches hold
    random crops of B frames:

    ===================  ==================  ==================================================
    rapid                float32 (B,3,h,w)   degraded frame, sRGB 0..1
    exposure             float32 (B,)        ones
    target               float32 (B,3,h,w)   clean frame
    target_exposure      float32 (B,)        ones
    valid                bool (B,1,h,w)      False on black borders, insets and burned-in text
    labels               int64 (B,1,h,w)     0 background, 1 lesion; only if all frames have masks
    case                 int64 (B,)          row within the split
    crop                 int64 (B,4)         top, left, height, width; multiples of 16
    flip                 bool (B,2)          left-right and up-down flips, applied after cropping
    patient              list[str]           the group: video, patient, or the frame itself
    prior                SemanticPrior       of the crop; only after `attach_priors`
    ===================  ==================  ==================================================

    Validation and test batches are one whole frame each, always degraded the same way. Where the
    manifest names pictures of low quality, they take the place of the degraded ones.

    No file is opened before `setup`. The frames a stage needs are then read once and kept in RAM in
    eight bits (a quarter of a megabyte for 320 x 256 pixels), which worker processes share.

    Args:
        manifest: The CSV that lists the frames.
        preset: What clean frames are degraded by; see `rbs.degradation.optical`.
        degrader: File of a degrader of frames (`make train-degrader DATA=endoscopy`), which takes
            the place of the preset. It was trained on frames of the same `longest_side`.
        realisations: Number of degradations of each frame; None draws one afresh for every crop, or
            `DEFAULT_REALISATIONS` with a degrader, which takes longer. Of numbered ones a teacher
            can say its prior.
        crop: Rows and columns of training crops, multiples of 16.
        longest_side: Longer frames are reduced to this when read, before they are degraded, pixels;
            None leaves them as they are.
        options: Further arguments of `CropDataModule`: batch_size, samples_per_epoch, num_workers
            and seed.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str | Path = "data/frames/manifest.csv",
        *,
        preset: Preset = "mixed",
        degrader: str | Path | None = None,
        realisations: int | None = None,
        crop: tuple[int, int] = (128, 128),
        longest_side: int | None = 320,
        **options: Any,
    ) -> None:
        drawn = DEFAULT_REALISATIONS if realisations is None and degrader is not None else realisations
        super().__init__(manifest, realisations=drawn, crop=crop, **options)
        require_room(longest_side, crop)
        self.preset: Preset = preset
        self.degrader = None if degrader is None else Path(degrader)
        self.longest_side = longest_side
        self._realised: dict[tuple[int, int], Array] = {}

    def setup(self, stage: str) -> None:
        """See `CropDataModule.setup`.

        Raises:
            CheckpointError: The file is no degrader of frames, or one of frames of another size.
        """
        if self.degrader is not None and self._degrading.longest_side != (self.longest_side or 0):
            theirs, ours = (
                f"{side} pixels" if side else "any size"
                for side in (self._degrading.longest_side, self.longest_side)
            )
            fault = f"it was trained on frames of {theirs}, and these are of {ours}"
            raise CheckpointError(fault, file=self.degrader, remedy="set --data.longest_side to the same")
        super().setup(stage)

    def cases(self, split: str) -> list[FrameRow]:
        """See `CropDataModule.cases`; an empty split is refused, too."""
        return self._listed.rows(split)

    @cached_property
    def _listed(self) -> FramesManifest:
        return FramesManifest.read(self.manifest)

    def training_ranges(self) -> dict[str, Any]:
        """Preset and size of the training frames, which the weights are then known to be for."""
        known = self.degrader is None and any(frame.low is None for frame in self._kept["train"])
        return {"preset": self.preset if known else None, "longest_side": self.longest_side}

    @cached_property
    def _degrading(self) -> FrameDegrader:
        assert self.degrader is not None
        return load_frame_degrader(self.degrader)

    @property
    def _within(self) -> DegraderOfField:
        return partial(Optical, self.preset) if self.degrader is None else self._degrading.within

    def _crops(self) -> FrameCrops:
        crops = FrameCrops(
            self.cases("train"),
            self._kept["train"],
            within=self._within,
            realised=self._realised,
            **self._options(),
        )
        if self.degrader is not None:
            numbers = list(product(range(len(crops.images)), range(self.realisations or 0)))
            for row, number in tqdm(numbers, desc="degrading", unit="frame", leave=False):
                crops.realisation(row, number)
        return crops

    def _whole(self, split: str) -> WholeFrames:
        return WholeFrames(self.cases(split), self._kept[split], within=self._within, seed=self.seed)

    def _read(self, split: str) -> list[LoadedFrame]:
        bar = tqdm(self.cases(split), desc=f"reading {split} frames", unit="frame", leave=False)
        return [load_frame(row, self.longest_side) for row in bar]

    def _check_training(self) -> None:
        rows, kept = self.cases("train"), self._kept["train"]
        acquired = sum(frame.low is not None for frame in kept)
        if 0 < acquired < len(kept):
            fault = f"{acquired} of {len(kept)} training frames have a picture of low quality"
            raise ManifestError(fault, file=self.manifest, remedy="name one for all of them, or for none")
        if acquired and self.degrader is not None:
            fault = "frames that have pictures of low quality are not degraded"
            raise ManifestError(fault, file=self.manifest, remedy="leave --data.degrader out")
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


def require_room(longest_side: int | None, crop: tuple[int, int]) -> None:
    """Refuse crops larger than the frames.

    Args:
        longest_side: To which longer frames are reduced, pixels; None for any size.
        crop: Rows and columns of crops.

    Raises:
        RbsError: They are larger.
    """
    if longest_side is not None and longest_side < max(crop):
        fault = f"frames of {longest_side} pixels do not hold crops of {tuple(crop)}"
        raise RbsError(fault, remedy="raise longest_side or lower crop")


class FrameCrops(CropDataset):
    """Random training crops; the index counts on over epochs (see `EpochSampler`).

    Args:
        rows: Rows of the manifest.
        frames: Their pictures.
        within: Degradation of clean frames.
        realised: Numbered degradations that exist, uint8, which are added to.
        options: Further arguments of `CropDataset`.
    """

    def __init__(
        self,
        rows: Sequence[FrameRow],
        frames: Sequence[LoadedFrame],
        *,
        within: DegraderOfField,
        realised: dict[tuple[int, int], Array],
        **options: Any,
    ) -> None:
        super().__init__(rows, frames, **options)
        self.within, self._realised = within, realised
        self.labelled = all(frame.labels is not None for frame in frames)

    def __getitem__(self, index: int) -> Sample:
        row, rng = self.draw_case(index)
        frame = self.images[row]
        top, left = place_crop(frame.valid, self.crop, rng, enough=_ENOUGH, tries=_TRIES)
        # The whole frame is degraded, though a crop is shown: light and haze belong to the field of
        # view.
        if self.realisations is None:
            low, whole = _low(frame, self.within, (self.seed, 4, index)), None
        else:
            low, *_ = self.realisation(row, int(rng.integers(self.realisations)))
            whole = low
        height, width = self.crop
        crop = top, left, height, width
        cut = np.s_[:, top : top + height, left : left + width]
        arrays = {"rapid": low[cut], "target": from_8_bits(frame.clean[cut]), "valid": frame.valid[cut]}
        if self.labelled:
            arrays["labels"] = frame.labels[cut]
            arrays |= {name: labels[cut] for name, labels in self.other_labels(row).items()}
        arrays, flip = flip_alike(arrays, int(rng.integers(LARGEST_SEED)))
        return self.sample(row, arrays, crop=crop, flip=flip) | self.prior(whole, 1.0, PIXEL, crop, flip, [0])

    def realisation(self, row: int, number: int) -> tuple[Array, float, Spacing]:
        """A whole degraded frame, sRGB (3, H, W); frames have no exposure and no spacing."""
        if (row, number) not in self._realised:
            low = _low(self.images[row], self.within, (self.seed, 3, row, number))
            self._realised[row, number] = in_8_bits(low)
        return from_8_bits(self._realised[row, number]), 1.0, PIXEL


class WholeFrames(CaseDataset):
    """Whole frames for validation and test, always degraded the same way.

    Args:
        rows: Rows of the manifest.
        frames: Their pictures.
        within: Degradation of clean frames.
        seed: Seed.
    """

    def __init__(
        self, rows: Sequence[FrameRow], frames: Sequence[LoadedFrame], *, within: DegraderOfField, seed: int
    ) -> None:
        super().__init__(rows, frames, seed=seed)
        self.within = within
        self._degraded: dict[int, Array] = {}

    def __getitem__(self, row: int) -> Sample:
        frame = self.images[row]
        if row not in self._degraded:
            self._degraded[row] = in_8_bits(_low(frame, self.within, (self.seed, 2, row)))
        arrays = {
            "rapid": from_8_bits(self._degraded[row]),
            "target": from_8_bits(frame.clean),
            "valid": frame.valid,
        }
        if frame.labels is not None:
            arrays |= {"labels": frame.labels, **self.other_labels(row)}
        return self.sample(row, arrays)


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
        acquired = reduced(_at_size(read_frame(row.low), whole.shape[1:]), longest_side)
        refuse_other_scene(row.frame, clean, row.low, acquired, valid)
        low = in_8_bits(acquired)
    if row.mask is not None:
        marked = mask_of(row.frame, row.mask)[None].astype(np.float32)
        labels = (reduced(marked, longest_side) > 0.5).astype(np.uint8)
    return LoadedFrame(in_8_bits(clean), valid[None], low, labels)


def _at_size(picture: Array, shape: tuple[int, ...]) -> Array:
    """A picture of a frame's size or half of it at the frame's size, as restoring one begins."""
    if picture.shape[1:] == shape:
        return picture
    more = [(0, max(0, length - 2 * half)) for length, half in zip(shape, picture.shape[1:], strict=True)]
    return enlarge(np.pad(picture, [(0, 0), *more], mode="edge"), shape)


def _low(frame: LoadedFrame, within: DegraderOfField, seed: Sequence[int]) -> Array:
    """The picture to restore, sRGB 0..1: the acquired one, or the clean one degraded."""
    if frame.low is not None:
        return from_8_bits(frame.low)
    return within(frame.valid[0])(from_8_bits(frame.clean), np.random.default_rng(seed))
