"""Reception of scans by the node."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
from node_peers import Node, scan, send, status_of_echo
from node_scans import small_disk
from pydicom.uid import (
    CTImageStorage,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from servers import until

from rbs.errors import DiskFullError, RbsError
from rbs.node.queue import Queue, State
from rbs.node.senders import AllowList
from rbs.node.settings import Peer
from rbs.node.spool import Spool
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import Derivation, write_restored_nm

CAMERA = {"ae_title": "CAMERA", "addresses": ["127.0.0.1"]}


@pytest.fixture
def node(tmp_path: Path):
    with Node(tmp_path).receiving() as node:
        yield node


def status(answers: list[pydicom.Dataset]) -> int:
    (answer,) = answers
    return int(answer.Status)


def test_what_is_acknowledged_is_in_the_spool_and_in_the_queue(node: Node, tmp_path: Path) -> None:
    file = scan(tmp_path / "a.dcm")
    assert status(send(node.port, file)) == 0
    (entry,) = node.queue.entries(State.RECEIVED)
    ds, kept = pydicom.dcmread(file), pydicom.dcmread(entry.path)
    assert kept == ds
    assert (entry.uid, entry.study, entry.origin) == (ds.SOPInstanceUID, ds.StudyInstanceUID, "CAMERA")
    assert entry.size == entry.path.stat().st_size
    assert entry.path.parent.name == "received"
    assert entry.path.stem.startswith(f"{entry.sha256}-")
    (read,) = read_nm(entry.path).counts
    assert read.tobytes() == read_nm(file).counts.tobytes()
    assert [event["event"] for event in node.events()] == ["received"]
    assert ds.SOPInstanceUID not in (node.folder / "audit.jsonl").read_text()


def test_echo(node: Node) -> None:
    entity = AE("CAMERA")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
    assert association.send_c_echo().Status == 0
    association.release()


@pytest.mark.parametrize(("title", "called", "reason"), [("CAMERA", "OTHER", 7), ("STRANGER", "RBS", 3)])
def test_other_ae_titles_are_refused_with_the_reason(
    title: str, called: str, reason: int, tmp_path: Path
) -> None:
    with Node(tmp_path, peers=[CAMERA]).receiving() as node:
        entity = AE(title)
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", node.port, ae_title=called)
        assert association.is_rejected
        answer = association.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, reason)
        (event,) = until(node.events)
        assert (event["event"], event["peer"], event["reason"]) == (
            "association refused",
            title,
            f"1.1.{reason}",
        )


@pytest.mark.parametrize(
    ("addresses", "taken"),
    [
        (["10.0.0.0/8"], False),
        (["10.0.0.0/8", "127.0.0.0/8"], True),
        (["localhost"], True),
        (["::1"], False),
        ([], True),
    ],
)
def test_a_peer_calls_from_its_addresses_only(addresses: list[str], taken: bool, tmp_path: Path) -> None:
    peer = {"ae_title": "CAMERA", "addresses": addresses}
    with Node(tmp_path, peers=[peer]).receiving() as node:
        assert bool(send(node.port, scan(tmp_path / "a.dcm"))) is taken
        assert len(node.queue.entries()) == taken
        assert until(node.events)[0]["event"] == ("received" if taken else "association refused")


def test_a_title_may_have_several_entries_and_addresses_of_both_versions() -> None:
    lists = [["10.0.0.0/8"], ["fd00::/8", "192.168.1.7"]]
    allowed = AllowList(Peer(ae_title="CAMERA", addresses=addresses) for addresses in lists)
    for address in ("10.1.2.3", "fd00::1", "192.168.1.7", "::ffff:10.1.2.3"):
        assert allowed("CAMERA", address)
        assert not allowed("OTHER", address)
    for address in ("11.0.0.1", "192.168.1.8", "::ffff:11.0.0.1", "fe80::1%eth0"):
        assert not allowed("CAMERA", address)


def test_a_host_without_an_address_is_told_at_the_start(tmp_path: Path) -> None:
    peer = {"ae_title": "CAMERA", "addresses": ["no-such-host.invalid"]}
    with pytest.raises(RbsError, match=r"no-such-host\.invalid"), Node(tmp_path, peers=[peer]).receiving():
        pass


def test_a_port_in_use_is_told_at_the_start(node: Node, tmp_path: Path) -> None:
    other = Node(tmp_path / "other", port=node.port)
    with pytest.raises(RbsError, match=f"port {node.port} of 127.0.0.1"), other.receiving():
        pass


def test_other_classes_and_lossy_encodings_are_not_negotiated(node: Node) -> None:
    assert send(node.port, sop_class=CTImageStorage) == []
    entity = AE("CAMERA")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.20", [RLELossless])
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.20", [JPEGBaseline8Bit])
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
    assert [c.transfer_syntax for c in association.accepted_contexts] == [[RLELossless]]
    assert [c.transfer_syntax for c in association.rejected_contexts] == [[JPEGBaseline8Bit]]
    association.release()


def captured(path: Path, modality: str) -> pydicom.Dataset:
    ds = pydicom.dcmread(scan(path))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds.Modality = modality
    return ds


@pytest.mark.parametrize(("modality", "told"), [("NM", 0), ("OT", 0xA900)])
def test_secondary_captures_are_taken_of_nuclear_medicine_only(
    modality: str, told: int, node: Node, tmp_path: Path
) -> None:
    (answer,) = send(
        node.port, captured(tmp_path / "a.dcm", modality), sop_class=SecondaryCaptureImageStorage
    )
    assert answer.Status == told
    assert len(node.files()) == (told == 0)
    if told:
        assert answer.ErrorComment == "a secondary capture of another modality than NM"


def send_raw(node: Node, ds: pydicom.Dataset, *, sop_class: str, instance: str) -> pydicom.Dataset:
    """Send a data set under another class or instance than its own."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    entity = AE("CAMERA")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.20", [ImplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
    request.DataSet = BytesIO(encode(ds, True, True) if isinstance(ds, pydicom.Dataset) else ds)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, 1)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return answer


