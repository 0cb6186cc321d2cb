"""The spool of a node: whole files or none, room, and what is deleted when."""

import errno
import os
import threading

import pytest
from node_scans import Node, die, killed, small_disk

from rbs.errors import DiskFullError, RbsError
from rbs.node import spool
from rbs.node.queue import KnownUidError, Queue, Restoration, State


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def take(node, content=b"content", uid="1.2", **options):
    return node.spool.take(content, uid=uid, study="1", origin="CAM", **options)


def finish(node):
    """Restore scans, and send them."""
    while node.queue.begin():
        for entry in node.queue.entries(State.RECEIVED):
            node.queue.examined(entry.id, acquisition=entry.uid, view=None, deadline=0)
    while claimed := node.queue.claim():
        output = node.spool.output(claimed[0])
        output.write_bytes(b"restored")
        node.queue.restored({claimed[0].id: Restoration((output,), 1.0)}, ())


def test_a_scan_is_kept_under_its_hash_and_once(node, tmp_path):
    entry = take(node)
    assert entry.path.parent == node.spool.received
    assert entry.path.name.startswith(f"{entry.sha256}-")
    assert entry.path.read_bytes() == b"content"
    assert take(node) is None
    with pytest.raises(KnownUidError):
        take(node, b"other")
    file = tmp_path / "incoming.dcm"
    file.write_bytes(b"from a file")
    assert take(node, file, uid="1.3").path.read_bytes() == b"from a file"
    assert not file.exists()
    assert len(list(node.spool.received.iterdir())) == 2
    unnamed = take(node, b"no uid", uid="")
    assert unnamed.uid == unnamed.sha256


