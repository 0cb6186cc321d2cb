"""Loading networks from files: restorers of scans in ONNX Runtime where that is enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rbs.errors import RbsError
from rbs.weights.shipped import ENLARGING, NAME, SHIPPED, require_scale, weights_path

if TYPE_CHECKING:
    from rbs.inference.onnx import OnnxRestorer
    from rbs.restorers.checkpoint import LoadedRestorer
    from rbs.segmentation.checkpoint import LoadedSegmenter

Loaded: TypeAlias = "LoadedRestorer | OnnxRestorer"


def load_for_scans(
    checkpoint: str | Path = NAME,
    *,
    adapt: bool = False,
    fits: Path | None = None,
    uncertainty: bool = False,
    device: str = "cpu",
    scale: int = 1,
) -> Loaded:
    """Load a restorer of scans; ONNX Runtime starts much sooner than PyTorch.

    Args:
        checkpoint: Weights, .safetensors or .ckpt, .onnx as `rbs export` writes it, or "shipped".
        adapt: Fit the restorer to each scan's own counts before it restores that scan.
        fits: Folder in which such fits are kept for other scans of the same camera.
        uncertainty: Load into PyTorch, where the uncertainty head reads the network's features.
        device: "cpu", "cuda" or "auto".
        scale: Rows and columns of a restoration per row and column of a scan; with 2, "shipped" are
            the weights that enlarge.

    Raises:
        CheckpointError: The file is missing, cannot be read, does not restore scans, or has another
            scale.
        RbsError: `adapt` or `uncertainty` with an ONNX file or a scale of 2, or there is no such
            device.
        OutputError: The folder of the fits cannot be written.
    """
    enlarges = str(checkpoint) == NAME and scale > 1
    file = ENLARGING if enlarges else weights_path(checkpoint)
    looks_inside = "--adapt" if adapt else "--uncertainty" if uncertainty else None
    if looks_inside and scale > 1:
        fault = f"{looks_inside} compares counts pixel by pixel, which --scale 2 cuts in four"
        raise RbsError(fault, remedy="leave one of the two out")
    if file.suffix == ".onnx" and looks_inside:
        fault = f"{looks_inside} looks into the network, which an ONNX file does not allow"
        raise RbsError(fault, file=file, remedy="name the weights it was exported from")
    if file.suffix == ".onnx" or (file in (SHIPPED, ENLARGING) and not looks_inside):
        from rbs.inference.onnx import load_onnx, load_shipped

        exported = file.suffix == ".onnx"
        found = load_onnx(file, device) if exported else load_shipped(device, enlarging=file == ENLARGING)
        require_scale(found.scale, scale, file)
        return found
    from rbs.inference.devices import torch_device
    from rbs.restorers.checkpoint import load_restorer

    if fits:
        from rbs.inference.fits import require_writable

        require_writable(fits)
    loaded = load_restorer(file, scale=scale)
    loaded.restorer.to(torch_device(device))
    if adapt:
        from rbs.inference.test_time_adaptation import AdaptingRestorer

        return AdaptingRestorer.of(loaded, fits)
    return loaded


def load_weights(file: Path) -> LoadedRestorer | LoadedSegmenter:
    """Load the restorer or segmenter of a file into PyTorch.

    Raises:
        CheckpointError: The file is missing, cannot be read, or holds neither.
    """
    from rbs.restorers.checkpoint import load_restorer
    from rbs.segmentation.checkpoint import load_segmenter
    from rbs.utils.checkpoint import read_safetensors

    if file.suffix == ".safetensors":
        _, description = read_safetensors(file)
        if description.class_path.startswith("rbs.segmentation."):
            return load_segmenter(file)
    return load_restorer(file, scale=None)
