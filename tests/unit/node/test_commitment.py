"""Storage commitment by the node."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from node_peers import Node, certificates, scan, send
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    NuclearMedicineImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from servers import free_port, until

from rbs.node.commitment import Commitment
from rbs.node.settings import Tls
from rbs.node.tls import client_context, server_context

RETRIES = {"first_s": 0.1, "longest_s": 0.2}


@pytest.fixture
def port() -> int:
    """Where the sender takes reports."""
    return free_port()


@pytest.fixture
def node(port: int, tmp_path: Path) -> Iterator[Node]:
    with committing(tmp_path, port).receiving() as node:
        yield node


def committing(folder: Path, port: int | None, **options: Any) -> Node:
    peer = {"ae_title": "CAMERA", "addresses": ["127.0.0.1"], "port": port}
    limits = {"idle_s": 60}  # or a busy sender's late answer is none, and it is told again
    return Node(folder, peers=[peer], commitment=True, retries=RETRIES, limits=limits, **options)


@contextmanager
def reports(port: int, status: int = 0, **options: Any) -> Iterator[list[tuple[int, Dataset]]]:
    """What a sender is told: event type and information of each report."""
    told: list[tuple[int, Dataset]] = []

    def report(event: evt.Event) -> tuple[int, None]:
        told.append((event.event_type, event.event_information))
        return status, None

    entity = AE("CAMERA")
    entity.require_called_aet = True
    entity.require_calling_aet = ["RBS"]
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    where = ("127.0.0.1", port)
    entity.start_server(where, block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)], **options)
    try:
        yield told
    finally:
        entity.shutdown()


def ask(
    node: Node,
    *instances: tuple[str, str],
    transaction: str | None = "1.2.9",
    action: int = 1,
    **options: Any,
) -> int:
    """Status of the answer to a request."""
    information = Dataset()
    if transaction:
        information.TransactionUID = transaction
    information.ReferencedSOPSequence = []
    for sop_class, uid in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        information.ReferencedSOPSequence.append(item)
    entity = AE("CAMERA")
    entity.add_requested_context(StorageCommitmentPushModel)
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS", **options)
    assert association.is_established
    status, _ = association.send_n_action(
        information, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    association.release()
    return int(status.Status)


def stored(node: Node, path: Path, **options: Any) -> tuple[str, str]:
    """Class and instance of a scan the node took."""
    (answer,) = send(node.port, scan(path), **options)
    assert answer.Status == 0
    return NuclearMedicineImageStorage, str(pydicom.dcmread(path).SOPInstanceUID)


def failures(report: Dataset) -> dict[str, int]:
    return {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in report.FailedSOPSequence}


def test_what_the_node_holds_is_committed(node: Node, port: int, tmp_path: Path) -> None:
    instances = [stored(node, tmp_path / "a.dcm"), stored(node, tmp_path / "b.dcm")]
    with reports(port) as told:
        assert ask(node, *instances) == 0
        ((kind, report),) = until(lambda: told)
        # While it listens: a report whose answer is lost is sent again.
        event = until(lambda: [e for e in node.events() if e["event"] == "committed"])[0]
    assert (kind, report.TransactionUID) == (1, "1.2.9")
    items = report.ReferencedSOPSequence
    assert [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in items] == instances
    assert "FailedSOPSequence" not in report
    assert (event["peer"], event["count"]) == ("CAMERA", 2)
    until(lambda: not list((node.settings.spool / "commitments").iterdir()))


def test_what_it_does_not_hold_is_not(node: Node, port: int, tmp_path: Path) -> None:
    whole, damaged, gone, dropped = (stored(node, tmp_path / f"{name}.dcm") for name in "abcd")
    entry = node.queue.find(damaged[1])
    entry.path.write_bytes(entry.path.read_bytes()[:-1] + b"x")
    node.queue.find(gone[1]).path.unlink()
    node.spool.drop(node.queue.find(dropped[1]).id)
    never = (NuclearMedicineImageStorage, generate_uid())
    other_class = (SecondaryCaptureImageStorage, whole[1])
    with reports(port) as told:
        assert ask(node, whole, damaged, gone, dropped, never, other_class) == 0
        ((kind, report),) = until(lambda: told)
    assert kind == 2
    assert [i.ReferencedSOPInstanceUID for i in report.ReferencedSOPSequence] == [whole[1]]
    absent = {uid: 0x0112 for _, uid in (damaged, gone, dropped, never)}
    assert failures(report) == {**absent, whole[1]: 0x0119}


def test_an_instance_named_many_times_is_read_once(
    node: Node, port: int, tmp_path: Path, monkeypatch: Any
) -> None:
    """For each report: one that is not answered in time is made and sent again."""
    sop_class, uid = stored(node, tmp_path / "a.dcm")
    digest, send_report = hashlib.file_digest, Commitment._send
    read: list[int] = []
    read_before_report: list[int] = []

    def counted(*args: Any) -> Any:
        read.append(1)
        return digest(*args)

    def sent(*args: Any) -> bool:
        read_before_report.append(len(read))
        return send_report(*args)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr(Commitment, "_send", sent)
    with reports(port) as told:
        assert ask(node, *[(sop_class, uid)] * 3, (SecondaryCaptureImageStorage, uid)) == 0
        _, report = until(lambda: told)[0]
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [uid]
    assert failures(report) == {uid: 0x0119}
    assert read_before_report == list(range(1, len(read_before_report) + 1))


def test_each_address_of_a_title_has_its_port(port: int, tmp_path: Path) -> None:
    peers = [
        {"ae_title": "CAMERA", "addresses": ["127.0.0.1"], "port": port},
        {"ae_title": "CAMERA", "addresses": ["10.0.0.1"], "port": port + 1},
    ]
    node = Node(tmp_path, peers=peers, commitment=True, retries=RETRIES)
    with node.receiving(), reports(port) as told:
        assert ask(node, (NuclearMedicineImageStorage, "1.2.3")) == 0
        until(lambda: told)


def test_stopping_does_not_wait_for_all_reports(node: Node, port: int, monkeypatch: Any) -> None:
    begun = []

    def slow(commitment: Commitment, *_: Any) -> bool:
        begun.append(1)
        commitment._stop.wait(10)
        return False

    monkeypatch.setattr(Commitment, "_send", slow)
    for transaction in ("1.1", "1.2", "1.3"):
        ask(node, (NuclearMedicineImageStorage, "1.2.3"), transaction=transaction)
    commitment = Commitment(node.settings, node.queue, node.audit)
    until(lambda: begun)  # by the node itself, which waits now
    before = len(begun)
    commitment.start()
    until(lambda: len(begun) > before)
    commitment.stop()
    assert len(begun) == before + 1


def test_nothing_held_is_told_without_an_empty_list(node: Node, port: int) -> None:
    with reports(port) as told:
        assert ask(node, (NuclearMedicineImageStorage, "1.2.3")) == 0
        ((kind, report),) = until(lambda: told)
    assert kind == 2
    assert "ReferencedSOPSequence" not in report


def test_a_report_waits_for_a_sender_that_is_down_and_for_a_node_that_starts_again(
    port: int, tmp_path: Path
) -> None:
    node = committing(tmp_path, port)
    with node.receiving():
        instance = stored(node, tmp_path / "a.dcm")
        assert ask(node, instance) == 0
    with reports(port, status=0x0110) as told, node.receiving():
        until(lambda: len(told) >= 2)  # it does not take the first
    with reports(port) as told, node.receiving():
        ((kind, _),) = until(lambda: told)
    assert kind == 1


def test_requests_that_cannot_be_answered(node: Node) -> None:
    instance = (NuclearMedicineImageStorage, "1.2.3")
    assert ask(node, instance, action=2) == 0x0123
    assert ask(node) == 0x0115
    assert ask(node, instance, transaction=None) == 0x0115


def test_a_sender_without_a_port_is_told(tmp_path: Path) -> None:
    with committing(tmp_path, None).receiving() as node:
        assert ask(node, (NuclearMedicineImageStorage, "1.2.3")) == 0x0110


def test_it_is_off_by_default(tmp_path: Path) -> None:
    with Node(tmp_path).receiving() as node:
        entity = AE("CAMERA")
        entity.add_requested_context(StorageCommitmentPushModel)
        assert not entity.associate("127.0.0.1", node.port, ae_title="RBS").is_established


def test_reports_are_encrypted_where_the_node_is(port: int, tmp_path: Path) -> None:
    tables = certificates(tmp_path, "node", "camera")
    tls = (client_context(Tls(**tables["camera"])), "127.0.0.1")
    with (
        committing(tmp_path, port, tls=tables["node"]).receiving() as node,
        reports(port, ssl_context=server_context(Tls(**tables["camera"]))) as told,
    ):
        instance = stored(node, tmp_path / "a.dcm", tls_args=tls)
        assert ask(node, instance, tls_args=tls) == 0
        ((kind, _),) = until(lambda: told)
        assert kind == 1
