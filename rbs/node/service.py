"""A node at work: reception, worker, delivery and monitor until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from rbs.errors import RbsError
from rbs.node.queue import TRIES, Queue
from rbs.node.settings import MIB, Settings
from rbs.node.spool import Spool
from rbs.node.worker import MEMORY, Job, alone
from rbs.utils.guard import explained, system_error

HOUSEKEEPING_S = 3600.0
LONGEST_S = 60.0
"""The most seconds between the death of a worker and the next one."""
PATIENCE_S = 10.0
"""Seconds that a worker which is to stop has to finish its scan; the next start does it anew."""

_LOG = logging.getLogger("rbs")


class Restoring:
    """The worker in a process of its own, which is started again whenever it dies.

    Args:
        settings: Of the node.
        destinations: Names of the receivers of what is restored.
    """

    def __init__(self, settings: Settings, destinations: Sequence[str]) -> None:
        self.settings = settings
        self.destinations = tuple(destinations)
        self.process: subprocess.Popen[str] | None = None
        self._deaths = 0
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="restoring", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def alive(self) -> bool:
        """True unless the worker dies again and again."""
        running = self.process is not None and self.process.poll() is None
        return self._thread.is_alive() and (running or self._deaths < TRIES)

    def stop(self) -> None:
        """Have the worker finish its scan, and end."""
        self.stopping.set()
        if self._thread.ident:
            self._thread.join()

    def _run(self) -> None:
        ended, pause = None, 0.0
        while not self.stopping.wait(pause):
            begun = time.monotonic()
            try:
                ended = self._work(ended)
            except OSError as error:  # no process could be made
                ended = explained(error, None).fault
            lived = time.monotonic() - begun > LONGEST_S
            self._deaths = 1 if lived else self._deaths + 1
            pause = min(2.0 ** (self._deaths - 1), LONGEST_S)
            if ended:
                _LOG.error("the process that restores ended: %s", ended)

    def _work(self, ended: str | None) -> str | None:
        """Run a worker to its end, and say how it ended if that was by itself."""
        # Without a limit of its arenas glibc keeps memory for every thread.
        environment = {"MALLOC_ARENA_MAX": "2", **os.environ}
        command = [sys.executable, "-m", "rbs.node.worker"]
        # A session of its own: Ctrl-C is for this process alone, which then stops the worker.
        self.process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        assert process.stdin
        job = Job(settings=self.settings, destinations=self.destinations, ended=ended)
        with suppress(BrokenPipeError):
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
        while not self.stopping.wait(0.2):
            if process.poll() is not None:
                return self._explained(process.returncode)
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return None

    def _explained(self, status: int) -> str:
        if status == MEMORY:
            return f"it needs more memory than memory_mib = {self.settings.memory_mib}"
        if status == -signal.SIGALRM:
            return f"it took longer than job_s = {self.settings.job_s:g}"
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


@contextmanager
def only_one(spool: Path) -> Iterator[None]:
    """Hold the spool as the one program that serves it.

    Raises:
        RbsError: Another one does, or it cannot be written.
    """
    try:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        (spool / "node.lock").touch()
    except OSError as error:
        raise system_error(error, spool) from error
    with alone(spool / "node.lock", wait=False) as free:
        if not free:
            raise RbsError("another program serves this spool", file=spool, remedy="stop it first")
        yield


def serve(settings: Settings, stop: threading.Event, started: Callable[[str], None] = print) -> None:
    """Run a node until `stop` is set.

    Args:
        settings: Of the node.
        stop: Ends it.
        started: Is told where the node can be reached, once it can.

    Raises:
        RbsError: The spool, a port or a certificate cannot be used.
    """
    from rbs.node.audit import Audit
    from rbs.node.delivery import Sender
    from rbs.node.monitor import Monitor
    from rbs.node.reception import Receiver

    with only_one(settings.spool):
        queue, audit = Queue(settings.spool), Audit(settings.audit)
        spool = Spool(settings, queue)
        restoring = Restoring(settings, [destination.name for destination in settings.destinations])
        receiver = Receiver(settings, queue, spool, audit)
        monitor = Monitor(settings, queue, restoring.alive)
        sending = threading.Event()
        sender = threading.Thread(target=Sender(settings, queue, audit).run, args=(sending,), name="sending")
        told = f"{settings.ae_title} listens at {settings.host}:{receiver.start()}"
        try:
            if settings.monitor_port is not None:
                told += f", status page at http://127.0.0.1:{monitor.start()}/"
            restoring.start()
            sender.start()
            audit.record("started")
            started(told)
            while True:
                housekeeping(settings, spool)
                if stop.wait(HOUSEKEEPING_S):
                    break
        finally:
            for each in (sending, restoring.stopping):  # all end at the same time
                each.set()
            receiver.stop()
            restoring.stop()
            if sender.ident:
                sender.join()
            monitor.stop()
            audit.record("stopped")


def housekeeping(settings: Settings, spool: Spool) -> None:
    """Delete scans that were sent `keep_days` ago, and files that a death left."""
    try:
        purged = spool.purge(spool.queue.clock() - settings.keep_days * 86400)
        spool.sweep(max(3600, 2 * settings.job_s))
    except (RbsError, OSError) as error:
        _LOG.error("%s", error)
        return
    if purged:
        _LOG.info("scans deleted or forgotten after %g days: %d", settings.keep_days, purged)


def checks(settings: Settings) -> Iterator[tuple[str, RbsError | None]]:
    """Try all that a node needs.

    Yields:
        Each need, and the reason why it is not met.
    """
    from rbs.node.audit import Audit
    from rbs.node.delivery import echo
    from rbs.node.monitor import HOST
    from rbs.node.worker import restorer_of

    def tried(need: str, work: Callable[[], object]) -> tuple[str, RbsError | None]:
        try:
            work()
        except RbsError as error:
            return need, error
        except Exception as error:  # the other needs are tried all the same
            return need, explained(error, None)
        return need, None

    yield tried(f"weights {settings.checkpoint}", lambda: restorer_of(settings))
    yield tried(f"spool {settings.spool}", lambda: _require_room(settings))
    yield tried(
        f"port {settings.port} of {settings.host}",
        lambda: _require_port(settings, (settings.host, settings.port)),
    )
    if settings.monitor_port is not None:
        need, page = f"status page, port {settings.monitor_port}", (HOST, settings.monitor_port)
        yield tried(need, lambda: _require_port(settings, page))
    if settings.audit:
        yield tried(f"audit log {settings.audit.file}", lambda: Audit(settings.audit).close())
    if settings.tls:
        yield tried("certificates", lambda: _require_certificates(settings))
    for destination in settings.destinations:
        yield tried(f"destination {destination.name}", partial(echo, destination, settings))


def _require_room(settings: Settings) -> None:
    """Raise DiskFullError or RbsError where the spool cannot be written."""
    spool = Spool(settings, Queue(settings.spool))
    spool.room(settings.limits.object_mib * MIB)
    for folder in (spool.received, spool.restored, spool.refused):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RbsError("it cannot be written", file=folder, remedy="check its permissions")


def _require_port(settings: Settings, address: tuple[str, int]) -> None:
    """Raise RbsError where another program than this node listens at that host and port."""
    with alone(settings.spool / "node.lock", wait=False) as stopped:
        if not stopped:  # the port is the running node's
            return
        try:
            family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
            with socket.socket(family[0], socket.SOCK_STREAM) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(family[4])
        except OSError as error:
            remedy = "stop the program that uses it, or choose another host or port"
            raise RbsError(f"it cannot be listened at ({error.strerror})", remedy=remedy) from error


def _require_certificates(settings: Settings) -> None:
    """Raise RbsError where certificate, key and authority cannot be used."""
    from rbs.node.tls import client_context, server_context

    assert settings.tls
    server_context(settings.tls)
    client_context(settings.tls)
