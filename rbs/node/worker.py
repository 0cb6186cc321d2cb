"""The process of a node that restores: it may die at any moment, and the next one goes on."""

from __future__ import annotations

import fcntl
import gc
import hashlib
import logging
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from rbs.clinic.acquisitions import acquisition_key
from rbs.clinic.outcomes import Refusal
from rbs.clinic.restore_scans import ScanRestorer
from rbs.clinic.sources import Source
from rbs.errors import DiskFullError, RbsError, printable
from rbs.node.queue import TRIES, Entry, Queue, Restoration
from rbs.node.settings import MIB, Settings
from rbs.node.spool import Spool, flush, remove
from rbs.scans.dicom.reader import read_nm
from rbs.utils.guard import attempt, wants_memory
from rbs.utils.memory import keep_memory
from rbs.utils.threads import wait_passively

if TYPE_CHECKING:
    from rbs.node.audit import Audit

LOOK_S = 0.2
"""Seconds between looks at a queue that has nothing to do."""

PAUSE_S = 30.0
"""Seconds to wait for room on a full disk."""

MEMORY = 71
"""Exit status of a worker that a scan wanted more memory of than it may have."""

_LOG = logging.getLogger("rbs")


class Job(BaseModel):
    """All that a worker is told.

    Attributes:
        settings: Of the node.
        destinations: Names of the receivers of what is restored.
        ended: How the worker before this one ended by itself, if it did.
    """

    settings: Settings
    destinations: tuple[str, ...]
    ended: str | None


class Worker:
    """Restoring what is in a queue, one scan or two views of an acquisition at a time.

    Args:
        settings: Of the node.
        queue: The queue.
        spool: Its files.
        restorer: Restores scans.
        audit: The audit log.
        destinations: Names of the receivers of what is restored.
    """

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        spool: Spool,
        restorer: ScanRestorer,
        audit: Audit,
        destinations: Sequence[str],
    ) -> None:
        self.settings = settings
        self.queue = queue
        self.spool = spool
        self.restorer = restorer
        self.audit = audit
        self.destinations = destinations

    def run(self, stop: threading.Event, ended: str | None = None) -> None:
        """Work until `stop` is set; what is being restored then is finished.

        Args:
            stop: Ends it.
            ended: How the worker before this one ended by itself, if it did.

        Raises:
            MemoryError: A scan needed more than there is; it goes back into the queue, and counts
                as one that ended the worker.
        """
        pause, left = 0.0, True  # first of all the scans that were left are taken back
        while not stop.wait(pause):
            try:
                if left:
                    self.queue.recover(ended)
                    left, ended = False, None
                pause = 0.0 if self.step() else LOOK_S
            except DiskFullError as error:  # entering takes room, too
                _LOG.error("%s", error)
                pause, left = PAUSE_S, True
                with suppress(DiskFullError):
                    self.queue.recover(ended)

    def step(self) -> bool:
        """Examine or restore what is next; False if there is nothing to do.

        Raises:
            DiskFullError: There is no room; what was begun is left as it is.
            MemoryError: See `run`.
        """
        if entry := self.queue.begin():
            if self._may_be_tried(entry):
                self._examine(entry)
            return True
        group = self.queue.claim()
        if tried := [entry for entry in group if self._may_be_tried(entry)]:
            self._restore(tried)
            gc.collect()
        return bool(group)

    def _may_be_tried(self, entry: Entry) -> bool:
        """Refuse a scan that ended the worker too often."""
        if entry.attempts <= TRIES:
            return True
        fault = f"it ended the process that restores {TRIES} times ({entry.reason})"
        self._refuse(entry, RbsError(fault, remedy="report it to the authors of rbs, without the scan"))
        return False

    def _examine(self, entry: Entry) -> None:
        """File a received scan by what it shows."""
        with _time_limit(self.settings.job_s):
            scan = attempt(entry.path, read_nm, entry.path, **self.restorer.reading)
        if isinstance(scan, RbsError):
            self._refuse(entry, scan)
            return
        key = hashlib.sha256(repr(acquisition_key(scan)).encode()).hexdigest()
        view = scan.views[0] if len(scan.views) == 1 else None
        deadline = self.queue.clock() + self.settings.wait_s
        self.queue.examined(entry.id, acquisition=key, view=view, deadline=deadline)

    def _restore(self, group: list[Entry]) -> None:
        """Restore a scan, or two views together."""
        by_path = {entry.path: entry for entry in group}
        outputs = {Source(entry.path, "scan", study=entry.study): self.spool.output(entry) for entry in group}
        done = {}
        with _time_limit(self.settings.job_s):
            for outcome in self.restorer.restore(outputs):
                entry = by_path[outcome.source]
                if isinstance(outcome, Refusal):
                    self._refuse(entry, outcome.error)
                    continue
                files = tuple(self.restorer.outputs(outcome.output).values())
                done[entry.id] = Restoration(files, outcome.seconds, outcome.warnings)
            for path in (path for own in done.values() for path in own.files):
                flush(path)
            flush(self.spool.restored)
        if not done:
            return
        if not self.queue.restored(done, self.destinations):
            remove(path for own in done.values() for path in own.files)  # one was dropped meanwhile
            self.queue.recover()
            return
        for id, own in done.items():
            self.audit.record("restored", entry=id, seconds=own.seconds)

    def _refuse(self, entry: Entry, error: RbsError) -> None:
        """Refuse a scan with a sentence that names no file.

        Raises:
            MemoryError: It is not the scan's fault alone; see `run`.
        """
        if isinstance(error.__cause__, Exception) and wants_memory(error.__cause__):
            raise MemoryError
        if self.spool.refuse(entry, told(error)):
            name = printable(entry.name) or f"scan {entry.id}"
            _LOG.warning("%s is refused: %s", name, told(error))
            self.audit.record("refused", entry=entry.id, uid=entry.uid, reason=type(error).__name__)
            for one in self.spool.bound_refused():
                _LOG.warning("refused scan %d, of %s, was deleted: too many are kept", one.id, one.origin)
                self.audit.record("deleted", entry=one.id, uid=one.uid, reason="limits.spool_mib")


