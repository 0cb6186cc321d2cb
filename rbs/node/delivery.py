"""Delivery: restored scans go to their destinations, by C-STORE or by DICOMweb (STOW-RS).

Each destination has a thread of its own, so that one that is down or slow holds up no other. Of a
study the order is kept: the next file waits until the one before was taken or given up.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    NuclearMedicineImageStorage,
    generate_uid,
)
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import
from pynetdicom.status import code_to_category

from rbs.errors import RbsError
from rbs.node.audit import Audit
from rbs.node.queue import Delivery, Queue
from rbs.node.settings import Destination, Settings
from rbs.node.tls import client_context
from rbs.scans.dicom.quiet import quiet_for_good
from rbs.utils.guard import explained

LOOK = 0.5
"""Seconds between two looks at the queue."""
CONNECT, ANSWER = 10.0, 30.0
"""Seconds to wait for a connection, and for the answer to a message."""
RESTORED = [(NuclearMedicineImageStorage, ExplicitVRLittleEndian)]
"""Class and transfer syntax of restored scans."""
REFUSALS = (401, 403, 404, 429)
"""HTTP statuses that concern the service, and not the file."""
NOT_FOUND, CONFLICT = 404, 409
"""HTTP statuses of an address that is not known, and of an answer that says of each file why it was
not stored."""
DUPLICATE = 0x0111
"""Status of an instance that the destination holds: an earlier answer was lost, as its UID is
the node's own."""

_LOG = logging.getLogger("rbs")


class BrokenError(RbsError):
    """The way to a destination is broken: what follows would fail alike."""


class _Way(Protocol):
    """An open way to a destination."""

    def send(self, path: Path) -> None:
        """Send a file.

        Raises:
            BrokenError: The way is broken.
            RbsError: The file was not taken.
        """


