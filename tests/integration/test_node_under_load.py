"""Many senders, kill -9 at random moments and a full disk: nothing is lost, nothing is doubled.

The node is whole, but for the network, which a filter stands in for; `benchmarks/node.py` does the
same with `rbs node` and dcmtk.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pydicom
import pytest
import whole_node
from node_peers import send, storage
from node_scans import small_disk, write_scan
from pydicom import Dataset
from servers import free_port, until

from rbs.node.queue import Queue, State

BOTH = ("anterior", "posterior")
NO_ROOM = 0xA700
START_S = 120
"""Seconds for the first start on a busy machine."""
LONGEST_S = 600
"""Seconds in which senders must be done."""
PROCESSES = multiprocessing.get_context("forkserver")  # imports once, and starts without threads
PROCESSES.set_forkserver_preload(["whole_node"])


class Killable:
    """A node that is killed and started again, and a destination that keeps what it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: Any = None

    def __enter__(self) -> Killable:
        self._storage = storage()
        self.to, self.taken = self._storage.__enter__()
        self.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.kill()
        self._storage.__exit__(*error)

    def start(self) -> None:
        self.process = PROCESSES.Process(target=whole_node.serve, args=(self.folder, self.port, self.to))
        self.process.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def came(self) -> dict[str, set[str]]:
        """SOP Instance UIDs of what came, by that of the scan it was made of."""
        found = defaultdict(set)
        for ds in list(self.taken):
            found[str(ds.SourceImageSequence[0].ReferencedSOPInstanceUID)].add(str(ds.SOPInstanceUID))
        return found


class Senders:
    """Eight that send at once, each scan until it is acknowledged; `answers` counts what they are told."""

    def __init__(self, port: int, scans: Sequence[Path]) -> None:
        self.answers: Counter[int | None] = Counter()
        self._port, self._end = port, time.monotonic() + LONGEST_S
        self._scans: SimpleQueue[Path] = SimpleQueue()
        for scan in scans:
            self._scans.put(scan)
        self._threads = [threading.Thread(target=self._run) for _ in range(8)]
        for thread in self._threads:
            thread.start()

    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                scan = self._scans.get_nowait()
            except Empty:
                return
            while (status := sent(self._port, scan)) != 0 and time.monotonic() < self._end:
                self.answers[status] += 1
                time.sleep(0.1)
            self.answers[status] += 1


def sent(port: int, scan: Path) -> int | None:
    """Status that a node gives; None where there is no answer."""
    try:
        answers: list[Dataset] = send(port, scan)
    except (RuntimeError, OSError):  # it broke off between two messages
        return None
    return answers[0].get("Status") if answers else None


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def write_scans(folder: Path, number: int) -> tuple[list[Path], list[Path]]:
    """Scans of two views and of one, and those among them that must be refused."""
    scans, bad = [], []
    for seed in range(number):
        options = {"velocity": None} if seed % 10 == 9 else {}
        views = BOTH if seed % 3 else BOTH[:1]
        scans.append(write_scan(folder / f"{seed}.dcm", seed=seed, views=views, **options))
        bad += [scans[-1]] if options else []
    return scans, bad


def assert_exactly_once(node: Killable, scans: Sequence[Path], bad: Sequence[Path]) -> None:
    """Every scan came once, or lies with a sentence among the refused ones; nothing else is left."""
    good = {uid_of(scan) for scan in scans} - {uid_of(scan) for scan in bad}
    assert set(node.came()) == good
    assert all(len(uids) == 1 for uids in node.came().values())
    pixels = defaultdict(set)
    for ds in node.taken:
        pixels[str(ds.SOPInstanceUID)].add(ds.PixelData)
    assert all(len(contents) == 1 for contents in pixels.values())
    queue = Queue(node.folder / "spool")
    until(lambda: not queue.entries(State.RESTORED), START_S)
    assert {entry.uid for entry in queue.entries(State.SENT)} == good
    refused = queue.entries(State.REFUSED)
    assert {entry.uid for entry in refused} == {uid_of(scan) for scan in bad}
    assert all("velocity" in entry.path.with_suffix(".txt").read_text() for entry in refused)
    assert len(queue.entries()) == len(scans)


@pytest.mark.parametrize(
    ("number", "kills"), [(20, 8), pytest.param(200, 40, marks=pytest.mark.slow)], ids=["quick", "long"]
)
def test_kill_9_at_random_moments_loses_and_doubles_nothing(number: int, kills: int, tmp_path: Path) -> None:
    scans, bad = write_scans(tmp_path, number)
    chance = random.Random(number)
    with Killable(tmp_path) as node:
        until(lambda: sent(node.port, scans[0]) == 0, START_S)
        senders = Senders(node.port, scans * 2)
        for number_of_kill in range(kills):
            before = senders.answers[0]
            if number_of_kill % 4:  # and now and then while it starts
                until(lambda before=before: senders.answers[0] > before or senders.done(), 60)
            time.sleep(chance.uniform(0, 0.4))
            node.kill()
            node.start()
        senders.join()
        assert senders.answers[0] == 2 * number
        until(lambda: len(node.came()) == number - len(bad), START_S)
        queue = Queue(tmp_path / "spool")
        until(lambda: len(queue.entries(State.SENT, State.REFUSED)) == number, START_S)
        assert_exactly_once(node, scans, bad)
        left = [path for path in (tmp_path / "spool" / "incoming").iterdir() if path.is_file()]
        assert left == []


def test_one_scan_from_eight_senders_and_what_came_of_it_enter_once(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a.dcm", views=BOTH)
    with Killable(tmp_path) as node:
        until(lambda: sent(node.port, scan) == 0, START_S)
        senders = Senders(node.port, [scan] * 24)
        senders.join()
        until(lambda: node.taken, START_S)
        pydicom.dcmwrite(tmp_path / "own.dcm", node.taken[0], enforce_file_format=True)
        Senders(node.port, [tmp_path / "own.dcm"] * 8).join()
        time.sleep(1)
        assert senders.answers == {0: 24}
        assert len(node.taken) == 1
        assert_exactly_once(node, [scan], [])


def fill(file: Path) -> None:
    """Write until there is no room."""
    with file.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(2**14))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The spool on a disk of 6 MiB."""
    with small_disk(tmp_path / "spool", "6m") as folder:
        yield folder


def test_a_full_disk_is_told_to_senders_and_loses_nothing(tmp_path: Path, disk: Path) -> None:
    scans, bad = write_scans(tmp_path, 20)
    with Killable(tmp_path) as node:
        until(lambda: sent(node.port, scans[1]) == 0, START_S)
        other = disk / "of_another_program"
        with suppress(OSError):
            fill(other)
        assert shutil.disk_usage(disk).free < 2**16
        senders = Senders(node.port, scans)
        until(lambda: senders.answers[NO_ROOM] >= 20, START_S)
        assert senders.answers[0] < len(scans)
        node.kill()  # it starts on a full disk, too
        node.start()
        before = senders.answers[NO_ROOM]
        until(lambda: senders.answers[NO_ROOM] >= before + 10, START_S)
        other.unlink()
        senders.join()
        assert senders.answers[0] == len(scans)
        until(lambda: len(node.came()) == len(scans) - len(bad), START_S)
        queue = Queue(disk)
        until(lambda: len(queue.entries(State.SENT, State.REFUSED)) == len(scans), START_S)
        assert_exactly_once(node, scans, bad)
