"""The node among programs of hospitals: dcmtk and Orthanc send to it, and take what it sends.

They are Debian packages (`dcmtk`, `orthanc`, `orthanc-dicomweb`); without them these tests are
skipped. Their logs must hold no warning.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from judges import judge
from nm_files import write_nm
from node_peers import Node, certificates, restored, scan, sending
from servers import free_port, until

from rbs.errors import RbsError
from rbs.node.delivery import _DicomWeb, echo
from rbs.node.settings import Settings
from rbs.scans.dicom.reader import read_nm

ENCODINGS = {
    "explicit": ((), "-xe"),
    "implicit": (("dcmconv", "+ti"), "-xi"),
    "big endian": (("dcmconv", "+tb"), "-xb"),
    "deflated": (("dcmconv", "+td"), "-xd"),
    "RLE": (("dcmcrle",), "-xr"),
    "JPEG-LS": (("dcmcjpls",), "-xt"),
    "JPEG Lossless": (("dcmcjpeg", "+e1"), "-xs"),
}


def storescu(port: int, *arguments: str | Path, called: str = "RBS") -> subprocess.CompletedProcess[str]:
    command = [judge("storescu"), "-v", "-aet", "CAMERA", "-aec", called, "127.0.0.1", str(port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def complaints(log: str) -> list[str]:
    """Warnings and errors of dcmtk."""
    return [line for line in log.splitlines() if line.startswith(("W:", "E:", "F:"))]


def test_dcmtk_gets_an_answer_to_its_echo(tmp_path: Path) -> None:
    with Node(tmp_path).receiving() as node:
        command = [judge("echoscu"), "-v", "-aec", "RBS", "127.0.0.1", str(node.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        assert complaints(done.stdout + done.stderr) == []
        command[3] = "OTHER"
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode
        assert "Called AE Title Not Recognized" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ENCODINGS)
def test_dcmtk_sends_in_every_encoding_that_keeps_counts(name: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    file = write_nm(tmp_path / "plain.dcm", np.random.default_rng(0).poisson(5, (1, 64, 32)))
    command, option = ENCODINGS[name]
    sent = tmp_path / "out" / "a.dcm" if command else file
    if command:
        subprocess.run([judge(command[0]), *command[1:], file, sent], check=True)
    with Node(tmp_path).receiving() as node:
        done = storescu(node.port, option, sent)
        assert done.returncode == 0, done.stderr
        assert complaints(done.stdout + done.stderr) == []
        (entry,) = node.queue.entries()
    kept = pydicom.dcmread(entry.path)
    assert kept.file_meta.TransferSyntaxUID == pydicom.dcmread(sent).file_meta.TransferSyntaxUID
    np.testing.assert_array_equal(read_nm(entry.path).counts, read_nm(file).counts)
    done = subprocess.run([judge("dcmdump"), "+fo", "-q", entry.path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_dcmtk_is_told_why_an_instance_is_not_taken(tmp_path: Path) -> None:
    file = scan(tmp_path / "a.dcm")
    ds = pydicom.dcmread(file)
    ds.PatientID = "P8"
    ds.save_as(tmp_path / "b.dcm")
    with Node(tmp_path).receiving() as node:
        assert storescu(node.port, file).returncode == 0
        done = storescu(node.port, "-nh", file, tmp_path / "b.dcm", file)
        answers = [line for line in (done.stdout + done.stderr).splitlines() if "Store Response" in line]
        assert ["Success" in answer for answer in answers] == [True, False, True], done
        assert "0x111" in answers[1]
        assert len(node.queue.entries()) == 1


def test_a_known_scan_in_another_encoding_is_taken_for_known(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    counts = np.random.default_rng(0).poisson(5, (1, 64, 32))
    file = write_nm(tmp_path / "plain.dcm", counts, SmallestImagePixelValue=0)
    with Node(tmp_path).receiving() as node:
        for (command, option), name in zip(ENCODINGS.values(), ENCODINGS, strict=True):
            sent, changed = file, tmp_path / "out" / f"{name} changed.dcm"
            if command:
                sent = tmp_path / "out" / f"{name}.dcm"
                subprocess.run([judge(command[0]), *command[1:], file, sent], check=True)
            done = storescu(node.port, option, sent)
            assert (done.returncode, complaints(done.stdout + done.stderr)) == (0, []), name
            if name not in ("explicit", "JPEG Lossless"):  # of the others see test_content
                continue
            changed.write_bytes(sent.read_bytes())
            subprocess.run([judge("dcmodify"), "-nb", "-m", "PatientID=P8", changed], check=True)
            done = storescu(node.port, option, changed)
            assert "0x111" in done.stdout + done.stderr, name
        (entry,) = node.queue.entries()
        assert [event["event"] for event in node.events()].count("duplicate") == len(ENCODINGS) - 1
    assert pydicom.dcmread(entry.path) == pydicom.dcmread(file)


def test_dcmtk_killed_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    large = pydicom.dcmread(scan(tmp_path / "a.dcm"))
    large.NumberOfFrames, large.Rows, large.Columns = 30, 1024, 1024
    large.PixelData = bytes(60 * 2**20)
    large.save_as(tmp_path / "a.dcm")
    with Node(tmp_path).receiving() as node:
        where = ["-aec", "RBS", "127.0.0.1", str(node.port)]
        for size in (1, 2**22):
            sender = subprocess.Popen(
                [judge("storescu"), *where, tmp_path / "a.dcm"], stderr=subprocess.DEVNULL
            )
            until(lambda size=size: any(path.stat().st_size >= size for path in node.files()))
            sender.kill()
            sender.wait(10)
            until(lambda: not node.files())
        assert node.queue.entries() == []
        assert storescu(node.port, tmp_path / "a.dcm").returncode == 0
        assert [path.stat().st_size > 60 * 2**20 for path in node.files()] == [True]


def tls_options(table: dict[str, Path]) -> list[str | Path]:
    return ["+tls", table["key"], table["certificate"], "+cf", table["authority"]]


def test_dcmtk_sends_encrypted(tmp_path: Path) -> None:
    tables = certificates(tmp_path / "ours", "node", "camera")
    stranger = certificates(tmp_path / "theirs", "stranger")["stranger"]
    file = scan(tmp_path / "a.dcm")
    with Node(tmp_path, tls=tables["node"]).receiving() as node:
        assert storescu(node.port, file).returncode
        foreign = {**stranger, "authority": tables["node"]["authority"]}
        assert storescu(node.port, *tls_options(foreign), file).returncode
        assert node.queue.entries() == []
        done = storescu(node.port, *tls_options(tables["camera"]), file)
        assert done.returncode == 0, done.stderr
        assert complaints(done.stdout + done.stderr) == []
        assert len(node.queue.entries()) == 1


@contextmanager
def storescp(folder: Path, *options: str | Path) -> Iterator[tuple[int, Path]]:
    """dcmtk's receiver: its port and its log; what it takes lies in `folder`."""
    folder.mkdir(exist_ok=True)
    port, log = free_port(), folder.parent / "storescp.log"
    command = [judge("storescp"), "-v", "-aet", "PACS", "-od", folder, *options, str(port)]
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            time.sleep(0.3)
            yield port, log
        finally:
            server.terminate()
            server.wait(10)


