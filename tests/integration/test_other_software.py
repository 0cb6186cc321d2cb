"""What rbs writes, read by dcmtk and kept by an Orthanc server; what dcmtk encodes, read by rbs.

dcmtk and Orthanc are Debian packages (`dcmtk`, `orthanc`); without them these tests are skipped.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from judges import judge
from servers import free_ports

from rbs.degradation.thinning import Thinning
from rbs.errors import ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.segmentation import write_segmentation
from rbs.scans.dicom.writer import (
    Derivation,
    PatientHeader,
    StudyHeader,
    write_acquired_nm,
    write_deviation_nm,
    write_restored_nm,
    write_thinned_nm,
)
from rbs.scans.scan import Scan, View

KINDS = ("acquired", "thinned", "restored", "deviation", "regions")
MADE = ("restored", "deviation", "regions")
"""Those that hold no counts."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of each kind that rbs writes: two views of a child whose name is not ASCII."""
    folder = tmp_path_factory.mktemp("written")
    y, x = np.mgrid[:96, :64]
    body = 0.2 + 6 * np.exp(-((y - 45) ** 2 / 800 + (x - 25) ** 2 / 150))
    counts = np.random.default_rng(0).poisson(np.stack([body, 0.7 * body[:, ::-1]])).astype(np.int32)
    scan = Scan(counts, (View.ANTERIOR, View.POSTERIOR), (2.4, 2.2), 20.0, 300.0, "P1")
    files = {kind: folder / f"{kind}.dcm" for kind in KINDS}
    patient = PatientHeader("P1", "Müller^Zoë", sex="F", age_y=8.3, weight_kg=25.1, activity_mbq=205)
    study = StudyHeader("P1", datetime(2024, 1, 2, 9))
    write_acquired_nm(files["acquired"], scan, patient=patient, study=study, uid_seed="P1")
    source = read_nm(files["acquired"])
    kept = Thinning(0.5)(source.counts, np.random.default_rng(1))
    rapid = replace(source, counts=kept, velocity=40.0, duration_s=150.0)
    write_thinned_nm(files["thinned"], rapid, source, description="half of it", uid_seed="half")
    rapid = read_nm(files["thinned"])
    restored = replace(rapid, counts=rapid.counts * np.float32(1.9), velocity=20.0)
    by = Derivation("f1", "0.1.0", "ab" * 32)
    write_restored_nm(files["restored"], restored, rapid, derivation=by)
    spread = replace(restored, counts=0.1 * np.sqrt(restored.counts))
    write_deviation_nm(files["deviation"], spread, rapid, derivation=by)
    labels = np.digitize(rapid.counts, (1, 2, 4)).astype(np.uint8)
    write_segmentation(files["regions"], labels, rapid, derivation=by)
    return files


def contents(ds: pydicom.FileDataset) -> list[tuple[object, ...]]:
    """Every element, those in sequences too."""
    return [(e.tag, e.VR, e.value) for e in ds.iterall()]


