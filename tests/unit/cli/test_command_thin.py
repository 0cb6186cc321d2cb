"""`rbs thin`."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from nm_files import poisson, write_nm

from rbs.errors import ScanError
from rbs.scans.dicom import writer as dicom_write


def test_both_parts_make_the_scan_again(rbs, tmp_path: Path) -> None:
    counts = poisson(2)
    scan = write_nm(tmp_path / "a.dcm", counts, views=("anterior", "posterior"), velocity=10)
    fast, rest = tmp_path / "fast.dcm", tmp_path / "rest.dcm"
    status, text, _ = rbs("thin", scan, fast, "--velocity", 40, "--remainder", rest)
    assert status == 0
    parts = [pydicom.dcmread(path) for path in (fast, rest)]
    np.testing.assert_array_equal(parts[0].pixel_array + parts[1].pixel_array, counts)
    # 40 cm/min in mm/s, and the 75 % left over are as a scan at 10 / 0.75.
    assert [float(part.ScanVelocity) for part in parts] == pytest.approx([40 / 6, 10 / 0.75 / 6], rel=1e-4)
    assert parts[0].pixel_array.sum() == pytest.approx(
        counts.sum() / 4, abs=5 * np.sqrt(counts.sum() * 3 / 16)
    )
    assert "seed 0" in parts[0].DerivationDescription
    assert f"{fast}: {parts[0].pixel_array.sum():,} counts, 25.0 %" in text


def test_the_seed_decides_the_draw_and_views_do_not_share_it(rbs, tmp_path: Path) -> None:
    counts = poisson()
    scans = [write_nm(tmp_path / f"{i}.dcm", counts, velocity=20) for i in range(2)]
    drawn = []
    other = write_nm(tmp_path / "other.dcm", poisson(seed=1), velocity=20, SOPInstanceUID="")
    unnamed = write_nm(tmp_path / "unnamed.dcm", counts, velocity=20, SOPInstanceUID="")
    for name, scan, seed in (("x", scans[0], 1), ("y", scans[1], 1), ("z", scans[0], 2)):
        assert rbs("thin", scan, tmp_path / name, "--velocity", 40, "--seed", seed)[0] == 0
        drawn.append(pydicom.dcmread(tmp_path / name).pixel_array)
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    # Where all see the same counts, a shared stream of random numbers would keep the same ones.
    shares = []
    for scan in (other, unnamed):
        assert rbs("thin", scan, tmp_path / f"{scan.stem}_thin", "--velocity", 40)[0] == 0
        shares.append(pydicom.dcmread(tmp_path / f"{scan.stem}_thin").pixel_array - counts[0] / 2)
    assert abs(np.corrcoef(shares[0].ravel(), shares[1].ravel())[0, 1]) < 0.1


def test_two_steps_can_be_repeated(rbs, tmp_path: Path) -> None:
    """Bit for bit: what is thinned again has the same identity, so that the second draw is the same too."""
    scan = write_nm(tmp_path / "a.dcm", poisson(2), views=("anterior", "posterior"), velocity=5)
    for folder in ("one", "two"):
        first, rest, second = (tmp_path / folder / name for name in ("first.dcm", "rest.dcm", "second.dcm"))
        assert rbs("thin", scan, first, "--velocity", 20, "--remainder", rest, "--seed", 3)[0] == 0
        assert rbs("thin", first, second, "--velocity", 40, "--seed", 3)[0] == 0
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").iterdir()]
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    headers = [pydicom.dcmread(tmp_path / "one" / file, stop_before_pixels=True) for file in files]
    assert len({header.SOPInstanceUID for header in headers}) == 3
    assert len({header.SeriesInstanceUID for header in headers}) == 3
    assert len({header.StudyInstanceUID for header in headers}) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ScanError("its header is odd")], ids=type)
def test_half_a_pair_is_not_left(rbs, tmp_path: Path, monkeypatch, stop: BaseException) -> None:
    scan = write_nm(tmp_path / "a.dcm", poisson(), velocity=20)
    write = dicom_write.write_thinned_nm

    def stop_at_the_second(path: Path, *args: object, **options: object) -> None:
        if path.name == "rest.dcm":
            raise stop
        write(path, *args, **options)

    monkeypatch.setattr(dicom_write, "write_thinned_nm", stop_at_the_second)
    rest = tmp_path / "rest.dcm"
    status, _, _ = rbs("thin", scan, tmp_path / "fast.dcm", "--velocity", 40, "--remainder", rest)
    assert status == (130 if isinstance(stop, KeyboardInterrupt) else 1)
    assert list(tmp_path.iterdir()) == [scan]


def test_a_thinned_scan_can_be_thinned_again(rbs, tmp_path: Path) -> None:
    scan = write_nm(tmp_path / "a.dcm", poisson(), velocity=10)
    assert rbs("thin", scan, tmp_path / "b.dcm", "--velocity", 20)[0] == 0
    assert rbs("thin", tmp_path / "b.dcm", tmp_path / "c.dcm", "--velocity", 40)[0] == 0


@pytest.mark.parametrize(
    ("header", "options", "fault"),
    [
        ({"velocity": 40}, ("--velocity", 20), "is no faster"),
        ({"velocity": 40}, ("--velocity", 40), "is no faster"),
        ({"velocity": None}, ("--velocity", 40), "--from-velocity"),
        (
            {"ImageType": ["DERIVED", "SECONDARY", "WHOLE BODY", "EMISSION"]},
            ("--velocity", 80),
            "derived image",
        ),
        ({"velocity": 40}, ("--velocity", 40.1, "--remainder", "rest.dcm"), "0.25 % of its counts"),
        ({}, ("--velocity", 80, "--remainder", "out.dcm"), "same file"),
        ({}, ("--velocity", 80, "--remainder", "taken.dcm"), "exists already"),
    ],
)
def test_refusals_write_nothing(rbs, tmp_path: Path, monkeypatch, header, options, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_nm(Path("in.dcm"), poisson(), **header)
    Path("taken.dcm").write_text("precious")
    status, _, error = rbs("thin", "in.dcm", "out.dcm", *options)
    assert status == 1
    assert fault in error
    assert sorted(path.name for path in Path().iterdir()) == ["in.dcm", "taken.dcm"]
    assert Path("taken.dcm").read_text() == "precious"


def test_the_velocity_can_be_stated(rbs, tmp_path: Path) -> None:
    scan = write_nm(tmp_path / "a.dcm", poisson(), velocity=None)
    options = ("--velocity", 40, "--from-velocity", 20)
    status, text, _ = rbs("thin", scan, tmp_path / "b.dcm", *options)
    assert status == 0
    assert "50.0 %, as at 40.0 cm/min" in text
