"""Phantom children and the statements that are true of them, on coarse pixels, for descriptions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from rbs.data.anatomy import CHILD_FILE
from rbs.data.augmentation.geometric import log_uniform
from rbs.data.datasets import EpochSampler
from rbs.data.fingerprints import fingerprint, same_counts
from rbs.data.manifest import Case, Manifest, patient_key
from rbs.description.coarse import FINE
from rbs.description.describer import places_of
from rbs.description.sentences import LEFT, PARTS, RIGHT, SENTENCES, TOPICS, Statement
from rbs.description.truth import (
    CAMERA_MM,
    STANDS_OUT,
    Foci,
    blurred,
    foci_of,
    hot_parts,
    midline_of,
    part_of,
    stands_out,
    statements_of,
)
from rbs.errors import ManifestError, RbsError
from rbs.restorers.semantic_features import STRIDE, load_semantic_network
from rbs.scans.counts import block_sums, scanned_rows, standard_scale
from rbs.scans.regions import HOT, label_of
from rbs.scans.scan import Array, View, align
from rbs.synthetic.skeleton import SPACING_MM
from rbs.utils.files import read_npz

COLUMNS = 128
"""Columns of the coarse scans."""

_UNSCANNED = 1e-3
"""Expected counts of a pixel that was not scanned are fewer."""
_SORTED = 4
"""Batches that are sorted by length together."""

_REGIONS = {"spine": 0.26, "thorax": 0.26, "pelvis": 0.2, "legs": 0.16, "arms": 0.06, "skull": 0.06}
"""Bones in which foci are added, and how often."""

_PART = {part: number for number, part in enumerate(PARTS)}
_MIRRORED = [_PART[region, {LEFT: RIGHT, RIGHT: LEFT}.get(side, side)] for region, side in PARTS]

NUMBERS = {statement: number for number, (_, statement, _) in enumerate(SENTENCES)}
"""Number of the sentence of each statement."""


@dataclass(frozen=True)
class DescribedChild:
    """The scanned rows of a phantom child on coarse pixels, aligned.

    Attributes:
        expectation: Of the standard scan, float16 (2, H, W).
        labels: Of every second fine pixel, uint8 (2, H, W).
        hot: Row and column of the hot foci that stand out, (n, 2).
        parts: Place in `PARTS` of each of them, (n,).
        cold: The same of cold ones.
        midline: Rows and columns of the midline.
        foci: Parts and numbers of these foci.
        statements: The true one of each topic.
    """

    expectation: Array
    labels: Array
    hot: Array
    parts: Array
    cold: Array
    midline: tuple[Array, Array]
    foci: Foci
    statements: tuple[Statement, ...]


def read_child(case: Case) -> DescribedChild:
    """Read a phantom child.

    Raises:
        ManifestError: The case is no phantom, or its files are damaged.
    """
    if case.truth is None:
        remedy = "list phantoms alone, see `rbs simulate`"
        raise ManifestError(f"patient {case.patient} has no truth file", file=case.standard[0], remedy=remedy)
    views = (View.ANTERIOR, View.POSTERIOR)
    try:
        content = read_npz(case.truth)
        expectation, labels = align(content["expectation"], views), align(content["labels"], views)
        record = json.loads(case.truth.with_name(CHILD_FILE).read_text(encoding="utf-8"))
        statements = statements_of(record, expectation, labels, SPACING_MM)
        midline = midline_of(record)
        parts = hot_parts(record, SPACING_MM)
        lesions = [lesion for lesion in record["lesions"] if stands_out(lesion)]
        places = {
            cold: np.array(
                [
                    (one["row"] / FINE, one["column"] / FINE)
                    for one in lesions
                    if (one["kind"] == "cold") is cold
                ]
            ).reshape(-1, 2)
            for cold in (False, True)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"no phantom of this version is described by it ({type(error).__name__}: {error})"
        raise ManifestError(fault, file=case.truth, remedy="make the phantom anew") from error
    coarse = block_sums(expectation, FINE, FINE)
    first, end = scanned_rows(coarse > _UNSCANNED)
    return DescribedChild(
        expectation=coarse[:, first:end].astype(np.float16),
        labels=labels[:, ::FINE, ::FINE][:, first:end].copy(),
        hot=places[False] - (first, 0),
        parts=np.array([_PART[part] for part in parts], int),
        cold=places[True] - (first, 0),
        midline=(midline[0] / FINE - first, midline[1] / FINE),
        foci=foci_of(record, SPACING_MM),
        statements=statements,
    )


class DescribedScansDataModule(L.LightningDataModule):
    """Whole phantom scans on coarse pixels, and the number of the true sentence of each topic.

    Batches hold, of B samples:

    ===========  =====================  ============================================================
    rapid        float32 (B,2,H,128)    raw counts, drawn afresh from the known expectation
    exposure     float32 (B,)           exposure relative to the standard scan
    sentences    int64 (B,T)            true sentence of each topic, see `SENTENCES`
    labels       uint8 (B,2,H,128)      region labels
    foci         float32 (B,2,H/8,16)   1 in cells that hold a hot focus, and a cold one
    where        float32 (B,P,H/8,16)   1 in cells that hold a hot focus of each of `PARTS`
    patient      list[str]              identifiers
    ===========  =====================  ============================================================

    Scans begin with the first scanned row and end with the last one of the longest, H a multiple of
    8. Children of about one length share a batch. They are mirrored at random, and left and right
    in their sentences with them, and zoomed a little. The exposure of validation scans is that of
    rapid ones.

    Args:
        manifest: CSV of phantoms; its split "train" trains, "val" validates.
        more: CSVs of phantoms all of which train; none of them may be a child that `manifest` keeps
            for validation or testing.
        exposures: Smallest and largest exposure; its logarithm is uniform between.
        zoom: Smallest and largest factor on rows and columns.
        single_view_probability: Share of samples that show one of their views twice.
        added: Share of samples that show further hot foci, in bones.
        batch_size: Samples a batch.
        samples_per_epoch: Samples an epoch.
        num_workers: Processes that prepare batches.
        seed: Seed of all random choices.

    Raises:
        RbsError: An argument is out of range.
    """

    def __init__(
        self,
        manifest: str = "data/phantoms/manifest.csv",
        *,
        more: Sequence[str] = (),
        exposures: tuple[float, float] = (0.2, 1.0),
        zoom: tuple[float, float] = (0.93, 1.07),
        single_view_probability: float = 0.2,
        added: float = 0.6,
        batch_size: int = 4,
        samples_per_epoch: int = 800,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < exposures[0] <= exposures[1] or not 0.5 <= zoom[0] <= zoom[1] <= 2:
            raise RbsError(f"exposures {exposures} or the zoom {zoom} do not rise within their range")
        if not 0 <= min(single_view_probability, added) <= max(single_view_probability, added) <= 1:
            fault = f"shares of {single_view_probability} with one view, {added} with further foci"
            raise RbsError(fault, remedy="give shares from 0 to 1")
        if min(batch_size, samples_per_epoch) < 1 or min(num_workers, seed) < 0:
            asked = f"batches of {batch_size}, {samples_per_epoch} samples an epoch"
            fault = f"{asked}, {num_workers} workers, seed {seed}"
            raise RbsError(fault, remedy="give at least 1, and 0 or more workers and as seed")
        self.manifest, self.more = Path(manifest), [Path(one) for one in more]
        self.exposures, self.zoom = exposures, zoom
        self.single_view_probability, self.added = single_view_probability, added
        self.batch_size, self.samples_per_epoch, self.seed = batch_size, samples_per_epoch, seed
        self.num_workers = num_workers
        self._kept: dict[str, list[tuple[str, DescribedChild]]] = {}

    def cases(self, split: str) -> list[Case]:
        """The cases of a split; "train" has all of the further manifests.

        Raises:
            ManifestError: A manifest is not usable, or a further one has a child that the first
                keeps for validation or testing.
        """
        listed = Manifest.read(self.manifest)
        if split != "train":
            return listed.split(split)
        kept = [*listed.split("val"), *listed.split("test")]
        cases = listed.split(split)
        for file in self.more:
            more = Manifest.read(file)
            further = [case for each in ("train", "val", "test") for case in more.split(each)]
            _refuse_kept(further, kept, file)
            cases += further
        return cases

    def setup(self, stage: str) -> None:
        """Read the children.

        Raises:
            ManifestError: A manifest or a case is not usable, or a split is empty.
        """
        for split in ("train", "val") if stage == "fit" else ("val",):
            if split in self._kept:
                continue
            cases = self.cases(split)
            if not cases:
                raise ManifestError(f"it has no patient in its split {split}", file=self.manifest)
            bar = tqdm(cases, desc=f"children to {split}", unit="child", leave=False)
            self._kept[split] = [(case.patient, read_child(case)) for case in bar]

    def training_ranges(self) -> dict[str, list[float]]:
        """Ranges of the training scans, which weights carry so that they are checked in use."""
        means = [float(child.expectation.astype(np.float32).mean()) for _, child in self._kept["train"]]
        (low, high), spacing = self.exposures, SPACING_MM * FINE
        spans = {
            "spacing_mm": (spacing / self.zoom[1], spacing / self.zoom[0]),
            "counts_per_pixel": (low * min(means), high * max(means)),
            "exposure": self.exposures,
        }
        return {name: [round(value, 4) for value in span] for name, span in spans.items()}

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of changed children, other ones each epoch."""
        alike = AlikeScans(self._drawn(), self.batch_size)
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = EpochSampler(alike, num_replicas=ranks, rank=rank)
        return DataLoader(
            alike,
            None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _drawn(self) -> DrawnScans:
        """Samples of the training children."""
        return DrawnScans(
            self._kept["train"],
            length=self.samples_per_epoch,
            seed=self.seed,
            exposures=self.exposures,
            zoom=self.zoom,
            single_view_probability=self.single_view_probability,
            added=self.added,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation children as they are, in batches."""
        kept = sorted(self._kept["val"], key=lambda one: one[1].expectation.shape[1])
        whole = DrawnScans(kept, length=len(kept), seed=self.seed, exposures=None, zoom=(1.0, 1.0))
        return DataLoader(whole, self.batch_size, num_workers=self.num_workers, collate_fn=padded)


class EncodedScansDataModule(DescribedScansDataModule):
    """Scans as an encoder sees them, which is computed once: a decoder trains ten times as fast.

    Training batches hold `seen`, float16 (B, C + 5, h, w), see `Describer.seen`, `sentences` and
    `where`; validation batches are those of `DescribedScansDataModule`.

    Args:
        manifest: See `DescribedScansDataModule`.
        encoder: Weight file of the encoder.
        scans: Samples that are drawn and encoded.
        together: Encoded samples a batch.
        options: Further arguments of `DescribedScansDataModule`.

    Raises:
        RbsError: An argument is out of range, or the samples make no batch.
    """

    def __init__(
        self,
        manifest: str = "data/phantoms/manifest.csv",
        *,
        encoder: Path,
        scans: int = 1600,
        together: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(manifest, **options)
        encoded = scans // self.batch_size * self.batch_size
        if not 1 <= together <= encoded:
            fault = f"{scans} scans, encoded {self.batch_size} at a time, make no batch of {together}"
            raise RbsError(fault, remedy="encode more scans, or train on fewer together")
        self.encoder, self.scans, self.together = encoder, scans, together
        self._encoded: list[tuple[Tensor, ...]] = []

    def setup(self, stage: str) -> None:
        """Read the children, and encode the samples.

        Raises:
            CheckpointError: The encoder cannot be read.
        """
        super().setup(stage)
        if stage != "fit" or self._encoded:
            return
        encoder = load_semantic_network(self.encoder)
        alike = AlikeScans(self._drawn(), self.batch_size)
        with torch.inference_mode():
            for number in tqdm(range(self.scans // self.batch_size), desc="encoding", leave=False):
                batch = alike[number]
                x = standard_scale(batch["rapid"], batch["exposure"])
                seen = torch.cat([encoder(x, batch["exposure"]), places_of(x)], 1).half()
                self._encoded += zip(seen, batch["sentences"], batch["where"].bool(), strict=True)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of encoded samples in random order."""
        order = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            self._encoded,  # type: ignore[arg-type]  # a list is a map-style data set
            self.together,
            shuffle=True,
            generator=order,
            collate_fn=_collate,
            drop_last=True,
        )


def _refuse_kept(further: Sequence[Case], kept: Sequence[Case], manifest: Path) -> None:
    """Refuse children that are kept from training, by Patient ID, study or counts.

    Their names say nothing: phantoms of every seed are P0001 and so on.

    Raises:
        ManifestError: There is one.
    """
    files = [(case, fingerprint(file)) for case in (*kept, *further) for file in case.scans]
    own = sum(len(case.scans) for case in kept)
    pairs = [(one, two) for one, two in same_counts([file.sketches for _, file in files]) if one < own <= two]
    known: dict[tuple[str, str], int] = {}
    for place, (_, file) in enumerate(files):
        for key in (("ID", patient_key(file.patient_id)), ("study", file.study)):
            if key[1] and known.setdefault(key, place) < own <= place:
                pairs.append((known[key], place))
    for one, two in pairs:
        first, second = files[one][0], files[two][0]
        fault = f"its patient {second.patient} is {first.patient} of split {first.split} of the manifest"
        raise ManifestError(fault, file=manifest, remedy="train on children of another seed")


def _collate(samples: Sequence[tuple[Tensor, ...]]) -> dict[str, Any]:
    """A batch of encoded samples, cells that were not scanned added below the shorter ones."""
    rows = max(seen.shape[1] for seen, _, _ in samples)

    def joined(images: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.pad(image, (0, 0, 0, rows - image.shape[1])) for image in images])

    seen, sentences, where = zip(*samples, strict=True)
    return {"seen": joined(seen), "sentences": torch.stack(sentences), "where": joined(where).float()}


