"""Peers of a DICOM node for tests: small NM files, a sender, a receiver and certificates."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from nm_files import write_nm
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import NuclearMedicineImageStorage, Verification

from rbs.node.audit import Audit
from rbs.node.delivery import Sender
from rbs.node.queue import Queue, Restoration
from rbs.node.reception import Receiver
from rbs.node.settings import Settings
from rbs.node.spool import Spool


class Node:
    """The reception of a node in a folder, with what belongs to it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        log = {"file": folder / "audit.jsonl", "site_key_file": folder / "site.key"}
        given = {"port": 0, "spool": folder / "spool", "audit": log, **options}
        given["limits"] = {"reserve_mib": 0, "idle_s": 3, **options.get("limits", {})}
        self.settings = Settings.model_validate(given)
        self.queue = Queue(self.settings.spool)
        self.spool = Spool(self.settings, self.queue)
        self.audit = Audit(self.settings.audit)
        self.port = 0

    @contextmanager
    def receiving(self) -> Iterator[Node]:
        receiver = Receiver(self.settings, self.queue, self.spool, self.audit)
        self.port = receiver.start()
        try:
            yield self
        finally:
            receiver.stop()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]

    def files(self) -> list[Path]:
        """Files of scans, finished or not."""
        spool = self.settings.spool
        return [path for name in ("received", "incoming") for path in (spool / name).iterdir()]


def scan(path: Path, **changes: Any) -> Path:
    """A small NM file of random counts."""
    return write_nm(path, np.random.default_rng(abs(hash(path)) % 2**32).poisson(5, (1, 16, 16)), **changes)


def send(
    port: int,
    *files: Path | Dataset,
    title: str = "CAMERA",
    called: str = "RBS",
    sop_class: str = NuclearMedicineImageStorage,
    syntax: str | None = None,
    **options: Any,
) -> list[Dataset]:
    """Answers of a node to some files; refused associations are an empty list."""
    entity = AE(title)
    entity.add_requested_context(sop_class, syntax)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60  # of a busy machine
    association = entity.associate("127.0.0.1", port, ae_title=called, **options)
    if not association.is_established:
        return []
    try:
        return [association.send_c_store(file) for file in files]
    finally:
        association.release()


def status_of_echo(node: Node) -> int:
    entity = AE("CAMERA")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", node.port, ae_title="RBS")
    try:
        return int(association.send_c_echo().Status)
    finally:
        association.release()


@contextmanager
def storage(
    answer: Callable[[Dataset], int] = lambda ds: 0,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    syntax: str | None = ExplicitVRLittleEndian,
    title: str = "PACS",
    **options: Any,
) -> Iterator[tuple[int, list[Dataset]]]:
    """A destination: its port, and what it took. It takes no images without a transfer syntax."""
    taken: list[Dataset] = []

    def store(event: evt.Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        if (status := answer(ds)) in (0, 0xB000):
            taken.append(ds)
        return status

    entity = AE(title)
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    if syntax:
        entity.add_supported_context(NuclearMedicineImageStorage, syntax)
    handlers = [(evt.EVT_C_STORE, store)]
    server = entity.start_server((host, port), block=False, evt_handlers=handlers, **options)
    assert server is not None
    try:
        yield server.server_address[1], taken
    finally:
        entity.shutdown()


def restored(node: Node, *names: str, study: str = "1.2") -> list[Path]:
    """Scans of which an output waits for delivery: the file as received, for want of a restored one."""
    files = []
    for name in names:
        file = scan(node.folder / f"{name}.dcm", study=study)
        uid = str(pydicom.dcmread(file).SOPInstanceUID)
        node.queue.add(uid=uid, study=study, path=file, sha256=uid, size=1, origin="CAMERA")
        entry = node.queue.begin()
        assert entry is not None
        node.queue.examined(entry.id, acquisition=name, view=None, deadline=0)
        node.queue.claim()
        destinations = [destination.name for destination in node.settings.destinations]
        assert node.queue.restored({entry.id: Restoration((file,), 1.0)}, destinations)
        files.append(file)
    return files


@contextmanager
def sending(node: Node) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=Sender(node.settings, node.queue, node.audit).run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def certificates(folder: Path, *names: str) -> dict[str, dict[str, Path]]:
    """An authority, and certificates signed by it for 127.0.0.1; the table `tls` of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _openssl(
        folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA", "-days", "2"
    )
    tables = {}
    for name in names:
        _openssl(folder, "req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"]
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)
        files = {"certificate": f"{name}.pem", "key": f"{name}.key", "authority": "ca.pem"}
        tables[name] = {kind: folder / file for kind, file in files.items()}
    return tables


def _openssl(folder: Path, *arguments: str | Sequence[str]) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
