"""The worker of a node: examines, restores, refuses, and leaves nothing half done."""

import os
import signal
import threading
import time

import pydicom
import pytest
from node_scans import Filter, Node, die, killed

from rbs.errors import DiskFullError
from rbs.node import worker as module
from rbs.node.queue import Queue, State
from rbs.node.worker import alone

BOTH = ("anterior", "posterior")


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def states(node):
    return [entry.state for entry in node.queue.entries()]


def test_a_scan_of_two_views_is_restored_at_once(node):
    entry = node.receive("a", views=BOTH)
    node.work()
    (done,) = node.queue.entries(State.RESTORED)
    (delivery,) = node.queue.deliveries()
    assert delivery.path == done.output == node.spool.restored / f"{entry.id}.dcm"
    restored = pydicom.dcmread(done.output)
    assert restored.NumberOfFrames == 2
    assert (
        restored.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(entry.path).SOPInstanceUID
    )
    assert node.audit.events == [("restored", entry.id)]
    assert done.seconds > 0


@pytest.mark.parametrize("order", [BOTH, BOTH[::-1]], ids=str)
def test_two_views_of_an_acquisition_are_restored_together(node, order):
    calls: list[int] = []
    node.worker = node.worker_with(Filter(before=lambda: calls.append(1)))
    for number, view in enumerate(order):
        node.receive(view, views=(view,), seed=number)
        node.work()
        assert states(node)[0] == (State.RESTORED if number else State.WAITING)
    assert len(calls) == 1
    first, second = (pydicom.dcmread(entry.output) for entry in node.queue.entries(State.RESTORED))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.NumberOfFrames == second.NumberOfFrames == 1
    assert first.PixelData != second.PixelData


def test_a_view_alone_is_restored_after_the_wait_with_a_warning(tmp_path):
    now = [1000.0]
    node = Node(tmp_path, clock=lambda: now[0], wait_s=60)
    node.receive("a")
    node.work()
    assert states(node) == [State.WAITING]
    now[0] += 60
    node.work()
    (done,) = node.queue.entries(State.RESTORED)
    assert done.reason.startswith("its other view did not come within 60 s: restored alone")
    node.receive("late", views=("posterior",))
    node.work()
    assert states(node) == [State.RESTORED] * 2


def test_a_refused_scan_lies_beside_the_sentence_and_can_be_tried_again(tmp_path):
    node = Node(tmp_path)
    entry = node.receive("a", velocity=None, views=BOTH)
    content = entry.path.read_bytes()
    node.work()
    (refused,) = node.queue.entries(State.REFUSED)
    told = node.spool.refused / f"{entry.path.stem}.txt"
    assert "velocity is unknown" in told.read_text()
    assert told.read_text() == f"scan {entry.id} from CAM: {refused.reason}\n"
    assert "Secret" not in refused.reason
    assert str(tmp_path) not in refused.reason
    assert refused.path == told.with_suffix(".dcm")
    assert refused.path.read_bytes() == content
    assert not entry.path.exists()
    again = Node(tmp_path, reading={"velocity": 40.0})
    assert again.spool.retry(refused)
    assert list(node.spool.refused.iterdir()) == []
    again.work()
    assert states(again) == [State.RESTORED]


def test_what_is_no_scan_is_refused(node):
    entry = node.spool.take(b"no DICOM at all" * 100, uid="", study="", origin="CAM")
    node.work()
    assert states(node) == [State.REFUSED]
    assert "not" in node.queue.get(entry.id).reason


def test_a_scan_dropped_while_it_is_restored_leaves_nothing(node):
    entry = node.receive("a", views=BOTH)
    node.worker = node.worker_with(Filter(before=lambda: node.spool.drop(entry.id)))
    node.work()
    assert states(node) == [State.DROPPED]
    assert [
        *node.spool.received.iterdir(),
        *node.spool.restored.iterdir(),
        *node.spool.refused.iterdir(),
    ] == []


