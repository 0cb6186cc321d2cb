"""Threads sleep while they wait, and are as many as the process may have."""

import os
import subprocess
import sys

import pytest

from rbs.utils.threads import thread_count, wait_passively, waits_actively

ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("4,1", 4), ("", ALLOWED), ("0", ALLOWED), ("many", ALLOWED)]
)
def test_threads(monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert thread_count() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count() == ALLOWED


def test_waiting_is_passive_unless_the_user_says_otherwise():
    environment = {"PATH": "/bin"}
    wait_passively(environment)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["GOMP_SPINCOUNT"] == environment["KMP_BLOCKTIME"] == "0"
    assert not waits_actively(environment)
    for asked in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "1000"}, {"KMP_BLOCKTIME": "200"}):
        kept = dict(asked)
        wait_passively(kept)
        assert kept == asked
    assert waits_actively({"OMP_WAIT_POLICY": "active"})


def test_it_is_set_before_any_library_is_loaded():
    code = (
        "import os, sys; from rbs.cli.main import main; main(['inspect', 'nothing.dcm']);"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    passive = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # set here by other tests of commands
    environment = {name: text for name, text in os.environ.items() if name not in passive}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.endswith("PASSIVE\n")
    code = "import sys; import rbs.cli.main; print([m for m in ('numpy', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
