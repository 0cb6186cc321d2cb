"""A transfer set drawn by a diffusion model that is trained on the labelled scans."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from rbs.data.manifest import Case, write_manifest
from rbs.errors import RbsError
from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.scan import STANDARD_VELOCITY, Array, Scan, align
from rbs.segmentation.labels import LABELLED
from rbs.synthetic.scan_diffusion import ScanDiffusion
from rbs.synthetic.skeleton import VIEWS
from rbs.tasks.task import Batch, TrainingTask, labels_of
from rbs.utils.checkpoint import describe
from rbs.utils.files import whole_file

_DATE = datetime(2020, 1, 1)


class DrawScans(TrainingTask):
    """Training of a `ScanDiffusion` on labelled scans, and the scans it draws.

    The scans are drawn for the label maps of the training children, each at another size, place and
    side. At the end `drawn/manifest.csv` is written with their expectations and labels, and with
    Poisson counts of them as standard scans: a transfer set for `rbs.data.transfer_scans`.

    Args:
        diffusion: The model.
        scans: Scans to be drawn.
        steps: Steps of DDIM.
        lr: Peak learning rate of AdamW.
        weight_decay: Its weight decay.
        warmup_steps: Steps of linear warm-up, before a cosine decay to zero.
        output: Folder of the product; None: the command line puts in the run's own folder.
    """

    def __init__(
        self,
        diffusion: ScanDiffusion,
        scans: int = 200,
        steps: int = 10,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 50,
        output: Path | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, warmup_steps, output)
        if scans < 1 or steps < 1:
            raise RbsError(f"{scans} scans in {steps} steps", remedy="draw at least one, in one step or more")
        self.save_hyperparameters(ignore=["diffusion"])
        self.save_hyperparameters({"diffusion": describe(diffusion)})
        self.diffusion, self.scans, self.steps = diffusion, scans, steps

    def on_fit_start(self) -> None:
        """Take the spread of the counts from the training scans.

        Raises:
            RbsError: Their expectations are not known, or some samples show one view twice.
        """
        if self.datamodule.single_view_probability > 0:
            raise RbsError(
                "some samples show one view twice, and the scans drawn from them are written as two views",
                remedy="set --data.single_view_probability 0",
            )
        expected = [batch.get("expectation") for batch in islice(self.datamodule.train_dataloader(), 8)]
        if any(scans is None for scans in expected):
            raise RbsError(
                "the labelled scans are measured counts, and a diffusion model draws their noise with them",
                remedy="draw from phantoms, or restore the scans first and give those as truth files",
            )
        self.diffusion.standardise(torch.cat(expected))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Error of the prediction at random levels of noise."""
        error = self.diffusion.denoising_error(batch["expectation"], labels_of(batch, LABELLED["scans"]))
        self.log("train/total", error.detach(), batch_size=1)
        return self.total(batch, {"total": error})

    def validation_step(self, batch: Batch, index: int) -> None:
        """The same error of a validation scan, where its expectation is known."""
        if {"expectation", "labels"} <= batch.keys() and batch["expectation"].shape[1] == 2:
            error = self.diffusion.denoising_error(batch["expectation"], batch["labels"])
            self.log("val/total", error, batch_size=1, sync_dist=True)

    def write(self, folder: Path) -> None:
        """Draw the scans and write them with their manifest."""
        if not self.trainer.is_global_zero:
            return
        place = folder / "drawn"
        place.mkdir(parents=True, exist_ok=True)
        side = self.datamodule.binning
        cases = [
            _written(place, number, expected, labels, (rows / side, columns / side), side)
            for number, (expected, labels, (rows, columns)) in enumerate(
                islice(self._drawn(), self.scans), start=1
            )
        ]
        write_manifest(place / "manifest.csv", cases, overwrite=True)

    def _drawn(self) -> Iterator[tuple[Array, Array, list[float]]]:
        """Drawn scans without end: expected counts and labels (2, H, W), and pixel spacing, mm."""
        loader, source = self.datamodule.train_dataloader(), torch.Generator().manual_seed(0)
        for lap in count():
            loader.sampler.set_epoch(lap)  # other sizes and places
            for batch in loader:
                drawn = self.diffusion.draw(batch["labels"].to(self.device), self.steps, source).cpu()
                yield from zip(
                    drawn.numpy(), batch["labels"].numpy(), batch["spacing_mm"].tolist(), strict=True
                )


def _written(
    folder: Path,
    number: int,
    expected: Array,
    labels: Array,
    spacing_mm: tuple[float, float],
    side: int,
) -> Case:
    """Write one drawn scan.

    Args:
        folder: Folder of all.
        number: Its number.
        expected: Expected counts, aligned (2, H, W), on pixels `side` times as wide as written.
        labels: Labels, likewise.
        spacing_mm: Row and column spacing of the pixels written, mm.
        side: Side of the pixels of `expected`, pixels written.
    """
    name = f"D{number:04d}"
    if side > 1:
        expected = np.stack(
            [ndimage.zoom(v, side, order=1, grid_mode=True, mode="nearest") for v in expected]
        )
        expected = expected.clip(0) / side**2
        labels = labels.repeat(side, axis=1).repeat(side, axis=2)
    expected = align(expected, VIEWS).astype(np.float32)
    counts = np.random.default_rng((7, number)).poisson(expected).clip(0, 2**16 - 1).astype(np.uint16)
    file, truth = folder / f"{name}.dcm", folder / f"{name}.npz"
    write_acquired_nm(
        file,
        Scan(counts, VIEWS, spacing_mm, STANDARD_VELOCITY, patient_id=f"DRAWN-{name}"),
        patient=PatientHeader(f"DRAWN-{name}"),
        study=StudyHeader(f"drawn {name}", _DATE),
        uid_seed=f"drawn {name} {counts.sum()}",
        series_description="Whole body bone, drawn by a model",
        synthetic=True,
    )
    with whole_file(truth, overwrite=True) as part:
        np.savez_compressed(part, expectation=expected, labels=align(labels, VIEWS).astype(np.uint8))
    return Case(name, "train", (), (file,), truth=truth)
