"""Bounds on connections and messages."""

from __future__ import annotations

import os
import socket
import socketserver
from pathlib import Path
from typing import Any

import pytest
from node_peers import Node, scan, send
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from servers import until

from rbs.node import senders
from rbs.node.incoming import Incoming


@pytest.mark.parametrize(("mib", "answered"), [(1, True), (3, False)])
def test_a_message_that_is_no_file_is_bounded_more_tightly(mib: int, answered: bool, tmp_path: Path) -> None:
    asked = Dataset()
    asked.TransactionUID = "1.2"
    asked.add_new(0x00420011, "OB", bytes(mib * 2**20 - 1000))  # the encapsulated document
    with Node(tmp_path, commitment=True).receiving() as node:
        entity = AE("CAMERA")
        entity.add_requested_context(StorageCommitmentPushModel)
        association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
        status, _ = association.send_n_action(
            asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        assert ("Status" in status) == answered
        association.abort()


def test_a_thread_that_cannot_be_started_takes_up_no_place(
    tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    original, failures = socketserver.ThreadingMixIn.process_request, [1, 2, 3]

    def sometimes(server: Any, request: Any, address: Any) -> None:
        if failures:
            failures.pop()
            raise RuntimeError("can't start new thread")
        original(server, request, address)

    monkeypatch.setattr(socketserver.ThreadingMixIn, "process_request", sometimes)
    with Node(tmp_path, limits={"associations": 1}).receiving() as node:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
                assert connection.recv(1) == b""
        entity = AE("CAMERA")
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
        assert association.is_established
        association.release()
    until(lambda: caplog.text.count("could not be served") == 3)
    log = tmp_path / "audit.jsonl"
    assert not log.exists() or "TLS" not in log.read_text()


def test_the_reserve_of_the_disk_is_kept_while_bytes_come(tmp_path: Path) -> None:
    kept = Incoming(tmp_path, 0, suffix=".dcm")
    assert (kept.write(b"some"), kept.full) == (4, False)
    disk = os.statvfs(tmp_path)
    put_off = Incoming(tmp_path, disk.f_blocks * disk.f_frsize, suffix=".dcm")
    assert (put_off.write(b"some"), put_off.full) == (4, True)
    assert (Path(kept.name).read_bytes(), Path(put_off.name).read_bytes()) == (b"some", b"")
    kept.close()
    put_off.close()


def test_the_reserve_of_the_settings_is_kept(tmp_path: Path) -> None:
    with Node(tmp_path, limits={"reserve_mib": 2**30}).receiving() as node:
        (answer,) = send(node.port, scan(tmp_path / "a.dcm"))
        assert (answer.Status, answer.ErrorComment) == (0xA700, "the disk is full")
        until(lambda: not node.files())


def test_a_flood_of_refusals_is_counted(tmp_path: Path, monkeypatch: Any) -> None:
    now = 0.0
    monkeypatch.setattr(senders.time, "monotonic", lambda: now)
    node = Node(tmp_path)
    refused = senders.Refusals(node.audit, 2)
    for _ in range(5):
        refused(peer="STRANGER", address="10.0.0.1", reason="1.1.3")
    now = 61.0
    refused(peer="STRANGER", address="10.0.0.1", reason="1.1.3")
    refused.close()
    assert [event.get("count") for event in node.events()] == [None, None, 3, None]


def test_one_of_several_senders_leaves_room_for_the_others(tmp_path: Path) -> None:
    peers = [{"ae_title": title, "addresses": ["127.0.0.1"]} for title in ("CAMERA", "OTHER")]
    with Node(tmp_path, peers=peers, limits={"associations": 4}).receiving() as node:
        held = []
        for title in ("CAMERA", "CAMERA", "CAMERA", "OTHER"):
            entity = AE(title)
            entity.add_requested_context(Verification)
            held.append(entity.associate("127.0.0.1", node.port, ae_title="RBS"))
        assert [one.is_established for one in held] == [True, True, False, True]
        answer: Any = held[2].acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        for one in held:
            one.abort()
