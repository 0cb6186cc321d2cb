"""A DICOM server whose connections are bounded in number, time and size.

pynetdicom's own encrypts in the thread that accepts connections, which one silent peer would block,
reads a message unit of any length that a peer states, and leaves its temporary file behind where a
sender breaks off.
"""

from __future__ import annotations

import functools
import logging
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from rbs.node.settings import MIB, Limits
from rbs.utils.guard import explained

LARGEST_PDU = MIB
"""Bytes of the longest message unit that is read; longer ones end the connection."""
ANNOUNCED_PDU = 2**17
"""Bytes of the longest unit that senders are asked for."""
LARGEST_IN_MEMORY = 2 * MIB
"""Bytes of the longest message that is no file, such as a request of storage commitment."""
STRANGERS = 4
"""Connections at a time from addresses of no peer, which are told so."""
QUEUED = 2
"""Messages a sender may send ahead of the answer to an earlier one."""
HANDSHAKE = 10.0
"""Seconds in which a connection must encrypt, and ask for an association."""

STOPPING = 2.0
"""Seconds for all connections to end when the server stops; the others end with the process."""
POLL = 0.1
"""Seconds between two looks for the order to stop."""

_LOG = logging.getLogger("rbs")


class BoundedServer(ThreadedAssociationServer):
    """pynetdicom's server with bounds.

    Args:
        entity: The application entity, with its classes.
        where: Address and port to listen at.
        handlers: Of pynetdicom's events.
        limits: Of connections.
        tls: Encryption, if connections are encrypted.
        knows: Tells addresses of peers.
        unencrypted: Called with the address of a connection whose encryption failed.
    """

    daemon_threads = True

    def __init__(
        self,
        entity: AE,
        where: tuple[str, int],
        handlers: list[Any],
        *,
        limits: Limits,
        tls: ssl.SSLContext | None,
        knows: Callable[[str], bool],
        unencrypted: Callable[[str], None],
    ) -> None:
        self.limits, self._tls, self._knows, self._unencrypted = limits, tls, knows, unencrypted
        self._open: Counter[bool] = Counter()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        contexts, title = entity.supported_contexts, entity.ae_title
        super().__init__(entity, where, title, contexts, evt_handlers=handlers, request_handler=_Connection)
        self._gc = [0, int(30 / POLL)]  # calls after which pynetdicom collects ended associations

    def serve(self) -> None:
        """Serve until stopped, in the thread that calls this."""
        self.serve_forever(poll_interval=POLL)

    def stop(self) -> None:
        """End all associations; listen no longer."""
        self.ae._servers.append(self)  # from which `shutdown` takes it
        self.shutdown()
        for association in self.active_associations:
            association.abort(block=False)
        time.sleep(POLL)  # in which the abort is sent
        with self._lock:
            for connection in self._connections:  # whoever waits for bytes of one reads its end
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RD)
        end = time.monotonic() + STOPPING
        for thread in list(self._connections.values()):
            thread.join(max(end - time.monotonic(), 0))

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """True for a connection that is looked into; others are closed at once."""
        known = self._knows(client_address[0])
        most = 2 * self.limits.associations if known else STRANGERS
        with self._lock:
            if self._open[known] >= most:
                return False
            self._open[known] += 1
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin to serve a connection."""
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started, which would have given the place back
            self._left(client_address[0])
            raise

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end, in a thread of its own."""
        connection = request
        try:
            request.settimeout(HANDSHAKE)
            if self._tls:
                connection = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                self._connections[connection] = threading.current_thread()
            if self._tls and not self._encrypted(connection, client_address[0]):
                return
            super().finish_request(connection, client_address)
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            self._left(client_address[0])
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a connection that could not be served."""
        error = sys.exception()
        told = explained(error, None) if isinstance(error, Exception) else error
        _LOG.error("A connection from %s could not be served: %s", client_address[0], told)

    def _encrypted(self, connection: ssl.SSLSocket, address: str) -> bool:
        """False, and told, for a connection without TLS, or without a certificate that counts."""
        try:
            connection.do_handshake()
        except OSError:
            self._unencrypted(address)
            return False
        return True

    def _left(self, address: str) -> None:
        """Give the place of a connection back."""
        with self._lock:
            self._open[self._knows(address)] -= 1


class _Connection(RequestHandler):
    """A connection: its association, and the removal of what it left unfinished."""

    server: BoundedServer

    def handle(self) -> None:
        """Run the association to its end."""
        association = self._create_association()
        connection = association.dul.socket
        assert connection is not None
        receive = functools.partial(_receive, connection, self.server.limits.idle_s)
        connection.recv = receive  # type: ignore[method-assign]
        bound = Bound(association, self.server.limits.object_mib * MIB)
        association.bind(evt.EVT_DATA_RECV, bound.received)
        association.bind(evt.EVT_DIMSE_RECV, bound.complete)
        association.bind(evt.EVT_DIMSE_SENT, bound.answered)
        association.start()
        association.join()
        association.dul.join()
        bound.remove_unfinished()


def _receive(connection: Any, longest_s: float, size: int) -> bytearray:
    """Read `size` bytes of a message unit within a time.

    Returns:
        The bytes; fewer if the other side hung up.

    Raises:
        OSError: The unit is too long, or too slow.
    """
    if size > LARGEST_PDU:
        raise OSError(f"a message unit of {size} bytes")
    content = bytearray()
    end = time.monotonic() + longest_s
    while len(content) < size:
        connection.socket.settimeout(max(end - time.monotonic(), 0.001))
        piece = connection.socket.recv(size - len(content))
        if not piece:
            break
        content += piece
    connection.socket.settimeout(longest_s)
    return content


class Bound:
    """Limits on what one association sends.

    Args:
        association: The association.
        most: Bytes of a message that goes to a file.
    """

    def __init__(self, association: Association, most: int) -> None:
        self._association, self._most = association, most
        self._bytes = 0

    def received(self, event: Event) -> None:
        """Abort if the message is larger than allowed."""
        self._bytes += len(event.data)
        in_file = getattr(self._association.dimse.message, "_data_set_file", None) is not None
        if self._bytes > (self._most if in_file else min(self._most, LARGEST_IN_MEMORY)):
            self._abort("too large")

    def complete(self, event: Event) -> None:
        """Abort if messages come faster than answers go."""
        self._bytes = 0
        if self._association.dimse.msg_queue.qsize() > QUEUED:
            self._abort("too many at once")

    def answered(self, event: Event) -> None:
        """Begin anew to wait: the time the node took for an answer is not that of the sender."""
        self._association.dul._idle_timer.restart()

    def remove_unfinished(self) -> None:
        """Remove the temporary files of messages that nobody answered."""
        dimse = self._association.dimse
        queued = [item[1] for item in dimse.msg_queue.queue]
        for message in (dimse.message, *queued):
            file = getattr(message, "_data_set_file", None) or getattr(message, "_dataset_file", None)
            if file is not None:
                file.close()
                Path(file.name).unlink(missing_ok=True)
        dimse.message = None
        dimse.msg_queue.queue.clear()

    def _abort(self, reason: str) -> None:
        if not self._association.is_aborted:
            title, address = caller(self._association)
            _LOG.warning("The association of %s (%s) was ended: %s", title, address, reason)
            self._association.abort(block=False)


def caller(association: Association) -> tuple[str, str]:
    """AE title and address of the other side."""
    requestor = association.requestor
    request, where = requestor.primitive, requestor.address_info
    return str(request.calling_ae_title if request else "").strip(), where.address if where else ""
