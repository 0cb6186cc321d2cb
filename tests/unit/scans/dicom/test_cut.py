"""The cut of counts in Nuclear Medicine objects."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from judges import judge

from rbs.cli.main import main
from rbs.errors import ScanError
from rbs.scans.censoring import cut_counts
from rbs.scans.dicom.deidentify import Pseudonyms, deidentify
from rbs.scans.dicom.modules import code
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import (
    Derivation,
    PatientHeader,
    encoded,
    write_recovered_nm,
    write_restored_nm,
    write_thinned_nm,
)
from rbs.scans.scan import Scan


@pytest.fixture
def cut_scan(acquired: Scan) -> Scan:
    return acquired.with_counts(cut_counts(acquired.counts, 2), cut=2)


@pytest.fixture
def cut_file(cut_scan: Scan, tmp_path: Path) -> Path:
    path = tmp_path / "cut.dcm"
    write_recovered_nm(
        path, cut_scan, patient=PatientHeader("P0001"), study_seed="s", uid_seed="u", description="cut"
    )
    return path


def test_the_cut_comes_back(cut_scan: Scan, cut_file: Path, capsys: pytest.CaptureFixture) -> None:
    scan = read_nm(cut_file, require_raw=False)
    assert scan.cut == 2
    assert (scan.counts == cut_scan.counts).all()
    main(["inspect", str(cut_file)])
    assert "a pixel of 0 means at most 2" in capsys.readouterr().out


def test_the_cut_stays_through_deidentification(cut_file: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean.dcm"
    clean.write_bytes(encoded(deidentify(cut_file, Pseudonyms(b"key")).dataset))
    assert read_nm(clean, require_raw=False).cut == 2


def test_a_thinned_scan_stays_cut_and_a_restored_one_is_not(cut_file: Path, tmp_path: Path) -> None:
    source = read_nm(cut_file, require_raw=False)
    thinned = source.with_counts(cut_counts(source.counts // 2, 2), velocity=80.0)
    write_thinned_nm(tmp_path / "t.dcm", thinned, source, description="half", uid_seed="t")
    assert read_nm(tmp_path / "t.dcm", require_raw=False).cut == 2
    restored = replace(source.from_aligned(source.aligned() * 1.9), velocity=20.0)
    assert restored.cut == 0
    write_restored_nm(tmp_path / "r.dcm", restored, source, derivation=Derivation("f", "1", "0" * 64))
    codes = [item.CodeValue for item in pydicom.dcmread(tmp_path / "r.dcm").DerivationCodeSequence]
    assert codes == ["RESTORED"]


def test_thinning_cuts_the_parts(acquired: Scan, cut_file: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "fast.dcm", tmp_path / "rest.dcm"]
    thinning = ["thin", str(cut_file), str(parts[0]), "--velocity", "60", "--remainder", str(parts[1])]
    assert main(thinning) == 0
    for part in parts:
        scan = read_nm(part)
        assert scan.cut == 2
        assert (scan.counts[scan.counts > 0] > 2).all()


def test_counts_that_a_cut_leaves_no_room_for_are_refused(cut_file: Path) -> None:
    ds = pydicom.dcmread(cut_file)
    ds.DerivationCodeSequence = [code("CUT5", "99RBS", ""), *list(ds.DerivationCodeSequence)[1:]]
    ds.save_as(cut_file)
    with pytest.raises(ScanError, match="5 or less"):
        read_nm(cut_file, require_raw=False)


def test_the_object_conforms(cut_file: Path, cut_scan: Scan, tmp_path: Path) -> None:
    plain = tmp_path / "plain.dcm"
    write_recovered_nm(
        plain,
        replace(cut_scan, cut=0),
        patient=PatientHeader("P0001"),
        study_seed="s",
        uid_seed="u",
        description="cut",
    )

    def said(path: Path) -> list[str]:
        run = subprocess.run([judge("dciodvfy"), str(path)], capture_output=True, text=True, check=False)
        return [line for line in run.stderr.splitlines() if "<99RBS>" not in line]

    assert said(cut_file) == said(plain)
