"""Scans for tests of the node, and a restorer that needs no weights."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nm_files import poisson, write_nm
from scipy.ndimage import gaussian_filter

from rbs.clinic.restore_scans import ScanRestorer
from rbs.node.queue import Entry, Queue
from rbs.node.settings import Settings
from rbs.node.spool import Spool
from rbs.node.worker import Worker


@dataclass(frozen=True)
class Filter:
    """A Gaussian filter in the place of a network."""

    name: str = "Gaussian filter"
    sha256: str = "0" * 64
    provenance: dict[str, Any] = field(default_factory=dict)
    scale: int = 1
    before: Callable[[], None] = lambda: None

    def restore(self, rapid: np.ndarray, exposure: float) -> np.ndarray:
        self.before()
        return gaussian_filter(np.asarray(rapid, np.float32), (0, 1.5, 1.5), mode="nearest") / exposure


class NoAudit:
    """An audit log that keeps the events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def record(self, event: str, *, entry: int = 0, **facts: object) -> None:
        self.events.append((event, entry))


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of that size at a folder, as tmpfs; skips where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def die(*_: object, **__: object) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], object], by: int = signal.SIGKILL) -> bool:
    """Work in a copy of this process; True if a signal ended that before it was done."""
    if not (child := os.fork()):
        try:
            work()
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == by


class Node:
    """Queue, spool and worker of a node without a network, in a folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] | None = None, **settings: Any) -> None:
        self.settings = Settings(spool=folder / "spool", **settings)
        self.queue = Queue(self.settings.spool, **({"clock": clock} if clock else {}))
        self.spool = Spool(self.settings, self.queue)
        self.audit = NoAudit()
        self.folder = folder
        self.worker = self.worker_with(Filter())

    def worker_with(self, loaded: Filter) -> Worker:
        restorer = ScanRestorer(loaded, None, self.settings.reading.model_dump())
        return Worker(self.settings, self.queue, self.spool, restorer, self.audit, ["pacs"])

    def receive(self, name: str, study: str = "1.2", uid: str = "", **options: Any) -> Entry:
        path = write_scan(self.folder / f"{name}.dcm", study=study, **options)
        entry = self.spool.take(path.read_bytes(), uid=uid or f"1.2.{name}", study=study, origin="CAM")
        assert entry
        return entry

    def work(self) -> None:
        while self.worker.step():
            pass


def write_scan(path: Path, *, seed: int = 0, views: tuple[str, ...] = ("anterior",), **options: Any) -> Path:
    """Write a small rapid scan."""
    return write_nm(path, poisson(len(views), seed, rows=96, columns=64), views=views, **options)
