"""The audit log: one JSON line for each event, without a name, a header value or a plain UID."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rbs.errors import printable
from rbs.utils.guard import system_error
from rbs.utils.secret_key import make_key, read_key

if TYPE_CHECKING:
    from rbs.node.settings import AuditLog

Event = Literal[
    "started",
    "stopped",
    "association refused",
    "received",
    "duplicate",
    "own output",
    "refused",
    "restored",
    "sent",
    "retried",
    "dropped",
    "deleted",
    "committed",
]

_LOG = logging.getLogger("rbs")


class Audit:
    """Appends events to a file; each is on disk before `record` returns.

    The file may be renamed at any time, as logrotate does: the next event makes a new one. Several
    threads, and several processes, may append to it.

    Args:
        settings: The file and the site key, which is made where there is none; None for no log.

    Raises:
        OutputError: The key cannot be used.
        RbsError: The file cannot be written.
    """

    def __init__(self, settings: AuditLog | None) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        if settings is None:
            return
        if not settings.site_key_file.exists():
            make_key(settings.site_key_file)
        remedy = "put it back, or remove the setting for a new one"
        self._key = read_key(settings.site_key_file, remedy)
        try:
            settings.file.parent.mkdir(parents=True, exist_ok=True)
            self._open(settings.file)
        except OSError as error:
            raise system_error(error, settings.file) from error

    def record(
        self,
        event: Event,
        *,
        peer: str = "",
        address: str = "",
        destination: str = "",
        entry: int | None = None,
        uid: str = "",
        study: str = "",
        reason: str = "",
        count: int | None = None,
        size: int | None = None,
        attempts: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Append an event with what is known of it; there are no other facts than these.

        An event that cannot be written goes to the log of the program instead. Only "received" is
        raised then: it is the one that can still be refused, and the sender keeps its scan.

        Args:
            event: What happened.
            peer: AE title of the other side.
            address: Its network address.
            destination: Name of the destination.
            entry: Number of the scan in the queue.
            uid: SOP Instance UID, which is written as a pseudonym.
            study: Study Instance UID, likewise.
            reason: A short code, such as the class of an error or a status; never a sentence,
                which may quote a file.
            count: How many.
            size: Bytes.
            attempts: How many attempts there have been.
            seconds: How long it took.

        Raises:
            RbsError: A received scan cannot be recorded.
        """
        if self._settings is None:
            return
        facts = {
            "peer": printable(peer, 64),
            "address": printable(address, 64),
            "destination": printable(destination, 64),
            "entry": entry,
            "uid": self._pseudonym(uid),
            "study": self._pseudonym(study),
            "reason": printable(reason, 64),
            "count": count,
            "size": size,
            "attempts": attempts,
            "seconds": None if seconds is None else round(seconds, 3),
        }
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = {name: fact for name, fact in facts.items() if fact not in ("", None)}
        line = json.dumps({"time": time, "event": event, **known})
        try:
            with self._lock:
                self._append(self._settings.file, f"{line}\n".encode())
        except OSError as error:
            told = system_error(error, self._settings.file)
            _LOG.error("%s Not in the audit log: %s", told, line)
            if event == "received":
                raise told from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _pseudonym(self, uid: str) -> str:
        return hmac.digest(self._key, uid.encode(), hashlib.sha256).hex() if uid else ""

    def _open(self, file: Path) -> int:
        """Descriptor of the file, which is opened anew where it was renamed or removed."""
        if self._descriptor is not None:
            try:
                if os.path.samestat(os.fstat(self._descriptor), os.stat(file)):
                    return self._descriptor
            except FileNotFoundError:
                pass
            os.close(self._descriptor)
            self._descriptor = None
        self._descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        end = os.fstat(self._descriptor).st_size
        if end and os.pread(self._descriptor, 1, end - 1) != b"\n":  # a crash broke the last line off
            os.write(self._descriptor, b"\n")
        return self._descriptor

    def _append(self, file: Path, line: bytes) -> None:
        """Write a line.

        Raises:
            OSError: There is no room, or the file cannot be written.
        """
        descriptor = self._open(file)
        if os.write(descriptor, line) < len(line):
            os.close(descriptor)  # opening the file again ends the broken line
            self._descriptor = None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
