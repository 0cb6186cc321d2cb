"""A hospital's folder becomes a manifest that training accepts; what is left out is named with a reason."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from deadly import note_or_die
from nm_files import poisson, write_nm
from pydicom.uid import CTImageStorage, generate_uid

from rbs.cli.main import main
from rbs.data.bone_scans import RBSDataModule
from rbs.data.indexing import records
from rbs.data.indexing.records import take_note
from rbs.data.indexing.scans import ScanIndex, Split, Statements, index_scans, read_splits
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.errors import ManifestError, OutputError, RbsError, ScanError

BOTH = ("anterior", "posterior")
Scan = Callable[..., Path]
Run = Callable[..., ScanIndex]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """The folder that is indexed."""
    (tmp_path / "ward").mkdir()
    return tmp_path / "ward"


@pytest.fixture
def scan(ward: Path) -> Scan:
    """Write a scan, of counts of its own: name, patient, velocity, time of day."""
    seeds = iter(range(1000))

    def write(name: str, patient: str, velocity: float | None, at: str = "101500", **changes: object) -> Path:
        views = changes.pop("views", BOTH)
        counts = changes.pop("counts", None)
        if counts is None:
            counts = poisson(len(views), seed=next(seeds), level=800 / (velocity or 20))
        settings = {
            "study": f"1.2.{sum(map(ord, patient))}",
            "PatientID": patient,
            "AcquisitionTime": at,
            "SeriesTime": at,
            "ActualFrameDuration": round(1.2e7 / (velocity or 20)),
        }
        return write_nm(ward / name, counts, views=views, velocity=velocity, **(settings | changes))

    return write


@pytest.fixture
def run(ward: Path, tmp_path: Path) -> Run:
    """Index the ward in this process."""

    def call(**options: object) -> ScanIndex:
        out = tmp_path / "out" / "manifest.csv"
        return index_scans(ward, out, **({"workers": 1, "overwrite": True, "progress": False} | options))

    return call


def _rows(found: ScanIndex) -> list[tuple[str, str, str]]:
    """Patient, rapid and standard file names of every line, read back from the manifest."""
    cases = Manifest.read(found.manifest).cases
    return [
        (c.patient, "+".join(f.name for f in c.rapid), "+".join(f.name for f in c.standard)) for c in cases
    ]


def _refused(found: ScanIndex) -> dict[str, str]:
    with found.refused.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(row["reason"] and row["remedy"] for row in rows)
    return {Path(row["file"]).name: row["reason"] for row in rows}


def test_a_pair_of_a_visit_is_one_line(scan: Scan, run: Run) -> None:
    scan("PAT1/ST1/fast", "A", 40, "101500", PatientAge="006Y", PatientSize="1.18", PatientWeight="0")
    scan("PAT1/ST1/slow", "A", 20, "102300", PatientAge="018M", PatientSize="1.18", PatientWeight="0")
    found = run()
    assert _rows(found) == [("A", "fast", "slow")]
    (case,) = Manifest.read(found.manifest).cases
    assert (case.age_y, case.sex, case.height_cm, case.weight_kg) == (1.5, "F", 118.0, None)
    assert load_case(case).exposure == pytest.approx(0.5, rel=1e-4)
    assert found.manifest.read_text().count("../ward/PAT1/ST1/") == 2
    assert _refused(found) == {}


def test_every_visit_of_a_patient_is_a_line_of_one_split(scan: Scan, run: Run) -> None:
    for day in ("20240102", "20240705"):
        for name, velocity, at in (("fast", 40, "090000"), ("slow", 20, "091000")):
            study = f"1.2.{day}.{velocity}"  # two studies of one day are one visit
            scan(f"{day}/{name}{day}", "A", velocity, at, study=study, AcquisitionDate=day)
    found = run()
    assert _rows(found) == [("A", f"fast{day}", f"slow{day}") for day in ("20240102", "20240705")]
    assert len({case.split for case in found.cases}) == 1


def test_one_view_files_of_one_acquisition_are_joined(scan: Scan, run: Run) -> None:
    for name, velocity, at in (("f", 40, "101500"), ("s", 20, "102200")):
        for view in BOTH:
            # The second detector's clock is 20 s late.
            scan(f"{name}_{view}", "A", velocity, f"{at[:4]}{20 * (view == 'anterior'):02}", views=(view,))
    found = run()
    assert _rows(found) == [("A", "f_anterior+f_posterior", "s_anterior+s_posterior")]
    assert load_case(found.cases[0]).rapid.shape == (2, 64, 48)


def test_views_acquired_one_after_the_other_are_two_scans(scan: Scan, run: Run) -> None:
    for name, velocity, start in (("f", 40, 10), ("s", 20, 30)):
        for i, view in enumerate(BOTH):
            scan(f"{name}_{view}", "A", velocity, f"10{start + 8 * i}00", views=(view,))
    assert _rows(run()) == [("A", f"f_{view}", f"s_{view}") for view in BOTH]


def test_two_files_of_one_view_are_not_guessed_between(scan: Scan, run: Run) -> None:
    for name, view in (("a1", "anterior"), ("a2", "anterior"), ("p", "posterior")):
        scan(name, "A", 20, views=(view,))
    scan("other", "B", 20)
    found = run()
    assert _rows(found) == [("B", "", "other")]
    refused = _refused(found)
    assert set(refused) == {"a1", "a2", "p"}
    assert "several files show one view" in refused["p"]


def test_a_blood_pool_scan_is_no_rapid_version_of_the_delayed_one(scan: Scan, run: Run) -> None:
    scan("blood_pool", "A", 40, "081500")
    scan("delayed", "A", 20, "111500")
    found = run()
    assert _rows(found) == [("A", "", "delayed")]
    assert "within 60 minutes" in _refused(found)["blood_pool"]


def test_without_times_the_only_two_scans_of_a_study_are_a_pair(scan: Scan, run: Run) -> None:
    for name, patient, velocity, study in (
        ("f", "A", 40, "1.2.1"),
        ("s", "A", 20, "1.2.1"),
        ("g", "B", 40, "1.2.2"),
        ("t", "B", 20, "1.2.3"),
    ):
        scan(name, patient, velocity, "", study=study)
    found = run()
    assert _rows(found) == [("A", "f", "s"), ("B", "", "t")]
    assert "do not say when" in "".join(found.warnings)


def test_of_several_standard_scans_none_is_guessed(scan: Scan, run: Run) -> None:
    scan("fast", "A", 40, "100000")
    scan("slow1", "A", 20, "101000")
    scan("slow2", "A", 20.4, "102500")
    found = run()
    assert _rows(found) == [("A", "", "slow1"), ("A", "", "slow2")]
    reason = _refused(found)["fast"]
    assert "slow1" in reason
    assert "slow2" in reason


def test_the_scan_at_the_standard_velocity_is_the_standard_scan(scan: Scan, run: Run) -> None:
    scan("fast", "A", 40, "100000")
    scan("slow", "A", 20.4, "101000")
    scan("slower", "A", 10, "102000")
    assert _rows(run()) == [("A", "fast", "slow"), ("A", "", "slower")]
    assert _rows(run(statements=Statements(standard_velocity=10))) == [("A", "", "slower")]
    assert _rows(run(statements=Statements(40, 10))) == [("A", "fast", "slower")]


def test_two_rapid_scans_of_one_standard_scan(scan: Scan, run: Run) -> None:
    scan("fast1", "A", 40, "100000")
    scan("fast2", "A", 30, "101000")
    scan("slow", "A", 20, "102000")
    found = run()
    assert _rows(found) == [("A", "", "slow")]
    assert set(_refused(found)) == {"fast1", "fast2"}
    found = run(statements=Statements(rapid_velocity=40))
    assert _rows(found) == [("A", "fast1", "slow")]
    assert "no rapid one: 30 cm/min" in _refused(found)["fast2"]


def test_scans_without_a_partner(scan: Scan, run: Run) -> None:
    scan("only_slow", "A", 10)
    scan("only_standard", "B", 20)
    scan("only_fast", "C", 40)
    scan("other_matrix", "D", 40, counts=poisson(2, rows=96))
    scan("standard", "D", 20, "102500")
    scan("one_view", "E", 40, views=("anterior",))
    scan("two_views", "E", 20, "102500")
    found = run()
    assert _rows(found) == [
        ("A", "", "only_slow"),
        ("B", "", "only_standard"),
        ("D", "", "standard"),
        ("E", "", "two_views"),
    ]
    refused = _refused(found)
    assert "its patient has no standard scan" in refused["only_fast"]
    assert "differ in shape" in refused["other_matrix"]
    assert "differ in views" in refused["one_view"]
    # Where a department's standard is 40 cm/min, it is a standard scan.
    assert ("C", "", "only_fast") in _rows(run(statements=Statements(standard_velocity=40)))


def test_velocities_are_stated_for_files_that_do_not_say(scan: Scan, run: Run) -> None:
    scan("fast", "A", None, "100000", ActualFrameDuration=310_000)
    scan("slow", "A", None, "101000", ActualFrameDuration=600_000)
    scan("alone", "B", None)
    scan("known", "C", 40, "100000")
    scan("silent", "C", None, "101000", ActualFrameDuration=590_000)
    found = run()
    assert found.cases == ()
    assert not found.manifest.exists()
    assert "velocity is unknown" in _refused(found)["alone"]
    found = run(statements=Statements(rapid_velocity=40, standard_velocity=20))
    assert _rows(found) == [("A", "fast", "slow"), ("C", "known", "silent")]
    assert set(_refused(found)) == {"alone"}
    assert [(c.rapid_velocity, c.standard_velocity) for c in found.cases] == [(40, 20), (None, 20)]
    assert [load_case(c).exposure for c in Manifest.read(found.manifest).cases] == [pytest.approx(0.5)] * 2
    # Of two silent scans of other durations not both can have the one velocity given.
    found = run(statements=Statements(standard_velocity=20))
    assert _rows(found) == [("B", "", "alone"), ("C", "known", "silent")]
    assert "durations of its visit do not settle it" in _refused(found)["slow"]
    assert found.read == 0


def test_views_are_stated_for_files_that_do_not_say(scan: Scan, run: Run) -> None:
    for name, velocity, at in (("f", 40, "101500"), ("s", 20, "102500")):
        for view in BOTH:
            file = scan(f"{name}/IM_{view[:3]}_1", "A", velocity, at, views=(view,))
            header = pydicom.dcmread(file)
            header.DetectorInformationSequence[0].ViewCodeSequence = []
            header.save_as(file)
    scan("f/told_POS", "B", 20, views=("anterior",))
    found = run()
    assert _rows(found) == [("B", "", "told_POS")]
    assert "which view" in _refused(found)["IM_ant_1"]
    patterns = Statements(anterior=("*_ANT_*",), posterior=("*_pos*",))
    found = run(statements=patterns)
    assert _rows(found) == [("A", "IM_ant_1+IM_pos_1", "IM_ant_1+IM_pos_1")]
    assert "anterior=../ward/f/IM_ant_1;posterior=../ward/f/IM_pos_1" in found.manifest.read_text()
    assert load_case(Manifest.read(found.manifest).cases[0]).views == BOTH
    assert "ViewCodeSequence says anterior, but posterior was given" in _refused(found)["told_POS"]


def test_a_real_scan_is_indexed(run: Run, ward: Path, real_scan: Path) -> None:
    """A file without view codes, detectors or dates."""
    shutil.copy(real_scan, ward / real_scan.name)
    assert "which view" in _refused(run())[real_scan.name]
    found = run(statements=Statements(anterior=("*anterior*",)))
    assert _rows(found) == [("ANON", "", real_scan.name)]
    assert load_case(Manifest.read(found.manifest).cases[0]).standard.sum() == 3_596_452


def test_new_patients_move_nobody(scan: Scan, run: Run) -> None:
    for number in range(12):
        scan(f"{number}", f"P{number}", 20)
    before = {case.patient: case.split for case in run().cases}
    assert len(set(before.values())) > 1
    for number in range(12, 20):
        scan(f"{number}", f"P{number}", 20)
    after = {case.patient: case.split for case in run().cases}
    assert {patient: after[patient] for patient in before} == before
    assert {case.patient: case.split for case in run(split=Split(seed=1)).cases} != after


def test_the_shares_are_those_asked_for() -> None:
    patients = [f"P{number}" for number in range(4000)]
    places = [Split(seed=3).of(patient) for patient in patients]
    for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        # Four standard deviations of a binomial share.
        assert places.count(name) / 4000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000))
    assert {Split(shares=(0, 0, 1)).of(patient) for patient in patients} == {"test"}
    assert Split().of(" p 7") == Split().of("P7")


def test_splits_may_be_given(scan: Scan, run: Run, tmp_path: Path) -> None:
    for patient in ("A1", "B2", "C3"):
        scan(patient, patient, 20)
    given = tmp_path / "splits.csv"
    given.write_text("patient,split\na1 ,test\nB2,val\n")
    found = run(split=Split(given=read_splits(given)))
    assert {case.patient: case.split for case in found.cases} == {"A1": "test", "B2": "val"}
    assert "not in the splits given" in _refused(found)["C3"]
    assert read_splits(found.manifest) == {"a1": "test", "b2": "val"}
    for text, fault in (
        ("patient,split\nA1,test\na1,train\n", "is in split train and in test"),
        ("patient,split\nA1,tset\n", "'tset' is no split"),
        ("who,split\nA1,test\n", "no column patient"),
    ):
        given.write_text(text)
        with pytest.raises(ManifestError, match=fault):
            read_splits(given)
    with pytest.raises(ManifestError, match="no such file"):
        read_splits(tmp_path / "none.csv")


def test_a_patient_is_one_in_any_spelling(scan: Scan, run: Run) -> None:
    for number in range(8):
        scan(f"{number}a", f"Pat {number}", 20, AcquisitionDate="20240101")
        scan(f"{number}b", f"PAT{number} ", 20, AcquisitionDate="20240601")
    found = run()
    assert len(found.cases) == 16
    assert len({case.patient for case in found.cases}) == 8
    assert len({(case.patient, case.split) for case in found.cases}) == 8
    text = found.manifest.read_text().splitlines()
    moved = (
        text[1].replace(f",{found.cases[0].split},", ",train,"),
        text[2].replace(f",{found.cases[1].split},", ",test,"),
    )
    found.manifest.write_text("\n".join([text[0], *moved]))
    with pytest.raises(ManifestError, match="is in split test but in train"):
        Manifest.read(found.manifest)


def test_copies_are_indexed_once(scan: Scan, run: Run, ward: Path) -> None:
    original = scan("a/1", "A", 20)
    (ward / "b").mkdir()
    shutil.copy(original, ward / "b/copy")
    again = pydicom.dcmread(original)  # what a second archive made of it
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    again.save_as(ward / "b/renamed")
    scan("A/anterior", "A", 20, views=("anterior",), counts=again.pixel_array[:1])
    scan("x1", "B", 20, SOPInstanceUID="1.2.3")
    scan("x2", "B", 20, SOPInstanceUID="1.2.3")
    found = run()
    assert _rows(found) == [("A", "", "1")]
    refused = _refused(found)
    assert all(f"the counts of {original} again" in refused[name] for name in ("copy", "renamed", "anterior"))
    assert "which holds other counts" in refused["x1"]
    assert "which holds other counts" in refused["x2"]


def test_no_patient_hides_behind_two_names(scan: Scan, run: Run) -> None:
    """With all its other scans: they would be trained on under one name and tested on under the other."""
    counts = poisson(2, level=40.0, seed=99)
    scan("named", "MILLER", 20, counts=counts)
    scan("study_id", "S01", 20, counts=counts)
    scan("later", "S01", 20, AcquisitionDate="20250101")
    scan("other", "B", 20)
    found = run()
    assert _rows(found) == [("B", "", "other")]
    assert all("two Patient IDs" in _refused(found)[name] for name in ("named", "study_id", "later"))


@pytest.mark.parametrize(
    "trait", [{"PatientSex": "M"}, {"PatientBirthDate": "20200101"}], ids=["sex", "birth"]
)
def test_two_patients_of_one_name_are_no_patient(scan: Scan, run: Run, trait: dict[str, str]) -> None:
    scan("one", "ANON", 40, PatientBirthDate="20150101")
    scan("two", "ANON", 20, "102500", **({"PatientBirthDate": "20150101"} | trait))
    scan("other", "B", 20)
    found = run()
    assert _rows(found) == [("B", "", "other")]
    assert "two patients share its Patient ID" in _refused(found)["one"]
    # A birth date must not travel with the notes.
    assert "20150101" not in found.manifest.with_suffix(".notes.jsonl").read_text()


def test_what_is_no_raw_whole_body_scan_is_refused_by_name(scan: Scan, run: Run, ward: Path) -> None:
    scan("good", "A", 20)
    smooth = poisson(2, seed=7, level=200.0)
    smooth = (smooth + np.roll(smooth, 1, 1) + np.roll(smooth, 1, 2)) // 3
    scan("ct", "A", 20, SOPClassUID=CTImageStorage, Modality="CT")
    scan("tomo", "A", 20, ImageType=["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"])
    scan("smooth", "A", 20, counts=smooth)
    scan("faint", "A", 20, counts=poisson(2, level=2.0))
    scan("nameless", " ", 20)
    scan("a;b", "A", 20)
    static = ["ORIGINAL", "PRIMARY", "STATIC", "EMISSION"]
    scan("spot", "A", None, ImageType=static, ScanLength=None, WholeBodyTechnique=None, views=("anterior",))
    scan("windows", "A", 20, NumberOfEnergyWindows=2, EnergyWindowVector=[1, 2])
    (ward / "empty.dcm").touch()
    (ward / "note.txt").write_text("Dear colleague")
    found = run()
    assert _rows(found) == [("A", "", "good")]
    reasons = {
        "ct": "it is CT Image Storage",
        "tomo": "its image type is TOMO",
        "smooth": "smoothed or rescaled",
        "faint": "too few counts",
        "nameless": "no Patient ID",
        "a;b": "cannot hold its path",
        "spot": "nothing says that it is a whole-body scan",
        "windows": "2 energy windows",
        "empty.dcm": "it is empty",
    }
    refused = _refused(found)
    assert set(refused) == set(reasons)
    for name, reason in reasons.items():
        assert reason in refused[name], name
    # Remedies are those of this command, which has no --energy-window.
    assert "--energy-window" not in found.refused.read_text()


def test_what_rbs_made_is_known(scan: Scan, run: Run, ward: Path) -> None:
    from rbs.scans.dicom.reader import read_nm
    from rbs.scans.dicom.writer import Derivation, write_restored_nm

    slow = scan("slow", "A", 10)
    rapid = read_nm(scan("fast", "B", 40))
    write_restored_nm(
        ward / "restored", rapid.with_counts(rapid.counts * 2.0), rapid, derivation=Derivation("f", "1", "0")
    )
    thin = ("--remainder", str(ward / "rest"), "--velocity", "40")
    assert main(["thin", str(slow), str(ward / "kept"), *thin]) == 0
    found = run()
    # What was left over shares no count with what was kept; the whole shares counts with both.
    assert _rows(found) == [("A", "kept", "rest")]
    refused = _refused(found)
    assert refused["restored"] == "rbs wrote it as a restoration"
    assert "thinned out of" in refused["slow"]
    (ward / "rest").unlink()
    found = run()
    assert _rows(found) == [("A", "", "slow")]
    assert "so its counts are in both" in _refused(found)["kept"]


def test_standard_scans_of_two_matrices_are_two_lines(scan: Scan, run: Run) -> None:
    scan("wide", "A", 20, "100000", counts=poisson(2, rows=40, columns=80, level=60.0))
    scan("long", "A", 20, "102000")
    assert _rows(run()) == [("A", "", "long"), ("A", "", "wide")]


def test_counts_shared_without_a_word_are_seen(scan: Scan, run: Run) -> None:
    slow = poisson(2, seed=5, level=40.0)
    scan("slow", "A", 20, "102500", counts=slow)
    scan("part", "A", 40, counts=np.random.default_rng(0).binomial(slow, 0.5))
    found = run()
    assert _rows(found) == [("A", "", "slow")]
    assert "in both" in _refused(found)["part"]
    # Half of its counts are those of the standard scan, the others its own.
    half = np.random.default_rng(1).binomial(slow, 0.25) + poisson(2, seed=6, level=10.0)
    scan("part", "A", 40, counts=half.astype(slow.dtype))
    found = run()
    assert _rows(found) == [("A", "", "slow")]
    assert "their noise is correlated" in _refused(found)["part"]


@pytest.mark.parametrize("change", ["one pixel", "shifted", "mirrored", "thinned"])
def test_one_scan_under_two_patient_ids_is_seen(scan: Scan, run: Run, change: str) -> None:
    counts = poisson(2, seed=5, level=40.0)
    scan("mine", "A", 20, counts=counts)
    changed = {
        "one pixel": np.where(np.arange(counts.size).reshape(counts.shape) == 700, counts + 1, counts),
        "shifted": np.roll(counts, 1, axis=1),
        "mirrored": counts[:, :, ::-1],
        "thinned": np.random.default_rng(0).binomial(counts, 0.7),
    }[change]
    scan("yours", "B", 20, counts=changed.astype(counts.dtype))
    scan("another", "C", 20)
    found = run()
    assert _rows(found) == [("C", "", "another")]
    assert all("two Patient IDs" in _refused(found)[name] for name in ("mine", "yours"))


def test_one_study_of_two_patients_is_refused(scan: Scan, run: Run) -> None:
    scan("f", "A", 40, "101500", study="1.2.3")
    scan("s", "A 1", 20, "102500", study="1.2.3")
    scan("another", "C", 20)
    found = run()
    assert _rows(found) == [("C", "", "another")]
    assert "two Patient IDs" in _refused(found)["s"]
    assert "are of one study" in _refused(found)["f"]


def test_linked_folders_are_indexed_once(scan: Scan, run: Run, ward: Path, tmp_path: Path) -> None:
    scan("here/a", "A", 20)
    scan("../elsewhere/b", "B", 20)
    (ward / "link").symlink_to(tmp_path / "elsewhere")
    (ward / "here" / "round").symlink_to(ward)
    os.mkfifo(ward / "pipe.dcm")
    found = run()
    assert _rows(found) == [("A", "", "a"), ("B", "", "b")]
    assert _refused(found) == {}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []

    def note(file: Path, view: object = None) -> object:
        names.append(file.name)
        return take_note(file, view)

    monkeypatch.setattr(records, "take_note", note)
    return names


def test_only_new_and_changed_files_are_read_again(
    scan: Scan, run: Run, ward: Path, reads: list[str]
) -> None:
    for name, velocity, at in (("f", 40, "101500"), ("s", 20, "102500")):
        scan(name, "A", velocity, at)
    (ward / "empty.dcm").touch()
    first = run()
    assert sorted(reads) == ["empty.dcm", "f", "s"]
    text = first.manifest.read_text()
    reads.clear()
    second = run()
    assert (reads, second.read, second.refusals) == ([], 0, first.refusals)
    assert second.manifest.read_text() == text
    scan("new", "B", 20)
    os.utime(ward / "f", (0, 0))
    state = (ward / "s").stat()
    scan("s", "C", 20, "102500")
    assert (ward / "s").stat().st_size == state.st_size
    os.utime(ward / "s", ns=(state.st_atime_ns, state.st_mtime_ns))
    third = run()
    assert sorted(reads) == ["new", "s"]
    assert _rows(third) == [("B", "", "new"), ("C", "", "s")]
    (ward / "new").unlink()
    assert _rows(run()) == [("C", "", "s")]


def test_an_interrupted_run_goes_on_where_it_stopped(
    scan: Scan, run: Run, reads: list[str], monkeypatch: pytest.MonkeyPatch, ward: Path
) -> None:
    for number in range(6):
        scan(f"{number}", f"P{number}", 20)
    counting = records.take_note

    def stop_at_the_fourth(file: Path, view: object = None) -> object:
        if len(reads) == 3:
            raise KeyboardInterrupt
        return counting(file, view)

    monkeypatch.setattr(records, "take_note", stop_at_the_fourth)
    arguments = ["index", str(ward), "-o", str(ward.parent / "out/manifest.csv"), "--workers", "1"]
    assert main(arguments) == 130
    assert sorted(path.name for path in (ward.parent / "out").iterdir()) == ["manifest.notes.jsonl"]
    monkeypatch.setattr(records, "take_note", counting)
    assert main(arguments) == 0
    assert reads == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("damage", "again", "said"),
    [
        (lambda text: text[: len(text) - 40], 1, "damaged lines: 1"),
        (lambda text: text.replace('"study"', '"stduy"'), 3, "damaged lines: 3"),
        (lambda text: text.replace('"velocity": 20.0', '"velocity": "20"'), 3, "damaged lines: 3"),
        (lambda text: text.replace('"velocity": 20.0', '"velocity": NaN'), 3, "damaged lines: 3"),
        (lambda text: text.replace('"shape": [', '"shape": [1, '), 3, "damaged lines: 3"),
        (lambda text: text.replace('"velocity": 20.0', '"velocity": 21.0', 1), 1, "damaged lines: 1"),
        (lambda text: text.replace('"note": {', '"note": ' + "[" * 100_000, 1), 1, "damaged lines: 1"),
        (lambda text: "\x00\x01", 3, "it is damaged"),
        (lambda text: "[" * 100_000, 3, "it is damaged"),
        (lambda text: "", 3, "it is damaged"),
        (lambda text: "[]\n" + text, 3, "it is damaged"),
        (lambda text: text.replace('"rules": "', '"rules": "0'), 3, ""),
    ],
    ids=[
        "cut",
        "garbled",
        "text",
        "nan",
        "shape",
        "digit",
        "nested",
        "binary",
        "brackets",
        "empty",
        "other",
        "other rules",
    ],
)
def test_damaged_notes_are_read_anew(
    scan: Scan, run: Run, reads: list[str], damage: Callable[[str], str], again: int, said: str, caplog
) -> None:
    for number in range(3):
        scan(f"{number}", f"P{number}", 20)
    notes = run().manifest.with_suffix(".notes.jsonl")
    whole = notes.read_text()
    notes.write_text(damage(whole))
    reads.clear()
    assert len(_rows(run())) == 3
    assert len(reads) == again
    assert said in caplog.text
    assert sorted(notes.read_text().splitlines()) == sorted(whole.splitlines())


def test_a_file_that_kills_its_reader_is_refused(
    scan: Scan, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan("other", "B", 20)
    scan("deadly", "A", 20)
    monkeypatch.setattr(records, "take_note", note_or_die)
    found = run(workers=2)
    assert _rows(found) == [("B", "", "other")]
    assert "the process that read it died" in _refused(found)["deadly"]
    assert "deadly" not in found.manifest.with_suffix(".notes.jsonl").read_text()


def test_nothing_is_overwritten_unasked(scan: Scan, ward: Path, tmp_path: Path) -> None:
    scan("1", "A", 20)
    out = tmp_path / "manifest.csv"
    out.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        index_scans(ward, out, workers=1)
    assert out.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"ward", "manifest.csv"}
    index_scans(ward, out, workers=1, overwrite=True, progress=False)
    assert len(Manifest.read(out).cases) == 1


def test_folders_without_scans_and_bad_settings_are_refused(ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "manifest.csv"
    for folder, fault in ((tmp_path / "none", "no such folder"), (ward, "no DICOM file")):
        with pytest.raises(ScanError, match=fault):
            index_scans(folder, out)
    for shares in ((0, 0, 0), (-1, 1, 1), (float("nan"), 1, 1)):
        with pytest.raises(RbsError, match="out of range"):
            index_scans(ward, out, split=Split(shares=shares))
    with pytest.raises(RbsError, match="no faster"):
        index_scans(ward, out, statements=Statements(rapid_velocity=20))
    with pytest.raises(OutputError, match=r"name it \.csv"):
        index_scans(ward, tmp_path / "manifest")
    assert [path.name for path in tmp_path.iterdir()] == ["ward"]


def test_whatever_is_accepted_trains_and_the_rest_is_listed(scan: Scan, run: Run, ward: Path) -> None:
    """A ward of random habits: every file is in the manifest or refused, and the data module takes it all."""
    rng = np.random.default_rng(4)
    for number in range(24):
        for visit in range(rng.integers(1, 3)):
            day = {"AcquisitionDate": f"202401{visit + 1:02}", "study": f"1.2.{number}.{visit}"}
            for name, velocity in (("f", 40), ("f2", 35), ("s", 20), ("s2", 20), ("slow", 10)):
                if rng.random() < {"f": 0.7, "s": 0.8}.get(name, 0.15):
                    silent = rng.random() < 0.1
                    hour = rng.choice([10, 10, 10, 13])
                    for views in [BOTH] if rng.random() < 0.5 else [("anterior",), ("posterior",)]:
                        at, stated = f"{hour}{rng.integers(10, 50)}00", None if silent else velocity
                        scan(
                            f"{number}/{visit}/{name}{views[0]}", f"P{number}", stated, at, views=views, **day
                        )
    found = run(statements=Statements(rapid_velocity=40), split=Split(seed=1))
    used = [file for case in found.cases for file in (*case.rapid, *case.standard)]
    refused = [refusal.file for refusal in found.refusals]
    everything = [path for path in ward.rglob("*") if path.is_file()]
    assert sorted(used + refused) == sorted(everything)
    assert min(len(used), len(refused)) > 10
    assert {bool(case.rapid) for case in found.cases} == {True, False}
    data = RBSDataModule(found.manifest, crop=(64, 48), num_workers=0)
    data.setup("fit")
    data.setup("test")
    assert sum(len(data.cases(name)) for name in ("train", "val", "test")) == len(found.cases)
    of = {name: {case.patient for case in data.cases(name)} for name in ("train", "val", "test")}
    assert sum(map(len, of.values())) == len(set().union(*of.values())) > 10