NM = "1.2.840.10008.5.1.4.1.1.20"


@pytest.mark.parametrize(
    ("change", "sop_class", "instance", "told", "comment"),
    [
        ({"SOPClassUID": CTImageStorage}, NM, None, 0xA900, "SOP Class UID of data set and request differ"),
        ({}, SecondaryCaptureImageStorage, None, 0x0122, "another SOP class than the presentation context"),
        ({}, NM, "1.2.3", 0xA900, "SOP Instance UID of data set and request differ"),
    ],
)
def test_a_data_set_that_is_not_what_was_announced(
    change: dict[str, str],
    sop_class: str,
    instance: str | None,
    told: int,
    comment: str,
    node: Node,
    tmp_path: Path,
) -> None:
    ds = pydicom.dcmread(scan(tmp_path / "a.dcm"))
    for name, value in change.items():
        setattr(ds, name, value)
    answer = send_raw(node, ds, sop_class=sop_class, instance=instance or ds.SOPInstanceUID)
    assert (answer.Status, answer.ErrorComment) == (told, comment)
    assert node.files() == []
    assert node.queue.entries() == []


def test_a_data_set_that_cannot_be_read(node: Node) -> None:
    answer = send_raw(node, b"\x08\x00\x16\x00\xff\xff\xff\x00garbage", sop_class=NM, instance="1.2.3")  # type: ignore[arg-type]
    assert answer.Status in (0xC000, 0xA900)
    assert node.files() == []


def test_the_same_instance_again_is_taken_once(node: Node, tmp_path: Path) -> None:
    file = scan(tmp_path / "a.dcm")
    assert [answer.Status for answer in send(node.port, file, file)] == [0, 0]
    assert status(send(node.port, file, title="OTHER")) == 0
    assert len(node.queue.entries()) == 1
    assert len(node.files()) == 1
    assert [event["event"] for event in node.events()] == ["received", "duplicate", "duplicate"]


