"""Both restorers of a training, from what its folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rbs.evaluation.methods import CASCADE_FILE, trained_methods
from rbs.evaluation.scans.pairs import ScanPair
from rbs.evaluation.second_restorer import (
    Other,
    PriorOf,
    labelled_priors,
    second_restoration,
    segmented_priors,
)
from rbs.multirun.runs import Training, read_yaml
from rbs.scans.scan import Array

Estimates = dict[str, Array]
"""Restorations by the name of the network: f1, f2."""

Restore = Callable[[Any, Other], Estimates]
"""Of a pair."""


def first_of(weights: Path) -> Restore:
    """The first restorer alone.

    Raises:
        CheckpointError: The weights cannot be used.
    """
    method = trained_methods([weights])[0]
    return lambda pair, _: {"f1": method.restore(pair)}


def networks_of(folder: Path) -> Restore:
    """The restorers that a training moved: f1, f2 with the prior of its training, or both.

    The second one is absent where its prior does not exist: true masks of a real scan.

    Raises:
        RbsError: A file of the training is missing or cannot be used.
    """
    training = Training.read(folder)
    restore_f1 = first_of(training.weights)
    if training.data.get("single_view_probability") == 1.0:
        restore_f1 = _view_by_view(restore_f1)
    cascade = folder / CASCADE_FILE
    if not cascade.is_file():
        return restore_f1
    settings: dict[str, Any] = read_yaml(training.config)["model"]["init_args"]
    restore_f2 = _second(training, cascade, settings)

    def restore(pair: Any, other: Other) -> Estimates:
        # A frozen f1 is that of stage 1, which has a row of its own.
        first = {} if settings.get("trains") == "f2" else restore_f1(pair, other)
        return first | restore_f2(pair, other)

    return restore


def _view_by_view(restore: Restore) -> Restore:
    """Of a restorer that was never shown two views, and so is not given two."""

    def each(pair: ScanPair, other: Other) -> Estimates:
        views = range(len(pair.rapid))
        alone = (ScanPair(pair.patient, pair.rapid[v : v + 1], pair.exposure, pair.target) for v in views)
        return {"f1": np.concatenate([restore(one, other)["f1"] for one in alone])}

    return each


def _second(training: Training, file: Path, settings: dict[str, Any]) -> Restore:
    """The second restorer, with the prior of its training."""
    from rbs.distillation.cascade import load_cascade
    from rbs.inference.devices import torch_device
    from rbs.restorers.checkpoint import load_restorer

    device = torch_device("auto")
    cascade, _ = load_cascade(file, load_restorer(training.weights).restorer)
    prior_of = _priors(settings, device) if cascade.spi is not None else None
    restore_f2 = second_restoration(cascade.to(device), prior_of, device)

    def restore(pair: Any, other: Other) -> Estimates:
        restored = restore_f2(pair, other)
        return {} if restored is None else {"f2": restored}

    return restore


def _priors(settings: dict[str, Any], device: str) -> PriorOf:
    """The priors of a training, from its settings."""
    from rbs.distillation.prior_cache import PriorCache
    from rbs.restorers.checkpoint import load_restorer
    from rbs.segmentation.checkpoint import load_segmenter
    from rbs.weights.shipped import teacher_folder

    config = settings.get("prior", {})
    first = load_restorer(Path(settings["init_from"]))
    source = config.get("source", "cached")
    if source in ("truth", "placebo"):
        return labelled_priors(source, first.restorer.images, device)
    base = config.get("base_checkpoint")
    teacher = load_segmenter(teacher_folder(config["teacher"]), base and Path(base))
    return segmented_priors(
        teacher.segmenter.to(device),
        first.restorer.to(device),
        device,
        online=source == "online",
        cache=PriorCache(Path(config["cache"]), f"{teacher.sha256} {first.sha256}"),
    )
