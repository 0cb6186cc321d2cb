"""Loading restorers of scans: in ONNX Runtime where that is enough, else in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rbs.errors import RbsError

if TYPE_CHECKING:
    from rbs.inference.onnx import OnnxRestorer
    from rbs.restorers.checkpoint import LoadedRestorer

Loaded: TypeAlias = "LoadedRestorer | OnnxRestorer"


def load_for_scans(checkpoint: Path | None = None, *, adapt: bool = False) -> Loaded:
    """Load a restorer of scans; ONNX Runtime starts much sooner than PyTorch.

    Args:
        checkpoint: Weights, .safetensors or .ckpt, or .onnx as `rbs export` writes it; None for
            the shipped weights.
        adapt: Fit the restorer to each scan's own counts before it restores that scan.

    Raises:
        CheckpointError: The file is missing, cannot be read, or does not restore scans.
        RbsError: `adapt` with an ONNX file.
    """
    exported = checkpoint is not None and checkpoint.suffix == ".onnx"
    if exported and adapt:
        raise RbsError(
            "an ONNX file cannot be adapted to a scan",
            file=checkpoint,
            remedy="name the weights it was exported from",
        )
    if adapt:
        from rbs.inference.test_time_adaptation import AdaptingRestorer
        from rbs.restorers.checkpoint import load_restorer

        return AdaptingRestorer.of(load_restorer(checkpoint))
    if checkpoint is None or exported:
        from rbs.inference.onnx import load_onnx, load_shipped

        return load_shipped() if checkpoint is None else load_onnx(checkpoint)
    from rbs.restorers.checkpoint import load_restorer

    return load_restorer(checkpoint)
