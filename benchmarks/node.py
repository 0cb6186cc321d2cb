"""A DICOM node under load: what it loses, doubles and holds in memory, and how long scans take.

    python benchmarks/node.py WORK --phantoms data/phantoms [--only load kills] [--scans 500]
    python benchmarks/node.py WORK --table docs/results/node.csv

Needs dcmtk, whose storescu sends; `full` mounts a tmpfs as root, and `breaks` needs openssl. Every
part starts a node of its own at a free port of 127.0.0.1 and writes WORK/PART.json; a part that has
one is not measured again. A scan that was acknowledged counts as lost unless it came to the
destination or, where it must be refused, lies in the folder of refused scans with its sentence. It
counts as doubled if it came under two SOP Instance UIDs, or twice with different bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
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


# Parts.


def settled(node: NodeProgram, seconds: float) -> None:
    """Wait until nothing is left to be done."""
    until(node.idle, seconds)


def result(node: NodeProgram, senders: Senders, made: Iterable[Scan], begun: float) -> dict[str, Any]:
    """What became of the scans."""
    came = node.archive.came
    by_source, by_uid = defaultdict(set), defaultdict(set)
    for one in came:
        by_source[one["source"]].add(one["uid"])
        by_uid[one["uid"]].add(one["sha256"])
    refused = {}
    for entry in node.queue.entries(State.REFUSED):
        if entry.path.with_suffix(".txt").read_text().strip() and entry.path.stat().st_size:
            refused[entry.uid] = entry.reason
    scans_by_uid = {scan.uid: scan for scan in made}
    lost = []
    for uid in senders.acknowledged:
        wanted = scans_by_uid[uid].expected
        found = "delivered" if uid in by_source else "refused" if uid in refused else "stored nowhere"
        if found != wanted:
            lost.append({"uid": uid, "wanted": wanted, "found": found, "reason": refused.get(uid)})
    first = {}
    for one in came:
        first[one["source"]] = min(one["first"], first.get(one["source"], np.inf))
    waited = [first[uid] - at for uid, at in senders.acknowledged.items() if uid in first]
    own = [scan.uid for scan in scans_by_uid.values() if scan.expected == "stored nowhere"]
    known = {entry.uid for entry in node.queue.entries()}
    return {
        "sent": len(scans_by_uid),
        "calls": sum(senders.answers.values()),
        "answers": senders.answers,
        "acknowledged": len(senders.acknowledged),
        "unanswered": len(scans_by_uid) - len(senders.acknowledged) - len(senders.turned_away),
        "turned_away": len(senders.turned_away),
        "wrongly_turned_away": sum(scans_by_uid[u].expected != "turned away" for u in senders.turned_away),
        "refused": len(refused),
        "delivered": len(by_source),
        "own_output_stored": len(known.intersection(own)),
        "lost": lost,
        "doubled": sum(len(uids) > 1 for uids in by_source.values())
        + sum(len(contents) > 1 for contents in by_uid.values()),
        "sent_again": len(came) - len(by_uid),
        "seconds": waited,
        "scans_per_hour": 3600 * len(by_source) / (max(first.values()) - begun) if first else 0,
        "minutes": (time.time() - begun) / 60,
        "kills": node.kills,
        "memory": node.memory,
        "states": {str(state): count for state, count in node.queue.counts().items()},
        "load": os.getloadavg(),
        "cores": len(os.sched_getaffinity(0)),
    }


def idle(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """One scan at a time: each is sent when the one before has come back."""
    made = scans(work / "scans", phantoms, number, plain=True)
    archive = Archive(work / "archive")
    with NodeProgram(work, archive).running() as node:
        begun, senders = time.time(), Senders(node.port, [])
        for scan in made:
            senders.acknowledged[scan.uid] = _last_byte(node.port, scan.path)
            until(lambda scan=scan: scan.uid in archive.sources(), 120)
        settled(node, 60)
        return result(node, senders, made, begun)


def _last_byte(port: int, path: Path) -> float:
    """Send a file; the time of its last byte."""
    sent = []
    entity = AE("CAMERA0")
    entity.add_requested_context(NuclearMedicineImageStorage)
    handlers = [(evt.EVT_DATA_SENT, lambda event: sent.append(time.time()))]
    way = entity.associate(LOCAL, port, ae_title="RBS", evt_handlers=handlers)
    if way.send_c_store(pydicom.dcmread(path)).Status:
        raise SystemExit("a scan was not acknowledged")
    last = sent[-1]
    way.release()
    return last


def rate(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """Scans of the size of a whole body from eight senders at once."""
    return load(work, phantoms, number, binned=1)


def load(work: Path, phantoms: Path, number: int, binned: int = 2) -> dict[str, Any]:
    """Many scans from eight senders at once."""
    own = sorted((work.parent / "idle" / "archive").glob("*.dcm"))
    made = scans(work / "scans", phantoms, number, binned=binned, own=own)
    with NodeProgram(work, Archive(work / "archive")).running() as node:
        begun = time.time()
        senders = Senders(node.port, made)
        senders.join(900)
        received = time.time()
        settled(node, 3600)
        return result(node, senders, made, begun) | {"seconds_to_receive": received - begun}


def kills(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """SIGKILL for node, worker or both at random moments while scans come."""
    made = scans(work / "scans", phantoms, number, binned=2)
    chance = random.Random(SEED)
    with NodeProgram(work, Archive(work / "archive")).running() as node:
        begun = time.time()
        senders = Senders(node.port, made, every=2)
        for _ in range(20):
            time.sleep(chance.uniform(0.5, 9))
            node.kill(chance.choice(("node", "worker", "both")))
        senders.join(600)
        settled(node, 900)
        return result(node, senders, made, begun)


def down(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """No destination for a minute."""
    made = scans(work / "scans", phantoms, number, binned=2)
    archive = Archive(work / "archive")
    with NodeProgram(work, archive).running() as node:
        begun, senders = time.time(), Senders(node.port, made, every=1)
        until(lambda: len(archive.came) >= 2, 120)
        archive.stop()
        time.sleep(60)
        before, back = len(archive.came), time.time()
        archive.start()
        until(lambda: len(archive.came) > before, 120)
        resumed = time.time() - back
        senders.join(300)
        settled(node, 600)
        return result(node, senders, made, begun) | {"seconds_to_resume": resumed}


def full(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """A disk that fills up to the last byte, and has room again after a while."""
    made = scans(work / "scans", phantoms, number)
    spool = work / "spool"
    spool.mkdir()
    size = 3 * number
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(spool)], check=True)
    try:
        with NodeProgram(work, Archive(work / "archive"), reserve=0).running() as node:
            ballast = spool / "other_program"
            with ballast.open("wb") as file:
                file.write(bytes((size - number // 2) * MIB))
            begun, senders = time.time(), Senders(node.port, made)
            until(lambda: senders.answers["Refused: OutOfResources"] >= 20, 300)
            time.sleep(30)
            least = shutil.disk_usage(spool).free
            held, back = len(senders.acknowledged), time.time()
            ballast.unlink()
            until(lambda: len(senders.acknowledged) > held, 120)
            resumed = time.time() - back
            senders.join(300)
            settled(node, 900)
            told = {"seconds_to_resume": resumed, "acknowledged_before": held, "free_bytes_when_full": least}
            return result(node, senders, made, begun) | told
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=True)


def breaks(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """Senders that break off, are silent, unknown, or wrong about TLS, among good ones."""
    made = scans(work / "scans", phantoms, number, binned=2)
    broken = scans(work / "broken", phantoms, 20, plain=True)
    ours, theirs = _certificates(work / "ours"), _certificates(work / "theirs")
    tls = "[tls]\n" + "".join(f'{name} = "{path}"\n' for name, path in ours.items())
    peers = "".join(f'[[peers]]\nae_title = "CAMERA{n}"\naddresses = ["127.0.0.1"]\n' for n in range(SENDERS))
    foreign = _options({**theirs, "authority": ours["authority"]})
    chance, wrong = random.Random(SEED), Counter[str]()
    with NodeProgram(work, Archive(work / "archive"), more=tls + peers).running() as node:
        begun, senders = time.time(), Senders(node.port, made, _options(ours), every=1)
        silent = [socket.create_connection((LOCAL, node.port)) for _ in range(5)]
        for scan in broken:
            with _cut(node.port, chance.randrange(100, MIB)) as port:
                wrong["broke off: " + storescu(port, scan.path, *_options(ours))] += 1
            wrong["unknown title: " + storescu(node.port, scan.path, *_options(ours), title="STRANGER")] += 1
            wrong["other node: " + storescu(node.port, scan.path, *_options(ours), called="OTHER")] += 1
            wrong["no TLS: " + storescu(node.port, scan.path)] += 1
            wrong["foreign certificate: " + storescu(node.port, scan.path, *foreign)] += 1
        senders.join(300)
        settled(node, 600)
        for one in silent:
            one.close()
        known = {entry.uid for entry in node.queue.entries()}
        told = {"wrong": wrong, "of_wrong_stored": len(known & {scan.uid for scan in broken})}
        left = [path.name for path in (node.spool / "incoming").iterdir()]
        return result(node, senders, made, begun) | told | {"left_unfinished": left}


@contextmanager
def _cut(port: int, size: int) -> Iterator[int]:
    """A port that passes so many bytes on, and hangs up."""
    with socket.create_server((LOCAL, 0)) as server:

        def answers(source: socket.socket, to: socket.socket) -> None:
            with suppress(OSError):
                while piece := source.recv(65536):
                    to.sendall(piece)

        def serve() -> None:
            with suppress(OSError), server.accept()[0] as sender:
                with socket.create_connection((LOCAL, port)) as node:
                    threading.Thread(target=answers, args=(node, sender), daemon=True).start()
                    left = size
                    while left and (piece := sender.recv(min(left, 65536))):
                        node.sendall(piece)
                        left -= len(piece)
                sender.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]


def _certificates(folder: Path) -> dict[str, Path]:
    """An authority and one certificate for both sides."""
    folder.mkdir()
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"]
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        ["req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA"],
        ["req", *new[:-2], "-keyout", "one.key", "-out", "one.csr", "-subj", "/CN=one"],
        ["x509", "-req", "-in", "one.csr", "-out", "one.pem", *sign],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return {"certificate": folder / "one.pem", "key": folder / "one.key", "authority": folder / "ca.pem"}


def _options(tls: dict[str, Path]) -> list[str | Path]:
    return ["+tls", tls["key"], tls["certificate"], "+cf", tls["authority"]]


def long(work: Path, phantoms: Path, minutes: int) -> dict[str, Any]:
    """Scans that come for so many minutes, with kills, broken associations and a silent archive."""
    every = 4.0
    made = scans(work / "scans", phantoms, int(60 * minutes / every), binned=2)
    broken = scans(work / "broken", phantoms, 1, plain=True)[0]
    archive, chance, downs = Archive(work / "archive"), random.Random(SEED), 0
    with NodeProgram(work, archive).running() as node:
        begun, senders = time.time(), Senders(node.port, made, every=every)
        while not senders.done():
            time.sleep(chance.uniform(10, 40))
            event = chance.choice(("kill", "kill", "cut", "cut", "down"))
            if event == "kill":
                node.kill(chance.choice(("node", "worker", "both")))
            elif event == "cut":
                with _cut(node.port, chance.randrange(100, MIB)) as port:
                    storescu(port, broken.path)
            else:
                downs += 1
                archive.stop()
                time.sleep(20)
                archive.start()
        settled(node, 900)
        _screenshot(f"http://{LOCAL}:{node.monitor}/", work / "status.png")
        return result(node, senders, made, begun) | {"downs": downs}


def _screenshot(url: str, path: Path) -> None:
    if browser := shutil.which("chromium"):
        shown = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,1400"]
        subprocess.run([browser, *shown, f"--screenshot={path}", url], capture_output=True, timeout=90)


PARTS: dict[str, tuple[Callable[[Path, Path, int], dict[str, Any]], int, str]] = {
    "idle": (idle, 30, "one scan at a time"),
    "rate": (rate, 100, "8 senders at once, 1024 x 256 pixels"),
    "load": (load, 500, "8 senders at once, 512 x 128 pixels"),
    "kills": (kills, 60, "kill -9 at 20 random moments"),
    "down": (down, 40, "destination down for a minute"),
    "full": (full, 60, "disk full"),
    "breaks": (breaks, 40, "senders that break off, are unknown or not encrypted"),
    "long": (long, 20, "left alone"),
}
"""Each part, how many scans or minutes it takes, and its row in the table."""


def table(work: Path, path: Path) -> None:
    """Write the measured parts as CSV."""
    rows = []
    for name, (_, _, title) in PARTS.items():
        if not (work / f"{name}.json").exists():
            continue
        found = json.loads((work / f"{name}.json").read_text())
        for problem in ("wrongly_turned_away", "own_output_stored", "unanswered"):
            if found[problem]:
                raise SystemExit(f"{name}: {problem} {found[problem]}")
        row = {"row": title, "minutes": f"{found['minutes']:.1f}", "cores": found["cores"]}
        row |= {key: found[key] for key in ("sent", "acknowledged", "turned_away", "refused", "delivered")}
        row |= {"lost": len(found["lost"]), "doubled": found["doubled"], "sent_again": found["sent_again"]}
        row["kills"] = sum(found["kills"].values())
        row["scans_per_hour"] = f"{found['scans_per_hour']:.0f}" if name in ("rate", "load") else ""
        row |= {"median_s": "", "late_s": ""}
        if name in ("idle", "rate", "load"):  # elsewhere it says how long the trouble was
            row["median_s"], row["late_s"] = (f"{q:.1f}" for q in np.quantile(found["seconds"], (0.5, 0.95)))
        for process in ("node", "worker"):
            row |= _memory_of(found["memory"], process, steady=name == "load")
        rows.append(row)
    with path.open("w", newline="") as file:
        measured = [name for name in rows[0] if any(row[name] != "" for row in rows)]
        writer = csv.DictWriter(file, measured, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _memory_of(samples: list[dict[str, float]], process: str, *, steady: bool) -> dict[str, str]:
    """The most memory of a process, and its growth over the last three quarters of the time."""
    own = np.array([(sample["time"], sample[process]) for sample in samples if sample.get(process)])
    later = own[own[:, 0] > own[0, 0] + 0.25 * np.ptp(own[:, 0])]
    slope = 3600 * np.polyfit(later[:, 0] - later[0, 0], later[:, 1], 1)[0]
    shown = f"{round(slope)}" if steady else ""
    return {f"{process}_mib": f"{own[:, 1].max():.0f}", f"{process}_mib_per_hour": shown}


def main() -> None:
    """Measure the parts, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--phantoms", type=Path, help="folder of `rbs simulate`")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scans", type=int, help="instead of the usual number, minutes of `long`")
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.table:
        table(args.work, args.table)
        return
    for name in args.only:
        measure, number, _ = PARTS[name]
        work, answer = (args.work / name).absolute(), args.work / f"{name}.json"
        if answer.exists():
            continue
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        found = measure(work, args.phantoms, args.scans or number)
        answer.write_text(json.dumps(found, indent=1))
        short = {key: value for key, value in found.items() if key not in ("memory", "seconds")}
        print(name, json.dumps(short), flush=True)


if __name__ == "__main__":
    main()
