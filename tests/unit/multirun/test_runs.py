"""Processes that share a folder keep out of each other's way."""

import errno
import fcntl
import subprocess
import sys
import time

import pytest

from rbs.errors import OutputError
from rbs.multirun.runs import Run, alone_in, in_turn

HOLD = """
import sys, time
from pathlib import Path
from rbs.multirun.runs import Run, alone_in, in_turn
folder, how = Path(sys.argv[1]), sys.argv[2]
with {"alone": alone_in, "turn": in_turn}[how](folder):
    print("in", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def hold(tmp_path):
    """Let another process stay in a folder for some seconds."""
    holders = []

    def begin(how, seconds):
        command = [sys.executable, "-c", HOLD, str(tmp_path), how, str(seconds)]
        holders.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert holders[-1].stdout.readline() == b"in\n"
        return holders[-1]

    yield begin
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_a_folder_is_for_one_until_it_dies(hold, tmp_path):
    holder = hold("alone", 60)
    with pytest.raises(OutputError, match="another process is at work in it"), alone_in(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with alone_in(tmp_path):
        pass


def test_who_decides_waits_for_the_other(hold, tmp_path):
    begin = time.monotonic()
    hold("turn", 1.0)
    met = time.monotonic()
    with in_turn(tmp_path):
        assert 0.5 < time.monotonic() - met < 30
    assert time.monotonic() - begin > 1


def test_a_claim_lasts_while_its_training_does(tmp_path):
    """Also where the process that claimed it has gone: the training has inherited it."""
    mine, other = (Run(tmp_path, [sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2))
    assert mine.claim()
    assert not other.claim()
    mine.start({})
    mine.release()
    assert not other.claim()
    mine.interrupt()
    assert other.claim()


def test_a_disk_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    for enter in (alone_in, in_turn):
        with (
            pytest.raises(OutputError, match=r"its disk cannot lock files \(No locks available\)"),
            enter(tmp_path),
        ):
            pass
