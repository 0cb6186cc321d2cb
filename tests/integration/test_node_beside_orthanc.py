"""A node with deploy/container.toml beside an Orthanc with deploy/orthanc.json and deploy/route.lua.

Addresses and ports are those of this machine instead of the containers'; all else is as deployed.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from judges import judge
from nm_files import poisson, write_nm
from servers import free_ports, until

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
PATIENCE_S = 300
"""Seconds: processes start, and restore."""


@contextmanager
def running(*command: str | Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)  # Python writes into the log where it hangs
                raise


class Hospital:
    """The folders and ports of both programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node_port, self.page, self.dicom, self.web = free_ports(4)
        settings = json.loads((DEPLOY / "orthanc.json").read_text())
        storage = str(folder / "storage")
        settings |= {"StorageDirectory": storage, "IndexDirectory": storage, "Plugins": []}
        settings |= {"DicomPort": self.dicom, "HttpPort": self.web, "LuaScripts": [str(DEPLOY / "route.lua")]}
        settings["DicomModalities"]["rbs"] |= {"Host": "127.0.0.1", "Port": self.node_port}
        (folder / "etc").mkdir()
        (folder / "etc" / "orthanc.json").write_text(json.dumps(settings))
        (folder / "etc" / "users.json").write_text('{"RegisteredUsers": {"admin": "secret"}}')
        text = (DEPLOY / "container.toml").read_text()
        text = text.replace("port = 4242", f"port = {self.dicom}").replace("11112", str(self.node_port))
        text = text.replace("8042", str(self.page)).replace("0.0.0.0", "127.0.0.1")
        text = text.replace('host = "orthanc"', 'host = "127.0.0.1"')
        (folder / "node.toml").write_text(text.replace("/var/lib/rbs", str(folder)))

    def orthanc(self, path: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.web}/{path}")
        request.add_header("Authorization", f"Basic {base64.b64encode(b'admin:secret').decode()}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    @staticmethod
    def answers(ask: Callable[[], Any]) -> bool:
        try:
            return bool(ask())
        except OSError:
            return False

    def health(self) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/health", timeout=60) as answer:
            return json.loads(answer.read())

    def send(self, *files: Path) -> None:
        send = [judge("storescu"), "-aet", "CAMERA", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom)]
        subprocess.run([*send, *files], check=True, timeout=60)

    def types(self) -> list[str]:
        """The image types that Orthanc holds."""
        tags = [self.orthanc(f"instances/{one}/simplified-tags") for one in self.orthanc("instances")]
        return sorted(one["ImageType"] for one in tags)

    def jobs(self) -> list[str]:
        return [job["State"] for job in self.orthanc("jobs?expand")]

    def events(self) -> list[str]:
        lines = (self.folder / "audit.jsonl").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    judge("storescu")
    return Hospital(tmp_path)


def test_a_rapid_scan_comes_back_restored_once(hospital: Hospital) -> None:
    folder = hospital.folder
    rapid = write_nm(folder / "rapid.dcm", poisson(2, rows=96), views=("anterior", "posterior"))
    standard = write_nm(folder / "standard.dcm", poisson(rows=96), velocity=20.0)
    tomography = write_nm(
        folder / "t.dcm", poisson(rows=96), ImageType=["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]
    )
    with running(judge("Orthanc"), "--verbose", folder / "etc", log=folder / "orthanc.log"):
        until(lambda: hospital.answers(lambda: hospital.orthanc("system")), PATIENCE_S)
        hospital.send(rapid)
        until(lambda: hospital.jobs() == ["Failure"], PATIENCE_S)  # the node is down
        python = (sys.executable, "-X", "faulthandler", "-m")
        node = (*python, "rbs.cli", "node", "--settings", folder / "node.toml")
        with running(*node, log=folder / "node.log"):
            until(lambda: hospital.answers(hospital.health), PATIENCE_S)
            hospital.send(standard, tomography)  # no rapid scans; what failed is sent again
            until(lambda: any(kind.startswith("DERIVED") for kind in hospital.types()), PATIENCE_S)
            until(lambda: hospital.health()["scans"]["sent"] == 1, PATIENCE_S)
            time.sleep(1)  # what should not go round again would by now
            health = hospital.health()
            assert health["healthy"]
            assert {state: number for state, number in health["scans"].items() if number} == {"sent": 1}
            assert len(hospital.types()) == 4
            assert hospital.jobs() == ["Success"]
    assert hospital.events() == ["started", "received", "restored", "sent", "stopped"]
    uids = [str(pydicom.dcmread(rapid)[name].value) for name in ("SOPInstanceUID", "StudyInstanceUID")]
    assert not re.search("|".join(["Secret", "P7", *uids]), (folder / "audit.jsonl").read_text())
    assert "Secret" not in (folder / "node.log").read_text()