@pytest.mark.parametrize("kind", KINDS)
def test_dcmtk_reads_all_elements_and_pixels(kind: str, written: dict[str, Path], tmp_path: Path) -> None:
    command = [judge("dcmdump"), "+L", "+W", tmp_path, written[kind]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""  # no warning
    ds = pydicom.dcmread(written[kind])
    (raw,) = tmp_path.iterdir()
    assert raw.read_bytes() == ds.PixelData
    shown = [line for line in done.stdout.splitlines() if line.lstrip().startswith("(")]
    tags = [f"({e.tag.group:04x},{e.tag.element:04x})" for e in ds.iterall()]
    assert set(tags) <= {line.split()[0] for line in shown}


ENCODINGS = {
    "big endian": ("dcmconv", "+tb"),
    "implicit": ("dcmconv", "+ti"),
    "deflated": ("dcmconv", "+td"),
    "without a preamble": ("dcmconv", "-F"),
    "sequences of undefined length": ("dcmconv", "-e"),
    "group lengths": ("dcmconv", "+g"),
    "padded": ("dcmconv", "+p", "512", "64"),
    "RLE": ("dcmcrle",),
    "JPEG-LS": ("dcmcjpls",),
    "JPEG Lossless, first-order prediction": ("dcmcjpeg", "+e1"),
    **{f"JPEG Lossless, predictor {n}": ("dcmcjpeg", "+el", "+sv", f"{n}") for n in range(1, 8)},
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_what_dcmtk_encodes_is_read_as_it_was(name: str, written: dict[str, Path], tmp_path: Path) -> None:
    command, *options = ENCODINGS[name]
    subprocess.run([judge(command), *options, written["acquired"], tmp_path / "a.dcm"], check=True)
    scan, before = read_nm(tmp_path / "a.dcm"), read_nm(written["acquired"])
    np.testing.assert_array_equal(scan.counts, before.counts)
    assert (scan.views, scan.velocity, scan.spacing_mm) == (before.views, before.velocity, before.spacing_mm)
    assert scan.provenance.header is not None
    assert str(scan.provenance.header.PatientName) == "Müller^Zoë"


@pytest.mark.parametrize("options", [("dcmcjpls", "+en"), ("dcmcjpeg", "+ee")])
def test_what_dcmtk_compresses_otherwise_is_refused(
    options: tuple[str, str], written: dict[str, Path], tmp_path: Path
) -> None:
    command, option = options
    twelve = pydicom.dcmread(written["acquired"])
    twelve.BitsStored, twelve.HighBit = 12, 11  # all that lossy JPEG can take
    twelve.save_as(tmp_path / "twelve.dcm")
    subprocess.run([judge(command), option, tmp_path / "twelve.dcm", tmp_path / "a.dcm"], check=True)
    with pytest.raises(ScanError, match="loss") as caught:
        read_nm(tmp_path / "a.dcm")
    assert caught.value.remedy


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """Orthanc server without its system service: DICOM port and address of its web API."""
    program, folder = judge("Orthanc"), tmp_path_factory.mktemp("orthanc")
    dicom, web = free_ports(2)
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomPort": dicom,
        "HttpPort": web,
        "DicomAet": "ORTHANC",
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log, cwd=folder)
        try:
            address = f"http://127.0.0.1:{web}"
            for _ in range(150):
                try:
                    fetch(f"{address}/system")
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    time.sleep(0.2)
            yield dicom, address
        finally:
            server.terminate()
            server.wait(30)


def fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return bytes(answer.read())


def test_an_orthanc_server_takes_and_gives_back_what_is_written(
    orthanc: tuple[int, str], written: dict[str, Path], tmp_path: Path
) -> None:
    port, address = orthanc
    send = [judge("storescu"), "-R", "-aec", "ORTHANC", "127.0.0.1", str(port)]
    subprocess.run([*send, *written.values()], check=True, timeout=60)
    stored = {}
    for instance in json.loads(fetch(f"{address}/instances")):
        path = tmp_path / f"{instance}.dcm"
        path.write_bytes(fetch(f"{address}/instances/{instance}/file"))
        stored[str(pydicom.dcmread(path).SOPInstanceUID)] = path
    assert len(stored) == len(KINDS)
    for kind in KINDS:
        before = pydicom.dcmread(written[kind])
        path = stored[str(before.SOPInstanceUID)]
        after = pydicom.dcmread(path)
        assert contents(after) == contents(before)
        assert after.file_meta.MediaStorageSOPClassUID == before.SOPClassUID
        if kind not in MADE:
            np.testing.assert_array_equal(read_nm(path).counts, read_nm(written[kind]).counts)
    # One study with a series for each.
    (study,) = json.loads(fetch(f"{address}/studies"))
    assert len(json.loads(fetch(f"{address}/studies/{study}"))["Series"]) == len(KINDS)
    tags = json.loads(fetch(f"{address}/patients/{json.loads(fetch(f'{address}/patients'))[0]}"))
    assert tags["MainDicomTags"]["PatientName"] == "Müller^Zoë"