def test_other_content_under_a_known_uid_is_refused(node: Node, tmp_path: Path) -> None:
    file = scan(tmp_path / "a.dcm")
    ds = pydicom.dcmread(file)
    ds.PatientID = "P8"
    first, second = send(node.port, file, ds)
    assert (first.Status, second.Status) == (0, 0x0111)
    assert "UID" in second.ErrorComment
    (entry,) = node.queue.entries()
    assert node.files() == [entry.path]
    assert pydicom.dcmread(entry.path).PatientID == "P7"


def test_two_contents_of_one_uid_at_once_leave_one(node: Node, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Queue, "find", lambda *_: None)  # as if each came before the other was entered
    file = scan(tmp_path / "a.dcm")
    ds = pydicom.dcmread(file)
    ds.PatientID = "P8"
    answers = send(node.port, file, ds, file)
    assert [answer.Status for answer in answers] == [0, 0x0111, 0]
    monkeypatch.undo()
    (entry,) = node.queue.entries()
    assert node.files() == [entry.path]


def test_its_own_output_is_stored_nowhere(node: Node, tmp_path: Path) -> None:
    source = read_nm(scan(tmp_path / "a.dcm"))
    write_restored_nm(tmp_path / "b.dcm", source, source, derivation=Derivation("f1", "0.1.0", "ab" * 32))
    assert status(send(node.port, tmp_path / "b.dcm")) == 0
    assert node.queue.entries() == []
    assert node.files() == []
    assert [event["event"] for event in node.events()] == ["own output"]


def large(path: Path, frames: int = 1) -> pydicom.Dataset:
    """2 MiB a frame."""
    ds = pydicom.dcmread(scan(path))
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames, 1024, 1024
    ds.PixelData = bytes(frames * 2**21)
    return ds


def test_an_object_too_large_ends_the_association_while_it_comes(tmp_path: Path) -> None:
    with Node(tmp_path, limits={"object_mib": 1}).receiving() as node:
        (answer,) = send(node.port, large(tmp_path / "a.dcm"))
        assert "Status" not in answer
        until(lambda: not node.files())
        assert node.queue.entries() == []
        assert status(send(node.port, scan(tmp_path / "b.dcm"))) == 0


def test_no_more_than_the_limit_is_written_of_an_object_too_large(tmp_path: Path, monkeypatch: Any) -> None:
    written = []
    monkeypatch.setattr("rbs.node.bounds.Bound.remove_unfinished", lambda bound: None)
    with Node(tmp_path, limits={"object_mib": 1}).receiving() as node:
        send(node.port, large(tmp_path / "a.dcm"))
        time.sleep(0.2)
        written = [path.stat().st_size for path in node.files()]
    assert written
    assert max(written) <= 2**20 + 2**17


def connect(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=10)


def partial_store(node: Node, ds: pydicom.Dataset, pieces: int) -> Any:
    """An association in which a data set was begun and not ended."""
    entity = AE("CAMERA")
    entity.add_requested_context(NM)
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
    sent = 0
    original = association.dul.send_pdu

    def few(primitive: Any) -> None:
        nonlocal sent
        sent += 1
        if sent <= pieces:
            original(primitive)

    association.dul.send_pdu = few
    threading.Thread(target=lambda: association.send_c_store(ds), daemon=True).start()
    return association


def test_a_sender_that_breaks_off_leaves_nothing(node: Node, tmp_path: Path) -> None:
    association = partial_store(node, large(tmp_path / "a.dcm"), 8)
    until(lambda: any(path.stat().st_size > 2**16 for path in node.files()))
    association.dul.socket.socket.shutdown(socket.SHUT_RDWR)  # the cable is cut
    until(lambda: not node.files())
    assert node.queue.entries() == []


