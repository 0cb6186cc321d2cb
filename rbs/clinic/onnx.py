"""Restoring scans by ONNX Runtime from what `rbs export` wrote, without the long import of PyTorch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rbs.errors import CheckpointError, RbsError
from rbs.scans.counts import where_scanned
from rbs.scans.scan import Array

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

VIEWS = 2


@dataclass(frozen=True)
class OnnxRestorer:
    """A restorer of scans that `rbs export` wrote, to be used as `rbs.weights.LoadedRestorer` is.

    Attributes:
        session: The network.
        name: Its class and the file its weights came from, for headers and reports.
        sha256: Of the weights it was exported from, hexadecimal.
        provenance: What was recorded about their making.
    """

    session: InferenceSession
    name: str
    sha256: str
    provenance: dict[str, Any]

    def restore(self, rapid: Array, fraction: float) -> Array:
        """Restore a whole scan: `rbs.weights.LoadedRestorer.restore` says how.

        Args:
            rapid: Raw counts, aligned (V, H, W).
            fraction: Exposure relative to the standard scan.

        Returns:
            Standard counts (V, H, W), float32.
        """
        x = np.asarray(rapid, dtype=np.float32)[None] / np.float32(fraction)
        both = np.repeat(x, VIEWS // len(rapid), axis=1)
        (answer,) = self.session.run(None, {"rapid": both, "fraction": np.array([fraction], np.float32)})
        counts = answer[0] if len(rapid) == VIEWS else answer[0].mean(axis=0, keepdims=True)
        return where_scanned(counts, rapid)


def load_onnx(path: Path) -> OnnxRestorer:
    """Read what `rbs export` wrote of a restorer of scans.

    Raises:
        CheckpointError: The file is missing, cannot be read, or is not of `rbs export`, or not of scans.
        RbsError: ONNX Runtime is not installed.
    """
    try:
        from onnxruntime import InferenceSession, SessionOptions
    except ImportError as error:
        raise RbsError(
            f"ONNX needs a package that is not there ({error.name})", remedy="pip install 'rbs[onnx]'"
        ) from error
    if not path.is_file():
        raise CheckpointError("there is no such weight file", file=path, remedy="check the path")
    options = SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))  # 0: one a core
    remedy = "write it with `rbs export`"
    try:
        session = InferenceSession(path.read_bytes(), options)
        about = json.loads(session.get_modelmeta().custom_metadata_map["rbs"])
        name, sha256, restores = about["name"], about["weights_sha256"], about["restores"]
    except KeyError:
        raise CheckpointError("it does not say which restorer it holds", file=path, remedy=remedy) from None
    except Exception as error:  # ONNX Runtime has kinds of its own for what is no model
        fault = f"it is truncated or not an ONNX file ({type(error).__name__})"
        raise CheckpointError(fault, file=path, remedy=remedy) from None
    if restores != "scans":
        raise CheckpointError(
            f"it restores {restores}, not scans", file=path, remedy="name the weights it was exported from"
        )
    return OnnxRestorer(session, f"{name} (ONNX)", sha256, about.get("provenance", {}))
