"""Processes that share a folder keep out of each other's way."""

import errno
import fcntl
import subprocess
import sys
import time

import pytest

from rbs.errors import OutputError
from rbs.multirun.runs import Run, in_turn

HOLD = """
import sys, time
from pathlib import Path
from rbs.multirun.runs import in_turn
with in_turn(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def hold(tmp_path):
    """Let another process stay in a folder for some seconds."""
    holders = []

    def begin(seconds):
        command = [sys.executable, "-c", HOLD, str(tmp_path), str(seconds)]
        holders.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert holders[-1].stdout.readline() == b"in\n"
        return holders[-1]

    yield begin
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_a_decision_waits_for_that_of_another_process(hold, tmp_path):
    hold(0.5)
    met = time.monotonic()
    with in_turn(tmp_path):
        assert 0.25 < time.monotonic() - met < 30


def test_a_process_that_dies_holds_up_nobody(hold, tmp_path):
    holder = hold(60)
    holder.kill()
    holder.wait()
    met = time.monotonic()
    with in_turn(tmp_path):
        assert time.monotonic() - met < 30


def test_a_claim_lasts_while_its_training_does(tmp_path):
    """Even after the process that claimed it has died: the training holds the lock, too."""
    mine, other = (Run(tmp_path, [sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2))
    assert mine.claim()
    assert not other.claim()
    mine.start({})
    mine.release()
    assert not other.claim()
    mine.interrupt()
    assert other.claim()


def test_a_claim_learns_how_another_process_ended_it(tmp_path):
    mine, other = Run(tmp_path, ["true"]), Run(tmp_path, ["true"], state="stopped", seconds=7.0)
    other.note()
    assert mine.claim()
    assert (mine.state, mine.seconds) == ("stopped", 7.0)
    mine.release()


def test_a_training_that_ended_after_its_process_died_is_finished(tmp_path):
    run = Run(tmp_path, ["true"])
    run.note()
    (tmp_path / "version_3").mkdir()
    (tmp_path / "version_3" / "finished").touch()
    assert run.claim()
    assert Run.read(tmp_path).state == "finished"
    run.release()


def test_a_disk_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    refused = pytest.raises(OutputError, match=r"its disk cannot lock files \(No locks available\)")
    with refused, in_turn(tmp_path):
        pass
