"""Both restorers of a training, from what its folder holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rbs.evaluation.methods import CASCADE_FILE, trained_methods
from rbs.evaluation.scans.pairs import ScanPair
from rbs.multirun.runs import Training, read_yaml
from rbs.scans.scan import Array
from rbs.weights.shipped import file_sha256

Estimates = dict[str, Array]
"""Restorations by the name of the network: f1, f2."""


@dataclass(frozen=True)
class Networks:
    """The restorers of a training.

    Attributes:
        digest: SHA-256 of their weights, by file.
        restore: A pair to the restorations of both. The second one is absent where its prior does
            not exist: true masks of a real scan.
    """

    digest: dict[str, str]
    restore: Callable[[Any], Estimates]


def networks_of_weights(file: Path) -> Networks:
    """The first restorer alone.

    Raises:
        CheckpointError: The weights cannot be used.
    """
    method = trained_methods([file])[0]
    return Networks({file.name: str(method.settings["sha256"])}, lambda pair: {"f1": method.restore(pair)})


def networks_of(folder: Path) -> Networks:
    """The restorers that a training moved: f1, f2 with the prior of its training, or both.

    Raises:
        RbsError: A file of the training is missing or cannot be used.
    """
    training = Training.read(folder)
    first = networks_of_weights(training.weights)
    restore_f1 = first.restore
    if training.data.get("single_view_probability") == 1.0:
        restore_f1 = _view_by_view(restore_f1)
    cascade = folder / CASCADE_FILE
    if not cascade.is_file():
        return Networks(first.digest, restore_f1)
    settings: dict[str, Any] = read_yaml(training.config)["model"]["init_args"]
    restore_f2 = _second(training, cascade, settings)

    def restore(pair: Any) -> Estimates:
        second = restore_f2(pair)
        of_f2 = {} if second is None else {"f2": second}
        # A frozen f1 is that of stage 1, which has a row of its own.
        return of_f2 if settings.get("trains") == "f2" else restore_f1(pair) | of_f2

    return Networks(first.digest | {cascade.name: file_sha256(cascade)}, restore)


def _view_by_view(restore: Callable[[Any], Estimates]) -> Callable[[Any], Estimates]:
    """Of a restorer that was never shown two views, and so is not given two."""

    def each(pair: ScanPair) -> Estimates:
        views = range(len(pair.rapid))
        alone = (ScanPair(pair.patient, pair.rapid[v : v + 1], pair.exposure, pair.target) for v in views)
        return {"f1": np.concatenate([restore(one)["f1"] for one in alone])}

    return each


def _second(training: Training, file: Path, settings: dict[str, Any]) -> Callable[[Any], Array | None]:
    """The second restorer as a function of a pair, with the prior of its training.

    Of the segmenter that is the prior of the whole scan as the frozen stage 1 restores it.
    """
    import torch

    from rbs.distillation.cascade import load_cascade
    from rbs.distillation.prior_cache import PriorCache
    from rbs.inference.devices import torch_device
    from rbs.restorers.checkpoint import load_restorer
    from rbs.segmentation.checkpoint import load_segmenter
    from rbs.segmentation.segmenter import facts_of
    from rbs.weights.shipped import teacher_folder

    device, prior_settings = torch_device("auto"), settings.get("prior", {})
    cascade, _ = load_cascade(file, load_restorer(training.weights).restorer)
    cascade.to(device)
    first = teacher = cache = None
    if cascade.spi is not None:
        first = load_restorer(Path(settings["init_from"]))
        base = prior_settings.get("base_checkpoint")
        teacher = load_segmenter(teacher_folder(prior_settings["teacher"]), base and Path(base))
        first.restorer.to(device)
        teacher.segmenter.to(device)
        cache = PriorCache(Path(prior_settings["cache"]), f"{teacher.sha256} {first.sha256}")

    def restore(pair: Any) -> Array | None:
        image, p = pair.network_input
        x = torch.as_tensor(image, dtype=torch.float32, device=device)[None]
        exposure, spacing = facts_of(p, pair.spacing_mm, device)

        def prior_of(*_: Any) -> Any:
            return teacher.segmenter.prior(first.restorer(x, exposure), exposure, spacing)  # type: ignore[union-attr]

        with torch.inference_mode():
            prior = None
            if cache is not None:
                prior = cache.get_or_compute(image, p, pair.spacing_mm, prior_of).to(device)
                if prior_settings.get("source") == "truth":
                    if pair.target.labels is None:
                        return None
                    prior = prior.with_masks_of(torch.as_tensor(pair.target.labels, device=device)[None])
            restored = cascade(x, exposure, prior).i2
        return restored[0].float().cpu().numpy()

    return restore
