"""A folder that is watched."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from node_scans import Filter, Node, write_scan
from pydicom import dcmread

from rbs.errors import DiskFullError, RbsError
from rbs.node import watch as module
from rbs.node.queue import State
from rbs.node.watch import Watch

BOTH = ("anterior", "posterior")


class Folder:
    """A watch whose worker is called by the test."""

    def __init__(self, folder, monkeypatch):
        monkeypatch.setattr(module, "WHOLE_S", 0.0)
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
        self.input, self.output = folder / "in", folder / "out"
        self.input.mkdir()
        self.node = Node(folder, refused=self.output / "refused", limits={"reserve_mib": 0})
        self.node.worker = self.node.worker_with(Filter())
        self.said = []
        self.watch = Watch(self.input, self.output, self.node.settings, self.said.append)

    def work(self):
        self.watch.look(patience=0)
        self.watch.look(patience=0)
        self.node.work()
        self.watch.deliver()

    def states(self):
        return [entry.state for entry in self.node.queue.entries()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return Folder(tmp_path, monkeypatch)


def test_scans_are_restored_under_their_names(folder):
    (folder.input / "child").mkdir()
    scan = write_scan(folder.input / "child" / "IM1", views=BOTH)
    (folder.input / "notes.txt").write_text("no scan")
    content = scan.read_bytes()
    folder.work()
    restored = folder.output / "child" / "IM1"
    assert dcmread(restored).SourceImageSequence[0].ReferencedSOPInstanceUID == dcmread(scan).SOPInstanceUID
    assert folder.states() == [State.SENT]
    assert scan.read_bytes() == content
    (line,) = folder.said
    assert line.startswith("child/IM1: ")
    assert line.endswith(f"-> {restored}")
    folder.work()
    again = Watch(folder.input, folder.output, folder.node.settings, folder.said.append)
    again.look()
    again.look()
    assert folder.states() == [State.SENT]
    assert len(folder.said) == 1


def test_what_rbs_restored_and_a_copy_are_taken_in_nowhere(folder):
    scan = write_scan(folder.input / "a.dcm", views=BOTH)
    folder.work()
    shutil.copy(folder.output / "a.dcm", folder.input / "restored.dcm")
    shutil.copy(scan, folder.input / "copy.dcm")
    folder.work()
    assert folder.states() == [State.SENT]
    assert folder.watch.look(patience=0) == 0


def test_odd_names_and_headers_hold_up_no_other_file(folder):
    odd = folder.input / os.fsdecode(b"M\xfcller.dcm")  # Latin-1
    write_scan(odd, views=BOTH)
    broken = write_scan(folder.input / "broken.dcm", views=BOTH, seed=1)
    header = dcmread(broken)
    header.add_new("DerivationCodeSequence", "LO", "no sequence")
    header.save_as(broken)
    write_scan(folder.input / "whole.dcm", views=BOTH, seed=2)
    folder.work()
    assert (folder.output / odd.name).exists()
    assert (folder.output / "whole.dcm").exists()


def test_a_growing_file_is_taken_when_it_is_whole(folder, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 1000)
    content = write_scan(folder.input.parent / "a.dcm", views=BOTH).read_bytes()
    part = folder.input / "a.dcm"
    for end in (200, 5000, len(content) - 100):
        part.write_bytes(content[:end])
        for _ in range(2):
            assert folder.watch.look(patience=1000) == 1
        assert folder.states() == []
    part.write_bytes(content)
    assert folder.watch.look() == 1
    assert folder.watch.look() == 0
    folder.work()
    assert folder.states() == [State.SENT]


def test_a_refused_scan_is_told_and_taken_again_when_it_was_replaced(folder):
    whole = write_scan(folder.input.parent / "a.dcm", views=BOTH).read_bytes()
    (folder.input / "a.dcm").write_bytes(whole[:-100])
    folder.watch.look(patience=0)
    folder.watch.look(patience=0)
    folder.node.work()
    assert folder.states() == [State.REFUSED]
    assert sorted(path.suffix for path in (folder.output / "refused").iterdir()) == [".dcm", ".txt"]
    folder.watch.take(folder.input / "a.dcm")
    assert folder.states() == [State.REFUSED]  # the same as before
    (folder.input / "a.dcm").write_bytes(whole)
    folder.work()
    assert folder.states() == [State.DROPPED, State.SENT][1:]
    assert list((folder.output / "refused").iterdir()) == []


def test_another_scan_under_a_known_uid_is_refused(folder):
    write_scan(folder.input / "a.dcm", views=BOTH, SOPInstanceUID="1.2.3")
    folder.work()
    write_scan(folder.input / "b.dcm", views=BOTH, seed=1, SOPInstanceUID="1.2.3")
    folder.work()
    assert folder.states() == [State.SENT, State.REFUSED]
    assert "is that of another scan; keep one" in folder.node.queue.entries()[1].reason


def test_another_scan_under_a_used_name_gets_its_number(folder):
    for seed in range(2):
        write_scan(folder.input / "a.dcm", views=BOTH, seed=seed)
        folder.work()
    assert sorted(path.name for path in folder.output.glob("*.dcm")) == ["a.dcm", "a_2.dcm"]


def test_a_copy_that_a_death_cut_short_is_made_once(folder, monkeypatch):
    write_scan(folder.input / "a.dcm", views=BOTH)
    monkeypatch.setattr(folder.watch.queue, "delivered", lambda id: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.work()
    monkeypatch.undo()
    folder.watch.deliver()
    assert folder.states() == [State.SENT]
    assert [path.name for path in folder.output.glob("*.dcm")] == ["a.dcm"]


def test_a_full_disk_is_waited_for(folder, monkeypatch):
    write_scan(folder.input / "a.dcm", views=BOTH)

    def full(*_):
        raise DiskFullError("full", remedy="free some space")

    with monkeypatch.context() as patched:
        patched.setattr(folder.watch.spool, "room", full)
        folder.work()
        assert folder.states() == []
    folder.work()
    assert folder.states() == [State.SENT]


def test_the_output_may_lie_in_the_folder_and_not_around_it(tmp_path, monkeypatch):
    folder = Folder(tmp_path, monkeypatch)
    inside = Watch(folder.input, folder.input / "out", folder.node.settings)
    write_scan(folder.input / "out" / "b.dcm", views=BOTH)
    assert inside.look() == 0
    for output in (folder.input, tmp_path):
        with pytest.raises(RbsError, match="restored scans would go where scans are taken from; choose"):
            Watch(folder.input, output, folder.node.settings)
    with pytest.raises(RbsError, match="there is no such folder"):
        Watch(tmp_path / "none", tmp_path / "out", folder.node.settings)


def test_kill_9_of_the_watch_loses_and_doubles_nothing(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "abc":
        write_scan(folder / f"{name}.dcm", views=BOTH, seed=ord(name))
    command = [sys.executable, "-m", "rbs.cli", "watch", str(folder), str(output)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"watching {folder}\n"
    first = process.stdout.readline()
    assert first.startswith("a.dcm: ")
    process.kill()
    process.wait()
    stamp = (output / "a.dcm").stat().st_mtime_ns
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(3)]
    assert [line[:5] for line in lines[1:]] == ["b.dcm", "c.dcm"]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert sorted(path.name for path in output.glob("*.dcm")) == ["a.dcm", "b.dcm", "c.dcm"]
    assert (output / "a.dcm").stat().st_mtime_ns == stamp
    assert os.listdir(output / "refused") == []
