"""ONNX Runtime takes as many threads as the process may have, and says so where it is missing."""

import os
import sys

import pytest

from rbs.errors import RbsError
from rbs.inference import onnx as runtime
from rbs.weights.shipped import GRAPH

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("4,1", 4), ("", ALLOWED), ("0", ALLOWED), ("many", ALLOWED)]
)
def test_threads(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert runtime._threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert runtime._threads() == ALLOWED


def test_without_onnx_runtime_there_is_a_remedy(monkeypatch):
    from rbs.inference.onnx import load_shipped

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RbsError, match="pip install onnxruntime"):
        runtime.session_of(GRAPH.read_bytes())
    with pytest.raises(RbsError, match="ONNX Runtime is not there"):
        load_shipped()
