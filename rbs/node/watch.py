"""A folder that is watched: what is put into it is restored into another one, by the same queue."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rbs.clinic.restore_scans import deviation_file
from rbs.errors import DiskFullError, OutputError, RbsError, printable
from rbs.node.queue import OPEN, Delivery, KnownUidError, Queue, State
from rbs.node.service import HOUSEKEEPING_S, Restoring, housekeeping, only_one
from rbs.node.settings import Settings
from rbs.node.spool import Spool, flush
from rbs.scans.dicom.files import derived_by_rbs, header_of, may_be_a_scan
from rbs.scans.dicom.reader import read_nm
from rbs.utils.files import regular_files, whole_file
from rbs.utils.guard import attempt, explained

ORIGIN = "folder"
WHOLE_S = 1.0
"""Seconds without a change after which a file that can be read is whole."""
PATIENCE_S = 30.0
"""The same for a file that cannot be read, before it is refused; and between two attempts."""
RESCAN_S = 15.0
"""Seconds between looks at the whole folder: shares of a network do not tell of new files."""

_LOG = logging.getLogger("rbs")


class Watch:
    """Taking scans out of a folder, and putting restored ones into another.

    Args:
        folder: Where scans are put, in it or in folders below it. It is only read.
        output: Where restored scans go, under the names of the scans.
        settings: Of the restoration, and the spool.
        say: Is told a line for each scan that was restored.

    Raises:
        RbsError: A folder cannot be used, or both are the same.
    """

    def __init__(
        self, folder: Path, output: Path, settings: Settings, say: Callable[[str], None] = print
    ) -> None:
        self.folder, self.output = folder.resolve(), output.resolve()
        if not folder.is_dir():
            raise RbsError("there is no such folder", file=folder, remedy="check the path")
        if self.folder.is_relative_to(self.output):
            fault = "restored scans would go where scans are taken from"
            raise RbsError(fault, file=output, remedy="choose another folder for them")
        self.settings, self.say = settings, say
        self.queue = Queue(settings.spool)
        self.spool = Spool(settings, self.queue)
        self._growing: dict[Path, tuple[tuple[int, int], float]] = {}
        self._done: dict[Path, tuple[int, int]] = {}
        self._pause = 0.0

    def run(self, stop: threading.Event, *, once: bool = False) -> int:
        """Work until `stop` is set.

        Args:
            stop: Ends it.
            once: End when all that lies in the folder is done.

        Returns:
            Scans that were refused.
        """
        from watchfiles import watch

        refused = len(self.queue.entries(State.REFUSED))
        restoring = Restoring(self.settings, [str(self.output)])
        with only_one(self.settings.spool):
            while once and self.look(patience=0):
                if stop.wait(WHOLE_S):
                    return 0
            restoring.start()
            try:
                looked = kept = float("-inf")
                ticks = watch(
                    self.folder, stop_event=stop, rust_timeout=500, yield_on_timeout=True, watch_filter=None
                )
                for changes in ticks:
                    now = time.monotonic()
                    if not once and (changes or self._growing or now > looked + RESCAN_S):
                        self.look()
                        looked = now
                    self.deliver()
                    if now > kept + HOUSEKEEPING_S:
                        housekeeping(self.settings, self.spool)
                        kept = now
                    if once and not self.queue.entries(*OPEN) and not self.queue.deliveries("pending"):
                        break
            finally:
                restoring.stop()
        return len(self.queue.entries(State.REFUSED)) - refused

    def look(self, patience: float = PATIENCE_S) -> int:
        """Take in the files of the folder that are whole.

        Args:
            patience: Seconds without a change after which one that cannot be read is taken, too.

        Returns:
            Files that are left: they may still grow, or the disk is full.
        """
        now = time.monotonic()
        found = {}
        for path in regular_files(self.folder)[0] if now >= self._pause else ():
            if path.is_relative_to(self.output) or not (shape := _shape(path)):
                continue
            last, since = self._growing.get(path, (None, now))
            if self._done.get(path) == shape:
                continue
            if last != shape or now - since < WHOLE_S or not self._whole(path, now - since >= patience):
                found[path] = (shape, since if last == shape else now)
                continue
            try:
                self.take(path)
            except DiskFullError as error:
                _LOG.error("%s", error)
                self._pause = now + PATIENCE_S
                return len(self._growing)
            except Exception as error:  # one file must not end the work on the others
                _LOG.error("%s", error if isinstance(error, RbsError) else explained(error, path))
            self._done[path] = shape
        if now >= self._pause:
            self._growing = found
        return len(self._growing)

    def _whole(self, path: Path, patient: bool) -> bool:
        if patient or not may_be_a_scan(path):
            return True
        return not isinstance(attempt(path, read_nm, path, **self.settings.reading.model_dump()), RbsError)

    def take(self, path: Path) -> None:
        """Take in a file; what is no scan, and what rbs restored, is passed over.

        A scan that replaces a refused one under the same name takes its place.

        Raises:
            DiskFullError: There is no room for it.
            RbsError: It cannot be kept.
        """
        if not may_be_a_scan(path):
            return
        content = path.read_bytes()
        header = header_of(path, content)
        if derived_by_rbs(header):
            return
        name = str(path.relative_to(self.folder))
        uid, study = str(header.get("SOPInstanceUID") or ""), str(header.get("StudyInstanceUID") or "")
        known = self.queue.find(uid)
        try:
            refused = known and known.state == State.REFUSED and known.name == name
            if known and refused and known.sha256 != hashlib.sha256(content).hexdigest():
                self.spool.drop(known.id)
            self.spool.take(content, uid=uid, study=study, origin=ORIGIN, name=name)
        except KnownUidError:
            if entry := self.spool.take(content, uid="", study="", origin=ORIGIN, name=name):
                reason = "its SOP Instance UID is that of another scan; keep one of them."
                self.spool.refuse(entry, reason)
                self.spool.bound_refused()
                _LOG.warning("%s is refused: %s", printable(name), reason)

    def deliver(self) -> None:
        """Put what was restored into the output folder."""
        try:
            while time.monotonic() >= self._pause and (due := self.queue.due()):
                for delivery in due:
                    self._deliver(delivery)
        except DiskFullError as error:
            _LOG.error("%s", error)
            self._pause = time.monotonic() + PATIENCE_S

    def _deliver(self, delivery: Delivery) -> None:
        try:
            target = self._place(delivery)
        except DiskFullError:
            raise
        except (RbsError, OSError) as error:
            _LOG.error("%s", error)
            self.queue.failed(delivery.id, str(error), self.queue.clock() + PATIENCE_S)
            return
        self.queue.delivered(delivery.id)
        entry = self.queue.get(delivery.entry)
        if entry and delivery.path == entry.output:
            seconds = f"{entry.seconds:.1f} s" if entry.seconds else ""
            line = f"{entry.name}: {', '.join(filter(None, [seconds, entry.reason]))} -> {target}"
            self.say(printable(line))

    def _place(self, delivery: Delivery) -> Path:
        """Copy a restored file under the name of its scan, or where that is taken with its number.

        Raises:
            OutputError: Both names are taken, or it cannot be written.
        """
        entry = self.queue.get(delivery.entry)
        assert entry
        content = delivery.path.read_bytes()
        target = self.output / entry.name
        for path in (target, target.with_stem(f"{target.stem}_{entry.id}")):
            path = path if delivery.path == entry.output else deviation_file(path)
            if not path.exists():
                with whole_file(path) as temporary:
                    temporary.write_bytes(content)
                    flush(temporary)
                flush(path.parent)
            if path.read_bytes() == content:  # also where a death came after it was written
                return path
        raise OutputError("the output exists already", file=target, remedy="move it elsewhere")


def _shape(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None if it is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