def test_a_full_disk_puts_scans_back_and_waits(node, monkeypatch):
    node.receive("a", views=BOTH)
    stop = threading.Event()

    def full(*_):
        raise DiskFullError("the disk is full", remedy="free some space")

    monkeypatch.setattr(module, "flush", full)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    worker = node.worker_with(Filter(before=lambda: stop.set() if seen.append(1) or len(seen) == 6 else None))
    seen: list[int] = []
    worker.run(stop)
    assert len(seen) == 6  # more often than a scan may end the worker
    (entry,) = node.queue.entries()
    assert (entry.state, entry.attempts, entry.reason) == (State.READY, 0, "")
    monkeypatch.undo()
    node.work()
    assert states(node) == [State.RESTORED]
    assert len(list(node.spool.restored.iterdir())) == 1


def test_a_lack_of_memory_ends_the_worker_and_after_three_times_the_scan_is_refused(node):
    node.receive("a", views=BOTH)

    def starve():
        raise MemoryError

    node.worker = node.worker_with(Filter(before=starve))
    for _ in range(3):
        with pytest.raises(MemoryError):
            node.work()
        node.queue.recover("it needs more memory than memory_mib = 3072")
    node.work()
    (entry,) = node.queue.entries(State.REFUSED)
    assert entry.reason.startswith(
        "it ended the process that restores 3 times (it needs more memory than memory_mib = 3072)"
    )


def test_a_scan_that_takes_too_long_ends_the_worker(tmp_path):
    Node(tmp_path).receive("a", views=BOTH)

    def work():
        node = Node(tmp_path, job_s=0.3)
        node.worker = node.worker_with(Filter(before=lambda: time.sleep(20)))
        node.work()

    assert killed(work, signal.SIGALRM)


def and_die(work):
    return lambda *args, **options: (work(*args, **options), die())


PLACES = {
    "output written": (module, "flush", die),
    "before the row": (Queue, "restored", die),
    "after the row": (Queue, "restored", and_die(Queue.restored)),
    "before it was examined": (Queue, "examined", die),
    "after it was examined": (Queue, "examined", and_die(Queue.examined)),
    "sentence written": (Queue, "refuse", die),
    "refused": (Queue, "refuse", and_die(Queue.refuse)),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_worker_killed_at_any_place_loses_and_doubles_nothing(tmp_path, monkeypatch, place):
    node = Node(tmp_path)
    node.receive("a", views=("posterior",))
    node.receive("b", views=("anterior",))
    bad = node.receive("bad", study="1.3", velocity=None, views=BOTH)
    with monkeypatch.context() as patched:
        patched.setattr(*PLACES[place])
        assert killed(lambda: Node(tmp_path).work())
    node.queue.recover("killed by SIGKILL")
    node.work()
    assert states(node) == [State.RESTORED, State.RESTORED, State.REFUSED]
    assert [(one.entry, one.destination) for one in node.queue.deliveries()] == [(1, "pacs"), (2, "pacs")]
    assert node.queue.get(1).partner == 2
    node.spool.sweep(age_s=-10)
    assert len(list(node.spool.received.iterdir())) == 2
    assert len(list(node.spool.restored.iterdir())) == 2
    assert sorted(path.name for path in node.spool.refused.iterdir()) == [
        bad.path.name,
        f"{bad.path.stem}.txt",
    ]


def test_a_lock_is_released_by_death_alone(tmp_path):
    lock = tmp_path / "lock"
    read, write = os.pipe()
    if not (child := os.fork()):
        with alone(lock, wait=True):
            os.write(write, b"held")
            signal.pause()
    os.read(read, 4)
    with alone(lock, wait=False) as free:
        assert not free
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with alone(lock, wait=False) as free:
        assert free


def test_a_sender_of_bad_scans_does_not_close_the_queue_to_good_ones(tmp_path):
    node = Node(tmp_path, limits={"spool_mib": 1, "reserve_mib": 0})
    for number in range(10):
        node.receive(f"bad{number}", velocity=20.0, views=BOTH, seed=number, TextValue="x" * 90_000)
        node.work()
    assert len(node.queue.entries(State.REFUSED)) == 10
    deleted = [id for event, id in node.audit.events if event == "deleted"]
    assert deleted == list(range(1, len(deleted) + 1))
    assert 6 < len(deleted) < 10
    for number in range(3):
        node.receive(f"good{number}", views=BOTH, seed=number)
    node.work()
    assert len(node.queue.entries(State.RESTORED)) == 3