def pacs(port: int, **changes: Any) -> dict[str, Any]:
    return {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, **changes}


SHORT = {"first_s": 0.2, "longest_s": 0.5}


@pytest.mark.parametrize("options", [(), ("+xi",)], ids=["as it is", "implicit only"])
def test_dcmtk_takes_what_the_node_sends(options: tuple[str, ...], tmp_path: Path) -> None:
    with storescp(tmp_path / "taken", *options) as (port, log):
        node = Node(tmp_path, destinations=[pacs(port)])
        until(lambda: reachable(node.settings))
        files = restored(node, "a", "b", "c")
        with sending(node):
            until(lambda: len(node.queue.deliveries("sent")) == 3)
    taken = {
        str(ds.SOPInstanceUID): ds
        for path in (tmp_path / "taken").iterdir()
        for ds in [pydicom.dcmread(path)]
    }
    for file in files:
        ds = pydicom.dcmread(file)
        assert taken[str(ds.SOPInstanceUID)].PixelData == ds.PixelData
    assert len(taken) == 3
    assert complaints(log.read_text()) == []


def reachable(settings: Settings) -> bool:
    try:
        echo(settings.destinations[0], settings)
    except RbsError:
        return False
    return True


def test_dcmtk_that_breaks_off_gets_it_again(tmp_path: Path) -> None:
    with storescp(tmp_path / "taken", "--abort-during") as (port, _):
        node = Node(tmp_path, destinations=[pacs(port)], retries=SHORT)
        restored(node, "a")
        with sending(node):
            until(lambda: any(d.attempts for d in node.queue.deliveries("pending")))
    assert "ended the association or did not answer" in node.queue.deliveries("pending")[0].error


def test_dcmtk_takes_it_encrypted(tmp_path: Path) -> None:
    tables = certificates(tmp_path / "certificates", "node", "pacs")
    with storescp(tmp_path / "taken", *tls_options(tables["pacs"])) as (port, log):
        node = Node(tmp_path, destinations=[pacs(port, tls=True)], tls=tables["node"])
        until(lambda: reachable(node.settings))
        restored(node, "a")
        with sending(node):
            until(lambda: node.queue.deliveries("sent"))
    assert complaints(log.read_text()) == []


PASSWORD = f"Basic {base64.b64encode(b'rbs:secret').decode()}"


