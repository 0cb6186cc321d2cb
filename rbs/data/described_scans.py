"""Described phantom children for training: whole scans, and what an encoder sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from rbs.data.common_patients import common_patients
from rbs.data.datasets import EpochSampler
from rbs.data.described_children import DescribedChild, read_child
from rbs.data.described_samples import DescribedSamples, LengthBatches, padded
from rbs.data.manifest import Case, Manifest
from rbs.description.coarse import FINE
from rbs.description.describer import encode
from rbs.errors import ManifestError, RbsError
from rbs.restorers.semantic_features import load_semantic_network
from rbs.scans.counts import standard_scale
from rbs.synthetic.skeleton import SPACING_MM


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
        batches = LengthBatches(self._samples(), self.batch_size)
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = EpochSampler(batches, num_replicas=ranks, rank=rank)
        return DataLoader(
            batches,
            None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _samples(self) -> DescribedSamples:
        """Samples of the training children."""
        return DescribedSamples(
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
        whole = DescribedSamples(kept, length=len(kept), seed=self.seed, exposures=None, zoom=(1.0, 1.0))
        return DataLoader(whole, self.batch_size, num_workers=self.num_workers, collate_fn=padded)


class EncodedScansDataModule(DescribedScansDataModule):
    """Scans as an encoder sees them, which is computed once: a decoder trains ten times as fast.

    Training batches hold `encoded`, float16 (B, C + 5, h, w), see `encode`, `sentences` and
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
        batches = LengthBatches(self._samples(), self.batch_size)
        with torch.inference_mode():
            for number in tqdm(range(self.scans // self.batch_size), desc="encoding", leave=False):
                batch = batches[number]
                x = standard_scale(batch["rapid"], batch["exposure"])
                encoded = encode(encoder, x, batch["exposure"]).half()
                self._encoded += zip(encoded, batch["sentences"], batch["where"].bool(), strict=True)

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
    """Refuse children that are kept from training, under whatever name.

    Raises:
        ManifestError: There is one.
    """
    for first, second in common_patients(kept, further, by_name=False):
        fault = f"its patient {second.patient} is {first.patient} of split {first.split} of the manifest"
        raise ManifestError(fault, file=manifest, remedy="train on children of another seed")


def _collate(samples: Sequence[tuple[Tensor, ...]]) -> dict[str, Any]:
    """A batch of encoded samples, cells that were not scanned added below the shorter ones."""
    rows = max(encoded.shape[1] for encoded, _, _ in samples)

    def joined(images: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.pad(image, (0, 0, 0, rows - image.shape[1])) for image in images])

    encoded, sentences, where = zip(*samples, strict=True)
    return {"encoded": joined(encoded), "sentences": torch.stack(sentences), "where": joined(where).float()}
