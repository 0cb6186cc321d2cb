"""ONNX Runtime reports nothing: it then keeps no device number and no store of events either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOAD = "from rbs.inference.load import load_for_scans; load_for_scans('shipped')"


def test_a_session_leaves_no_trace_of_telemetry(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", LOAD], env=environment, cwd=tmp_path, check=True, timeout=300)
    assert list(tmp_path.iterdir()) == []
