"""`rbs index`."""

import json
from pathlib import Path

import pytest
from nm_files import poisson, write_nm
from PIL import Image
from pydicom.uid import CTImageStorage

from rbs.data.manifest import Manifest


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """One pair, a standard scan of someone else, two CT images and a copy."""
    folder = tmp_path / "export"
    both = {"views": ("anterior", "posterior"), "study": "1.2.3"}
    write_nm(folder / "1", poisson(2, seed=1), velocity=40, AcquisitionTime="100000", **both)
    write_nm(folder / "2", poisson(2, seed=2, level=40.0), velocity=20, AcquisitionTime="100800", **both)
    (folder / "3").write_bytes((folder / "2").read_bytes())
    write_nm(folder / "4", poisson(), velocity=20, PatientID="P8")
    for name in ("ct1", "ct2"):
        write_nm(folder / name, poisson(), SOPClassUID=CTImageStorage, Modality="CT")
    return folder


def test_the_terminal_sums_up_what_was_done(rbs, export: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.csv"
    status, text, error = rbs("index", export, "-o", out, "--shares", 0, 0, 100)
    assert (status, error) == (0, "")
    assert "6 DICOM files: 3 used, 3 refused (6 read, 0 known" in text
    assert "      2  it is CT Image Storage (modality CT), no Nuclear Medicine image\n" in text
    assert "      1  it holds the counts of ..." in text
    assert f"each with its reason and remedy: {tmp_path / 'manifest.refused.csv'}" in text
    assert f"{out}: 1 pairs, 1 standard scans alone" in text
    assert "test   2 patients: 1 pairs, 1 alone" in text
    assert "look at" not in text  # the other splits were not asked for
    assert [bool(case.rapid) for case in Manifest.read(out).split("test")] == [True, False]
    status, text, _ = rbs("index", export, "-o", out, "--shares", 0, 0, 100, "--overwrite")
    assert (status, "(0 read, 6 known from an earlier run)" in text) == (0, True)


def test_json_counts_what_was_done(rbs, export: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.csv"
    status, text, error = rbs("index", export, "-o", out, "--shares", 0, 0, 100, "--workers", 1, "--json")
    found = json.loads(text)
    assert (status, error, found["kind"], found["manifest"]) == (0, "", "scans", str(out))
    assert (found["files"], found["read"], len(found["refusals"])) == (6, 6, 3)
    assert found["splits"]["test"] == {"patients": 2, "pairs": 1, "alone": 1}
    assert found["warnings"] == []


def test_a_picture_beside_scans_does_not_make_them_frames(rbs, export: Path, tmp_path: Path) -> None:
    Image.new("L", (64, 64)).save(export / "0.png")
    assert rbs("index", export, "-o", tmp_path / "m.csv", "--workers", 1)[0] == 0
    assert len(Manifest.read(tmp_path / "m.csv").cases) == 2
    status, _, error = rbs("index", export, "-o", tmp_path / "f.csv", "--group", "(.*)")
    assert (status, error) == (1, "rbs: --group is for endoscopy only; leave it out.\n")


def test_an_existing_manifest_is_kept(rbs, export: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.csv"
    out.write_text("precious")
    status, _, error = rbs("index", export, "-o", out)
    assert status == 1
    assert "replace it with --overwrite" in error
    assert out.read_text() == "precious"


def test_a_split_that_nobody_is_in_is_told(rbs, export: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    given.write_text("patient,split\nP7,train\nP8,val\n")
    status, text, _ = rbs("index", export, "-o", tmp_path / "m.csv", "--splits", given, "--workers", 1)
    assert status == 0
    assert "look at: no patient is in split test" in text


def test_nothing_usable_is_an_error_with_its_reasons(rbs, tmp_path: Path) -> None:
    write_nm(tmp_path / "in/1", poisson(), velocity=None)
    status, text, error = rbs("index", tmp_path / "in", "-o", tmp_path / "m.csv")
    assert status == 1
    assert "the scan velocity is unknown" in text
    assert "no scan in it can be used" in error
    assert not (tmp_path / "m.csv").exists()
    assert "--standard-velocity" in (tmp_path / "m.refused.csv").read_text()
    # Mended by what the remedy says, and by what was noted.
    status, text, _ = rbs("index", tmp_path / "in", "-o", tmp_path / "m.csv", "--standard-velocity", 20)
    assert (status, "(0 read, 1 known" in text) == (0, True)


@pytest.mark.parametrize("options", [("--shares", 1, 2), ("--standard-velocity", 0), ("--seed", "x")])
def test_bad_options(rbs, tmp_path: Path, options: tuple[object, ...]) -> None:
    with pytest.raises(SystemExit) as stop:
        rbs("index", tmp_path, "-o", tmp_path / "m.csv", *options)
    assert stop.value.code == 2
