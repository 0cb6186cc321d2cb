"""The files of a case are laid on one grid, or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from moving_body import SHAPE, SPACING, Field, passes, rigid, still
from nm_files import changed_copy, write_nm
from pydicom.uid import generate_uid

from rbs.data.loading import load_case
from rbs.data.manifest import Case, Manifest
from rbs.errors import ManifestError, ScanError
from rbs.scans.scan import REGIONS, View


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


def test_the_rapid_scan_must_be_the_faster_one(tiny_cohort: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    with pytest.raises(ManifestError, match=r"no faster than .*; swap the columns") as caught:
        load_case(replace(case, rapid=case.standard, standard=case.rapid))
    assert caught.value.file == case.standard[0]
    assert str(case.rapid[0]) in str(caught.value)


def test_two_patients_are_no_pair(tiny_cohort: Path, tmp_path: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    other = changed_copy(case.rapid[0], tmp_path / "other.dcm", PatientID="SECRET9")
    with pytest.raises(ManifestError, match="differ in patient") as caught:
        load_case(replace(case, rapid=(other,)))
    assert str(case.standard[0]) in str(caught.value)
    assert "SECRET9" not in str(caught.value)
    unnamed = changed_copy(case.rapid[0], tmp_path / "unnamed.dcm", PatientID="")
    load_case(replace(case, rapid=(unnamed,)))


def test_scans_that_do_not_fit_each_other_are_refused(make_cohort, tiny_cohort: Path, tmp_path: Path) -> None:
    case = Manifest.read(tiny_cohort).cases[0]
    other = Manifest.read(make_cohort(tmp_path / "larger", splits=("train",), shape=(144, 64))).cases[0]
    spaced = changed_copy(case.rapid[0], tmp_path / "spaced.dcm", PixelSpacing=["9.0", "9.6"])
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
    still = changed_copy(getattr(case, kind)[0], tmp_path / "still.dcm", ScanVelocity=None)
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
