"""Health, metrics and the status page."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rbs.errors import RbsError
from rbs.node.monitor import Monitor
from rbs.node.queue import Entry, Queue, Restoration, State
from rbs.node.settings import Settings
from rbs.node.status import SHOWN, age

UID = "1.2.826.0.1.3680043.8.498.77"


class Node:
    """A queue with a clock that is set by hand, and its monitor."""

    def __init__(self, spool: Path, **limits: int) -> None:
        self.now = 1_700_000_000.0
        self.alive = True
        self.queue = Queue(spool, clock=lambda: self.now)
        self.settings = Settings(spool=spool, monitor_port=0, limits={"reserve_mib": 0, **limits})
        self.monitor = Monitor(self.settings, self.queue, lambda: self.alive)
        self.port = self.monitor.start()

    def receive(self, number: int, origin: str = "CAMERA") -> Entry:
        entry = self.queue.add(
            uid=f"{UID}.{number}",
            study=f"{UID}.9.{number}",
            path=self.settings.spool / f"{number}.dcm",
            sha256=f"{number:064x}",
            size=2**20,
            origin=origin,
        )
        assert entry
        return entry

    def restore(self, number: int, seconds: float = 1.5) -> Entry:
        entry = self.receive(number)
        self.queue.begin()
        self.queue.examined(entry.id, acquisition=str(number), view=None, deadline=0)
        self.queue.claim()
        output = self.settings.spool / f"out{number}.dcm"
        output.write_bytes(bytes(2**20))
        assert self.queue.restored({entry.id: Restoration((output,), seconds)}, ["pacs"])
        return entry

    def refuse(self, number: int, reason: str) -> None:
        entry = self.receive(number)
        self.queue.begin()
        assert self.queue.refuse(entry.id, reason, entry.path)

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def health(self) -> tuple[int, list[str]]:
        status, text = self.get("/health")
        return status, json.loads(text)["problems"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.monitor.stop()


def test_a_node_without_work_is_well(node: Node) -> None:
    status, text = node.get("/health")
    assert status == 200
    told = json.loads(text)
    assert told["healthy"] is True
    assert told["oldest_undelivered_s"] == 0
    assert set(told["scans"].values()) == {0}
    assert "All is well." in node.get("/")[1]
    assert "No scan has come yet." in node.get("/")[1]


def test_a_dead_worker_is_told(node: Node) -> None:
    node.alive = False
    assert node.health() == (503, ["the process that restores has stopped"])
    assert "The process that restores has stopped." in node.get("/")[1]


def test_a_scan_that_waits_for_long_is_told(node: Node) -> None:
    entry = node.restore(1)
    node.now += 3599
    assert node.health() == (200, [])
    (delivery,) = node.queue.due()
    node.queue.failed(delivery.id, "connection refused", node.now + 60)
    node.now += 3601
    told = f"scan {entry.id} has been on its way for 2 h (to pacs: connection refused)"
    assert node.health() == (503, [told])


def test_a_delivery_that_was_given_up_is_told(node: Node) -> None:
    node.restore(1)
    (delivery,) = node.queue.due()
    node.queue.give_up(delivery.id, "0x0110")
    status, (problem,) = node.health()
    assert status == 503
    assert problem == "1 file could not be sent: `rbs node retry` or `rbs node drop`"


def test_no_room_is_told(tmp_path: Path) -> None:
    for folder, limits, expected in (
        ("a", {"reserve_mib": 10**9}, r"the disk of the spool has \d+ MiB left: nothing is received"),
        ("b", {"spool_mib": 2}, r"the spool is full \(2 MiB\): nothing is received"),
    ):
        node = Node(tmp_path / folder, **limits)
        node.restore(1)
        status, (problem,) = node.health()
        node.monitor.stop()
        assert status == 503
        assert re.fullmatch(expected, problem)


def test_a_queue_that_cannot_be_read_is_told(node: Node) -> None:
    node.queue._local.db.close()
    node.queue.path.write_bytes(b"no database" * 1000)
    for left in node.queue.path.parent.glob("queue.sqlite-*"):
        left.unlink()
    status, (problem,) = node.health()
    assert (status, problem) == (503, "the queue cannot be read (RbsError)")
    assert node.get("/")[0] == 503
    assert "rbs_healthy 0.0" in node.get("/metrics")[1]


def test_metrics_are_those_of_the_queue(node: Node) -> None:
    for number in range(21):
        node.restore(number, seconds=1 + number / 10)
        (delivery,) = node.queue.due()
        node.queue.delivered(delivery.id)
    node.refuse(30, "it holds 3 frames")
    node.receive(31)
    node.restore(32, seconds=3.1)
    node.now += 7
    samples: dict[tuple[str, ...], Any] = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(node.get("/metrics")[1])
        for sample in family.samples
    }
    assert samples["rbs_healthy",] == 1
    assert samples["rbs_scans", "sent"] == 21
    assert samples["rbs_scans", "refused"] == samples["rbs_scans", "restored"] == 1
    assert samples["rbs_scans", "dropped"] == 0
    assert samples["rbs_deliveries", "pacs", "sent"] == 21
    assert samples["rbs_deliveries", "pacs", "pending"] == 1
    assert samples["rbs_spool_bytes",] == (21 * 2 + 1 + 1 + 2) * 2**20
    assert samples["rbs_oldest_undelivered_seconds",] == 7
    assert samples["rbs_restoring_seconds", "0.5"] == pytest.approx(2.05)
    assert samples["rbs_restoring_seconds", "0.95"] == pytest.approx(2.995)


def test_the_page_tells_what_is_to_do_and_not_who_it_is(node: Node) -> None:
    node.refuse(1, "it holds <3> frames\x1b[31m")
    node.restore(2)
    (delivery,) = node.queue.due()
    node.queue.failed(delivery.id, "connection refused", node.now + 60)
    node.receive(3, origin="A<b>&\u202e")
    status, page = node.get("/")
    assert status == 200
    assert "All is well, but 1 scan refused." in page
    assert r"it holds &lt;3&gt; frames\x1b[31m</td>" in page
    assert "A&lt;b&gt;&amp;\\u202e" in page
    assert "to pacs: connection refused" in page
    assert UID not in page
    assert not re.search(r"<script|https?://|src=|href=", page)
    assert '<meta http-equiv="refresh" content="10">' in page


def test_a_long_queue_is_cut(node: Node) -> None:
    for number in range(SHOWN + 2):
        node.receive(number)
    assert "and 2 scans more" in node.get("/")[1]


def test_only_this_machine_is_answered(node: Node) -> None:
    assert node.monitor._server is not None
    assert node.monitor._server.server_address[0] == "127.0.0.1"
    assert node.get("/", host="attacker.example:8042")[0] == 403
    assert node.get("/", host=f"localhost:{node.port}")[0] == 200
    assert node.get("/elsewhere")[0] == 404


def test_a_port_that_is_taken_is_told(node: Node) -> None:
    settings = node.settings.model_copy(update={"monitor_port": node.port})
    with pytest.raises(RbsError, match=f"port {node.port} of the status page cannot be used"):
        Monitor(settings, node.queue, lambda: True).start()


def test_ages() -> None:
    assert [age(s) for s in (-1, 59, 60, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]


def test_every_state_has_a_place(node: Node) -> None:
    page = node.get("/")[1]
    assert all(f" {state.name.lower()}" in page for state in State)
