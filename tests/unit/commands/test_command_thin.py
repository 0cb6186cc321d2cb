"""`rbs thin`."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from nm_files import poisson, write_nm


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
    for name, scan, seed in (("x", scans[0], 1), ("y", scans[0], 1), ("z", scans[0], 2), ("w", scans[1], 1)):
        assert rbs("thin", scan, tmp_path / name, "--velocity", 40, "--seed", seed)[0] == 0
        drawn.append(pydicom.dcmread(tmp_path / name).pixel_array)
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert (drawn[0] != drawn[3]).any()


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
