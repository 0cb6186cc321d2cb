"""Folders of pictures: who is on them, what is written, and going on after an interruption."""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from judges import judge
from pictures_of import counts_of_a_body, exported
from PIL import Image

from rbs.cli import main as cli
from rbs.data.loading import load_case
from rbs.data.manifest import Case, write_manifest
from rbs.errors import ManifestError, OutputError, ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.pictures import recovery
from rbs.scans.pictures.recovery import Picture, Settings, listed, named, recover_pictures
from rbs.scans.scan import View
from rbs.utils import patterns
from rbs.utils.patterns import compiled

PATTERN = "(?P<patient>[0-9]+)_(?P<view>[AP])"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient of two views, one of one, and a blank one; a crop that no pattern names."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "b").mkdir()
    Image.fromarray(exported(counts_of_a_body(1), 2.3)).save(folder / "001_A.png")
    Image.fromarray(exported(counts_of_a_body(2), 1.7)).save(folder / "001_P.jpg", quality=100)
    Image.fromarray(exported(counts_of_a_body(3), 2.0)).save(folder / "b" / "002_A.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "003_A.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "knee.png")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main(["recover-counts", *map(str, arguments)])
    return status, *capsys.readouterr()


def receipt(out: Path) -> dict[str, dict[str, str]]:
    with (out / "receipt.csv").open() as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_a_folder_becomes_scans_with_a_receipt(pictures: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    options = ("--pattern", PATTERN, "--spacing-mm", 2.2, "--velocity", 15, "--workers", 1)
    status, said, error = run(capsys, pictures, out, *options)
    assert status == 1
    assert "1 of 4 pictures were refused" in error
    assert "3 of 4 pictures recovered" in said
    assert "1 other pictures were left out" in said
    rows = receipt(out)
    assert list(rows) == ["001_A.png", "001_P.jpg", "003_A.png", "b/002_A.png"]
    assert rows["003_A.png"]["verdict"] == "refused"
    assert "blank" in rows["003_A.png"]["reason"]
    assert not (out / "003_A.dcm").exists()
    found = json.loads(run(capsys, pictures, out, *options, "--json")[1])
    assert (found["unnamed"], [row["verdict"] for row in found["pictures"]].count("refused")) == (1, 1)
    for name, scale in (("001_A.png", 2.3), ("001_P.jpg", 1.7), ("b/002_A.png", 2.0)):
        assert float(rows[name]["scale"]) == pytest.approx(scale, rel=0.01)
        assert float(rows[name]["dispersion"]) == pytest.approx(1, abs=0.1)
    scan = read_nm(out / "001_A.dcm")
    np.testing.assert_array_equal(scan.counts[0], counts_of_a_body(1))
    assert (scan.views, scan.spacing_mm, scan.velocity) == ((View.ANTERIOR,), (2.2, 2.2), 15)
    ds = pydicom.dcmread(out / "001_P.dcm")
    assert ds.ImageType[0] == "DERIVED"
    assert ds.DerivationCodeSequence[0].CodeValue == "RECOVERED"
    assert rows["001_P.jpg"]["sha256"] in ds.DerivationDescription
    assert "001_P" not in ds.DerivationDescription
    assert ds.LossyImageCompression == "01"
    assert (ds.PatientID, ds.StudyDate) == ("001", "")
    both = [pydicom.dcmread(out / f"001_{view}.dcm") for view in "AP"]
    assert both[0].StudyInstanceUID == both[1].StudyInstanceUID
    assert both[0].SeriesInstanceUID != both[1].SeriesInstanceUID
    # A manifest takes both views as one scan to train on.
    case = Case("001", "train", (), (out / "001_A.dcm", out / "001_P.dcm"))
    write_manifest(out / "manifest.csv", [case])
    loaded = load_case(case)
    assert loaded.views == (View.ANTERIOR, View.POSTERIOR)
    np.testing.assert_array_equal(loaded.standard[0], counts_of_a_body(1))


def test_other_derived_or_lossy_objects_are_still_refused(pictures: Path, tmp_path: Path, capsys) -> None:
    run(capsys, pictures / "001_P.jpg", tmp_path / "out", "--pattern", PATTERN, "--spacing-mm", 2)
    ds = pydicom.dcmread(tmp_path / "out" / "001_P.dcm")
    ds.DerivationCodeSequence[0].CodeValue = "OTHER"
    ds.save_as(tmp_path / "lossy.dcm")
    with pytest.raises(ScanError, match="lossily compressed"):
        read_nm(tmp_path / "lossy.dcm")
    ds.LossyImageCompression = "00"
    ds.save_as(tmp_path / "derived.dcm")
    with pytest.raises(ScanError, match="derived image"):
        read_nm(tmp_path / "derived.dcm")


def test_recovered_scans_can_be_thinned_and_stay_marked_lossy(pictures, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    options = ("--pattern", PATTERN, "--spacing-mm", 2, "--velocity", 10)
    assert run(capsys, pictures / "001_P.jpg", out, *options)[0] == 0
    thinned = tmp_path / "thin.dcm"
    assert cli.main(["thin", str(out / "001_P.dcm"), str(thinned), "--velocity", "20"]) == 0
    assert pydicom.dcmread(thinned).LossyImageCompression == "01"
    half = read_nm(thinned).counts.sum() / read_nm(out / "001_P.dcm").counts.sum()
    assert half == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_is_finished(pictures: Path, tmp_path: Path, monkeypatch, workers: int) -> None:
    wanted = named([Path("001_A.png"), Path("001_P.jpg"), Path("b/002_A.png")], compiled(PATTERN))
    settings = Settings(2.0)
    whole = recover_pictures(pictures, wanted, tmp_path / "whole", settings, workers=1, progress=False)
    out, recover_one = tmp_path / "out", recovery._recover
    done: list[str] = []

    def stop_at_the_second(job: tuple[Path, Picture, Path, Settings]) -> dict[str, str]:
        if done:
            raise KeyboardInterrupt
        done.append(job[1].file.as_posix())
        return recover_one(job)

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "_recover", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            recover_pictures(pictures, wanted, out, settings, workers=1, progress=False)
    assert done == list(receipt(out)) == ["001_A.png"]
    with (out / "receipt.csv").open("a") as file:
        file.write("001_P.jpg,001,,post")  # cut off in the middle of a line
    made = (out / "001_A.dcm").stat().st_mtime_ns
    rows = recover_pictures(pictures, wanted, out, settings, workers=workers, progress=False)
    assert rows == whole == list(receipt(out).values())
    assert (out / "001_A.dcm").stat().st_mtime_ns == made
    for file in ("001_A.dcm", "001_P.dcm", "b/002_A.dcm"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    (out / "001_A.dcm").unlink()  # what is missing is made again
    recover_pictures(pictures, wanted, out, settings, workers=1, progress=False)
    assert (out / "001_A.dcm").exists()
    with pytest.raises(OutputError, match="other settings"):
        recover_pictures(pictures, wanted, out, Settings(3.0), workers=1, progress=False)


def test_a_folder_of_something_else_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(OutputError, match="something else"):
        recover_pictures(pictures, [], tmp_path, Settings(2.0), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_table_names_patients_views_and_studies(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("picture,patient,view,study\nx/1.png,A,ant,1\nx/2.png,A,Posterior,1\n3.png,A,a,2\n")
    assert listed(table) == [
        Picture(Path("x/1.png"), "A", View.ANTERIOR, "1"),
        Picture(Path("x/2.png"), "A", View.POSTERIOR, "1"),
        Picture(Path("3.png"), "A", View.ANTERIOR, "2"),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("picture,patient\n", "no column view"),
        ("picture,patient,view\n1.png,A,left\n", "line 2: unknown view 'left'"),
        ("picture,patient,view\n1.png,,a\n", "line 2: its patient is empty"),
        ("picture,patient,view\n/etc/1.png,A,a\n", "line 2: the picture"),
        ("picture,patient,view\n../1.png,A,a\n", "line 2: the picture"),
        ("", "no column picture"),
    ],
)
def test_a_table_that_cannot_be_meant_so_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ManifestError, match=fault):
        listed(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("files", "fault"),
    [(("1_A.png", "x/1_A.png"), "same view"), (("1_A.png", "1_A.jpg"), "same view|one file")],
)
def test_two_pictures_of_one_view_are_refused(tmp_path: Path, files: tuple[str, ...], fault: str) -> None:
    pictures = named(map(Path, files), compiled(PATTERN))
    with pytest.raises(ManifestError, match=fault):
        recover_pictures(tmp_path, pictures, tmp_path / "out", Settings(2.0), progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("nowhere", "out", "--pattern", PATTERN, "--spacing-mm", 2), 1),
        (("in", "out", "--pattern", "(?P<patient>x)(?P<view>y)", "--spacing-mm", 2), 1),
        (("in", "out", "--pattern", PATTERN, "--spacing-mm", 2, "--workers", 0), 1),
        (("in", "out", "--pattern", "(?P<patient>x)", "--spacing-mm", 2), 2),
        (("in", "out", "--pattern", PATTERN), 2),
        (("in", "out", "--spacing-mm", 2), 2),
    ],
)
def test_what_is_missing_is_asked_for(
    pictures, tmp_path: Path, monkeypatch, capsys, arguments, status
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "in")
    if status == 2:
        with pytest.raises(SystemExit) as stop:
            run(capsys, *arguments)
        assert stop.value.code == 2
    else:
        assert run(capsys, *arguments)[0] == 1
    assert not Path("out").exists()


def test_the_validator_finds_only_what_no_picture_tells(pictures: Path, tmp_path: Path, capsys) -> None:
    dciodvfy = judge("dciodvfy")
    run(capsys, pictures / "001_P.jpg", tmp_path / "out", "--pattern", PATTERN, "--spacing-mm", 2)
    file = tmp_path / "out" / "001_P.dcm"
    said = subprocess.run([dciodvfy, str(file)], capture_output=True, text=True, check=False).stderr
    errors = [line for line in said.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert "ActualFrameDuration" in errors[0]


def test_linked_folders_are_recovered_and_no_pattern_hangs(
    pictures: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "linked").symlink_to(pictures)
    (source / "round").symlink_to(source)
    os.mkfifo(source / "009_A.png")
    status, said, _ = run(capsys, source, tmp_path / "out", "--pattern", PATTERN, "--spacing-mm", 2.2)
    assert status == 1
    assert "3 of 4 pictures recovered" in said
    options = ("--pattern", PATTERN, "--spacing-mm", 2.2)
    status, _, error = run(capsys, source / "009_A.png", tmp_path / "pipe", *options)
    assert (status, "it is a pipe, not a file" in error) == (1, True)
    monkeypatch.setattr(patterns, "LONGEST_S", 0.1)
    shutil.copy(pictures / "003_A.png", source / ("a" * 60 + ".png"))
    slow = "(?P<patient>(a|aa)+)_(?P<view>[AP])"
    status, _, error = run(capsys, source, tmp_path / "slow", "--pattern", slow, "--spacing-mm", 2.2)
    assert (status, "takes too long" in error) == (1, True)


def test_the_cut_comes_with_the_counts(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(np.linspace(1.0, 20.0, 160 * 90).reshape(160, 90))
    counts[:40, :30] = 0
    counts[counts <= 2] = 0
    (tmp_path / "in").mkdir()
    Image.fromarray(exported(counts, 2.3)).save(tmp_path / "in" / "001_A.jpg", quality=100)
    pictures = [Picture(Path("001_A.jpg"), "001", View.ANTERIOR)]
    (row,) = recover_pictures(tmp_path / "in", pictures, tmp_path / "out", Settings(2.2), workers=1)
    assert (row["verdict"], row["cut_low_counts"]) == ("recovered", "2")
    scan = read_nm(tmp_path / "out" / "001_A.dcm")  # whose noise is that of raw counts beyond the cut
    assert scan.cut == 2
    assert (scan.counts[0] == counts).mean() > 0.95