def test_a_sender_that_falls_silent_is_put_out(tmp_path: Path) -> None:
    with Node(tmp_path, limits={"idle_s": 0.5}).receiving() as node:
        partial_store(node, large(tmp_path / "a.dcm"), 8)
        until(lambda: any(path.stat().st_size > 2**16 for path in node.files()))
        until(lambda: not node.files(), 5)


def test_a_slow_disk_is_no_fault_of_the_sender(tmp_path: Path, monkeypatch: Any) -> None:
    take = Spool.take

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(0.8)
        return take(*args, **options)

    monkeypatch.setattr(Spool, "take", slow)
    with Node(tmp_path, limits={"idle_s": 0.5}).receiving() as node:
        files = [scan(tmp_path / f"{n}.dcm") for n in range(2)]
        assert [answer.get("Status") for answer in send(node.port, *files)] == [0, 0]


def test_stopping_ends_a_silent_sender(tmp_path: Path) -> None:
    with Node(tmp_path).receiving() as node:
        partial_store(node, large(tmp_path / "a.dcm"), 8)
        until(lambda: any(path.stat().st_size > 2**16 for path in node.files()))
    until(lambda: not node.files())


def test_what_a_killed_node_left_half_is_removed_at_the_start(tmp_path: Path) -> None:
    node = Node(tmp_path)
    (node.settings.spool / "incoming").mkdir()
    (node.settings.spool / "incoming" / "half.dcm").write_bytes(b"half")
    with node.receiving():
        assert node.files() == []


def test_a_message_unit_of_gigabytes_is_not_read(node: Node) -> None:
    with connect(node) as peer:
        peer.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1) + bytes(2**10))
        assert peer.recv(100) == b""
    assert status_of_echo(node) == 0


def test_a_silent_or_slow_connection_does_not_stop_others(node: Node, monkeypatch: Any) -> None:
    with connect(node), connect(node) as slow:
        slow.sendall(b"\x01")
        assert status_of_echo(node) == 0


def test_strangers_cannot_use_up_the_connections(tmp_path: Path) -> None:
    peer = {"ae_title": "CAMERA", "addresses": ["10.0.0.1"]}
    with Node(tmp_path, peers=[peer]).receiving() as node:
        peers = [connect(node) for _ in range(6)]
        time.sleep(0.3)
        closed = 0
        for one in peers:
            one.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                closed += one.recv(1) == b""
            one.close()
        assert closed == 2


def test_more_associations_than_allowed_are_refused_for_now(tmp_path: Path) -> None:
    with Node(tmp_path, limits={"associations": 2}).receiving() as node:
        entity = AE("CAMERA")
        entity.add_requested_context(Verification)
        held = [entity.associate("127.0.0.1", node.port, ae_title="RBS") for _ in range(3)]
        assert [a.is_established for a in held] == [True, True, False]
        answer = held[2].acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        for association in held[:2]:
            association.release()
        until(lambda: send_allowed(node))


def send_allowed(node: Node) -> bool:
    entity = AE("CAMERA")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
    established = association.is_established
    association.release()
    return established


def test_a_sender_of_too_many_is_told_to_wait(tmp_path: Path) -> None:
    with Node(tmp_path, limits={"per_minute": 2}).receiving() as node:
        answers = send(node.port, *(scan(tmp_path / f"{n}.dcm") for n in range(3)))
        assert [answer.Status for answer in answers] == [0, 0, 0xA700]
        assert answers[2].ErrorComment == "more than 2 instances in a minute"
        assert status(send(node.port, scan(tmp_path / "other.dcm"), title="OTHER")) == 0
        assert len(node.files()) == 3


@pytest.mark.parametrize("limits", [{"reserve_mib": 2**30}, {"spool_mib": 1}])
def test_a_full_disk_or_spool_is_told_and_nothing_is_kept(limits: dict[str, int], tmp_path: Path) -> None:
    with Node(tmp_path, limits=limits).receiving() as node:
        (answer,) = send(node.port, large(tmp_path / "a.dcm"))
        assert answer.Status == 0xA700
        assert node.files() == []
        assert node.queue.entries() == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    with small_disk(tmp_path / "disk", "6m") as folder:
        yield folder