class Sender:
    """Sends what is due to all destinations until it is stopped.

    Args:
        settings: Of the node.
        queue: What is to be sent, and what came of it.
        audit: What was sent.

    Raises:
        RbsError: A certificate or a file of HTTP headers cannot be used.
    """

    def __init__(self, settings: Settings, queue: Queue, audit: Audit) -> None:
        self._settings, self._queue, self._audit = settings, queue, audit
        if settings.tls:
            client_context(settings.tls)
        for destination in settings.destinations:
            _headers(destination.headers)

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set; a file that is on its way then comes to its end."""
        quiet_for_good()
        _config.STORE_SEND_CHUNKED_DATASET = True  # files are sent as they are, piece by piece
        self._give_up_unknown()
        threads = [
            threading.Thread(target=self._serve, args=(destination, stop), name=f"to {destination.name}")
            for destination in self._settings.destinations
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _give_up_unknown(self) -> None:
        """Give up what waits for destinations that the settings no longer name."""
        names = {destination.name for destination in self._settings.destinations}
        told = RbsError("the settings name no such destination", remedy="name it there, and retry")
        try:
            for delivery in self._queue.deliveries("pending"):
                if delivery.destination not in names:
                    self._give_up(delivery, told)
        except Exception as error:  # such as a full disk: it must not end the thread
            _LOG.error("Sending: %s", explained(error, None))

    def _serve(self, destination: Destination, stop: threading.Event) -> None:
        """Send to one destination, and while its way is broken ever more rarely."""
        failures, pause = 0, 0.0
        while not stop.wait(pause):
            pause = LOOK
            try:
                due = [delivery for delivery in self._queue.due() if delivery.destination == destination.name]
                due.sort(key=lambda delivery: delivery.attempts)  # one that breaks the way comes last
                if due and self._send_all(destination, due, stop, failures):
                    failures, pause = 0, 0.0  # the next of these studies may be due now
                elif due:
                    failures += 1
                    pause = self._delay(failures)
            except Exception as error:  # such as a full disk: it must not end the thread
                _LOG.error("Sending to %s: %s", destination.name, explained(error, None))
                pause = self._settings.retries.first_s

    def _send_all(
        self, destination: Destination, due: Sequence[Delivery], stop: threading.Event, failures: int
    ) -> bool:
        """Send files over one association; False if the way is broken.

        A broken way is entered for one file alone: the others would fail alike, and wait with it.
        """
        current = due[0]
        try:
            with _way(destination, self._settings, [delivery.path for delivery in due]) as way:
                for current in due:
                    if stop.is_set():
                        return True
                    begun = time.monotonic()
                    try:
                        way.send(current.path)
                    except BrokenError:
                        raise
                    except Exception as error:  # also an unforeseen one: it must not hold up the others
                        told = error if isinstance(error, RbsError) else explained(error, current.path)
                        self._failed(current, told, current.attempts + 1)
                    else:
                        self._sent(current, time.monotonic() - begun)
        except BrokenError as error:
            self._failed(current, error, failures + 1)
            return False
        return True

    def _sent(self, delivery: Delivery, seconds: float) -> None:
        self._queue.delivered(delivery.id)
        where, attempts = delivery.destination, delivery.attempts + 1
        self._audit.record(
            "sent", destination=where, entry=delivery.entry, attempts=attempts, seconds=seconds
        )

    def _failed(self, delivery: Delivery, error: RbsError, failures: int) -> None:
        now = self._queue.clock()
        if now - delivery.created < self._settings.retries.give_up_h * 3600:
            _LOG.warning("Scan %d was not sent to %s: %s", delivery.entry, delivery.destination, error)
            self._queue.failed(delivery.id, str(error), now + self._delay(failures))
            return
        self._give_up(delivery, error)

    def _give_up(self, delivery: Delivery, error: RbsError) -> None:
        _LOG.warning("Scan %d is not sent to %s: %s", delivery.entry, delivery.destination, error)
        self._queue.give_up(delivery.id, str(error))
        where, attempts, reason = delivery.destination, delivery.attempts + 1, "not sent: given up"
        self._audit.record(
            "refused", destination=where, entry=delivery.entry, attempts=attempts, reason=reason
        )

    def _delay(self, failures: int) -> float:
        """Seconds until the next attempt; varied, so that many nodes do not come back at once."""
        retries = self._settings.retries
        longest = min(retries.first_s * 2.0 ** min(failures - 1, 30), retries.longest_s)
        return longest * random.uniform(0.75, 1)


def echo(destination: Destination, settings: Settings) -> None:
    """See if a destination answers and takes nuclear medicine images.

    Raises:
        RbsError: It does not.
    """
    if destination.url is not None:
        _DicomWeb(destination).look()
        return
    with _association(destination, settings, [(Verification, ImplicitVRLittleEndian), *RESTORED]) as way:
        status = way.send_c_echo().get("Status")
        if status != 0:
            fault = f"{destination.name} does not answer a C-ECHO"
            raise RbsError(fault, remedy="look at its log")
        if not any(context.abstract_syntax == RESTORED[0][0] for context in way.accepted_contexts):
            fault = f"{destination.name} does not take nuclear medicine images"
            raise RbsError(fault, remedy="allow NM Image Storage there")


def _way(destination: Destination, settings: Settings, files: Sequence[Path]) -> AbstractContextManager[_Way]:
    if destination.url is not None:
        return nullcontext(_DicomWeb(destination))
    return _stores(destination, settings, files)


@contextmanager
def _stores(destination: Destination, settings: Settings, files: Sequence[Path]) -> Iterator[_Way]:
    kinds = [kind for path in files if (kind := _kind(path))]
    with _association(destination, settings, kinds or RESTORED) as association:
        yield _Store(destination, association)


def _kind(path: Path) -> tuple[UID, UID] | None:
    """SOP class and transfer syntax of a file; None where sending it will say what is wrong."""
    try:
        meta = read_file_meta_info(path)
        return meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID
    except Exception:  # a damaged file surfaces in pydicom as nearly any exception there is
        return None


@contextmanager
def _association(
    destination: Destination, settings: Settings, kinds: Iterable[tuple[UID, UID]]
) -> Iterator[Association]:
    """An association in which files of some kinds can be sent as they are, or uncompressed.

    Raises:
        BrokenError: The destination cannot be reached, or does not let this node in.
    """
    entity = AE(settings.ae_title)
    for sop_class, syntax in dict.fromkeys(kinds):
        entity.add_requested_context(sop_class, syntax)
        if syntax != ImplicitVRLittleEndian:  # that each receiver takes
            entity.add_requested_context(sop_class, ImplicitVRLittleEndian)
    entity.connection_timeout = entity.acse_timeout = CONNECT
    entity.dimse_timeout = entity.network_timeout = ANSWER
    host, port, title = str(destination.host), int(destination.port or 0), str(destination.ae_title)
    options: dict[str, Any] = {"ae_title": title}
    if destination.tls and settings.tls:
        options["tls_args"] = (client_context(settings.tls), host)
    where = f"{destination.name} ({title} at {host}:{port})"
    try:
        association = entity.associate(host, port, **options)
    except OSError as error:
        fault = f"{where} has no address ({error.strerror})"
        raise BrokenError(fault, remedy="check its `host`") from error
    if not association.is_established:
        refused = association.is_rejected
        fault = f"{where} {_refusal(association)}" if refused else f"{where} cannot be reached"
        let_in = f"let {settings.ae_title} in there, and check the AE titles"
        remedy = let_in if refused else "check that it runs, its host, port and TLS"
        raise BrokenError(fault, remedy=remedy)
    try:
        yield association
    finally:
        association.release()


def _refusal(association: Association) -> str:
    answer = association.acceptor.primitive
    return f"refuses the association ({answer.reason_str.lower()})" if answer else "refuses the association"


class _Store:
    """C-STORE over an association."""

    def __init__(self, destination: Destination, association: Association) -> None:
        self._name, self._association = destination.name, association

    def send(self, path: Path) -> None:
        """Send a file as it is, or encoded as the destination wants it."""
        sop_class, syntax = _kind(path) or (None, None)
        taken = [
            c.transfer_syntax[0]
            for c in self._association.accepted_contexts
            if c.abstract_syntax == sop_class
        ]
        if not taken:
            fault = f"{self._name} does not take images of this class"
            raise RbsError(fault, file=path, remedy="allow NM Image Storage there")
        try:
            file = path if syntax in taken else pydicom.dcmread(path)
            status = self._association.send_c_store(file).get("Status")
        except RuntimeError:  # it ended meanwhile
            status = None
        except (AttributeError, ValueError) as error:
            fault = f"{self._name} does not take it in its encoding"
            raise RbsError(fault, file=path, remedy="allow Implicit VR Little Endian there") from error
        if status is None:
            raise BrokenError(
                f"{self._name} ended the association or did not answer", remedy="look at its log"
            )
        if status != DUPLICATE and code_to_category(status) not in ("Success", "Warning"):
            fault = f"{self._name} does not take it (status 0x{status:04X})"
            raise RbsError(fault, file=path, remedy="look at its log")


class _DicomWeb:
    """STOW-RS."""

    def __init__(self, destination: Destination) -> None:
        self._name, self._url = destination.name, str(destination.url)
        self._session = create_session()
        self._session.max_redirects = 0  # a POST that is redirected loses its content
        self._session.headers["Accept"] = "application/dicom+json"
        self._session.hooks["response"] = [_plain_type]
        self._session.headers.update(_headers(destination.headers))

    def look(self) -> None:
        """See if the service answers.

        Raises:
            RbsError: It does not.
        """
        with self._told():
            answer = self._session.options(f"{self._url}/studies", timeout=CONNECT)
            if answer.status_code == NOT_FOUND:  # Orthanc knows no OPTIONS: search for what nobody has
                nothing = {"StudyInstanceUID": generate_uid(), "limit": "1"}
                answer = self._session.get(f"{self._url}/studies", params=nothing, timeout=CONNECT)
            if answer.status_code in REFUSALS or answer.status_code >= 500:
                answer.raise_for_status()

    def send(self, path: Path) -> None:
        """Send a file."""
        client = DICOMwebClient(self._url, self._session, timeout=(CONNECT, ANSWER), chunk_size=2**30)
        client.set_http_retry_params(retry=False)
        with self._told():
            try:
                answer = client.store_instances([pydicom.dcmread(path)])
            except requests.HTTPError as error:
                answer = _reasons(error)
        if answer.get("FailedSOPSequence"):
            reason = answer.FailedSOPSequence[0].get("FailureReason") or 0
            if reason == DUPLICATE:
                return
            fault = f"{self._name} does not take it (reason 0x{reason:04X})"
            raise RbsError(fault, file=path, remedy="look at its log")
        if not answer.get("ReferencedSOPSequence"):
            fault = f"{self._name} does not say that it took it"
            raise RbsError(fault, file=path, remedy="check that its `url` is that of a DICOMweb service")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except requests.HTTPError as error:
            code = getattr(error.response, "status_code", 0)
            kind = BrokenError if code in REFUSALS or code >= 500 else RbsError
            remedy = "check its `url` and `headers`, or look at its log"
            raise kind(f"{self._name} does not take it (HTTP status {code})", remedy=remedy) from error
        except requests.RequestException as error:
            fault = f"{self._name} cannot be reached ({type(error).__name__})"
            raise BrokenError(fault, remedy="check that it runs, and its `url`") from error


def _plain_type(answer: requests.Response, **_: Any) -> None:
    """Take the parameters off a content type, which the client does not know."""
    kind = answer.headers.get("Content-Type", "")
    answer.headers["Content-Type"] = kind.partition(";")[0].strip().lower()


def _reasons(error: requests.HTTPError) -> pydicom.Dataset:
    """Answer to a file that was not stored.

    Raises:
        requests.HTTPError: It gives no reasons.
    """
    if error.response is None or error.response.status_code != CONFLICT:
        raise error
    try:
        answer = pydicom.Dataset.from_json(error.response.json())
    except Exception:  # whatever else a service says
        raise error from None
    if not answer.get("FailedSOPSequence"):
        raise error
    return answer


def _headers(file: Path | None) -> dict[str, str]:
    """HTTP headers of a file, a `Name: value` a line.

    Raises:
        RbsError: It cannot be read.
    """
    if file is None:
        return {}
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        pairs = [line.split(":", 1) for line in lines if line.strip()]
        return {name.strip(): value.strip() for name, value in pairs}
    except (OSError, ValueError) as error:
        fault = "it holds no HTTP headers" if isinstance(error, ValueError) else f"{error.strerror}"
        raise RbsError(fault, file=file, remedy="write a `Name: value` a line") from error