def test_the_same_scan_from_many_at_once_enters_once(node):
    contents = [b"same"] * 6 + [b"other"] * 6
    got = []

    def send(content):
        try:
            got.append(take(node, content))
        except KnownUidError as error:
            got.append(error)

    threads = [threading.Thread(target=send, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (entry,) = node.queue.entries()
    assert sum(one == entry for one in got) == 1
    assert sum(isinstance(one, KnownUidError) for one in got) == 6
    assert [path.name for path in node.spool.received.iterdir()] == [entry.path.name]


def test_there_is_no_room_beyond_the_limits(tmp_path):
    full = Node(tmp_path / "full", limits={"spool_mib": 1})
    take(full, bytes(2**20 - 10))
    with pytest.raises(DiskFullError, match=r"the spool holds 1 MiB, the most it may; drop refused scans"):
        take(full, bytes(11), uid="1.3")
    reserve = Node(tmp_path / "reserve", limits={"reserve_mib": 2**40})
    with pytest.raises(DiskFullError, match=r"MiB of its disk \(limits.reserve_mib\) are free; free some"):
        take(reserve)
    for node in (full, reserve):
        assert len(list(node.spool.received.iterdir())) == len(node.queue.entries()) <= 1


def test_a_disk_that_is_full_in_the_middle_leaves_no_file_and_no_row(tmp_path):
    with small_disk(tmp_path / "disk", "400k") as disk:
        node = Node(disk, limits={"reserve_mib": 0})
        node.spool.room = lambda *_: None  # as if it had become full after the look
        padding = disk / "padding"
        padding.write_bytes(bytes(100_000))
        with pytest.raises(DiskFullError):
            take(node, bytes(400_000))
        assert list(node.spool.received.iterdir()) == []
        for size in (16_384, 1):  # first the file does not fit, then its row
            with pytest.raises(DiskFullError):
                fill(node, size)
            rows = {entry.path for entry in node.queue.entries()}
            assert rows == set(node.spool.received.iterdir())
        padding.unlink()
        assert take(node, uid="after")
        node.queue = Queue(node.settings.spool)
        assert node.queue.find("after")


def fill(node, size):
    for number in range(100):
        take(node, os.urandom(size), uid=f"{size}.{number}")


@pytest.mark.parametrize("place", ["replace", "fsync"])
def test_a_death_while_a_scan_is_taken_leaves_no_row_and_the_file_is_swept(node, monkeypatch, place):
    with monkeypatch.context() as patched:
        patched.setattr(os, place, die)
        assert killed(lambda: take(node))
    assert node.queue.entries() == []
    node.spool.sweep()
    assert len(list(node.spool.received.iterdir())) == 1  # young: it may get its row yet
    node.spool.sweep(age_s=-10)
    assert list(node.spool.received.iterdir()) == []
    assert take(node)


def test_a_scan_on_another_disk_is_copied_into_the_folder_of_refused_ones(node, monkeypatch):
    def across(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    entry = take(node)
    assert node.spool.refuse(entry, "why.")
    refused = node.queue.get(entry.id)
    assert refused.path.read_bytes() == b"content"
    assert refused.path.with_suffix(".txt").read_text() == f"scan {entry.id} from CAM: why.\n"
    assert not entry.path.exists()


def test_what_is_sent_is_deleted_after_a_while_and_what_is_refused_is_not(tmp_path):
    now = [1000.0]
    node = Node(tmp_path, clock=lambda: now[0])
    sent, refused = take(node), take(node, b"bad", uid="1.3")
    node.spool.refuse(refused, "why.")
    finish(node)
    output = node.queue.get(sent.id).output
    assert node.spool.purge(900) == 0
    assert sent.path.exists()
    assert node.spool.purge(1001) == 1
    assert not sent.path.exists()
    assert not output.exists()
    assert take(node) is None  # it was done, and is not done again
    assert node.spool.purge(1001) == 0
    assert node.spool.drop(refused.id)
    assert node.spool.drop(refused.id) is None
    assert list(node.spool.refused.iterdir()) == []
    assert take(node, b"bad", uid="1.3")


def test_refused_scans_hold_a_quarter_of_the_spool_and_go_by_sender(tmp_path):
    now = [1000.0]
    node = Node(tmp_path, clock=lambda: now[0], limits={"spool_mib": 1, "reserve_mib": 0})
    kib = [bytes([number]) * 100 * 1024 for number in range(4)]
    rare = node.spool.take(kib[0], uid="0", study="1", origin="RARE")
    assert node.spool.refuse(rare, "why.")
    assert node.spool.bound_refused() == []
    bad = [take(node, kib[number], uid=str(number)) for number in (1, 2, 3)]
    for entry in bad:
        assert node.spool.refuse(entry, "smoothed.")
    # 400 KiB of 1 MiB: the oldest of the sender of three go, not the older one of another.
    assert [entry.id for entry in node.spool.bound_refused()] == [bad[0].id, bad[1].id]
    assert node.queue.bytes_held() == 200 * 1024
    assert {path.name for path in node.spool.refused.iterdir()} == {
        f"{node.queue.get(entry.id).path.stem}{end}" for entry in (rare, bad[2]) for end in (".dcm", ".txt")
    }
    gone = node.queue.get(bad[0].id)
    assert gone.state == State.REFUSED
    assert gone.reason.startswith("smoothed. Its file was deleted")
    assert not node.spool.retry(gone)
    # It is taken in when it comes again; the row of one that does not goes after a while.
    assert take(node, kib[1], uid="1").state == State.RECEIVED
    assert node.queue.get(bad[0].id) is None
    now[0] = 2000
    assert node.spool.purge(1500) == 1
    assert node.queue.get(bad[1].id) is None
    assert node.queue.get(bad[2].id).path.read_bytes() == kib[3]


def test_refused_scans_leave_room_on_a_disk_smaller_than_the_limit(tmp_path):
    with small_disk(tmp_path / "disk", "2m") as disk:
        node = Node(disk, limits={"reserve_mib": 0})
        for number in range(20):
            entry = take(node, bytes([number]) * 200_000, uid=str(number))
            assert node.spool.refuse(entry, "why.")
            node.spool.bound_refused()
        assert 200_000 <= node.queue.bytes_held() <= 2**21 / 4


def test_what_waits_of_one_of_several_senders_fills_no_more_than_half(tmp_path):
    peers = [{"ae_title": title} for title in ("CAM", "OTHER")]
    node = Node(tmp_path, peers=peers, limits={"spool_mib": 1, "reserve_mib": 0})
    first = take(node, bytes(300 * 1024))
    with pytest.raises(DiskFullError, match=r"half of limits\.spool_mib = 1 waits from this sender"):
        take(node, bytes(300 * 1024), uid="1.3")
    assert node.spool.take(bytes(300 * 1024), uid="1.4", study="1", origin="OTHER")
    assert node.spool.refuse(first, "why.")
    assert take(node, bytes(300 * 1024), uid="1.3")


def test_the_spool_may_be_named_otherwise_and_move(tmp_path):
    node = Node(tmp_path)
    received, bad = take(node), take(node, b"bad", uid="1.3")
    node.spool.refuse(bad, "why.")
    (tmp_path / "link").symlink_to(tmp_path)
    other = Node(tmp_path / "link")
    other.spool.sweep(age_s=-10)
    assert received.path.exists()
    assert node.settings.spool.rename(tmp_path / "moved").exists()
    queue = Queue(tmp_path / "moved")
    assert queue.get(received.id).path.read_bytes() == b"content"
    assert queue.get(bad.id).path.read_bytes() == b"bad"


def test_a_scan_that_comes_again_while_its_files_are_deleted_keeps_its_own(node, monkeypatch):
    entry = take(node)
    deleted = spool.remove
    again = []

    def late(paths):
        paths = list(paths)
        again.append(take(node))  # the camera sends it again between the row and the files
        deleted(paths)

    with monkeypatch.context() as patched:
        patched.setattr(spool, "remove", late)
        node.spool.drop(entry.id)
    assert again[0].path.read_bytes() == b"content"
    assert not entry.path.exists()


def test_a_scan_that_is_refused_again_while_it_is_retried_keeps_its_file(node, monkeypatch):
    entry = take(node)
    node.spool.refuse(entry, "why.")
    retried = node.queue.retry

    def quick(id, path=None):
        done = retried(id, path)
        assert node.spool.refuse(node.queue.begin(), "why again.")  # by the worker, at once
        return done

    with monkeypatch.context() as patched:
        patched.setattr(node.queue, "retry", quick)
        assert node.spool.retry(node.queue.get(entry.id))
    (refused,) = node.queue.entries(State.REFUSED)
    assert refused.path.read_bytes() == b"content"
    assert refused.path.with_suffix(".txt").read_text() == f"scan {entry.id} from CAM: why again.\n"


def test_a_stale_output_is_removed_before_a_scan_is_restored_again(node):
    entry = take(node)
    stale = [node.spool.restored / f"{entry.id}{end}" for end in (".dcm", "_sd.dcm")]
    other = node.spool.restored / f"{entry.id}1.dcm"
    for path in (*stale, other):
        path.write_bytes(b"stale")
    assert node.spool.output(entry) == stale[0]
    assert list(node.spool.restored.iterdir()) == [other]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RbsError, match="it cannot be read or written"):
        Node(tmp_path, refused=tmp_path / "file" / "refused")
