"""The folder of a node: files as received, restored and refused, beside the queue."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rbs.errors import DiskFullError, RbsError, printable
from rbs.node.comparison import same_scan
from rbs.node.queue import Entry, Queue, State, other_content
from rbs.node.settings import MIB, Settings
from rbs.utils.guard import system_error

DELETED = "Its file was deleted, as refused scans held a quarter of the spool; send it again to retry."
"""Remark on the reason of a refused scan."""
_UNFINISHED = ".writing-"


class Spool:
    """Files of the queue, written whole or not at all, and to the disk.

    Args:
        settings: Of the node: folders and limits.
        queue: The queue in the same folder.
    """

    def __init__(self, settings: Settings, queue: Queue) -> None:
        self.limits = settings.limits
        self._shared = len({peer.ae_title for peer in settings.peers}) > 1
        self.queue = queue
        self.received = settings.spool / "received"
        self.restored = settings.spool / "restored"
        self.refused = settings.refused_folder
        self._taking, self._comparing = threading.Lock(), threading.Lock()
        for folder in (self.received, self.restored, self.refused):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise system_error(error, folder) from error

    def room(self, needed: int, origin: str = "") -> None:
        """Refuse what the spool or its disk has no room for.

        Args:
            needed: Bytes to be written.
            origin: AE title of the sender.

        Raises:
            DiskFullError: There is none, by `limits.spool_mib` or `limits.reserve_mib`; or what
                waits of one of several senders fills half of the spool.
        """
        half = self.limits.spool_mib * MIB // 2
        if self._shared and self.queue.bytes_waiting(origin) + needed > half:
            fault = f"half of limits.spool_mib = {self.limits.spool_mib} waits from this sender"
            raise DiskFullError(fault, file=self.received.parent, remedy="send again later")
        if self.queue.bytes_held() + needed > self.limits.spool_mib * MIB:
            fault = f"the spool holds {self.limits.spool_mib} MiB, the most it may"
            remedy = "drop refused scans, or raise limits.spool_mib"
            raise DiskFullError(fault, file=self.received.parent, remedy=remedy)
        if shutil.disk_usage(self.received).free - needed < self.limits.reserve_mib * MIB:
            fault = f"less than {self.limits.reserve_mib} MiB of its disk (limits.reserve_mib) are free"
            raise DiskFullError(fault, file=self.received.parent, remedy="free some space")

    def _place(self, sha256: str) -> Path:
        """A path for a received file that no file had before.

        So a process that still deletes the files of a scan cannot meet those of its next life.
        """
        return self.received / f"{sha256}-{secrets.token_hex(4)}.dcm"

    def take(
        self, content: bytes | Path, *, uid: str, study: str, origin: str, name: str = ""
    ) -> Entry | None:
        """Keep a file and enter it in the queue; what this returns survives any death.

        Args:
            content: Its bytes, or a file that may be moved from the same disk.
            uid: Its SOP Instance UID; its SHA-256 takes the place of an empty one.
            study: Its Study Instance UID; a scan without one is a study of its own.
            origin: AE title of the sender, or "folder".
            name: Name of the file in a folder that is watched.

        Returns:
            Its entry; None if this content is known already, be it in another transfer syntax.

        Raises:
            KnownUidError: There is other content under this UID.
            DiskFullError: There is no room for it; nothing is left of it then.
            RbsError: It cannot be written.
        """
        with self._taking:
            sha256, size = _content(content)
            known = self.queue.find(uid or sha256)
            if known is None:
                self.room(size, origin)
                path = self._place(sha256)
                _kept(path, content)
                try:
                    entry = self.queue.add(
                        uid=uid or sha256,
                        study=study or uid or sha256,
                        path=path,
                        sha256=sha256,
                        size=size,
                        origin=origin,
                        name=name,
                    )
                except RbsError:
                    remove([path])
                    raise
                if entry is None:  # another process took it meanwhile
                    remove([path])
                return entry
        if known.sha256 != sha256 and not self._same(known, content):
            raise other_content(known.id)
        return None

    def _same(self, known: Entry, content: bytes | Path) -> bool:
        """True for a known scan in another transfer syntax, while its file is kept."""
        with self._comparing:  # one at a time, for the sake of memory
            if isinstance(content, Path):
                return same_scan(known.path, content)
            with tempfile.NamedTemporaryFile(dir=self.received, prefix=_UNFINISHED) as file:
                file.write(content)
                file.flush()
                return same_scan(known.path, Path(file.name))

    def output(self, entry: Entry) -> Path:
        """Where the restoration of a scan goes; what an interrupted attempt left is removed."""
        for stale in self.restored.glob(f"{entry.id}[._]*"):
            stale.unlink(missing_ok=True)
        return self.restored / f"{entry.id}.dcm"

    def refuse(self, entry: Entry, reason: str) -> bool:
        """Put a scan into the folder of refused ones, with the sentence, and enter that.

        Returns:
            False if the scan was dropped meanwhile.

        Raises:
            DiskFullError: There is no room for it.
        """
        copy = self.refused / entry.path.name
        told = copy.with_suffix(".txt")
        what = printable(entry.name) or f"scan {entry.id} from {entry.origin}"
        _written(told, f"{what}: {reason}\n".encode())
        _copy(entry.path, copy)
        if not self.queue.refuse(entry.id, reason, copy):
            remove([told, copy])
            return False
        if entry.path != copy:
            remove([entry.path])
        return True

    def bound_refused(self) -> list[Entry]:
        """Delete refused scans that hold more than a quarter of what the spool may; returns them.

        The reason stays in the queue. So bad scans never leave good ones without room.
        """
        deleted = []
        while entry := self.queue.surplus_refused(self._largest() // 4):
            if self.queue.delete_refused(entry.id, DELETED):
                self._remove(entry, [entry.path])
                deleted.append(entry)
        return deleted

    def _largest(self) -> int:
        """Bytes that the spool may hold, by its limit and by what its disk has room for."""
        free = shutil.disk_usage(self.received).free - self.limits.reserve_mib * MIB
        return min(self.limits.spool_mib * MIB, self.queue.bytes_held() + max(free, 0))

    def retry(self, entry: Entry) -> bool:
        """Begin anew with a refused scan or with failed deliveries; False where neither is."""
        path = self._place(entry.sha256)
        if entry.path.parent != self.refused:
            return self.queue.retry(entry.id)
        _copy(entry.path, path)
        if not self.queue.retry(entry.id, path):
            remove([path])
            return False
        remove([entry.path, entry.path.with_suffix(".txt")])
        return True

    def drop(self, id: int) -> Entry | None:
        """Take a scan out of the queue and delete its files; None if there is none."""
        files = self.queue.files(id)
        if entry := self.queue.drop(id):
            self._remove(entry, files)
        return entry

    def purge(self, before: float) -> int:
        """Delete the files of scans that were sent before a time, and rows of those that are gone.

        Of a sent scan the queue keeps UID and hash: when it comes again it is not done again.

        Returns:
            Scans.
        """
        done = 0
        for entry in self.queue.old(before):
            files = self.queue.files(entry.id)
            if self.queue.forget(entry.id):
                self._remove(entry, files)
                done += 1
        return done

    def sweep(self, age_s: float = 3600) -> None:
        """Delete files that no entry names, which a death left; young ones may get an entry."""
        entries = [entry for entry in self.queue.entries() if entry.state != State.DROPPED]
        # Folder and name, not the whole path: the spool may be reached by another one.
        named = {path.parts[-2:] for entry in entries for path in self.queue.files(entry.id)}
        left = [*self.received.iterdir(), *self.restored.iterdir(), *self.refused.glob(f"{_UNFINISHED}*")]
        before = time.time() - age_s
        remove(path for path in left if path.parts[-2:] not in named and _changed(path) < before)

    def _remove(self, entry: Entry, files: Iterable[Path]) -> None:
        remove([*files, self.refused / f"{entry.path.stem}.txt"])


def _content(content: bytes | Path) -> tuple[str, int]:
    """SHA-256 and bytes of a content."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest(), len(content)
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), content.stat().st_size


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(paths: Iterable[Path]) -> None:
    """Delete files; what cannot be deleted stays, for `Spool.sweep`."""
    for path in paths:
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _changed(path: Path) -> float:
    """Time of the last change of a file, a new name included; that of now where it is gone."""
    try:
        return path.stat().st_ctime
    except OSError:
        return time.time()


def _copy(source: Path, target: Path) -> None:
    """Give a file a second name, which takes no room, or a copy on another disk."""
    try:
        os.link(source, target)
        flush(target.parent)
    except (FileExistsError, FileNotFoundError):  # linked before; or gone, which the reason tells
        return
    except OSError:
        _written(target, source.read_bytes())


def _kept(target: Path, content: bytes | Path) -> None:
    """Keep bytes, or a file that is moved from the same disk, under a name; to the disk."""
    if isinstance(content, bytes):
        _written(target, content)
        return
    try:
        flush(content)
        os.replace(content, target)
        flush(target.parent)
    except OSError as error:
        raise system_error(error, target) from error


def _written(target: Path, content: bytes) -> Path:
    """Write a file whole, to the disk."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=_UNFINISHED, delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        flush(target.parent)
    except OSError as error:
        if temporary:
            temporary.unlink(missing_ok=True)
        raise system_error(error, target) from error
    return target
