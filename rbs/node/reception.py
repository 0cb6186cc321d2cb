"""Reception: the storage and verification SCP of the node, which lets in the senders it knows.

The answer 0x0000 is given once the file and its row in the queue are on the disk. pynetdicom writes
the data set of a C-STORE request to a temporary file in the spool, so that memory holds one PDU of
it.
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

from pydicom import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    NuclearMedicineImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, _config, dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from rbs.errors import DiskFullError, RbsError
from rbs.node.audit import Audit
from rbs.node.bounds import ANNOUNCED_PDU, HANDSHAKE, BoundedServer, caller
from rbs.node.commitment import Commitment
from rbs.node.incoming import Incoming
from rbs.node.queue import KnownUidError, Queue
from rbs.node.senders import AllowList, Rate, Refusals
from rbs.node.settings import MIB, Settings
from rbs.node.spool import Spool
from rbs.node.tls import server_context
from rbs.scans.dicom.files import derived_by_rbs
from rbs.scans.dicom.pixels import LOSSLESS
from rbs.scans.dicom.quiet import quiet_for_good
from rbs.scans.dicom.reader import blaming, decoded
from rbs.utils.guard import explained, system_error

CLASSES = (NuclearMedicineImageStorage, SecondaryCaptureImageStorage)
SYNTAXES = sorted(LOSSLESS, key=lambda syntax: (syntax != ExplicitVRLittleEndian, syntax))
"""Of several that a sender offers, the first is chosen."""

SUCCESS, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
DUPLICATE, CLASS_NOT_SUPPORTED, PROCESSING_FAILURE = 0x0111, 0x0122, 0x0110
CALLING_UNKNOWN = (0x01, 0x01, 0x03)
"""Result, source and reason of the refusal of a calling AE title: permanent, by the user."""
LIMIT_EXCEEDED = (0x02, 0x03, 0x02)
"""The same for too many associations: for now, by the provider."""

_LOG = logging.getLogger("rbs")


class NotStoredError(RbsError):
    """An instance that is not taken, with the status that the sender is told."""

    def __init__(self, status: int, fault: str, *, remedy: str) -> None:
        super().__init__(fault, remedy=remedy)
        self.status = status


class Receiver:
    """Takes scans into the spool and the queue until it is stopped.

    Args:
        settings: Of the node.
        queue: Where each scan gets its row.
        spool: Where each scan gets its file.
        audit: What came, and who was turned away.

    Raises:
        RbsError: A certificate cannot be used, or a host of the allow-list is unknown.
    """

    def __init__(self, settings: Settings, queue: Queue, spool: Spool, audit: Audit) -> None:
        self._settings, self._queue, self._spool, self._audit = settings, queue, spool, audit
        self._allowed = AllowList(settings.peers)
        self._rate = Rate(settings.limits.per_minute)
        self._refused = Refusals(audit)
        self._tls = server_context(settings.tls) if settings.tls else None
        self._incoming = settings.spool / "incoming"
        self._server: BoundedServer | None = None
        self._commitment = Commitment(settings, queue, audit) if settings.commitment else None

    def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            RbsError: The address cannot be listened at, or the spool cannot be written.
        """
        quiet_for_good()
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its warnings quote UIDs
        _config.LOG_HANDLER_LEVEL = "none"
        try:
            self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left_over in self._incoming.iterdir():  # of a node that was killed
                left_over.unlink()
        except OSError as error:
            raise system_error(error, self._incoming) from error
        # Received data sets go to temporary files, beside the spool so that they can be renamed.
        _config.STORE_RECV_CHUNKED_DATASET = True
        in_spool = functools.partial(Incoming, self._incoming, self._settings.limits.reserve_mib * MIB)
        dimse_messages.NamedTemporaryFile = in_spool  # type: ignore[assignment]
        where = (self._settings.host, self._settings.port)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._store),
        ]
        entity = self._entity()
        if self._commitment:
            handlers.append((evt.EVT_N_ACTION, self._commitment.requested))
            self._commitment.start()
        try:
            self._server = BoundedServer(
                entity,
                where,
                handlers,
                limits=self._settings.limits,
                tls=self._tls,
                knows=self._allowed.knows,
                unencrypted=self._unencrypted,
            )
        except OSError as error:
            fault = f"port {where[1]} of {where[0]} cannot be listened at ({error.strerror})"
            remedy = "stop the other program, or choose another `port`"
            raise RbsError(fault, remedy=remedy) from error
        threading.Thread(target=self._server.serve, name="reception", daemon=True).start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """End all associations and listen no longer. What was not acknowledged is not kept."""
        if self._server is not None:
            self._server.stop()
            self._server = None
            self._refused.close()
        if self._commitment:
            self._commitment.stop()

    def _entity(self) -> AE:
        entity = AE(self._settings.ae_title)
        for uid in CLASSES:
            entity.add_supported_context(uid, SYNTAXES)
        entity.add_supported_context(Verification)
        if self._commitment:
            entity.add_supported_context(self._commitment.CLASS)
        entity.require_called_aet = True
        entity.maximum_associations = self._settings.limits.associations
        entity.maximum_pdu_size = ANNOUNCED_PDU
        entity.acse_timeout = HANDSHAKE
        entity.network_timeout = entity.dimse_timeout = self._settings.limits.idle_s
        return entity

    def _requested(self, event: Event) -> None:
        """Turn away a sender that is not in the allow-list, or that leaves no room for others."""
        title, address = caller(event.assoc)
        if not self._allowed(title, address):
            refusal = CALLING_UNKNOWN
        elif self._crowds_out(event.assoc):
            refusal = LIMIT_EXCEEDED
        else:
            return
        event.assoc.acse.send_reject(*refusal)
        self._rejected(event)
        event.assoc.kill()  # waits until the refusal was sent

    def _crowds_out(self, association: Association) -> bool:
        """True for one more than half of the associations, where several senders share them."""
        if len({peer.ae_title for peer in self._settings.peers}) < 2:
            return False
        title, _ = caller(association)
        found = [one for one in association.ae.active_associations if one.is_acceptor]
        most = max(self._settings.limits.associations // 2, 1)
        return sum(caller(one)[0] == title for one in found) > most

    def _rejected(self, event: Event) -> None:
        title, address = caller(event.assoc)
        refusal: Any = event.assoc.acceptor.primitive
        code = f"{refusal.result}.{refusal.result_source}.{refusal.diagnostic}"
        self._refused(peer=title, address=address, reason=code)

    def _unencrypted(self, address: str) -> None:
        self._refused(address=address, reason="TLS")

    def _store(self, event: Event) -> int | Dataset:
        """Answer to a C-STORE request."""
        try:
            self._keep(event)
            return SUCCESS
        except NotStoredError as error:
            return self._answer(event, error.status, error)
        except DiskFullError as error:
            return self._answer(event, OUT_OF_RESOURCES, error)
        except RbsError as error:
            return self._answer(event, PROCESSING_FAILURE, error)
        except Exception as error:  # told without values, which may be a patient's
            return self._answer(event, PROCESSING_FAILURE, explained(error, None))

    def _answer(self, event: Event, status: int, error: RbsError) -> Dataset:
        title, address = caller(event.assoc)
        _LOG.warning("A scan from %s (%s) was not taken: %s", title, address, error)
        self._audit.record("refused", peer=title, address=address, reason=f"0x{status:04X}")
        answer = Dataset()
        answer.Status = status
        answer.ErrorComment = error.fault.replace("\\", "/")[:64]
        return answer

    def _keep(self, event: Event) -> None:
        """Make the file and the row of an instance.

        Raises:
            RbsError: It is not taken.
        """
        title, address = caller(event.assoc)
        if not self._rate(title):
            fault = f"more than {self._settings.limits.per_minute} instances in a minute"
            raise NotStoredError(OUT_OF_RESOURCES, fault, remedy="send again later")
        incoming: Any = event.request._dataset_file
        if incoming.full:
            raise DiskFullError("the disk is full", file=self._incoming, remedy="free some space")
        header = _header(event)
        uid, study = str(header.SOPInstanceUID), str(header.get("StudyInstanceUID") or "")
        if derived_by_rbs(header):
            self._audit.record("own output", peer=title, address=address, uid=uid, study=study)
            return
        try:
            entry = self._spool.take(event.dataset_path, uid=uid, study=study, origin=title)
        except KnownUidError as error:
            fault = "its SOP Instance UID came before with other content"
            raise NotStoredError(DUPLICATE, fault, remedy="give each instance a UID of its own") from error
        if entry is None:
            self._audit.record("duplicate", peer=title, address=address, uid=uid, study=study)
            return
        try:
            self._audit.record(
                "received", peer=title, address=address, entry=entry.id, size=entry.size, uid=uid, study=study
            )
        except (RbsError, OSError) as error:
            self._spool.drop(entry.id)
            fault = "the audit log cannot be written"
            raise NotStoredError(OUT_OF_RESOURCES, fault, remedy="free some space for it") from error


def _header(event: Event) -> Dataset:
    """Header of a received instance of which class, instance and modality are what they should be.

    Raises:
        NotStoredError: They are not, or it cannot be read.
    """
    remedy = "send nuclear medicine images"
    request: Any = event.request
    negotiated = event.context.abstract_syntax
    if request.AffectedSOPClassUID != negotiated:
        fault = "another SOP class than the presentation context"
        raise NotStoredError(CLASS_NOT_SUPPORTED, fault, remedy=remedy)
    wanted = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "DerivationCodeSequence"]
    try:
        with blaming(event.dataset_path):
            header, _ = decoded(event.dataset_path, stop_before_pixels=True, specific_tags=wanted)
    except RbsError as error:
        raise NotStoredError(NOT_UNDERSTOOD, error.fault, remedy="export it again") from error
    if header.get("SOPClassUID") != negotiated:
        fault = "SOP Class UID of data set and request differ"
        raise NotStoredError(MISMATCH, fault, remedy=remedy)
    if not header.get("SOPInstanceUID") or header.SOPInstanceUID != request.AffectedSOPInstanceUID:
        fault = "SOP Instance UID of data set and request differ"
        raise NotStoredError(MISMATCH, fault, remedy=remedy)
    if negotiated == SecondaryCaptureImageStorage and header.get("Modality") != "NM":
        fault = "a secondary capture of another modality than NM"
        raise NotStoredError(MISMATCH, fault, remedy=remedy)
    return header
