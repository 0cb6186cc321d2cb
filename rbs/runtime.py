"""ONNX Runtime: what runs a network without PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rbs.errors import RbsError
from rbs.scans.scan import Array

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def session_of(model: bytes, weights: Mapping[str, Array] | None = None) -> InferenceSession:
    """A network on the processor, on as many threads as `OMP_NUM_THREADS` says, or as it may have.

    Args:
        model: An ONNX file.
        weights: What it left out, by name; float32 or half of it.

    Raises:
        RbsError: ONNX Runtime is not installed. What it says of a faulty model is of kinds of its own.
    """
    try:
        from onnxruntime import InferenceSession, OrtValue, SessionOptions
    except ImportError as error:
        raise RbsError(f"ONNX Runtime is not there ({error})", remedy="pip install onnxruntime") from error
    options = SessionOptions()
    options.intra_op_num_threads = _threads()
    weights = weights or {}
    # They must outlive the session's making, which copies them.
    values = [OrtValue.ortvalue_from_numpy(np.asarray(array, np.float32)) for array in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _threads() -> int:
    """As the environment says, or one for each core that this process may use.

    ONNX Runtime's own choice is one a core of the machine, also where a job was given few of them.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if first.isdigit() and int(first):
        return int(first)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
