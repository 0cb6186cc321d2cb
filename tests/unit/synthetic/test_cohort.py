"""Cohorts of phantom children on disk."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest

from rbs.errors import OutputError, RbsError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import View
from rbs.synthetic import cohort as cohorts
from rbs.synthetic.cohort import Acquisition, split_patients, write_cohort
from rbs.synthetic.skeleton import make_passes

make_patient = cache(cohorts.make_patient)
"""A patient is drawn once for all tests, which change none."""

SCANS = ("rapid.dcm", "standard.dcm", "truth.npz", "child.json")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "phantoms"
    write_cohort(out, 3, seed=5, workers=1, progress=False)
    return out


def test_the_manifest_names_files_that_are_there(cohort: Path) -> None:
    with (cohort / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "patient",
        "split",
        "age_y",
        "sex",
        "height_cm",
        "weight_kg",
        "rapid",
        "standard",
        "truth",
    ]
    assert sorted(row["split"] for row in rows) == ["test", "train", "val"]
    for row in rows:
        assert all((cohort / row[kind]).is_file() for kind in ("rapid", "standard", "truth"))
        assert 0.5 <= float(row["age_y"]) <= 16


def test_scans_are_raw_readable_and_of_their_velocity(cohort: Path) -> None:
    for number in (1, 2, 3):
        patient = make_patient(number, 5)
        for kind, velocity, counts in (("rapid", 40, patient.rapid), ("standard", 20, patient.standard)):
            scan = read_nm(cohort / f"P{number:04d}" / f"{kind}.dcm")
            assert scan.views == (View.ANTERIOR, View.POSTERIOR)
            assert scan.velocity == pytest.approx(velocity, rel=1e-3)
            assert scan.spacing_mm == pytest.approx((2.26, 2.26))
            assert np.array_equal(scan.counts, counts)
            assert scan.provenance.header is not None
            assert scan.provenance.header.SyntheticData == "YES"
            # mm/s times s: the child was scanned, not the whole frame
            travelled = velocity / 6 * scan.duration_s
            assert scan.provenance.header.ScanLength == pytest.approx(travelled, abs=1) != round(1024 * 2.26)


def test_truth_is_in_the_orientation_of_the_frames(cohort: Path) -> None:
    truth = np.load(cohort / "P0001" / "truth.npz")
    scan = read_nm(cohort / "P0001" / "standard.dcm")
    assert truth["expectation"].dtype == np.float32
    assert truth["labels"].dtype == np.uint8
    for frame in range(2):
        seen = scan.counts[frame].astype(float).ravel()
        straight = np.corrcoef(seen, truth["expectation"][frame].ravel())[0, 1]
        mirrored = np.corrcoef(seen, truth["expectation"][frame, :, ::-1].ravel())[0, 1]
        assert straight > mirrored + 0.05


def test_draws_are_poisson_and_independent() -> None:
    patient = make_patient(1, 5)
    rapid, standard = patient.rapid, patient.standard
    mean = patient.phantom.expectation.astype(float)
    body = mean > 1
    for counts, expected in ((rapid, mean / 2), (standard, mean)):
        z2 = (counts - expected)[body] ** 2 / expected[body]
        spread = np.sqrt((2 + 1 / expected[body]).sum()) / body.sum()  # of the mean Poisson z squared
        assert abs(z2.mean() - 1) < 5 * spread
    ratio, total = rapid.sum() / standard.sum(), float(standard.sum())
    assert abs(ratio - 0.5) < 5 * 0.5 * np.sqrt(3 / total)
    residuals = [(c - m)[body] / np.sqrt(m[body]) for c, m in ((rapid, mean / 2), (standard, mean))]
    assert abs(np.corrcoef(*residuals)[0, 1]) < 5 / np.sqrt(body.sum())


def test_files_do_not_depend_on_the_number_of_workers(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "again", 3, seed=5, workers=2, progress=False)
    for path in sorted(p for p in cohort.rglob("*") if p.is_file() and p.suffix != ".npz"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(cohort)).read_bytes(), path.name
    for number in (1, 2, 3):
        one, two = (np.load(f / f"P{number:04d}" / "truth.npz") for f in (cohort, tmp_path / "again"))
        assert np.array_equal(one["expectation"], two["expectation"])
        assert np.array_equal(one["labels"], two["labels"])


def test_an_interrupted_cohort_is_finished_and_whole_patients_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    write_cohort(out, 3, seed=2, workers=1, progress=False)
    (out / "manifest.csv").unlink()
    (out / "P0002" / "standard.dcm").unlink()
    (out / ".making-P0003-x").mkdir()
    kept = (out / "P0001" / "rapid.dcm").stat().st_mtime_ns
    write_cohort(out, 3, seed=2, workers=1, progress=False)
    assert (out / "manifest.csv").is_file()
    assert all((out / "P0002" / name).is_file() for name in SCANS)
    assert (out / "P0001" / "rapid.dcm").stat().st_mtime_ns == kept
    assert not list(out.glob(".making-*"))


def test_a_folder_that_holds_something_else_is_refused(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(OutputError, match="something else"):
        write_cohort(tmp_path, 3, seed=5, workers=1, progress=False)
    with pytest.raises(OutputError, match="another seed"):
        write_cohort(cohort, 3, seed=6, workers=1, progress=False)
    with pytest.raises(OutputError, match="not a folder"):
        write_cohort(tmp_path / "thesis.txt", 3, seed=5, workers=1, progress=False)


def test_too_few_patients_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RbsError, match="at least 3"):
        write_cohort(tmp_path / "out", 2, seed=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("patients", "share"), [(3, 1), (10, 2), (137, 21)])
def test_splits_have_their_shares(patients: int, share: int) -> None:
    splits = split_patients(patients, seed=1)
    assert len(splits) == patients
    assert splits.count("val") == splits.count("test") == share
    assert splits.count("train") == patients - 2 * share


def test_a_moving_cohort_holds_two_poses_of_the_same_children(tmp_path: Path) -> None:
    acquisition = Acquisition(rapid_velocity=30, standard_velocity=10, moving=True)
    write_cohort(tmp_path, 3, seed=5, acquisition=acquisition, workers=1, progress=False)
    still, folder = make_patient(1, 5), tmp_path / "P0001"
    truth, told = np.load(folder / "truth.npz"), json.loads((folder / "child.json").read_text())
    # The rapid scan sees the child as it lies in the cohort of those that do not move.
    assert np.array_equal(truth["expectation_rapid"], still.phantom.expectation * np.float32(2))
    for kind, velocity in (("rapid", 30), ("standard", 10)):
        scan = read_nm(folder / f"{kind}.dcm")
        assert scan.velocity == pytest.approx(velocity, rel=1e-3)
        expected = truth["expectation_rapid"] / 3 if kind == "rapid" else truth["expectation"]
        assert scan.counts.sum() == pytest.approx(expected.sum(dtype=float), rel=0.01)
    assert np.hypot(*told["motion_since_rapid"]["shift_mm"]) <= 4
    marks = told["landmarks_row_column"], told["landmarks_row_column_rapid"]
    assert marks[0]["vertex"] != marks[1]["vertex"]
    with pytest.raises(OutputError, match="another seed"):
        write_cohort(tmp_path, 3, seed=5, workers=1, progress=False)


def test_tracer_decays_between_the_passes() -> None:
    moved = make_patient(2, 5, Acquisition(moving=True))
    _, late = make_passes_of(2, 5)
    lost = moved.phantom.expectation.sum(dtype=float) / late
    minutes = 1.5 * moved.phantom.scan_length_mm / 10 / 20 / 2 + 1  # of 1.5 passes at 20 cm/min, half each
    assert lost == pytest.approx(0.5 ** (minutes / (6.007 * 60)), rel=1e-4)


def make_passes_of(number: int, seed: int) -> tuple[float, float]:
    """Counts of both passes before decay."""
    who, _, _, moves = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, number]).spawn(4))
    age, sex = float(who.uniform(0.5, 16.0)), "F" if who.random() < 0.5 else "M"
    first, second = make_passes(age, sex, who, moves)  # type: ignore[arg-type]
    return first.expectation.sum(dtype=float), second.expectation.sum(dtype=float)


def test_a_low_dose_expects_fewer_counts_of_the_same_child(tmp_path: Path) -> None:
    write_cohort(tmp_path, 3, seed=5, acquisition=Acquisition(dose=0.25), workers=1, progress=False)
    usual, folder = make_patient(1, 5).phantom, tmp_path / "P0001"
    truth = np.load(folder / "truth.npz")
    assert np.array_equal(truth["labels"], usual.labels)
    assert np.array_equal(truth["expectation"], usual.expectation * np.float32(0.25))
    for kind, exposure in (("rapid", 0.5), ("standard", 1)):
        expected = exposure * truth["expectation"].sum(dtype=float)
        assert read_nm(folder / f"{kind}.dcm").counts.sum() == pytest.approx(expected, rel=0.02)
    radiopharmaceutical = pydicom.dcmread(folder / "rapid.dcm").RadiopharmaceuticalInformationSequence[0]
    assert float(radiopharmaceutical.RadionuclideTotalDose) == pytest.approx(
        usual.child.dose_mbq / 4, rel=1e-3
    )


def test_collimators_farther_away_blur_the_same_child_and_count_as_much() -> None:
    near, far = make_patient(1, 5).phantom, make_patient(1, 5, Acquisition(farther_mm=100)).phantom
    assert np.array_equal(near.labels, far.labels)
    assert far.expectation.sum(dtype=float) == pytest.approx(near.expectation.sum(dtype=float), rel=1e-4)
    # 11.2 mm at 200 mm against 7.0 at 100.
    steep = [np.square(np.diff(one.expectation, axis=-1)).sum(dtype=float) for one in (near, far)]
    assert steep[1] < 0.7 * steep[0]


def test_cohorts_from_before_doses_and_distances_are_still_known() -> None:
    usual = {"rapid_velocity": 40.0, "standard_velocity": 20.0, "moving": True}
    assert Acquisition(moving=True).settings() == usual
    assert Acquisition(moving=True, farther_mm=5).settings() == usual | {"farther_mm": 5}


@pytest.mark.parametrize("farther", [-1, float("nan")])
def test_distances_below_zero_are_refused(farther: float, tmp_path: Path) -> None:
    with pytest.raises(RbsError, match="give a distance of zero or more"):
        write_cohort(tmp_path / "out", 3, seed=1, acquisition=Acquisition(farther_mm=farther))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rapid", "standard"), [(20, 40), (40, 40), (500, 20)])
def test_velocities_that_make_no_pair_are_refused(rapid: float, standard: float, tmp_path: Path) -> None:
    with pytest.raises(RbsError, match="let the rapid scan be the faster one"):
        write_cohort(tmp_path / "out", 3, seed=1, acquisition=Acquisition(rapid, standard))
    assert not (tmp_path / "out").exists()