@pytest.mark.parametrize("frames", [1, 3], ids=["no room left", "as it comes"])
def test_a_disk_that_is_full_takes_nothing_and_recovers(frames: int, disk: Path, tmp_path: Path) -> None:
    with Node(tmp_path, spool=disk).receiving() as node:
        assert status(send(node.port, large(tmp_path / "a.dcm"))) == 0
        (answer,) = send(node.port, large(tmp_path / "b.dcm", frames))
        assert answer.Status == 0xA700
        (entry,) = node.queue.entries()
        until(lambda: node.files() == [entry.path])
        node.spool.drop(entry.id)
        assert status(send(node.port, large(tmp_path / "c.dcm"))) == 0


def test_a_row_that_cannot_be_written_is_not_acknowledged(
    node: Node, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise DiskFullError("the disk is full", remedy="free some space")

    monkeypatch.setattr(Queue, "add", full)
    file = scan(tmp_path / "a.dcm")
    assert status(send(node.port, file)) == 0xA700
    monkeypatch.undo()
    assert status(send(node.port, file)) == 0
    assert len(node.queue.entries()) == 1


def test_a_fault_of_the_node_is_told_without_values(
    node: Node, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("Secret^Name")

    monkeypatch.setattr(Queue, "find", broken)
    (answer,) = send(node.port, scan(tmp_path / "a.dcm"))
    assert answer.Status == 0x0110
    assert "Secret" not in answer.ErrorComment + caplog.text
    assert node.files() == []


def test_no_value_of_a_header_is_logged(
    node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    ds = pydicom.dcmread(scan(tmp_path / "a.dcm"))
    ds.PatientBirthDate = "Secret"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.Secret"
    send_raw(node, ds, sop_class=NM, instance="1.2.Secret")
    send(node.port, scan(tmp_path / "b.dcm"))
    out, err = capfd.readouterr()
    assert "Secret" not in caplog.text + out + err
    assert len(node.events()) == 2


@pytest.fixture
def fast_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: 160 scans flush a slow disk for 20 seconds."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def test_many_senders_at_once(tmp_path: Path, fast_disk: Path) -> None:
    files = [[scan(tmp_path / f"{s}-{n}.dcm") for n in range(20)] for s in range(8)]
    with Node(fast_disk).receiving() as node, ThreadPoolExecutor(8) as pool:
        sent = pool.map(lambda s: send(node.port, *files[s], title=f"CAMERA{s}"), range(8))
        assert [[a.Status for a in answers] for answers in sent] == [[0] * 20] * 8
        uids = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID) for fs in files for f in fs}
        entries = node.queue.entries()
        assert len(entries) == 160
        assert {entry.uid for entry in entries} == uids
        assert sorted(node.files()) == sorted(entry.path for entry in entries)


def test_a_sender_far_ahead_of_the_answers_is_put_out(node: Node, tmp_path: Path, monkeypatch: Any) -> None:
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    held = threading.Event()
    monkeypatch.setattr(Queue, "find", lambda *_: held.wait(5) and None)
    ds = pydicom.dcmread(scan(tmp_path / "a.dcm"))
    entity = AE("CAMERA")
    entity.add_requested_context(NM, [ImplicitVRLittleEndian])
    aborted = threading.Event()
    handlers = [(evt.EVT_ABORTED, lambda event: aborted.set())]
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS", evt_handlers=handlers)
    for number in range(20):
        ds.SOPInstanceUID = generate_uid()
        request = C_STORE()
        request.MessageID, request.Priority = number + 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = NM, ds.SOPInstanceUID
        request.DataSet = BytesIO(encode(ds, True, True))
        association.dimse.send_msg(request, 1)
    assert aborted.wait(5)
    held.set()
    until(lambda: len(node.files()) <= 1)