class Orthanc:
    """An Orthanc server in a folder; `changes` are further settings."""

    def __init__(self, folder: Path, node_port: int, **changes: Any) -> None:
        self.folder, self.dicom, self.web = folder, free_port(), free_port()
        folder.mkdir()
        self.settings = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomPort": self.dicom,
            "HttpPort": self.web,
            "DicomAet": "ORTHANC",
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomCheckCalledAet": True,
            "DicomModalities": {"rbs": ["RBS", "127.0.0.1", node_port]},
            "Plugins": [],
            **changes,
        }

    def __enter__(self) -> Orthanc:
        program = judge("Orthanc")
        (self.folder / "orthanc.json").write_text(json.dumps(self.settings))
        with (self.folder / "log").open("wb") as log:
            command = [program, "--verbose", self.folder / "orthanc.json"]
            self.server = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        until(self.answers, 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.terminate()
        self.server.wait(30)

    def answers(self) -> bool:
        assert self.server.poll() is None, self.log()
        try:
            return bool(self.ask("system"))
        except OSError:
            return False

    def ask(self, path: str, data: bytes | None = None) -> Any:
        return json.loads(self.read(path, data))

    def read(self, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.web}/{path}", data)
        request.add_header("Authorization", PASSWORD)
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def complaints(self) -> list[str]:
        """Warnings and errors between its start and its end."""
        lines = (
            self.log().partition("Orthanc has started")[2].partition("Orthanc is stopping")[0].splitlines()
        )
        return [line for line in lines if line[:1] in "WEF" and line[1:5].isdigit()]


def test_orthanc_sends_to_the_node_and_takes_from_it(tmp_path: Path) -> None:
    port = free_port()
    peer = {"ae_title": "ORTHANC", "addresses": ["127.0.0.1"], "port": 0}
    with Orthanc(tmp_path / "orthanc", port) as orthanc:
        peer["port"] = orthanc.dicom
        options = {"port": port, "peers": [peer], "commitment": True}
        destination = {**pacs(orthanc.dicom), "ae_title": "ORTHANC"}
        node = Node(tmp_path, destinations=[destination], **options)
        file = scan(tmp_path / "a.dcm")
        stored = orthanc.ask("instances", file.read_bytes())["ID"]
        with node.receiving():
            assert orthanc.ask("modalities/rbs/echo", b"{}") == {}
            answer = orthanc.ask("modalities/rbs/store", stored.encode())
            assert (answer["FailedInstancesCount"], answer["InstancesCount"]) == (0, 1)
            (entry,) = node.queue.entries()
            assert pydicom.dcmread(entry.path) == pydicom.dcmread(file)
            # It asks whether the node keeps it.
            asked = json.dumps({"Resources": [stored]}).encode()
            transaction = orthanc.ask("modalities/rbs/storage-commitment", asked)["ID"]
            report = until(
                lambda: (r := orthanc.ask(f"storage-commitment/{transaction}"))["Status"] != "Pending" and r
            )
            assert report["Status"] == "Success"
            assert [item["SOPInstanceUID"] for item in report["Success"]] == [entry.uid]
        echo(node.settings.destinations[0], node.settings)
        ds = pydicom.dcmread(restored(node, "b")[0])
        with sending(node):
            until(lambda: node.queue.deliveries("sent"))
        assert len(orthanc.ask("instances")) == 2
        found = orthanc.ask("tools/lookup", str(ds.SOPInstanceUID).encode())
        assert len(found) == 1
        assert orthanc.complaints() == []


PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def test_orthanc_takes_what_the_node_sends_by_dicomweb(tmp_path: Path) -> None:
    if not PLUGIN.exists():
        pytest.skip("orthanc-dicomweb is not installed")
    headers = tmp_path / "headers.txt"
    users = {"AuthenticationEnabled": True, "RegisteredUsers": {"rbs": "secret"}}
    with Orthanc(tmp_path / "orthanc", free_port(), Plugins=[str(PLUGIN)], **users) as orthanc:
        url = f"http://127.0.0.1:{orthanc.web}/dicom-web"
        destination = {"name": "research", "url": url, "headers": str(headers)}
        node = Node(tmp_path, destinations=[destination], retries=SHORT)
        headers.write_text("Authorization: Basic bm9ib2R5OnNlY3JldA==\n")
        with pytest.raises(RbsError, match=r"HTTP status 401\); check its `url` and `headers`"):
            echo(node.settings.destinations[0], node.settings)
        headers.write_text(f"Authorization: {PASSWORD}\n")
        echo(node.settings.destinations[0], node.settings)
        files = restored(node, "a", "b")
        with sending(node):
            until(lambda: len(node.queue.deliveries("sent")) == 2)
        assert [delivery.attempts for delivery in node.queue.deliveries()] == [0, 0]
        for file in files:
            ds = pydicom.dcmread(file)
            (found,) = orthanc.ask("tools/lookup", str(ds.SOPInstanceUID).encode())
            kept = pydicom.dcmread(BytesIO(orthanc.read(f"instances/{found['ID']}/file")))
            assert kept == ds
            np.testing.assert_array_equal(kept.pixel_array, ds.pixel_array)
        # What it holds already it takes again, as after an answer that was lost.
        (first, _) = node.queue.deliveries()
        _DicomWeb(node.settings.destinations[0]).send(first.path)
        assert len(orthanc.ask("instances")) == 2
        assert orthanc.complaints() == []
