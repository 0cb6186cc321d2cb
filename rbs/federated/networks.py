"""The two kinds of networks that sites train together: restorers, and segmenters of scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbs.errors import RbsError
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.segmenter import Segmenter

Network = Restorer | Segmenter


@dataclass(frozen=True)
class Kind:
    """A kind of networks.

    Attributes:
        base: Their class.
        argument: Argument of the task that holds one.
        task: Class of the task.
        data: Class of the data, which deals the training scans of a manifest.
        file: Name of the weight file that a training leaves.
        save: Writes a weight file with a record of its making.
        read: Reads one.
        settings: Settings of an experiment without which it would train on other scans.
    """

    base: type[Network]
    argument: str
    task: str
    data: str
    file: str
    save: Callable[[Path, Any, dict[str, Any]], None]
    read: Callable[[Path], Network]
    settings: Mapping[str, Any] = field(default_factory=dict)


RESTORERS = Kind(
    base=Restorer,
    argument="f1",
    task="RestorationTask",
    data="RBSDataModule",
    file="restorer.safetensors",
    save=save_restorer,
    read=lambda file: load_restorer(file, scale=None).restorer,
)
SEGMENTERS = Kind(
    base=Segmenter,
    argument="segmenter",
    task="SegmentationTask",
    data="LabelledScansDataModule",
    file="segmenter.safetensors",
    save=save_segmenter,
    read=lambda file: load_segmenter(file).segmenter,
    settings={"data.init_args.children": None},  # 0 would draw phantom children instead
)


def kind_of(network: Network) -> Kind:
    """The kind of a network."""
    return RESTORERS if isinstance(network, Restorer) else SEGMENTERS


def kind_trained(experiment: Mapping[str, Any]) -> Kind:
    """The kind of networks that an experiment trains.

    Raises:
        RbsError: It trains something else, or on something else than the scans of a manifest.
    """
    task, data = experiment.get("model", {}), experiment.get("data", {})
    trained = str(task.get("class_path")).rpartition(".")[2], str(data.get("class_path")).rpartition(".")[2]
    for kind in (RESTORERS, SEGMENTERS):
        if trained == (kind.task, kind.data) and kind.argument in task.get("init_args", {}):
            return kind
    fault = "it trains neither a restorer of stage 1 nor a segmenter, or not on the scans of a manifest"
    raise RbsError(fault, remedy="name an experiment like `federated` or `segment`")
