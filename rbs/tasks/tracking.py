"""Weights & Biases: what a run records there, and what it does not.

Recorded are a run's name, tags, whole configuration, the commit of git where it was started, and
its metrics. Not recorded are where files lie and which machine it is (either may name a user or a
hospital), and what it prints (a message may name a patient). Images are only on request: of
phantoms, and of patients on a second one.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from rbs.data.frames_manifest import FrameRow
from rbs.data.manifest import Case
from rbs.errors import RbsError
from rbs.scans.counts import standard_scale
from rbs.utils.places import without_places
from rbs.utils.version import VERSION

Mode = Literal["offline", "online", "disabled"]

_GAP_PX = 4


def default_mode() -> Mode:
    """Offline; online under `wandb agent`, which somebody started to send runs to a server.

    Disabled where W&B is not installed.
    """
    if find_spec("wandb") is None:
        return "disabled"
    return "online" if agent_run() else "offline"


def agent_run() -> str | None:
    """The identifier `wandb agent` has given this run; None without an agent."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


class Table(CSVLogger):
    """The CSV logger; hyper-parameters without the places of files."""

    def log_hyperparams(self, params: Any = None) -> None:
        """Note hyper-parameters in hparams.yaml."""
        super().log_hyperparams(without_places(_mapping(params)))


class Tracker(WandbLogger):
    """The W&B logger; hyper-parameters without the places of files."""

    def log_hyperparams(self, params: Any) -> None:
        """Add hyper-parameters to the configuration of the run."""
        super().log_hyperparams(without_places(_mapping(params)))


def _mapping(params: Any) -> dict[str, Any]:
    return vars(params) if isinstance(params, Namespace) else dict(params or {})


def tracker(
    *, name: str, folder: str, mode: Literal["offline", "online"], tags: list[str], config: dict[str, Any]
) -> Tracker:
    """The W&B logger of a run.

    Args:
        name: As shown.
        folder: Where its files go.
        mode: Offline leaves all there; `wandb sync` sends it later.
        tags: Tags.
        config: All settings of the run.
    """
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    logger = Tracker(
        name=name,
        save_dir=folder,
        project=os.environ.get("WANDB_PROJECT", "rbs"),
        offline=mode == "offline",
        tags=tags,
        config={"rbs": VERSION, **without_places(config)},
        settings=wandb.Settings(console="off", x_disable_meta=True, host="", program="rbs"),
    )
    # Lightning always passes this one, and W&B warns that it has no effect.
    logger._wandb_init.pop("anonymous", None)
    return logger


def finish() -> None:
    """Close the run, so that another one in this process is another one there."""
    wandb = sys.modules.get("wandb")  # it is slow to import, and absent where nothing was tracked
    if wandb is not None and wandb.run is not None:
        wandb.finish()


class ScanPictures(Callback):
    """Sends the first validation image to W&B at every validation: rapid, restored, standard.

    Args:
        of_patients: Whether images of patients may be sent, too.
    """

    def __init__(self, of_patients: bool) -> None:
        self.of_patients = of_patients

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse patients before anything is trained.

        Raises:
            RbsError: The first validation case is not synthetic, and images of patients were not
                asked for.
        """
        if self.of_patients:
            return
        case: Case | FrameRow = trainer.datamodule.cases("val")[0]  # type: ignore[attr-defined]
        for file, sign in _of_patients(case):
            fault = f"--log_images would record {sign}"
            remedy = "leave it out, or add --images_of_patients true if your tracker may hold such"
            raise RbsError(fault, file=file, remedy=remedy)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Send the first scan or frame."""
        from rbs.tasks.restoration import RestorationTask

        if batch_idx or trainer.sanity_checking or not isinstance(pl_module, RestorationTask):
            return
        x = standard_scale(batch["rapid"], batch["exposure"])
        restored = pl_module(x, batch["exposure"])
        standard = standard_scale(batch["target"], batch["target_exposure"])
        panels = [image[0].float().cpu().numpy() for image in (x, restored, standard)]
        images = pl_module.cascade.f1.images
        drawn, caption = (
            (picture(panels), "rapid, restored, standard")
            if images.shows == "scans"
            else (colour_picture(panels), "degraded, restored, clean")
        )
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"val/{images.shows[:-1]}", [drawn], caption=[caption])


def picture(panels: list[npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """Views of several scans side by side, in inverse grey with one window.

    Args:
        panels: Counts at standard scale, (V, H, W) each; the window is that of the second.

    Returns:
        Grey (H, width); white is 0 counts, black the 99.5th percentile of the second panel and
        more.
    """
    peak = max(float(np.percentile(panels[1], 99.5)), 1e-6)
    views = [view for panel in panels for view in panel]
    strips = [np.pad(view, ((0, 0), (0, _GAP_PX))) for view in views]
    grey = 255 * (1 - np.clip(np.hstack(strips) / peak, 0, 1))
    return grey.round().astype(np.uint8)


def colour_picture(panels: list[npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """Frames side by side: sRGB values 0..1, (3, H, W) each, as (H, width, 3)."""
    strips = [np.pad(panel, ((0, 0), (0, 0), (0, _GAP_PX)), constant_values=1.0) for panel in panels]
    colours = np.concatenate(strips, axis=2).transpose(1, 2, 0)
    return (255 * colours.clip(0, 1)).round().astype(np.uint8)


def _of_patients(case: Case | FrameRow) -> Iterator[tuple[Path, str]]:
    """Files of a case that may show a patient, and how that is known."""
    if isinstance(case, FrameRow):
        if case.source != "synthetic":
            yield case.frame, "a frame of a patient (its source in the manifest is not synthetic)"
        return
    for file in (*case.rapid, *case.standard):
        if not _synthetic(file):
            yield file, "a scan of a patient (SyntheticData is not YES)"


def _synthetic(file: Path) -> bool:
    import pydicom

    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SyntheticData"])
    return bool(header.get("SyntheticData") == "YES")