class AlikeScans(Dataset[dict[str, Any]]):
    """Batches of samples of about one length; the index counts on over epochs.

    Args:
        scans: The samples.
        together: Samples a batch.
    """

    def __init__(self, scans: DrawnScans, together: int) -> None:
        self.scans, self.together = scans, together

    def __len__(self) -> int:
        return max(len(self.scans) // self.together, 1)

    def __getitem__(self, index: int) -> dict[str, Any]:
        group, place = divmod(index, _SORTED)
        size = self.together * _SORTED
        numbers = sorted(range(group * size, (group + 1) * size), key=self.scans.rows)
        # The short ones do not always come first.
        place = int(np.random.default_rng((self.scans.seed, 2, group)).permutation(_SORTED)[place])
        own = numbers[place * self.together : (place + 1) * self.together]
        return padded([self.scans[number] for number in own])


def padded(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples, rows added below the shorter ones."""
    rows = max(sample["foci"].shape[1] for sample in samples)
    for sample in samples:
        for name, each in (("rapid", STRIDE), ("labels", STRIDE), ("foci", 1), ("where", 1)):
            sample[name] = F.pad(sample[name], (0, 0, 0, rows * each - sample[name].shape[1]))
    batch: dict[str, Any] = default_collate(samples)
    return batch


class DrawnScans(Dataset[dict[str, Any]]):
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
            "sentences": torch.tensor([NUMBERS[statement] for statement in statements]),
            "labels": torch.from_numpy(np.ascontiguousarray(labels)),
            "foci": torch.from_numpy(np.ascontiguousarray(foci)),
            "where": torch.from_numpy(np.ascontiguousarray(where)),
            "patient": patient,
        }


def mirrored(statements: Sequence[Statement]) -> tuple[Statement, ...]:
    """The true statement of each topic of the mirrored child."""
    swapped = {statement.mirrored() for statement in statements}
    return tuple(next(one for one in topic.sentences if one in swapped) for topic in TOPICS)


def with_more_foci(child: DescribedChild, rng: np.random.Generator) -> DescribedChild:
    """A child with up to six more hot foci, as the camera sees those of phantoms.

    A focus is a Gaussian in the bone at a place of its label, `blurred`, of the sizes and contrasts
    that phantoms have. Those that do not stand out are put in, too, and not spoken of.

    Args:
        child: The child.
        rng: Source of everything random.
    """
    expectation, labels = child.expectation.astype(np.float32), child.labels.copy()
    hot, parts, numbers = list(child.hot), list(child.parts), dict(child.foci.hot)
    mm = SPACING_MM * FINE
    for region in rng.choice(list(_REGIONS), size=int(rng.integers(1, 7)), p=list(_REGIONS.values())):
        places = np.argwhere(child.labels[int(rng.integers(2))] == label_of(region))
        if not len(places):
            continue
        row, column = (int(at) for at in places[rng.integers(len(places))])
        fwhm, contrast = log_uniform((4.0, 25.0), rng), log_uniform((1.3, 6.0), rng)
        length = fwhm * float(rng.choice([1.0, 1.0, 1.0, 2.5]))
        change = blurred(contrast, fwhm, length)
        shape = _focus(labels.shape[1:], (row, column), (length, fwhm), rng.uniform(0, np.pi))
        for view in expectation:
            here = view[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3].mean()
            # Soft tissue is a part of it, and depth makes the views differ.
            view += np.float32(change * here * rng.uniform(0.5, 0.95)) * shape
        if change >= STANDS_OUT:
            labels[:, shape >= 0.5] = HOT
            hot.append((row, column))
            part = part_of(region, (column - float(np.interp(row, *child.midline))) * mm)
            parts.append(_PART[part])
            numbers[part] = numbers.get(part, 0) + 1
    foci = Foci(numbers, child.foci.cold)
    told = {(one.kind, one.region, one.side): one for one in foci.statements()}
    return replace(
        child,
        expectation=expectation,
        labels=labels,
        hot=np.array(hot, float).reshape(-1, 2),
        parts=np.array(parts, int),
        foci=foci,
        statements=tuple(told.get((one.kind, one.region, one.side), one) for one in child.statements),
    )


def _focus(
    shape: tuple[int, ...], place: tuple[int, int], size_mm: tuple[float, float], angle: float
) -> Array:
    """A blurred Gaussian of peak 1, float32 (H, W), with its size along an angle and across it."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    down, right = (y - place[0]) * SPACING_MM * FINE, (x - place[1]) * SPACING_MM * FINE
    along, across = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    wide = [np.hypot(size, CAMERA_MM) for size in size_mm]
    gaussian: Array = np.exp(-4 * np.log(2) * ((along / wide[0]) ** 2 + (across / wide[1]) ** 2))
    return gaussian.astype(np.float32)


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
