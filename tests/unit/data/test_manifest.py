"""Manifests are checked line by line, and a case's files are laid on one grid or refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from moving_body import SHAPE, SPACING, Field, passes, rigid, still
from nm_files import write_nm
from pydicom.uid import generate_uid

from rbs.data.manifest import Case, Manifest, load_case, write_manifest
from rbs.errors import ManifestError, OutputError, ScanError
from rbs.scans.scan import REGIONS, View

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


def test_a_case_is_loaded_aligned(tiny_cohort: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    loaded = load_case(case)
    pixels = pydicom.dcmread(case.standard[0]).pixel_array
    np.testing.assert_array_equal(loaded.standard, [pixels[0], pixels[1][:, ::-1]])
    truth = np.load(case.truth)
    np.testing.assert_array_equal(loaded.labels, [truth["labels"][0], truth["labels"][1][:, ::-1]])
    np.testing.assert_array_equal(
        loaded.expectation, [truth["expectation"][0], truth["expectation"][1][:, ::-1]]
    )
    assert loaded.exposure == pytest.approx(0.5, rel=1e-4)
    assert loaded.views == (View.ANTERIOR, View.POSTERIOR)
    assert loaded.spacing_mm == pytest.approx((9.6, 9.6))
    assert loaded.standard.dtype == loaded.rapid.dtype == loaded.expectation.dtype == np.float32
    assert loaded.rapid.sum() / loaded.standard.sum() == pytest.approx(0.5, abs=0.03)
    assert set(np.unique(loaded.labels)) == set(range(len(REGIONS) + 1))
    # Counts lie on their expectation: a misplaced mirror would leave deviations far beyond Poisson
    # noise.
    deviation = (loaded.standard - loaded.expectation) ** 2 / loaded.expectation
    assert deviation.mean() == pytest.approx(1, abs=0.1)


def test_files_of_one_view_are_joined(make_cohort, tiny_cohort: Path, tmp_path: Path) -> None:
    whole = Manifest.read(tiny_cohort).cases[0]
    loaded = load_case(whole)
    one_view = {}
    for view, frame in ((View.ANTERIOR, 0), (View.POSTERIOR, 1)):
        path = make_cohort(tmp_path / view, splits=("train",), views=(view,))
        one_view[view] = Manifest.read(path).cases[0]
        single = load_case(one_view[view])
        assert single.views == (view,)
        assert single.standard.shape == single.labels.shape == (1, 128, 64)
        np.testing.assert_array_equal(single.labels[0], loaded.labels[frame])
    posterior_first = replace(
        one_view[View.POSTERIOR],
        rapid=one_view[View.POSTERIOR].rapid + one_view[View.ANTERIOR].rapid,
        standard=one_view[View.ANTERIOR].standard + one_view[View.POSTERIOR].standard,
    )
    joined = load_case(posterior_first)
    assert joined.views == loaded.views
    for view, frame in ((View.ANTERIOR, 0), (View.POSTERIOR, 1)):
        single = load_case(one_view[view])
        np.testing.assert_array_equal(joined.rapid[frame], single.rapid[0])
        np.testing.assert_array_equal(joined.standard[frame], single.standard[0])
    np.testing.assert_array_equal(joined.labels, loaded.labels)
    with pytest.raises(ManifestError, match="differ in views"):
        load_case(replace(whole, rapid=one_view[View.ANTERIOR].rapid))
    twice = one_view[View.ANTERIOR].standard * 2
    with pytest.raises(ManifestError, match="show the same view"):
        load_case(replace(whole, standard=twice))


def _changed(source: Path, path: Path, **values: object) -> Path:
    dataset = pydicom.dcmread(source)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = values.get("SOPInstanceUID") or generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)
    return path


def test_the_rapid_scan_must_be_the_faster_one(tiny_cohort: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    with pytest.raises(ManifestError, match=r"no faster than .*; swap the columns") as caught:
        load_case(replace(case, rapid=case.standard, standard=case.rapid))
    assert caught.value.file == case.standard[0]
    assert str(case.rapid[0]) in str(caught.value)


def test_two_patients_are_no_pair(tiny_cohort: Path, tmp_path: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    other = _changed(case.rapid[0], tmp_path / "other.dcm", PatientID="SECRET9")
    with pytest.raises(ManifestError, match="differ in patient") as caught:
        load_case(replace(case, rapid=(other,)))
    assert str(case.standard[0]) in str(caught.value)
    assert "SECRET9" not in str(caught.value)
    unnamed = _changed(case.rapid[0], tmp_path / "unnamed.dcm", PatientID="")
    load_case(replace(case, rapid=(unnamed,)))


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
    mine = _changed(first.rapid[0], tmp_path / "mine.dcm", PatientID="P 0042", StudyInstanceUID="1.2.1")
    yours = _changed(second.rapid[0], tmp_path / "yours.dcm", PatientID=" p0042")
    nameless = _changed(second.standard[0], tmp_path / "nameless.dcm", PatientID="")
    silent = _changed(first.standard[0], tmp_path / "silent.dcm", PatientID="", StudyInstanceUID="1.2.2")
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
    again = _changed(
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
    again = _changed(second.rapid[0], tmp_path / "again.dcm", **{keyword: uid})
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


def test_scans_that_do_not_fit_each_other_are_refused(make_cohort, tiny_cohort: Path, tmp_path: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    other = Manifest.read(make_cohort(tmp_path / "larger", splits=("train",), shape=(144, 64))).cases[0]
    spaced = _changed(case.rapid[0], tmp_path / "spaced.dcm", PixelSpacing=["9.0", "9.6"])
    for changes, what, second in (
        ({"rapid": other.rapid}, "shape", case.standard[0]),
        ({"rapid": (spaced,)}, "pixel spacing", case.standard[0]),
        ({"truth": other.truth}, "shape", case.standard[0]),
    ):
        first = changes.get("truth") or changes["rapid"][0]
        with pytest.raises(ManifestError, match=f"differ in {what}") as caught:
            load_case(replace(case, **changes))
        assert caught.value.file == first
        assert str(second) in str(caught.value)


@pytest.mark.parametrize("kind", ["rapid", "standard"])
def test_a_scan_without_velocity_is_refused(tiny_cohort: Path, tmp_path: Path, kind: str) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    still = _changed(getattr(case, kind)[0], tmp_path / "still.dcm", ScanVelocity=None)
    with pytest.raises(ScanError, match="velocity is unknown") as caught:
        load_case(replace(case, **{kind: (still,)}))
    assert caught.value.file == still


def test_a_truth_file_must_hold_the_truth(tiny_cohort: Path, tmp_path: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    good = dict(np.load(case.truth))
    bad = tmp_path / "truth.npz"

    def refused(fault: str) -> None:
        with pytest.raises(ManifestError, match=fault) as caught:
            load_case(replace(case, truth=bad))
        assert caught.value.file == bad

    bad.write_bytes(b"")
    refused("no truth file")
    bad.write_bytes(case.truth.read_bytes()[:2000])
    refused("no truth file")
    np.savez(bad, expectation=good["expectation"])
    refused("no truth file")
    np.savez(bad, expectation=good["expectation"], labels=good["labels"] + np.uint8(1))
    refused("unknown labels")
    np.savez(bad, expectation=-good["expectation"], labels=good["labels"])
    refused("negative")
    np.savez(bad, expectation=good["expectation"][:1], labels=good["labels"][:1])
    refused("differ in views")


def test_a_flipped_bit_in_a_truth_file_is_found(tiny_cohort: Path, tmp_path: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    whole = case.truth.read_bytes()
    bad = tmp_path / "truth.npz"
    found = 0
    for place in range(0, len(whole), len(whole) // 150):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            load_case(replace(case, truth=bad))  # not every byte matters
        except ManifestError:
            found += 1
    assert found > 100


@pytest.mark.parametrize("u", [still, rigid(3.0, -4.0)])
def test_the_motion_between_two_scans_is_found_when_asked_for(tmp_path: Path, u: Field) -> None:
    views = ("anterior", "posterior")
    standard, rapid = (np.stack([c[0], c[1, :, ::-1]]) for c in passes(u))  # as the camera writes them
    same = {"views": views, "PixelSpacing": list(SPACING), "study": generate_uid()}
    files = [
        (write_nm(tmp_path / f"{velocity}.dcm", counts, velocity=velocity, **same),)
        for velocity, counts in ((40, rapid), (20, standard))
    ]
    case = Case("P1", "test", *files)
    assert load_case(case).motion is None
    motion = load_case(case, register=True).motion
    if u is still:
        assert motion is None
    else:
        middle = motion.field(SHAPE, SPACING)[:, SHAPE[0] // 2, SHAPE[1] // 2]
        np.testing.assert_allclose(middle, (3.0, -4.0), atol=0.3)
