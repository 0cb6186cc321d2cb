"""A few hundred damaged files through the reader (`tests/fuzz_reader.py` takes thousands), some by hand."""

import io
import resource
import struct
import sys
import time
import zlib
from pathlib import Path

import fuzz_reader
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian
from vendor_files import QUIRKS, run_lengths, stored_as

from rbs.errors import RbsError, ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import Scan

PLAIN = QUIRKS["two frames, coded views"]


def test_damaged_files_are_read_truly_or_refused(tmp_path: Path) -> None:
    outcomes, wrong = fuzz_reader.fuzz(tmp_path, range(400), seed=2, dcmtk=False)
    assert wrong == []
    assert outcomes["refused"] > 100
    assert outcomes["read, counts as in the intact file"] > 50


def test_the_faults_meet_pixels_and_geometry_too(tmp_path: Path) -> None:
    files = fuzz_reader.intact_files(tmp_path)
    intact = files["two frames, coded views"].data
    faults = [fuzz_reader.damaged(intact, np.random.default_rng(n)) for n in range(200)]
    assert len({data for data, _ in faults}) > 150
    names = " ".join(name for _, name in faults)
    for name in (
        "bits",
        "truncation",
        "length",
        "tag",
        "vr",
        "twice",
        "without",
        "nesting",
        "geometry 00280010",
    ):
        assert name in names, name
    # The walk through the elements is that of pydicom.
    found = {e.tag for e in fuzz_reader.parts(intact)[2]}
    assert {int(e.tag) for e in pydicom.dcmread(io.BytesIO(intact)).iterall()} <= found


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (lambda scan: scan.with_counts(scan.counts[:, ::-1]), "other counts"),
        (lambda scan: scan.with_counts(scan.counts + 1), "other counts"),
        (lambda scan: 1 / 0, "ZeroDivisionError"),
        (lambda scan: (_ for _ in ()).throw(ScanError("it is bad")), "a bad refusal"),
    ],
)
def test_the_judge_condemns(reader, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_reader, "read_nm", lambda *a, **o: reader(read_nm(*a, **o)))
    _, wrong = fuzz_reader.fuzz(tmp_path, range(40), seed=2, dcmtk=False)
    assert wrong
    assert all(said in text for text in wrong)


def test_damaged_pixels_are_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(path: Path, **options: object) -> Scan:
        scan = read_nm(path, **options)
        warned.said.clear()
        return scan

    warned = fuzz_reader.Warned()
    path = PLAIN.write(tmp_path / "a.dcm")
    intact = fuzz_reader.Intact(path.read_bytes(), {}, PLAIN.counts)
    data = bytearray(intact.data)
    data[-500] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(fuzz_reader, "read_nm", silent)
    with pytest.raises(fuzz_reader.Wrong, match="nobody is told"):
        fuzz_reader.judge(path, intact, warned, dcmtk=False)


def refusal(path: Path) -> ScanError:
    """The refusal of a file, which may take neither long nor much memory."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RbsError) as caught:
        read_nm(path)
    assert time.perf_counter() - start < 5
    if sys.platform == "linux":  # counts in kB, others in bytes
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
    assert caught.value.file == path
    return caught.value


def test_a_small_file_that_inflates_to_a_huge_one(tmp_path: Path) -> None:
    ds = pydicom.dcmread(PLAIN.write(tmp_path / "a.dcm"))
    stored_as(DeflatedExplicitVRLittleEndian)(ds, tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    start = 132 + 12 + pydicom.dcmread(tmp_path / "a.dcm").file_meta.FileMetaInformationGroupLength
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(zlib.decompress(data[start:], -zlib.MAX_WBITS))
    bomb += b"".join(packer.compress(bytes(2**24)) for _ in range(16)) + packer.flush()
    (tmp_path / "a.dcm").write_bytes(data[:start] + bomb)
    assert len(bomb) < 2**19
    assert "inflates" in refusal(tmp_path / "a.dcm").fault


@pytest.mark.parametrize("frames", ["1", "65535", "2147483647"])
def test_a_header_that_asks_for_gigabytes_of_pixels(frames: str, tmp_path: Path) -> None:
    ds = pydicom.dcmread(PLAIN.write(tmp_path / "a.dcm"))
    run_lengths(ds)
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames, 65535, 65535
    ds.save_as(tmp_path / "a.dcm")
    assert "more than a whole-body scan has" in refusal(tmp_path / "a.dcm").fault


def test_an_element_that_claims_gigabytes(tmp_path: Path) -> None:
    path = PLAIN.write(tmp_path / "a.dcm")
    data = path.read_bytes()
    huge = struct.pack("<I", 0xFFFFFFF0)
    for tag in (b"\x54\x00\x12\x00SQ", b"\xe0\x7f\x10\x00OW"):
        place = data.rindex(tag) + 8
        path.write_bytes(data[:place] + huge + data[place + 4 : -2])
        assert "pixels" in refusal(path).fault
    # All that there is after it is what it should hold: nothing is lost.
    path.write_bytes(data[:place] + huge + data[place + 4 :])
    np.testing.assert_array_equal(read_nm(path).counts, PLAIN.counts)


@pytest.mark.parametrize("depth", [50, 1000, 20_000])
def test_sequences_in_sequences(depth: int, tmp_path: Path) -> None:
    path = PLAIN.write(tmp_path / "a.dcm")
    data = path.read_bytes()
    place = data.rindex(b"\x28\x00\x02\x00US")  # in front of the description of the pixels
    begin = struct.pack("<HH2sHIHHI", 0x0027, 0x1001, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    path.write_bytes(data[:place] + begin * depth + end * depth + data[place:])
    if depth > 100:
        assert "cannot be decoded" in refusal(path).fault
    else:
        np.testing.assert_array_equal(read_nm(path).counts, PLAIN.counts)
