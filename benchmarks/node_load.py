"""The load of a node: scans of phantoms, senders, an archive, and the node in a process."""

from __future__ import annotations

import hashlib
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import NuclearMedicineImageStorage, Verification

from rbs.node.queue import OPEN, Queue, State

SEED = 1
CHILDREN = 6
SENDERS = 8
MIB = 2**20
LOCAL = "127.0.0.1"
SETTINGS = """
port = {port}
spool = "{spool}"
wait_s = 90
monitor_port = {monitor}
[limits]
reserve_mib = {reserve}
per_minute = 10000
idle_s = 5
[retries]
first_s = 1
longest_s = 5
[[destinations]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}
"""


@dataclass
class Scan:
    """A file to send, and what is to become of it: "delivered", "refused", "stored nowhere"."""

    path: Path
    uid: str
    expected: str = "delivered"
    after: Scan | None = None  # sent before it: the other view, or the scan it is a copy of
    sent: threading.Event = field(default_factory=threading.Event)


# Scans.


def scans(
    folder: Path,
    phantoms: Path,
    number: int,
    *,
    binned: int = 1,
    plain: bool = False,
    own: Sequence[Path] = (),
) -> list[Scan]:
    """Files of a few children, each with UIDs of its own, in the order in which they are sent.

    Of 100 files 16 are the views of eight acquisitions in either order, 5 must be refused, 5 are
    copies of earlier ones and 2 are output of the node.

    Args:
        folder: Where they are written.
        phantoms: Folder of `rbs simulate`.
        number: Of files.
        binned: Pixels that become one, along each axis.
        plain: Scans of two views alone.
        own: Files that the node sent.
    """
    chance, made = random.Random(SEED), []
    folder.mkdir(parents=True, exist_ok=True)
    children = [_binned(path, binned) for path in sorted(phantoms.glob("P*/rapid.dcm"))[:CHILDREN]]
    # 8 acquisitions of two files for each 100 files, then what is left.
    kinds = [] if plain else ["pair"] * (number * 8 // 100) + ["refused"] * (number * 5 // 100)
    kinds += [] if plain else ["copy"] * (number * 5 // 100) + ["own"] * min(len(own), number * 2 // 100)
    kinds += ["two views"] * (number - len(kinds) - kinds.count("pair"))
    chance.shuffle(kinds)
    for index, kind in enumerate(kinds):
        ds = pydicom.dcmread(BytesIO(children[index % len(children)]))
        ds.StudyInstanceUID, ds.PatientID = generate_uid(), f"LOAD{index}"
        path = folder / f"{index:04d}.dcm"
        if kind == "pair":
            views = [_one_view(ds, view) for view in chance.sample(range(2), 2)]
            first = _written(views[0], path)
            made += [first, _written(views[1], path.with_suffix(".second.dcm"), after=first)]
        elif kind == "copy" and (earlier := [scan for scan in made if scan.expected == "delivered"]):
            origin = chance.choice(earlier)
            made.append(Scan(origin.path, origin.uid, after=origin))
        elif kind == "own":
            source = own[kinds[:index].count("own")]
            uid = str(pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID)
            made.append(Scan(source, uid, "stored nowhere"))
        elif kind == "refused":
            spoil = (_of_standard_velocity, _without_velocity, _no_nuclear_medicine)[index % 3]
            spoil(ds)
            expected = "turned away" if spoil is _no_nuclear_medicine else "refused"
            made.append(_written(ds, path, expected))
        else:
            made.append(_written(ds, path))
    return made


def _binned(path: Path, size: int) -> bytes:
    """A scan with larger pixels."""
    ds, out = pydicom.dcmread(path), BytesIO()
    counts = ds.pixel_array
    frames, rows, columns = counts.shape
    counts = counts.reshape(frames, rows // size, size, columns // size, size).sum((2, 4))
    ds.Rows, ds.Columns = counts.shape[1:]
    ds.PixelSpacing = [float(spacing) * size for spacing in ds.PixelSpacing]
    ds.LargestImagePixelValue = int(counts.max())
    ds.PixelData = counts.astype("<u2").tobytes()
    ds.save_as(out)
    return out.getvalue()


def _one_view(ds: pydicom.Dataset, view: int) -> pydicom.Dataset:
    one = pydicom.dcmread(_bytes(ds))
    counts = ds.pixel_array[view]
    one.NumberOfFrames, one.NumberOfDetectors = 1, 1
    one.EnergyWindowVector = one.DetectorVector = [1]
    one.DetectorInformationSequence = [ds.DetectorInformationSequence[view]]
    one.CountsAccumulated = int(counts.sum())
    one.LargestImagePixelValue = int(counts.max())
    one.PixelData = counts.astype("<u2").tobytes()
    return one


def _bytes(ds: pydicom.Dataset) -> BytesIO:
    out = BytesIO()
    ds.save_as(out)
    out.seek(0)
    return out


def _of_standard_velocity(ds: pydicom.Dataset) -> None:
    ds.ScanVelocity = "3.333333"


def _without_velocity(ds: pydicom.Dataset) -> None:
    del ds.ScanVelocity, ds.ScanLength, ds.ActualFrameDuration


def _no_nuclear_medicine(ds: pydicom.Dataset) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds.Modality = "OT"


def _written(ds: pydicom.Dataset, path: Path, expected: str = "delivered", after: Scan | None = None) -> Scan:
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.save_as(path)
    return Scan(path, str(ds.SOPInstanceUID), expected, after)


# Programs.


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as one:
        one.bind((LOCAL, 0))
        return int(one.getsockname()[1])


class Archive:
    """A destination that notes what comes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.came: list[dict[str, Any]] = []
        self._first: dict[object, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Take what comes."""
        self._entity = AE("ARCHIVE")
        self._entity.add_supported_context(Verification)
        self._entity.add_supported_context(NuclearMedicineImageStorage)
        handlers = [(evt.EVT_PDU_RECV, self._begun), (evt.EVT_C_STORE, self._store)]
        self._entity.start_server((LOCAL, self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """Be down."""
        self._entity.shutdown()

    def sources(self) -> set[str]:
        """SOP Instance UIDs of the scans whose restoration came."""
        return {one["source"] for one in self.came}

    def _begun(self, event: evt.Event) -> None:
        if type(event.pdu).__name__ == "P_DATA_TF":
            self._first.setdefault(event.assoc, time.time())

    def _store(self, event: evt.Event) -> int:
        content = event.encoded_dataset()
        header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
        uid = str(header.SOPInstanceUID)
        if len(self.came) < 20:
            (self.folder / f"{len(self.came)}.dcm").write_bytes(content)
        self.came.append(
            {
                "uid": uid,
                "source": str(header.SourceImageSequence[0].ReferencedSOPInstanceUID),
                "sha256": hashlib.sha256(content).hexdigest(),
                "first": self._first.pop(event.assoc, time.time()),
            }
        )
        return 0


class NodeProgram:
    """`rbs node` in a folder; it can be killed and started, and its memory is noted."""

    def __init__(
        self, folder: Path, archive: Archive, *, spool: Path | None = None, reserve: int = 100, more: str = ""
    ) -> None:
        self.folder, self.port, self.monitor = folder, free_port(), free_port()
        self.spool = spool or folder / "spool"
        self.archive, self.kills = archive, Counter[str]()
        self.memory: list[dict[str, float]] = []
        self._over = threading.Event()
        values = {"port": self.port, "spool": self.spool, "monitor": self.monitor, "archive": archive.port}
        (folder / "node.toml").write_text(SETTINGS.format(**values, reserve=reserve) + more)

    @contextmanager
    def running(self) -> Iterator[NodeProgram]:
        """The node and its destination, until the end of the block."""
        self.archive.start()
        self.start()
        self.queue = Queue(self.spool)
        watching = threading.Thread(target=self._watch)
        watching.start()
        try:
            yield self
            self.process.terminate()
            if self.process.wait(60):
                raise SystemExit(f"the node ended with status {self.process.returncode}")
        finally:
            self._over.set()
            self.process.kill()
            for worker in self._workers():
                os.kill(worker, signal.SIGKILL)
            watching.join()
            self.archive.stop()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "rbs.cli", "node", "--settings", str(self.folder / "node.toml")]
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while not self._listens():
            if self.process.poll() is not None:
                raise SystemExit(f"the node did not start; see {self.folder / 'node.log'}")
            time.sleep(0.1)

    def kill(self, what: str) -> None:
        """Kill the node, its worker or both."""
        workers = self._workers()
        self.kills[what] += 1
        if what != "worker":
            self.process.kill()
        if what != "node":
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
        if what != "worker":
            self.process.wait()
            self.start()

    def idle(self) -> bool:
        """True once nothing is left to be done."""
        return not self.queue.entries(*OPEN, State.RESTORED)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection((LOCAL, self.port), 1):
            return True
        return False

    def _workers(self) -> list[int]:
        """Processes that hold the lock of the worker, or wait for it."""
        found = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                folder = Path(f"/proc/{process}/fd")
                if any(os.readlink(link) == str(self.spool / "worker.lock") for link in folder.iterdir()):
                    found.append(int(process))
        return found

    def _watch(self) -> None:
        while not self._over.wait(2):
            workers = self._workers()
            sample = {"time": time.time(), "node": _memory(self.process.pid)}
            if len(workers) == 1:
                sample["worker"] = _memory(workers[0])
            self.memory.append(sample)


def _memory(process: int) -> float:
    """MiB of a process that are in memory."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


class Senders:
    """Several that send at once with storescu, and send again what was not acknowledged."""

    def __init__(
        self, port: int, made: Sequence[Scan], options: Sequence[str | Path] = (), every: float = 0
    ) -> None:
        self._port, self._options, self._every = port, options, every
        self._waiting: queue.SimpleQueue[Scan] = queue.SimpleQueue()
        self.acknowledged: dict[str, float] = {}
        self.answers = Counter[str]()
        self.turned_away: set[str] = set()
        self.stop = threading.Event()
        self._begun = time.monotonic()
        self._numbers = {id(scan): number for number, scan in enumerate(made)}
        for scan in made:
            self._waiting.put(scan)
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(SENDERS)
        ]
        for thread in self._threads:
            thread.start()

    def done(self) -> bool:
        """True once nobody sends any more."""
        return not any(thread.is_alive() for thread in self._threads)

    def join(self, seconds: float) -> None:
        """Wait until all is acknowledged or turned away."""
        until(self.done, seconds, self.stop)

    def _run(self, number: int) -> None:
        while not self.stop.is_set():
            try:
                scan = self._waiting.get_nowait()
            except queue.Empty:
                return
            due = self._begun + self._every * self._numbers[id(scan)]
            if self.stop.wait(max(due - time.monotonic(), 0)):
                return
            if scan.after:
                scan.after.sent.wait(600)
            while not self.stop.is_set() and not self._sent(scan, number):
                self.stop.wait(0.5)
            scan.sent.set()

    def _sent(self, scan: Scan, number: int) -> bool:
        """True if nothing is to be sent again."""
        answer = storescu(self._port, scan.path, *self._options, title=f"CAMERA{number}")
        self.answers[answer] += 1
        if answer == "Success":
            self.acknowledged.setdefault(scan.uid, time.time())
        elif answer not in ("none", "Refused: OutOfResources"):
            self.turned_away.add(scan.uid)
        else:
            return False
        return True


def storescu(port: int, path: Path, *options: str | Path, title: str = "CAMERA0", called: str = "RBS") -> str:
    """Send a file with dcmtk; the status it was given, or "none"."""
    times = ["-to", "10", "-ta", "20", "-td", "60"]
    command = ["storescu", "-v", *times, "-aet", title, "-aec", called, *options, LOCAL, str(port), path]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    _, found, answer = (done.stdout + done.stderr).partition("Received Store Response (")
    return answer.splitlines()[0].rpartition(")")[0] if found else "none"


def until(condition: Callable[[], Any], seconds: float, stop: threading.Event | None = None) -> None:
    """Wait; the end of the time is an error."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            if stop:
                stop.set()
            raise SystemExit(f"not done within {seconds:.0f} s")
        time.sleep(0.2)
