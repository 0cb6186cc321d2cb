"""`rbs deidentify`."""

import csv
import re
import shutil
from pathlib import Path

import pydicom
import pytest
from nm_files import poisson, write_nm

from rbs.clinic import deidentify as clinic


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Two visits of Jane, one of John, with names in the folders, and an index of them."""
    folder = tmp_path / "ward"
    write_nm(folder / "Doe^Jane" / "Doe_Jane_1.dcm", poisson(), PatientName="Doe^Jane", PatientID="MRN0815")
    write_nm(
        folder / "Doe^Jane" / "Doe_Jane_2.dcm", poisson(seed=1), PatientName="Doe^Jane", PatientID="mrn0815 "
    )
    write_nm(folder / "Roe^John" / "1.2.3", poisson(seed=2), PatientName="Roe^John", PatientID="MRN4711")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def scans(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def test_a_folder(rbs, ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = contents(ward)
    status, said, warned = rbs("deidentify", ward, out)
    assert status == 0
    assert contents(ward) == before
    assert "files 3, of them there already 0; patients 2" in said
    assert f"skipped: {ward / 'DICOMDIR'}" in warned
    headers = {path: pydicom.dcmread(path) for path in scans(out)}
    assert len(headers) == 3
    for path, ds in headers.items():
        assert path.relative_to(out).as_posix() == f"{ds.PatientID}/{ds.SOPInstanceUID}.dcm"
    assert sorted(len(list(folder.iterdir())) for folder in out.iterdir() if folder.is_dir()) == [1, 2]
    everything = " ".join([*contents(out)]).encode() + b"".join(contents(out).values())
    assert not re.search(rb"jane|john|doe\b|mrn", everything, re.IGNORECASE)
    assert not re.search(r"jane|john|doe|mrn", said, re.IGNORECASE)


def test_the_report_tells_what_was_done_but_no_value(rbs, ward: Path, tmp_path: Path) -> None:
    write_nm(ward / "Doe^Jane" / "burnt.dcm", poisson(), BurnedInAnnotation="YES")
    out = tmp_path / "out"
    assert rbs("deidentify", ward, out)[0] == 1
    with (out / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    named = {row["file"] for row in rows}
    assert named == {path.relative_to(out).as_posix() for path in scans(out)} | {""}
    done = {(row["tag"], row["attribute"], row["action"]) for row in rows}
    assert ("(0010,0010)", "PatientName", "replaced") in done
    assert ("(0008,0020)", "StudyDate", "shifted") in done
    assert ("(0008,0018)", "SOPInstanceUID", "remapped") in done
    refused = [row["action"] for row in rows if not row["file"]]
    assert refused == ["refused: its pixels show annotations (BurnedInAnnotation)"]


def test_refused_files_do_not_stop_the_others(rbs, ward: Path, tmp_path: Path) -> None:
    (ward / "broken.dcm").write_bytes(b"nothing")
    status, said, warned = rbs("deidentify", ward, tmp_path / "out")
    assert status == 1
    assert "files 3, of them there already 0; patients 2" in said
    assert f"refused: {ward / 'broken.dcm'}" in warned
    assert "1 of 4" in warned


def test_the_key_makes_two_runs_agree(rbs, ward: Path, tmp_path: Path) -> None:
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other"
    key = tmp_path / "first.key"
    assert rbs("deidentify", ward, first)[0] == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert rbs("deidentify", ward, second, "--key", key)[0] == 0
    assert contents(first) == contents(second)
    assert rbs("deidentify", ward, other)[0] == 0
    assert not set(contents(other)) & {name for name in contents(first) if name.endswith(".dcm")}
    assert key.read_text().strip() not in "".join(map(repr, contents(first).values()))
    assert not list(first.rglob("*.key"))


def test_an_interrupted_run_goes_on(rbs, ward: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    real, calls = clinic.deidentify, []

    def stop_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(clinic, "deidentify", stop_at_the_third)
    assert rbs("deidentify", ward, out)[0] == 130
    assert len(scans(out)) == 2
    monkeypatch.undo()
    status, said, _ = rbs("deidentify", ward, out)
    assert status == 0
    assert "files 3, of them there already 2; patients 2" in said
    whole = tmp_path / "whole"
    assert rbs("deidentify", ward, whole, "--key", tmp_path / "out.key")[0] == 0
    assert contents(out) == contents(whole)


def test_what_survives_is_deleted_and_said(rbs, ward: Path, tmp_path: Path, monkeypatch) -> None:
    real = clinic.deidentify

    def leaky(path: Path, pseudonyms):
        done = real(path, pseudonyms)
        if "Roe" in str(path):
            done.dataset.StudyDescription = "of mister JOHN"
        return done

    monkeypatch.setattr(clinic, "deidentify", leaky)
    out = tmp_path / "out"
    status, _, warned = rbs("deidentify", ward, out)
    assert status == 1
    assert "still held what was removed (PatientName), so it was deleted" in warned
    assert len(scans(out)) == 2
    assert not list(out.rglob(".writing-*"))


def test_two_files_of_one_instance(rbs, ward: Path, tmp_path: Path) -> None:
    source = ward / "Roe^John" / "1.2.3"
    shutil.copy(source, ward / "copy.dcm")
    assert rbs("deidentify", ward, tmp_path / "out")[0] == 0  # the same file twice
    ds = pydicom.dcmread(source)
    ds.SeriesNumber = 9
    ds.save_as(ward / "changed.dcm")
    status, _, warned = rbs("deidentify", ward, tmp_path / "again")
    assert status == 1
    assert "two files of IN have one SOP Instance UID" in warned


def test_one_file(rbs, ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, said, _ = rbs("deidentify", ward / "Roe^John" / "1.2.3", out)
    assert status == 0
    assert "files 1, of them there already 0; patients 1" in said
    (path,) = scans(out)
    assert rbs("inspect", path)[0] == 0
    burnt = write_nm(tmp_path / "burnt.dcm", poisson(), BurnedInAnnotation="YES")
    status, _, warned = rbs("deidentify", burnt, tmp_path / "none")
    assert status == 1
    assert warned.count("BurnedInAnnotation") == 1


def test_inspect_names_the_views_alike(rbs, tmp_path: Path) -> None:
    source = write_nm(tmp_path / "in" / "a.dcm", poisson(), views=("",), ImageID="Doe POST")
    assert "posterior (from ImageID)" in rbs("inspect", source)[1]
    assert rbs("deidentify", source, tmp_path / "out")[0] == 0
    assert "posterior (from ViewCodeSequence)" in rbs("inspect", *scans(tmp_path / "out"))[1]


def taken(tmp_path: Path) -> list[object]:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("precious")
    return ["out"]


def wrong_key(tmp_path: Path) -> list[object]:
    (tmp_path / "k").write_text("0815")
    return ["out", "--key", "k"]


def open_key(tmp_path: Path) -> list[object]:
    (tmp_path / "k").write_text("ab" * 32)
    (tmp_path / "k").chmod(0o644)
    return ["out", "--key", "k"]


def key_in_out(tmp_path: Path) -> list[object]:
    return ["out", "--key", "out/k"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (lambda _: ["ward/out"], "within each other"),
        (lambda _: ["ward"], "within each other"),
        (lambda _: ["."], "within each other"),
        (taken, "exists already"),
        (lambda _: ["out", "--key", "nowhere.key"], "missing"),
        (wrong_key, "64 hexadecimal"),
        (open_key, "chmod 600"),
        (key_in_out, "handed on"),
    ],
)
def test_refusals_write_nothing(rbs, ward: Path, tmp_path: Path, monkeypatch, arguments, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments(tmp_path)
    before = contents(tmp_path)
    status, _, warned = rbs("deidentify", "ward", *given)
    assert status == 1
    assert fault in warned
    assert contents(tmp_path) == before


def test_another_key_does_not_go_on_with_an_output(rbs, ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert rbs("deidentify", ward, out)[0] == 0
    (tmp_path / "out.key").rename(tmp_path / "kept.key")
    assert "missing" in rbs("deidentify", ward, out)[2]  # not made anew
    assert not (tmp_path / "out.key").exists()
    assert rbs("deidentify", ward, tmp_path / "two")[0] == 0
    assert "another key" in rbs("deidentify", ward, out, "--key", tmp_path / "two.key")[2]
    assert rbs("deidentify", ward, out, "--key", tmp_path / "kept.key")[0] == 0


def test_nothing_there(rbs, tmp_path: Path) -> None:
    status, _, warned = rbs("deidentify", tmp_path / "nowhere", tmp_path / "out")
    assert status == 1
    assert "no such file" in warned
    assert not (tmp_path / "out.key").exists()
