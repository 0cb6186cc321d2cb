"""A node at work: one for each spool, its worker started again, its results sent."""

import errno
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
from node_scans import Node, write_scan
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import NuclearMedicineImageStorage as NM
from servers import free_port, until

from rbs.errors import RbsError
from rbs.node.queue import Queue, State
from rbs.node.service import Restoring, checks, only_one, serve
from rbs.node.settings import Settings
from rbs.node.worker import MEMORY, alone

BOTH = ("anterior", "posterior")
PATIENCE_S = 120
"""Seconds: processes start, and restore."""


@contextmanager
def pacs(port):
    """A storage SCP; yields what it was sent, SOP Instance UIDs and their sources."""
    sent = []

    def store(event):
        dataset = event.dataset
        sent.append((dataset.SOPInstanceUID, dataset.SourceImageSequence[0].ReferencedSOPInstanceUID))
        return 0

    entity = AE("PACS")
    entity.add_supported_context(NM)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield sent
    finally:
        server.shutdown()


def send(path, port):
    """Send a scan; True if it was acknowledged."""
    entity = AE("CAM")
    entity.add_requested_context(NM)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 10
    way = entity.associate("127.0.0.1", port, ae_title="RBS")
    if not way.is_established:
        return False
    try:
        return way.send_c_store(dcmread(path)).get("Status") == 0
    except (RuntimeError, ValueError):
        return False
    finally:
        way.release() if way.is_established else way.abort()


def test_a_worker_that_dies_is_started_again(tmp_path):
    node = Node(tmp_path)
    restoring = Restoring(node.settings, ["pacs"])
    restoring.start()
    try:
        node.receive("a", views=BOTH)
        until(lambda: node.queue.entries(State.RESTORED), PATIENCE_S)
        first = restoring.process
        first.kill()
        until(lambda: restoring.process is not first, PATIENCE_S)
        node.receive("b", views=BOTH)
        until(lambda: len(node.queue.entries(State.RESTORED)) == 2, PATIENCE_S)
        assert restoring.alive()
    finally:
        restoring.stop()
    assert restoring.process.poll() == 0
    assert [delivery.destination for delivery in node.queue.deliveries()] == ["pacs", "pacs"]


def test_where_no_process_can_be_made_it_is_tried_again(tmp_path, monkeypatch):
    restoring, tries = Restoring(Settings(spool=tmp_path), []), []

    def none(*_, **__):
        tries.append(1)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", none)
    restoring.start()
    end = time.monotonic() + 20
    while len(tries) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    restoring.stop()
    assert len(tries) > 1
    assert not restoring.alive()


def test_the_end_of_a_worker_is_told_in_words(tmp_path):
    restoring = Restoring(Settings(spool=tmp_path, memory_mib=512, job_s=9), [])
    assert restoring._explained(MEMORY) == "it needs more memory than memory_mib = 512"
    assert restoring._explained(-signal.SIGALRM) == "it took longer than job_s = 9"
    assert restoring._explained(-signal.SIGKILL) == "killed by SIGKILL"


def test_a_spool_is_served_once(tmp_path):
    spool = tmp_path / "new"
    refused = pytest.raises(RbsError, match="another program serves this spool; stop it")
    with only_one(spool), refused, only_one(spool):
        pass
    with only_one(tmp_path / "new"):
        pass


def test_checks_name_what_is_missing(tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    settings = Settings(
        spool=tmp_path / "spool",
        port=taken.getsockname()[1],
        limits={"reserve_mib": 2**40},
        destinations=({"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port()},),
    )
    found = dict(checks(settings))
    weights, spool, port, destination = found
    assert (weights, spool, destination) == (
        "weights shipped",
        f"spool {tmp_path / 'spool'}",
        "destination pacs",
    )
    assert found[weights] is None
    assert "limits.reserve_mib" in str(found[spool])
    assert str(found[port]).startswith("it cannot be listened at (Address already in use)")
    assert str(found[destination]).startswith("pacs (PACS at 127.0.0.1")
    with alone(tmp_path / "spool" / "node.lock", wait=False):
        assert dict(checks(settings))[port] is None  # it is the node's own
    taken.close()


def test_checks_try_the_status_page_and_the_audit_log(tmp_path):
    key = tmp_path / "site.key"
    key.write_text("0" * 64)
    key.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(
            spool=tmp_path / "spool",
            port=free_port(),
            limits={"reserve_mib": 0},
            monitor_port=taken.getsockname()[1],
            audit={"file": tmp_path / "audit.jsonl", "site_key_file": key},
        )
        page, log = f"status page, port {settings.monitor_port}", f"audit log {tmp_path / 'audit.jsonl'}"
        found = dict(checks(settings))
        assert "it cannot be listened at (Address already in use)" in str(found[page])
        assert f"run `chmod 600 {key}`" in str(found[log])
    key.chmod(0o600)
    assert set(dict(checks(settings)).values()) == {None}
    settings.audit.file.unlink()
    settings.audit.file.mkdir()
    assert "audit.jsonl" in str(dict(checks(settings))[log])


def test_what_is_sent_to_a_node_comes_back_restored(tmp_path):
    to = free_port()
    destination = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": to}
    settings = Settings(
        spool=tmp_path / "spool", port=0, destinations=(destination,), limits={"reserve_mib": 0}
    )
    scans = [write_scan(tmp_path / f"{view}.dcm", views=(view,), study="1.2") for view in BOTH]
    stop, told = threading.Event(), []
    node = threading.Thread(target=serve, args=(settings, stop, told.append))
    with pacs(to) as sent:
        node.start()
        try:
            until(lambda: told, PATIENCE_S)
            port = int(told[0].rpartition(":")[2])
            assert all(send(scan, port) for scan in scans)
            until(lambda: len(sent) == 2, PATIENCE_S)
        finally:
            stop.set()
            node.join()
    sources = [dcmread(scan).SOPInstanceUID for scan in scans]
    assert sorted(source for _, source in sent) == sorted(sources)
    queue = Queue(settings.spool)
    assert [entry.state for entry in queue.entries()] == [State.SENT] * 2
    assert [entry.partner for entry in queue.entries()] == [2, 1]
    with only_one(settings.spool):
        assert not send(scans[0], port)
