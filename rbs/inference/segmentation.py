"""Segmenting scans: by ONNX Runtime, without PyTorch, where that is enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from rbs.errors import CheckpointError
from rbs.inference.onnx_network import VIEWS, OnnxNetwork
from rbs.scans.counts import standard_scale
from rbs.scans.scan import Array
from rbs.segmentation.label_map import LABEL_MAPS, LabelMap
from rbs.utils.memory import require_whole
from rbs.weights import shipped
from rbs.weights.shipped import NAME

if TYPE_CHECKING:
    from rbs.inference.onnx_file import ExportDescription
    from rbs.segmentation.checkpoint import LoadedSegmenter

AnySegmenter: TypeAlias = "LoadedSegmenter | OnnxSegmenter"


@dataclass(frozen=True)
class OnnxSegmenter(OnnxNetwork):
    """A segmenter of scans in ONNX Runtime, used as `LoadedSegmenter` is.

    Attributes:
        labels: Its regions.
    """

    kind = "segmenter"
    option = "--segmenter"
    does = "segments scans"
    option = "--segmenter"
    takes = MappingProxyType({"rapid": 4, "exposure": 1, "spacing_mm": 2})
    answers = 5
    labels: ClassVar[LabelMap] = LABEL_MAPS["scans"]

    @classmethod
    def _require(cls, about: ExportDescription, path: Path) -> None:
        super()._require(about, path)
        if tuple(about.regions) != cls.labels.names:
            fault = f"it tells {len(about.regions)} other regions apart than this version of rbs"
            raise CheckpointError(fault, file=path, remedy=f"use rbs {about.version}, or export it again")

    def probabilities(self, counts: Array, exposure: float, spacing_mm: tuple[float, float]) -> Array:
        """Probabilities of background and regions, float32 (V, 1 + K, H, W), of a whole scan.

        Args:
            counts: Raw counts, aligned (V, H, W).
            exposure: Exposure relative to the standard scan.
            spacing_mm: Row and column spacing, mm.

        Raises:
            ScanError: It is too large.
            CheckpointError: The network, of another making, cannot be run or answers with another
                shape.
        """
        views, height, width = counts.shape
        require_whole(height, width)
        x = standard_scale(np.asarray(counts, np.float32)[None], exposure)
        found = self.answer(
            np.repeat(x, VIEWS // views, axis=1),
            np.array([exposure], np.float32),
            np.array([spacing_mm], np.float32),
            shape=(1, VIEWS, 1 + len(self.labels), height, width),
        )[0]
        if views == VIEWS:
            return found
        # The mean of the logits, as `EncoderDecoder` takes it; products underflow, roots do not.
        roots = np.sqrt(np.maximum(found, np.finfo(np.float32).tiny))
        mean = roots[0] * roots[1]
        one: Array = (mean / mean.sum(axis=0))[None]
        return one


def load_segmenter_for(checkpoint: str | Path = NAME, device: str = "cpu") -> AnySegmenter:
    """Load a segmenter; ONNX Runtime starts much sooner than PyTorch.

    Args:
        checkpoint: Weights as .safetensors, .onnx as `rbs export` writes it, the folder of an
            adapted teacher, or "shipped".
        device: One of `rbs.inference.devices.DEVICES`.

    Raises:
        CheckpointError: The file is missing, cannot be read, or does not segment scans.
        RbsError: ONNX Runtime is not installed, or there is no such device.
    """
    if str(checkpoint) == NAME or Path(checkpoint) == shipped.SEGMENTER:
        return OnnxSegmenter.shipped(shipped.SEGMENTER, shipped.SEGMENTER_GRAPH, device)
    file = Path(checkpoint)
    if file.suffix == ".onnx":
        return OnnxSegmenter.exported(file, device)
    from rbs.inference.devices import torch_device
    from rbs.segmentation.checkpoint import load_segmenter

    loaded = load_segmenter(file)
    OnnxSegmenter.require_work(f"segments {loaded.segmenter.images.shows}", file)
    loaded.segmenter.to(torch_device(device))
    return loaded
