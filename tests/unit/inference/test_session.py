"""A session of ONNX Runtime: it sleeps while it waits, and says so where it is missing."""

import sys

import pytest

from rbs.errors import RbsError
from rbs.inference import onnx_network as runtime
from rbs.weights.shipped import GRAPH


def test_without_onnx_runtime_there_is_a_remedy(monkeypatch):
    from rbs.inference.onnx import load_shipped

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RbsError, match="pip install onnxruntime"):
        runtime.session_of(GRAPH.read_bytes())
    with pytest.raises(RbsError, match="ONNX Runtime is not there"):
        load_shipped()


@pytest.mark.parametrize(("policy", "spins"), [("PASSIVE", "0"), ("active", "1")])
def test_its_threads_sleep_while_they_wait_unless_the_user_says_otherwise(monkeypatch, policy, spins):
    import onnxruntime

    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda model, options, **_: made.append(options))
    runtime.session_of(b"")
    assert made[0].get_session_config_entry("session.intra_op.allow_spinning") == spins
    assert made[0].intra_op_num_threads == 3