def told(error: RbsError) -> str:
    """The sentence of an error without the file, whose place says nothing to a reader."""
    return str(RbsError(error.fault, remedy=error.remedy))


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the process if what is done inside takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def restorer_of(settings: Settings) -> ScanRestorer:
    """The weights with what the settings ask for.

    Raises:
        CheckpointError: They do not fit.
    """
    from rbs.inference.load import load_for_scans
    from rbs.weights.shipped import weights_path

    loaded = load_for_scans(settings.checkpoint, uncertainty=settings.uncertainty)
    uncertainty = None
    if settings.uncertainty:
        from rbs.restorers.uncertainty import head_file, load_uncertainty

        uncertainty = load_uncertainty(loaded, head_file(weights_path(settings.checkpoint)))  # type: ignore[arg-type]
    reading = settings.reading.model_dump()
    return ScanRestorer(loaded, uncertainty, reading, settings.standard_velocity, settings.strength)


@contextmanager
def alone(lock: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock file, which the system releases when the process ends.

    Args:
        lock: The file; it stays.
        wait: Wait for another process to release it.

    Yields:
        False if another process holds it.
    """
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _wait_for_end(stop: threading.Event) -> None:
    """Set `stop` when standard input is closed, as the system does where the node dies."""
    sys.stdin.read()
    stop.set()


def main() -> int:
    """Work until standard input, whose first line is a `Job`, is closed or SIGTERM comes.

    Returns:
        The exit status: 0, 1 after an error that is printed, `MEMORY` after a lack of memory.
    """
    from rbs.node.audit import Audit

    job = Job.model_validate_json(sys.stdin.readline())
    settings, stop = job.settings, threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_wait_for_end, args=(stop,), daemon=True).start()
    logging.basicConfig(format="%(asctime)s %(message)s")
    keep_memory()
    limit = settings.memory_mib * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        queue = Queue(settings.spool)
        # A worker whose node was killed finishes its scan first.
        with alone(settings.spool / "worker.lock", wait=True):
            spool, audit = Spool(settings, queue), Audit(settings.audit)
            worker = Worker(settings, queue, spool, restorer_of(settings), audit, job.destinations)
            worker.run(stop, job.ended)
    except RbsError as error:
        _LOG.error("%s", error)
        return 1
    except MemoryError:
        return MEMORY
    return 0


if __name__ == "__main__":
    wait_passively()
    sys.exit(main())
