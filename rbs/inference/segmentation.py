"""Loading segmenters of scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rbs.errors import CheckpointError
from rbs.weights.shipped import NAME

if TYPE_CHECKING:
    from rbs.segmentation.checkpoint import LoadedSegmenter

AnySegmenter: TypeAlias = "LoadedSegmenter"


def load_segmenter_for(checkpoint: str | Path = NAME, device: str = "cpu") -> AnySegmenter:
    """Load a segmenter of scans.

    Args:
        checkpoint: Weights as .safetensors.
        device: "cpu", "cuda" or "auto".

    Raises:
        CheckpointError: The file is missing, cannot be read, or does not segment scans.
    """
    from rbs.inference.devices import torch_device
    from rbs.segmentation.checkpoint import load_segmenter

    if str(checkpoint) == NAME:
        raise CheckpointError("no segmenter comes with rbs yet", remedy="name one with --segmenter")
    loaded = load_segmenter(checkpoint)
    if (shows := loaded.segmenter.images.shows) != "scans":
        raise CheckpointError(f"it segments {shows}, not scans", file=Path(checkpoint), remedy="name another")
    loaded.segmenter.to(torch_device(device))
    return loaded
