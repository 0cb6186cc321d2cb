"""Comparison of two files in a process of its own."""

import shutil

import pytest
from nm_files import poisson, write_nm
from pydicom import dcmread
from pydicom.uid import RLELossless

from rbs.node import comparison
from rbs.node.comparison import same_scan


@pytest.fixture
def scan(tmp_path):
    return write_nm(tmp_path / "a.dcm", poisson(rows=2048, columns=1024))


def test_the_same_scan_in_another_transfer_syntax_is_the_same(scan, tmp_path):
    ds = dcmread(scan)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "rle.dcm")
    assert same_scan(scan, tmp_path / "rle.dcm")
    ds.PatientID = "another"
    ds.save_as(tmp_path / "other.dcm")
    assert not same_scan(scan, tmp_path / "other.dcm")


def test_what_is_damaged_slow_or_large_is_not_the_same(scan, tmp_path, monkeypatch):
    copy = shutil.copy(scan, tmp_path / "copy.dcm")
    (tmp_path / "cut.dcm").write_bytes(scan.read_bytes()[:300])
    assert not same_scan(scan, tmp_path / "cut.dcm")
    assert not same_scan(scan, tmp_path / "missing.dcm")
    monkeypatch.setattr(comparison, "MEMORY_MIB", 1)
    assert not same_scan(scan, copy)
    monkeypatch.undo()
    monkeypatch.setattr(comparison, "TIME_S", 0.01)
    assert not same_scan(scan, copy)
    monkeypatch.undo()
    assert same_scan(scan, copy)
