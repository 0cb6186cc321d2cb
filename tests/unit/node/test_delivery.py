"""Delivery of restored scans to their destinations."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
import pytest
from node_peers import Node, restored, sending, storage
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, NuclearMedicineImageStorage, RLELossless
from pynetdicom import AE, evt
from servers import until

from rbs.errors import DiskFullError, RbsError
from rbs.node.delivery import Sender, echo
from rbs.node.queue import Queue, State

SHORT = {"first_s": 0.1, "longest_s": 0.4}


def pacs(port: int, name: str = "pacs", **changes: Any) -> dict[str, Any]:
    return {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": port, **changes}


def sent(node: Node, count: int) -> bool:
    return len(node.queue.deliveries("sent")) == count


def uids(files: list[Path] | list[Dataset]) -> list[str]:
    return [str((pydicom.dcmread(f) if isinstance(f, Path) else f).SOPInstanceUID) for f in files]


def test_scans_arrive_whole_and_in_order(tmp_path: Path) -> None:
    with storage() as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)])
        files = restored(node, "a", "b", "c")
        with sending(node):
            until(lambda: sent(node, 3))
        assert uids(taken) == uids(files)
        assert taken[0] == pydicom.dcmread(files[0])
        assert node.queue.counts()[State.SENT] == 3
        assert [(e["event"], e["destination"], e["attempts"]) for e in node.events()] == [
            ("sent", "pacs", 1)
        ] * 3


def test_files_of_several_studies_share_an_association(tmp_path: Path) -> None:
    with storage() as (port, _):
        node = Node(tmp_path, destinations=[pacs(port)])
        for number in range(3):
            restored(node, f"a{number}", study=f"1.{number}")
        associations = []
        original = AE.associate

        def counted(*args: Any, **options: Any) -> Any:
            associations.append(1)
            return original(*args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AE, "associate", counted)
            with sending(node):
                until(lambda: sent(node, 3))
        assert len(associations) == 1


def test_a_destination_that_was_down_gets_each_scan_once(tmp_path: Path) -> None:
    with storage() as (port, _):
        pass
    node = Node(tmp_path, destinations=[pacs(port)], retries=SHORT)
    files = restored(node, "a", "b")
    with sending(node):
        first = until(lambda: [d for d in node.queue.deliveries("pending") if d.attempts >= 3])[0]
        assert first.error == (
            f"pacs (PACS at 127.0.0.1:{port}) cannot be reached; check that it runs, its host, port and TLS."
        )
        with storage(port=port) as (_, taken):
            until(lambda: sent(node, 2))
        assert uids(taken) == uids(files)
    assert [e["attempts"] > 3 for e in node.events() if e["event"] == "sent"] == [True, False]


def test_one_that_is_down_or_slow_does_not_hold_up_another(tmp_path: Path) -> None:
    slow, go = threading.Event(), threading.Event()

    def hanging(ds: Dataset) -> int:
        slow.set()
        go.wait(20)
        return 0

    with storage() as (down, _):
        pass
    with storage(hanging) as (hangs, _), storage() as (port, taken):
        node = Node(
            tmp_path,
            destinations=[pacs(down, "down"), pacs(hangs, "slow"), pacs(port, "up")],
            retries=SHORT,
        )
        files = restored(node, "a", "b", "c")
        with sending(node):
            assert slow.wait(10)
            until(lambda: sent(node, 3))
            assert uids(taken) == uids(files)
            go.set()


def test_a_refused_file_is_tried_again_and_keeps_its_place(tmp_path: Path) -> None:
    answers = iter([0xA700, 0xC000])
    order: list[str] = []

    def answer(ds: Dataset) -> int:
        order.append(str(ds.SOPInstanceUID))
        return next(answers, 0)

    with storage(answer) as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)], retries=SHORT)
        first, second = uids(restored(node, "a", "b"))
        with sending(node):
            until(lambda: [d for d in node.queue.deliveries() if "0xA700" in d.error])
            until(lambda: sent(node, 2))
    assert order == [first, first, first, second]
    assert uids(taken) == [first, second]


def test_a_warning_is_success(tmp_path: Path) -> None:
    with storage(lambda ds: 0xB000) as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)])
        restored(node, "a")
        with sending(node):
            until(lambda: sent(node, 1))
        assert len(taken) == 1


def test_it_gives_up_after_a_time_and_begins_again_when_told(tmp_path: Path) -> None:
    refusing = True
    with storage(lambda ds: 0xA700 if refusing else 0) as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)], retries={**SHORT, "give_up_h": 1e-9})
        restored(node, "a", "b")
        with sending(node):
            first, _ = until(lambda: len(d := node.queue.deliveries("failed")) == 2 and d)
            assert first.error.endswith("pacs does not take it (status 0xA700); look at its log.")
            assert {e["reason"] for e in node.events()} == {"not sent: given up"}
            refusing = False
            assert node.queue.retry(first.entry)
            until(lambda: sent(node, 1))
        assert len(taken) == 1
        assert node.queue.counts()[State.RESTORED] == 1


def test_what_waits_for_a_destination_that_is_no_more_is_given_up(tmp_path: Path) -> None:
    with storage() as (port, _):
        node = Node(tmp_path, destinations=[pacs(port, "old")])
        restored(node, "a")
        renamed = Node(tmp_path, destinations=[pacs(port, "new")])
        with sending(renamed):
            (delivery,) = until(lambda: node.queue.deliveries("failed"))
    assert delivery.error.startswith("the settings name no such destination; name it")
    assert node.events()[0]["reason"] == "not sent: given up"


def test_what_cannot_be_sent_does_not_hold_up_other_studies(tmp_path: Path) -> None:
    with storage() as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)], retries=SHORT)
        (gone,) = restored(node, "a", study="1.1")
        (damaged,) = restored(node, "b", study="1.2")
        (file,) = restored(node, "c", study="1.3")
        gone.unlink()
        damaged.write_bytes(b"damaged" * 100)
        with sending(node):
            until(lambda: sent(node, 1))
            until(lambda: len([d for d in node.queue.deliveries("pending") if d.error]) == 2)
        assert uids(taken) == uids([file])


def test_a_file_that_breaks_the_way_does_not_hold_up_other_studies(tmp_path: Path) -> None:
    def breaking(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == poison:
            event.assoc.abort()
        taken.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    taken: list[str] = []
    entity = AE("PACS")
    entity.add_supported_context(NuclearMedicineImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, breaking)])
    node = Node(tmp_path, destinations=[pacs(server.server_address[1])], retries=SHORT)
    (poison,) = uids(restored(node, "a", study="1.1"))
    others = [uids(restored(node, name, study=f"1.{name}"))[0] for name in ("2", "3")]
    with sending(node):
        until(lambda: sent(node, 2))
    entity.shutdown()
    assert [uid for uid in taken if uid != poison] == others


def test_a_destination_that_wants_another_encoding(tmp_path: Path) -> None:
    with storage(syntax=ImplicitVRLittleEndian) as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)])
        files = restored(node, "a")
        with sending(node):
            until(lambda: sent(node, 1))
        assert taken[0].file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert taken[0].PixelData == pydicom.dcmread(files[0]).PixelData


def test_a_destination_that_takes_none_of_it(tmp_path: Path) -> None:
    with storage(syntax=RLELossless) as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)], retries=SHORT)
        restored(node, "a")
        with sending(node):
            until(lambda: any(d.error for d in node.queue.deliveries()))
        assert taken == []


def test_a_full_disk_does_not_end_it(tmp_path: Path, monkeypatch: Any) -> None:
    delivered, full = Queue.delivered, [True, True]

    def sometimes(self: Queue, id: int) -> bool:
        if full and full.pop():
            raise DiskFullError("the disk is full", remedy="free some space")
        return delivered(self, id)

    monkeypatch.setattr(Queue, "delivered", sometimes)
    with storage() as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)], retries=SHORT)
        restored(node, "a")
        with sending(node):
            until(lambda: sent(node, 1))
        assert len(set(uids(taken))) == 1  # sent again where in doubt, under the same UID


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        (
            {},
            {"title": "OTHER"},
            r"refuses the association \(called ae title not recognised\); let RBS in there",
        ),
        ({}, {"syntax": None}, "does not take nuclear medicine images"),
        ({"host": "no-such-host.invalid"}, {}, "has no address"),
    ],
)
def test_what_is_wrong_with_a_destination(
    changes: dict[str, str], options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with storage(**options) as (port, _):
        node = Node(tmp_path, destinations=[pacs(port, **changes)])
        with pytest.raises(RbsError, match=told) as caught:
            echo(node.settings.destinations[0], node.settings)
        assert caught.value.remedy


def test_a_destination_that_is_right(tmp_path: Path) -> None:
    with storage() as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)])
        echo(node.settings.destinations[0], node.settings)
        assert taken == []


TAKEN = b'{"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]}}'
JSON = "application/dicom+json; charset=utf-8"


@contextmanager
def web(
    status: int = 200, body: bytes = TAKEN, kind: str = JSON, search: int = 404
) -> Iterator[tuple[str, list[tuple[Any, bytes]]]]:
    """A DICOMweb service: its URL, and the header and body of each request."""
    requests: list[tuple[Any, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            assert self.path == "/dicom-web/studies"
            self.answer()

        def do_OPTIONS(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            assert self.path.startswith("/dicom-web/studies?StudyInstanceUID=")  # which nobody has
            self.answer(search)

        def answer(self, status: int = status) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_scans_go_to_dicomweb_with_the_headers_given(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("Authorization: Bearer x:y\n\nX-Site: 7\n")
    with web() as (url, requests):
        node = Node(
            tmp_path, destinations=[{"name": "web", "url": url, "headers": str(tmp_path / "headers")}]
        )
        files = restored(node, "a")
        echo(node.settings.destinations[0], node.settings)
        with sending(node):
            until(lambda: sent(node, 1))
    ((headers, body),) = requests
    assert (headers["Authorization"], headers["X-Site"]) == ("Bearer x:y", "7")
    assert pydicom.dcmread(files[0]).PixelData in body
    assert b"application/dicom" in body


@pytest.mark.parametrize(("search", "answers"), [(200, True), (204, True), (401, False), (404, False)])
def test_a_dicomweb_that_knows_no_options_is_searched(search: int, answers: bool, tmp_path: Path) -> None:
    with web(404, search=search) as (url, requests):
        node = Node(tmp_path, destinations=[{"name": "web", "url": url}])
        with nullcontext() if answers else pytest.raises(RbsError, match=f"HTTP status {search}"):
            echo(node.settings.destinations[0], node.settings)
    assert requests == []


FAILED = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [43264]}}]}}'
DUPLICATE = FAILED.replace(b"43264", b"273")


@pytest.mark.parametrize("status", [202, 409])
def test_what_dicomweb_holds_already_was_sent(status: int, tmp_path: Path) -> None:
    with web(status, DUPLICATE) as (url, requests):
        node = Node(tmp_path, destinations=[{"name": "web", "url": url}])
        restored(node, "a")
        with sending(node):
            until(lambda: sent(node, 1))
    assert len(requests) == 1


def test_what_a_destination_holds_already_was_sent(tmp_path: Path) -> None:
    with storage(lambda ds: 0x0111) as (port, taken):
        node = Node(tmp_path, destinations=[pacs(port)])
        restored(node, "a")
        with sending(node):
            until(lambda: sent(node, 1))
    assert len(taken) == 0


def test_an_answer_that_cannot_be_read_is_a_failed_attempt(tmp_path: Path) -> None:
    with web(200, b"<", "application/dicom+xml") as (url, _):
        node = Node(tmp_path, destinations=[{"name": "web", "url": url}], retries=SHORT)
        restored(node, "a", study="1.1")
        restored(node, "b", study="1.2")
        with sending(node):
            found = until(lambda: len(d := [d for d in node.queue.deliveries() if d.attempts]) == 2 and d)
    assert all("did not foresee" in delivery.error for delivery in found)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b"", r"\(HTTP status 401\); check its `url` and `headers`"),
        (409, b"", r"does not take it \(HTTP status 409\)"),
        (503, b"", r"\(HTTP status 503\)"),
        (409, FAILED, r"does not take it \(reason 0xA900\)"),
        (202, FAILED, r"does not take it \(reason 0xA900\)"),
        (200, b"{}", "does not say that it took it; check that its `url`"),
        (302, TAKEN, r"cannot be reached \(TooManyRedirects\)"),
        (None, b"", "cannot be reached"),
    ],
)
def test_what_dicomweb_does_not_take_is_tried_again(
    status: int | None, body: bytes, told: str, tmp_path: Path
) -> None:
    with web(status or 200, body) as (url, requests):
        url = url if status else "http://127.0.0.1:9/dicom-web"
        node = Node(tmp_path, destinations=[{"name": "web", "url": url}], retries=SHORT)
        restored(node, "a")
        with sending(node):
            (delivery,) = until(lambda: [d for d in node.queue.deliveries("pending") if d.attempts >= 2])

        assert re.search(told, delivery.error), delivery.error
        assert len(requests) >= 2 or not status


@pytest.mark.parametrize("text", ["no header", "Ä: b", None])
def test_a_file_of_headers_that_cannot_be_used(text: str | None, tmp_path: Path) -> None:
    if text:
        (tmp_path / "headers").write_text(text)
    destination = {"name": "web", "url": "http://127.0.0.1:9", "headers": str(tmp_path / "headers")}
    node = Node(tmp_path, destinations=[destination])
    uses = {
        "check": lambda: echo(node.settings.destinations[0], node.settings),
        "start": lambda: Sender(node.settings, node.queue, node.audit),
    }
    for use in uses.values():
        with pytest.raises(RbsError, match="headers") as caught:
            use()
        assert caught.value.file == tmp_path / "headers"
