"""`rbs inspect`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nm_files import poisson, write_nm
from pydicom import Dataset
from vendor_files import QUIRKS


def test_it_says_what_was_understood(rbs, tmp_path: Path) -> None:
    counts = poisson(2)
    file = write_nm(tmp_path / "a.dcm", counts, views=("anterior", "posterior"))
    status, text, errors = rbs("inspect", file)
    assert (status, errors) == (0, "")
    for part in (
        "anterior, posterior",
        "ViewCodeSequence",
        "64 x 48 pixels of 2.30 x 2.30 mm",
        "40.0 cm/min",
        "Nuclear Medicine Image Storage, 16 bits, Explicit VR Little Endian",
        "CountsAccumulated says the same",
        "noise variance / mean; raw counts: 1",
    ):
        assert part in text
    for part in (
        "300 s",
        f"anterior {counts[0].sum():,}",
        f"posterior {counts[1].mean():.2f}",
        "126.0 to 154.0 keV",
    ):
        assert part in text
    assert "fit for restoring yes" in text
    assert "Secret" not in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"CountsAccumulated": 7_000}, "CountsAccumulated says 7,000"),
        ({"CountsAccumulated": None}, "CountsAccumulated is not stated"),
        ({"ScanVelocity": "40"}, "240 cm/min for 300 s are 1200 cm, but ScanLength is 200 cm"),
        ({"EnergyWindowInformationSequence": []}, "energy window     not stated"),
    ],
)
def test_what_is_odd_is_said(changes: dict[str, object], text: str, rbs, tmp_path: Path) -> None:
    status, said, _ = rbs("inspect", write_nm(tmp_path / "a.dcm", poisson(), **changes))
    assert status == 0
    assert text in said
    assert "Secret" not in said


def test_another_nuclide_is_doubted_for_both_purposes(rbs, tmp_path: Path) -> None:
    iodine, limits = Dataset(), Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = "328", "400"
    iodine.EnergyWindowRangeSequence = [limits]
    file = write_nm(tmp_path / "a.dcm", poisson(), EnergyWindowInformationSequence=[iodine])
    _, said, _ = rbs("inspect", file)
    assert (
        said.count("warning: the energy window of 328 to 400 keV does not hold the 140.5 keV of Tc-99m") == 2
    )
    (report,) = json.loads(rbs("inspect", file, "--json")[1])
    assert len(report["training"]["warnings"]) == len(report["restoring"]["warnings"]) == 1


@pytest.mark.parametrize(("views", "named"), [(1, "frame 1"), (2, "frame 1, frame 2")])
def test_unnamed_views_are_reported_not_refused(views: int, named: str, rbs, tmp_path: Path) -> None:
    counts = poisson(views)
    file = write_nm(tmp_path / "a.dcm", counts, views=("",) * views)
    status, text, errors = rbs("inspect", file)
    assert (status, errors) == (0, "")
    assert f"views             {named} (named by nothing in the header)" in text
    assert f"counts            frame 1 {counts[0].sum():,}" in text
    assert text.count("because nothing in the header says which view a frame shows; name") == 2
    assert "anterior 1" not in text
    (report,) = json.loads(rbs("inspect", file, "--json")[1])
    assert (report["view_rule"], report["restoring"]["fit"], report["training"]["fit"]) == (
        None,
        False,
        False,
    )
    status, text, _ = rbs("inspect", file, *["--view", "anterior", "--view", "posterior"][: 2 * views])
    assert "(from option)" in text
    assert "fit for restoring yes" in text
    # A wrong number of views is a mistake of the user's, and refused.
    status, _, errors = rbs("inspect", file, *["--view", "anterior"] * (3 - views))
    assert status == 1
    assert "views named" in errors


def test_a_dicomdir_is_no_scan(rbs, tmp_path: Path) -> None:
    index = QUIRKS["DICOMDIR"].write(tmp_path / "DICOMDIR")
    write_nm(tmp_path / "IM000001", poisson())
    status, text, errors = rbs("inspect", tmp_path)  # a CD
    assert (status, errors) == (0, "")
    assert "IM000001" in text
    status, _, errors = rbs("inspect", index)
    assert status == 1
    assert "it is a DICOMDIR, the table of contents of a folder; name the folder it stands in." in errors


def test_json_can_be_read_back(rbs, tmp_path: Path) -> None:
    write_nm(tmp_path / "a.dcm", poisson())
    write_nm(tmp_path / "b" / "c.dcm", poisson(), velocity=20)
    status, text, _ = rbs("inspect", tmp_path, "--json")
    assert status == 0
    assert "Secret" not in text
    fast, slow = json.loads(text)
    assert (fast["velocity"], slow["velocity"]) == pytest.approx((40, 20), rel=1e-5)
    assert (fast["restoring"]["fit"], slow["restoring"]["fit"]) == (True, False)


def test_smoothed_data_are_reported_not_refused(rbs, tmp_path: Path) -> None:
    file = write_nm(tmp_path / "a.dcm", poisson() * 4)
    status, text, _ = rbs("inspect", file)
    assert status == 0
    assert "because the anterior view holds no raw counts" in text


def test_an_unreadable_file_does_not_hide_the_others(rbs, tmp_path: Path) -> None:
    write_nm(tmp_path / "b.dcm", poisson())
    (tmp_path / "a.dcm").write_bytes(b"no scan")
    status, text, errors = rbs("inspect", tmp_path)
    assert status == 1
    assert "b.dcm" in text
    assert f"refused: {tmp_path / 'a.dcm'}: " in errors
    assert "1 of 2 files were refused" in errors


def test_a_view_told_by_its_start_angle_alone_is_doubted_on_the_terminal(tmp_path: Path) -> None:
    detector = Dataset()
    detector.StartAngle = "0"  # PS3.3, table C.8-11: at the patient's back
    file = write_nm(tmp_path / "a.dcm", poisson(), DetectorInformationSequence=[detector])
    command = [sys.executable, "-m", "rbs.cli", "inspect", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "posterior (from StartAngle)" in done.stdout
    assert f"{file}: posterior by StartAngle alone" in done.stderr
