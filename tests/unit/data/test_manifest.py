"""Manifests are checked line by line, and against what their files hold."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nm_files import changed_copy
from pydicom.uid import generate_uid

from rbs.data.loading import load_case
from rbs.data.manifest import Case, Manifest, write_manifest
from rbs.errors import ManifestError, OutputError, ScanError
from rbs.scans.scan import View

HEADER = "patient,split,age_y,sex,height_cm,weight_kg,rapid,standard,truth"


def _manifest(folder: Path, text: str) -> Path:
    for name in ("r1", "s1", "r2", "s2", "t1"):
        (folder / name).touch()
    path = folder / "manifest.csv"
    path.write_text(text)
    return path


def test_a_manifest_survives_writing_and_reading(tiny_cohort: Path, tmp_path: Path) -> None:
    cases = Manifest.read(tiny_cohort).cases
    assert [case.split for case in cases] == ["train"] * 4 + ["val", "test"]
    write_manifest(tmp_path / "again.csv", cases)
    again = Manifest.read(tmp_path / "again.csv").cases
    assert [replace(c, rapid=(), standard=(), truth=None) for c in again] == [
        replace(c, rapid=(), standard=(), truth=None) for c in cases
    ]
    assert [c.standard[0].resolve() for c in again] == [c.standard[0].resolve() for c in cases]
    assert again[0].rapid[0].read_bytes() == cases[0].rapid[0].read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_manifest(tmp_path / "again.csv", cases)


@pytest.mark.parametrize("name", ["a;b", "anterior=a", "a\n", "\udcff"], ids=ascii)
def test_a_path_that_would_be_read_otherwise_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match="cannot hold its path"):
        write_manifest(tmp_path / "m.csv", [Case("A", "train", (), (tmp_path / name,))])
    assert list(tmp_path.iterdir()) == []


def test_optional_columns_may_be_missing_and_cells_padded(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "\ufeffpatient, split, standard, rapid\nA, train, s1 ; s2,\n")
    (case,) = Manifest.read(path).cases
    assert case == Case("A", "train", (), (tmp_path / "s1", tmp_path / "s2"))


def test_visits_of_a_patient_may_share_a_split(tmp_path: Path) -> None:
    path = _manifest(tmp_path, f"{HEADER}\nA,val,,,,,r1,s1,\nA,val,6,f,118,22,r2,s2,t1\n")
    assert [case.age_y for case in Manifest.read(path).split("val")] == [None, 6.0]
    with pytest.raises(ManifestError, match="unknown split 'valid'"):
        Manifest.read(path).split("valid")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is empty"),
        (f"{HEADER}\n", "it lists no patient"),
        ("patient;split;standard\nA;train;s1\n", "not separated by commas"),
        ("patient,split,rapid\nA,train,r1\n", "line 1: no column standard"),
        (f"{HEADER},truths\nA,train,,,,,r1,s1,,\n", "line 1: unknown column 'truths'"),
        ("patient,split,standard,split\nA,train,s1,val\n", "line 1: column split appears twice"),
        (f"{HEADER}\nA,train,,,,,r1,s1,\nB,training,,,,,r2,s2,\n", "line 3: unknown split 'training'"),
        (
            f"{HEADER}\nA,train,,,,,r1,s1,\nA,test,,,,,r2,s2,\n",
            "line 3: patient A is in split test but in train on",
        ),
        (
            f"{HEADER}\nPat 1,train,,,,,r1,s1,\npat1,test,,,,,r2,s2,\n",
            "line 3: patient pat1 is in split test but in train on line 2",
        ),
        (f"{HEADER}\nA,train,,,,,r1,gone,\n", "line 2: the file .*gone is missing"),
        (f"{HEADER}\nA,train,,,,,r1,s1,gone.npz\n", "line 2: the file .*gone.npz is missing"),
        (
            f"{HEADER}\nA,train,,,,,r1,s1,\nB,val,,,,,r2,s1,\n",
            "line 3: the file .*s1 is listed before, on line 2",
        ),
        (f"{HEADER}\nA,train,,,,,s1,s1,\n", "line 2: the file .*s1 is listed before"),
        (f"{HEADER}\nA,train,,,,,r1,,\n", "line 2: standard is empty"),
        (f"{HEADER}\n,train,,,,,r1,s1,\n", "line 2: patient is empty"),
        (f"{HEADER}\nA,train,six,,,,r1,s1,\n", "line 2: age_y is 'six'"),
        (f"{HEADER}\nA,train,,,nan,,r1,s1,\n", "line 2: height_cm is 'nan'"),
        (f"{HEADER}\nA,train,,x,,,r1,s1,\n", "line 2: unknown sex 'x'"),
        (
            "patient,split,standard,standard_velocity\nA,train,s1,1e300\n",
            "line 2: standard_velocity is '1e300'; give 1 to 1000 cm/min",
        ),
        (f"{HEADER}\nA,train,,,,,r1,s1,t1;r2\n", "line 2: 2 truth files"),
        (f"{HEADER}\nA,train,s1\n", "line 2: it has not 9 cells"),
        (f'{HEADER}\nA,train,,,,,r1,"s1,\n', "it is not a CSV file"),
    ],
)
def test_faults_name_the_manifest_the_line_and_a_remedy(tmp_path: Path, text: str, fault: str) -> None:
    path = _manifest(tmp_path, text)
    with pytest.raises(ManifestError, match=fault) as caught:
        Manifest.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.remedy


def test_other_files_are_no_manifest(tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="rbs simulate data/phantoms --patients 137 --seed 1"):
        Manifest.read(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="it is a folder, not a file"):
        Manifest.read(tmp_path)
    with pytest.raises(ManifestError):
        Manifest.read(Manifest.read(tiny_cohort).cases[0].standard[0])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("patient,split,standard\n\u200b,train,s1\n\u200b,test,s2\n".encode(), "line 2: patient is empty"),
        ("patient,split,standard\nA,train,s1\n".encode("utf-16"), "it is not a CSV file"),
        ("patient,split,standard\n\xc9,train,s1\n".encode("latin-1"), "it is not a CSV file"),
        (b"patient,split,standard\nA,train,s\x001\n", "the file .* is missing|not a CSV file"),
        (b"patient,split,standard\nA,train," + b"s" * 5000 + b"\n", "the file .* is missing"),
        (b"patient,split,standard\nA,train,.\n", "it is a folder, not a file"),
        (b"patient,split,standard\nA,train,../manifest/../manifest/s1\n", "the file .* is missing"),
        (b"patient,split,standard\nA,train,s1\nB,test,./s1\n", "is listed before, on line 2"),
        (b"patient,split,standard\nA,train,s1;s1\n", "is listed before, on line 2"),
        (b"patient,split,standard\nA,Train,s1\n", "unknown split 'Train'"),
    ],
)
def test_odd_manifests_are_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    path = _manifest(tmp_path, "")
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=fault):
        Manifest.read(path)


def _two_splits(path: Path, train: str, test: str) -> None:
    path.write_text(f"patient,split,rapid,standard\nA,train,{train}\nB,test,{test}\n")


def test_one_patient_id_stays_in_one_split(tiny_cohort: Path, tmp_path: Path) -> None:
    """Every file is asked, not the standard scans alone."""
    first, second = Manifest.read(tiny_cohort).cases[:2]
    mine = changed_copy(first.rapid[0], tmp_path / "mine.dcm", PatientID="P 0042", StudyInstanceUID="1.2.1")
    yours = changed_copy(second.rapid[0], tmp_path / "yours.dcm", PatientID=" p0042")
    nameless = changed_copy(second.standard[0], tmp_path / "nameless.dcm", PatientID="")
    silent = changed_copy(first.standard[0], tmp_path / "silent.dcm", PatientID="", StudyInstanceUID="1.2.2")
    path = tmp_path / "manifest.csv"
    _two_splits(path, f"{mine},{silent}", f"{yours},{nameless}")
    fault = r"line 3: the Patient ID of .*yours.dcm is in split test but in train on line 2"
    with pytest.raises(ManifestError, match=fault):
        Manifest.read(path)
    path.write_text(path.read_text().replace(",test,", ",train,"))
    assert len(Manifest.read(path).cases) == 2
    _two_splits(path, f"{first.rapid[0]},{first.standard[0]}", f"{yours},{second.standard[0]}")
    with pytest.raises(ManifestError, match="differ in patient"):
        Manifest.read(path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pat 1", "PAT1"),
        ("P1", "P\u200b1"),
        ("P1", "\uff30\uff11"),
        ("P1", "\u04201"),
        ("\u00c91", "E\u03011"),
    ],
    ids=["case and space", "invisible", "full width", "Cyrillic", "composed"],
)
def test_names_that_look_the_same_are_one_patient(tmp_path: Path, one: str, other: str) -> None:
    path = _manifest(tmp_path, f"patient,split,standard\n{one},train,s1\n{other},test,s2\n")
    with pytest.raises(ManifestError, match="is in split test but in train on line 2"):
        Manifest.read(path)


@pytest.mark.parametrize("change", ["none", "one pixel", "shifted", "mirrored", "thinned"])
def test_the_same_counts_stay_in_one_split(
    make_cohort, tiny_cohort: Path, tmp_path: Path, change: str
) -> None:
    """Under another Patient ID or none, and another study and acquisition."""
    case = Manifest.read(make_cohort(tmp_path / "cohort", splits=("train",), shape=(192, 128))).cases[0]
    pixels = pydicom.dcmread(case.standard[0]).pixel_array
    one_pixel = pixels.copy()
    one_pixel[0, 90, 60] += 1
    changed = {
        "none": pixels,
        "one pixel": one_pixel,
        "shifted": np.roll(pixels, 1, axis=1),
        "mirrored": pixels[:, :, ::-1],
        "thinned": np.random.default_rng(0).binomial(pixels, 0.7),
    }[change]
    again = changed_copy(
        case.standard[0],
        tmp_path / "again.dcm",
        PatientID="",
        PixelData=changed.astype("<u2").tobytes(),
        StudyInstanceUID=generate_uid(),
    )
    path = tmp_path / "manifest.csv"
    _two_splits(path, f",{case.standard[0]}", f",{again}")
    with pytest.raises(ManifestError, match=r"again.dcm \(in split test\) and .* hold the same counts"):
        Manifest.read(path)
    path.write_text(path.read_text().replace(",test,", ",train,"))
    assert len(Manifest.read(path).cases) == 2


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID"])
def test_a_study_stays_in_one_split(tiny_cohort: Path, tmp_path: Path, keyword: str) -> None:
    first, second = Manifest.read(tiny_cohort).cases[:2]
    uid = pydicom.dcmread(first.standard[0]).get(keyword)
    again = changed_copy(second.rapid[0], tmp_path / "again.dcm", **{keyword: uid})
    path = tmp_path / "manifest.csv"
    _two_splits(path, f",{first.standard[0]}", f"{again},{second.standard[0]}")
    with pytest.raises(ManifestError, match=r"of .*again.dcm is in split test but in train on line 2"):
        Manifest.read(path)


def test_a_file_by_two_names_is_listed_twice(tiny_cohort: Path, tmp_path: Path) -> None:
    standard = Manifest.read(tiny_cohort).cases[0].standard[0]
    (tmp_path / "symbolic.dcm").symlink_to(standard)
    (tmp_path / "hard.dcm").hardlink_to(standard)
    path = tmp_path / "manifest.csv"
    for name in ("symbolic.dcm", "hard.dcm"):
        _two_splits(path, f",{standard}", f",{name}")
        with pytest.raises(ManifestError, match=f"line 3: the file .*{name} is listed before, on line 2"):
            Manifest.read(path)


def test_a_pipe_is_no_scan(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "patient,split,standard\nA,train,pipe.dcm\n")
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(ManifestError, match=r"line 2: .*pipe.dcm: it is a pipe, not a file"):
        Manifest.read(path)


def test_the_manifest_states_what_headers_do_not(make_cohort, tmp_path: Path) -> None:
    wanted = {}
    lines = ["patient,split,rapid,standard,rapid_velocity,standard_velocity"]
    cells = {"rapid": [], "standard": []}
    for view in (View.POSTERIOR, View.ANTERIOR):
        case = Manifest.read(make_cohort(tmp_path / view, splits=("train",), views=(view,))).cases[0]
        wanted[view] = load_case(case).standard[0]
        for name, found in cells.items():
            file = tmp_path / f"{name}_{len(found)}.dcm"
            silent = pydicom.dcmread(getattr(case, name)[0])
            del silent.ScanVelocity
            silent.DetectorInformationSequence[0].ViewCodeSequence = []
            del silent.DetectorInformationSequence[0].StartAngle
            silent.save_as(file)
            found.append(f"{view}={file.name}")
    lines.append(f"P1,train,{';'.join(cells['rapid'])},{';'.join(cells['standard'])},40,20")
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(lines))
    manifest = Manifest.read(path)
    loaded = load_case(manifest.cases[0])
    np.testing.assert_array_equal(loaded.standard, [wanted[View.ANTERIOR], wanted[View.POSTERIOR]])
    assert loaded.exposure == pytest.approx(0.5)
    again = tmp_path / "again.csv"
    write_manifest(again, manifest.cases)
    np.testing.assert_array_equal(load_case(Manifest.read(again).cases[0]).rapid, loaded.rapid)
    path.write_text("\n".join(lines).replace("posterior=", "").replace("anterior=", ""))
    with pytest.raises(ScanError, match="view"):
        load_case(Manifest.read(path).cases[0])
