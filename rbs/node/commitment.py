"""Storage commitment: the node says of which instances it holds every byte on its disk.

The request (N-ACTION) is answered at once. The report (N-EVENT-REPORT) follows in an association of
its own, to the address the request came from and the port of the allow-list; it is tried again
until the sender takes it. A request waits as a file of the spool, which outlives the node.

What is committed: that the instance was received whole, and is kept until `keep_days` after its
restoration was sent. The node is no archive.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_role
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # the first is made at import
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from rbs.node.audit import Audit
from rbs.node.bounds import caller
from rbs.node.queue import Queue
from rbs.node.senders import AllowList
from rbs.node.settings import Settings
from rbs.node.spool import flush
from rbs.node.tls import client_context
from rbs.scans.dicom.files import header_of
from rbs.utils.files import write_json
from rbs.utils.guard import explained

SUCCESS, PROCESSING_FAILURE, INVALID, NO_ACTION = 0x0000, 0x0110, 0x0115, 0x0123
NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0112, 0x0119
COMPLETE, WITH_FAILURES = 1, 2
"""Event types of a report."""

MOST_REFERENCES = 10_000
GIVE_UP = 24 * 3600
"""Seconds after which a report that the sender does not take is dropped; it may ask again."""
WAITING = 100
"""Requests that wait at a time."""

_LOG = logging.getLogger("rbs")


@dataclass(frozen=True)
class _Request:
    """A request that was answered and has no report yet.

    Attributes:
        transaction: Its UID.
        title: AE title of the sender.
        address: Its address.
        port: Where it takes the report.
        instances: SOP Class and SOP Instance UID of each.
        time: Of the request, in seconds since 1970.
    """

    transaction: str
    title: str
    address: str
    port: int
    instances: list[list[str]]
    time: float


class Commitment:
    """Answers requests, and reports in a thread of its own.

    Args:
        settings: Of the node.
        queue: What it holds.
        audit: Reports that were taken.
    """

    CLASS = StorageCommitmentPushModel

    def __init__(self, settings: Settings, queue: Queue, audit: Audit) -> None:
        self._settings, self._queue, self._audit = settings, queue, audit
        self._folder = settings.spool / "commitments"
        self._tls = client_context(settings.tls, check_hostname=False) if settings.tls else None
        self._ports = [(AllowList([peer]), peer.port) for peer in settings.peers if peer.port]
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="commitment", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what was not reported is at the next start."""
        self._stop.set()
        self._news.set()
        self._thread.join(60)

    def requested(self, event: Event) -> tuple[int, Dataset | None]:
        """Answer to an N-ACTION request: the request is on the disk when this says success."""
        title, address = caller(event.assoc)
        if event.action_type != 1:
            return NO_ACTION, None
        port = next((port for allowed, port in self._ports if allowed(title, address)), None)
        if port is None or len(list(self._folder.glob("*.json"))) >= WAITING:
            _LOG.warning("Storage commitment asked for by %s, which has no `port` or asks too often", title)
            return PROCESSING_FAILURE, None
        try:
            asked = event.action_information
            items = asked.ReferencedSOPSequence
            pairs = [(str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in items]
            transaction = str(asked.TransactionUID)
        except Exception:  # a damaged data set surfaces in pydicom as nearly any exception there is
            return INVALID, None
        if not transaction or not 0 < len(pairs) <= MOST_REFERENCES:
            return INVALID, None
        instances = [list(pair) for pair in dict.fromkeys(pairs)]
        request = _Request(transaction, title, address, port, instances, time.time())
        name = hashlib.sha256(f"{title} {transaction}".encode()).hexdigest()
        write_json(self._folder / f"{name}.json", asdict(request))
        flush(self._folder / f"{name}.json")
        flush(self._folder)
        self._news.set()
        return SUCCESS, None

    def _run(self) -> None:
        """Report until stopped: at once, and after failures as rarely as `retries` says."""
        pause = self._settings.retries.first_s
        while not self._stop.is_set():
            self._news.clear()
            done = []
            for file in sorted(self._folder.glob("*.json")):
                if self._stop.is_set():
                    return
                done.append(self._reported(file))
            pause = self._settings.retries.first_s if all(done) else pause * 2
            self._news.wait(min(pause, self._settings.retries.longest_s) if done else None)

    def _reported(self, file: Path) -> bool:
        """True for a request that needs no further attempt."""
        try:
            return self._report(file)
        except Exception as error:  # such as a full disk: it must not end the thread
            _LOG.error("Storage commitment: %s", explained(error, None))
            return False

    def _report(self, file: Path) -> bool:
        """Send the report of a request; False if it is to be tried again."""
        try:
            request = _Request(**json.loads(file.read_text()))
        except (OSError, TypeError, ValueError):
            file.unlink(missing_ok=True)
            return True
        report = Dataset()
        report.TransactionUID = request.transaction
        report.ReferencedSOPSequence, failed = [], []
        for item, reason in self._items(request):
            if reason:
                item.FailureReason = reason
                failed.append(item)
            else:
                report.ReferencedSOPSequence.append(item)
        if failed:
            report.FailedSOPSequence = failed
        if not report.ReferencedSOPSequence:
            del report.ReferencedSOPSequence
        taken = self._send(request, report, WITH_FAILURES if failed else COMPLETE)
        if taken or time.time() - request.time > GIVE_UP:
            file.unlink(missing_ok=True)
            count = len(request.instances) - len(failed)
            told = "" if taken else "report not taken"
            self._audit.record(
                "committed", peer=request.title, address=request.address, count=count, reason=told
            )
            return True
        return False

    def _items(self, request: _Request) -> Iterator[tuple[Dataset, int]]:
        """Each instance with the reason why it is not committed, or 0."""
        held: dict[str, str] = {}  # each file is read once
        for sop_class, uid in request.instances:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
            if uid not in held:
                held[uid] = self._class_held(uid)
            found = held[uid]
            yield item, 0 if found == sop_class else CLASS_CONFLICT if found else NO_SUCH_INSTANCE

    def _class_held(self, uid: str) -> str:
        """SOP class of an instance of which every byte is on the disk; empty for others."""
        entry = self._queue.find(uid)
        if entry is None:
            return ""
        try:
            with entry.path.open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        except OSError:
            return ""
        return str(header_of(entry.path).get("SOPClassUID") or "") if whole else ""

    def _send(self, request: _Request, report: Dataset, event_type: int) -> bool:
        """True if the sender took a report."""
        entity = AE(self._settings.ae_title)
        entity.add_requested_context(self.CLASS)
        entity.connection_timeout = entity.acse_timeout = 10
        entity.dimse_timeout = entity.network_timeout = self._settings.limits.idle_s
        options: dict[str, Any] = {"ae_title": request.title}
        if self._tls:
            options["tls_args"] = (self._tls, request.address)
        role = build_role(self.CLASS, scp_role=True)
        association = entity.associate(request.address, request.port, ext_neg=[role], **options)
        if not association.is_established:
            return False
        try:
            status, _ = association.send_n_event_report(
                report, event_type, self.CLASS, StorageCommitmentPushModelInstance
            )
            return status.get("Status") == SUCCESS
        except (RuntimeError, ValueError):  # it ended meanwhile, or does not take the role
            return False
        finally:
            association.release()
