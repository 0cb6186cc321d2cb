"""A rapid scan and its standard scan may not share a count, however they came to."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from rbs.cli.main import main
from rbs.data.loading import load_case
from rbs.data.manifest import Case, Manifest
from rbs.errors import ManifestError

Thin = Callable[..., Path]


@pytest.fixture
def slow(make_cohort, tmp_path: Path) -> Path:
    """A scan of 20 cm/min."""
    return Manifest.read(make_cohort(tmp_path / "cohort", splits=("test",))).cases[0].standard[0]


@pytest.fixture
def thin(tmp_path: Path) -> Thin:
    """`rbs thin` of a file to a velocity; returns what was kept and what was left over."""

    def run(source: Path, velocity: float, seed: int = 0) -> tuple[Path, Path]:
        stem = f"{source.stem}_{velocity}_{seed}"
        kept, rest = tmp_path / f"{stem}_kept.dcm", tmp_path / f"{stem}_rest.dcm"
        arguments = [source, kept, "--velocity", velocity, "--remainder", rest, "--seed", seed]
        assert main(["thin", *map(str, arguments)]) == 0
        return kept, rest

    return run


def load(rapid: Path, standard: Path):
    return load_case(Case("mine", "test", (rapid,), (standard,)))


def refused(rapid: Path, standard: Path, fault: str) -> None:
    with pytest.raises(ManifestError, match=fault) as caught:
        load(rapid, standard)
    assert caught.value.file == rapid
    assert str(standard) in str(caught.value)
    assert "leave rapid empty" in str(caught.value)


def test_what_is_left_over_is_independent(slow: Path, thin: Thin) -> None:
    """Both documented ways: the remainder itself, and a standard scan thinned out of the remainder."""
    rapid, rest = thin(slow, 80, seed=1)
    assert load(rapid, rest).exposure == pytest.approx(1 / 3, rel=1e-3)
    standard, _ = thin(rest, 40, seed=2)
    assert load(rapid, standard).exposure == pytest.approx(1 / 2, rel=1e-3)


def test_a_scan_and_what_was_thinned_out_of_it(slow: Path, thin: Thin) -> None:
    refused(thin(slow, 40)[0], slow, "it was thinned out of")


def test_two_draws_of_one_scan(slow: Path, thin: Thin) -> None:
    first, second = thin(slow, 80, seed=1), thin(slow, 80, seed=2)
    refused(first[0], thin(slow, 40, seed=3)[0], "thinned out of one scan")
    # What another draw left over holds some of the counts as well.
    refused(first[0], second[1], "thinned out of one scan")


def test_the_counts_tell_what_headers_do_not(slow: Path, thin: Thin, tmp_path: Path) -> None:
    refused(thin(thin(slow, 40)[0], 80)[0], slow, "it was thinned out of")
    silent = pydicom.dcmread(thin(slow, 50)[0])
    silent.ImageType[0] = "ORIGINAL"
    del silent.SourceImageSequence, silent.DerivationCodeSequence
    silent.save_as(tmp_path / "silent.dcm")
    refused(tmp_path / "silent.dcm", slow, "it was thinned out of")


def test_one_acquisition_under_two_names(slow: Path, tmp_path: Path) -> None:
    again = pydicom.dcmread(slow)
    again.ScanVelocity = "6.6667"
    again.save_as(tmp_path / "again.dcm")
    refused(tmp_path / "again.dcm", slow, "one and the same acquisition")


def test_a_standard_scan_thinned_out_of_the_rapid_one(slow: Path, thin: Thin, tmp_path: Path) -> None:
    """Velocities can be stated so that they look right; what was thinned from what cannot."""
    part = pydicom.dcmread(thin(slow, 40)[0])
    part.ScanVelocity = "1.0"
    part.save_as(tmp_path / "part.dcm")
    refused(slow, tmp_path / "part.dcm", "was thinned out of it")


def test_a_faint_independent_scan_is_no_part(slow: Path, tmp_path: Path) -> None:
    """The fewer its counts, the fewer pixels of it exceed the other scan; some still do."""
    faint = pydicom.dcmread(slow)
    expectation = np.load(slow.with_name("truth.npz"))["expectation"]
    faint.PixelData = np.random.default_rng(5).poisson(0.05 * expectation).astype("<u2").tobytes()
    faint.ScanVelocity = "66.667"
    faint.SOPInstanceUID = faint.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    faint.save_as(tmp_path / "faint.dcm")
    assert load(tmp_path / "faint.dcm", slow).exposure == pytest.approx(0.05, rel=1e-3)
