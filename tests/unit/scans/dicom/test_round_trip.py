"""What is written is what is read, whatever the scan: by our reader, by pydicom and by highdicom."""

import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nm_files import write_nm

from rbs.degradation.thinning import split
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import (
    Derivation,
    PatientHeader,
    StudyHeader,
    write_acquired_nm,
    write_restored_nm,
    write_thinned_nm,
)
from rbs.scans.ranges import DURATION, SPACING, VELOCITY
from rbs.scans.scan import Scan, View

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MADE_BY = Derivation("f1", "0.1.0", "ab" * 32)
STUDY = StudyHeader("s", datetime(2024, 1, 2, 9))

# Text of a patient: any script, without what DICOM gives a meaning (\ ^ =) or does not print.
letters = st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="\\^=")
names = st.text(letters, min_size=1, max_size=16)


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    """Whole counts of any level up to 16 bits; one view or two in either order."""
    views = draw(st.sampled_from([*((v,) for v in View), tuple(View), tuple(View)[::-1]]))
    shape = (len(views), draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    top = draw(st.sampled_from([1, 9, 255, 256, 4095, 32767, 32768, 65535]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = rng.integers(0, top, shape, endpoint=True)
    counts[:, -1, -1] = top  # a frame without counts is refused
    spacing = draw(st.tuples(*[st.floats(SPACING.low, SPACING.high)] * 2))
    velocity = draw(st.none() | st.floats(VELOCITY.low, 300))
    duration = draw(st.none() | st.floats(DURATION.low, DURATION.high))
    return Scan(counts.astype(np.int32), views, spacing, velocity, duration)


def assert_alike(read: Scan, scan: Scan) -> None:
    np.testing.assert_array_equal(read.counts, scan.counts)
    assert read.views == scan.views
    assert read.spacing_mm == pytest.approx(scan.spacing_mm, rel=1e-9)
    assert read.velocity == pytest.approx(scan.velocity, abs=1e-4)
    assert read.duration_s == pytest.approx(scan.duration_s, abs=5.01e-4)


def acquired(path: Path, scan: Scan, patient: PatientHeader | None = None) -> Scan:
    """The scan as it is read after it was written."""
    write_acquired_nm(path, scan, patient=patient or PatientHeader("P1"), study=STUDY, uid_seed="a")
    return read_nm(path, require_raw=False)


@quick
@given(scans())
def test_an_acquired_scan_comes_back(scan: Scan) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        assert_alike(acquired(path, scan), scan)
        ds = pydicom.dcmread(path)
        np.testing.assert_array_equal(ds.pixel_array.reshape(scan.counts.shape), scan.counts)
        assert ds.CountsAccumulated == scan.counts.sum()


@quick
@given(names, names, st.lists(names, max_size=3))
def test_names_of_every_script_come_back(patient_id: str, family: str, given_names: list[str]) -> None:
    name = "^".join([family, *given_names])
    scan = Scan(np.ones((1, 4, 4), np.int32), (View.ANTERIOR,), (2.0, 2.0), 40.0, 60.0)
    with tempfile.TemporaryDirectory() as folder:
        read = acquired(Path(folder) / "a.dcm", scan, PatientHeader(patient_id, name))
        assert read.patient_id == patient_id
        write_restored_nm(Path(folder) / "r.dcm", replace(read, velocity=20.0), read, derivation=MADE_BY)
        for file in ("a.dcm", "r.dcm"):
            ds = pydicom.dcmread(Path(folder) / file)
            assert (ds.PatientID, str(ds.PatientName)) == (patient_id, name)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller^Zoë"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "王^小東=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_names_of_a_source_are_carried_over_in_its_character_set(
    charset: str | list[str], name: str, tmp_path: Path
) -> None:
    counts = np.full((1, 8, 8), 3)
    path = write_nm(tmp_path / "a.dcm", counts, SpecificCharacterSet=charset, PatientName=name)
    source = read_nm(path, require_raw=False)
    write_restored_nm(tmp_path / "r.dcm", replace(source, velocity=20.0), source, derivation=MADE_BY)
    assert str(pydicom.dcmread(tmp_path / "r.dcm").PatientName) == name


@quick
@given(scans(), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_a_thinned_scan_comes_back(scan: Scan, share: float, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = acquired(Path(folder) / "a.dcm", scan)
        kept, left = split(source.counts, (share, 1 - share), np.random.default_rng(seed))
        np.testing.assert_array_equal(kept + left, source.counts)
        for number, counts in enumerate((kept, left)):
            counts[:, 0, 0] += 1  # a frame without counts is refused
            counts = np.minimum(counts, 65535)
            velocity = scan.velocity and min(scan.velocity / share, VELOCITY.high)
            thinned = replace(source, counts=counts, velocity=velocity, duration_s=12.5)
            path = Path(folder) / f"{number}.dcm"
            write_thinned_nm(path, thinned, source, description="x", uid_seed=str(number))
            assert_alike(read_nm(path, require_raw=False), thinned)


@quick
@given(scans(), st.floats(1e-3, 3276))
def test_restored_counts_come_back_through_the_scale(scan: Scan, largest: float) -> None:
    rng = np.random.default_rng(scan.counts.size)
    counts = rng.uniform(0, largest, scan.counts.shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source = acquired(Path(folder) / "a.dcm", replace(scan, velocity=40.0))
        path = Path(folder) / "r.dcm"
        stored = write_restored_nm(
            path, replace(source, counts=counts, velocity=20.0), source, derivation=MADE_BY
        )
        image = highdicom.imread(path)
        ds = pydicom.dcmread(path)
    assert stored.clipped == 0
    step = ds.RealWorldValueMappingSequence[0].RealWorldValueSlope
    for frame in range(len(scan.views)):
        read = image.get_frame(frame + 1, apply_real_world_transform=True)
        np.testing.assert_allclose(read, counts[frame], atol=0.5 * step * (1 + 1e-5))
    assert step <= max(1e-3, largest / 3000)  # as fine as 16 bits allow
