"""`rbs register`."""

import json
from pathlib import Path

import numpy as np
import pytest
from moving_body import SPACING, passes, rigid, still
from nm_files import write_nm


def write_pair(folder: Path, u=still, **changes: object) -> tuple[Path, Path]:
    """Rapid and standard file of a body that moved by u."""
    standard, rapid = (np.stack([c[0], c[1, :, ::-1]]) for c in passes(u))  # as the camera writes them
    same = {"views": ("anterior", "posterior"), "PixelSpacing": list(SPACING)}
    return (
        write_nm(folder / "rapid.dcm", rapid, velocity=40, **same),
        write_nm(folder / "standard.dcm", standard, velocity=20, **same | changes),
    )


def test_it_says_how_the_body_moved(rbs, tmp_path: Path) -> None:
    files = write_pair(tmp_path, rigid(3.0, -4.0))
    status, text, errors = rbs("register", *files)
    assert (status, errors) == (0, "")
    assert "the body moved as a whole" in text
    assert "mm lower" in text
    assert "further left" in text
    found = json.loads(rbs("register", *files, "--json")[1])
    assert found["motion"] == "rigid"
    assert (found["down_mm"], found["right_mm"]) == pytest.approx((3.0, -4.0), abs=0.4)
    assert found["before_median_mm"] == pytest.approx(5.0, abs=0.6)
    assert found["after_median_mm"] < 1.3 * found["noise_median_mm"] < 1


def test_it_says_that_nothing_moved(rbs, tmp_path: Path) -> None:
    status, text, _ = rbs("register", *write_pair(tmp_path))
    assert status == 0
    assert "no motion that could be told from noise" in text
    assert "lower" not in text


def test_scans_that_are_no_pair_are_refused(rbs, tmp_path: Path) -> None:
    rapid, standard = write_pair(tmp_path / "a", PatientID="another")
    status, _, errors = rbs("register", rapid, standard)
    assert status == 1
    assert "differ in patient" in errors
    _, other = write_pair(tmp_path / "b", PixelSpacing=[4.6, 4.6])
    status, _, errors = rbs("register", rapid, other)
    assert status == 1
    assert "differ in pixel spacing" in errors
