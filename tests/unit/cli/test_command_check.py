"""`rbs check`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.scan import Scan
from rbs.synthetic.faults import draw, swapped
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean scan, and one whose views are swapped."""
    phantom = make_child(9.0, "M", np.random.default_rng(5))
    expected = Scan(phantom.expectation / 2, VIEWS, (SPACING_MM, SPACING_MM), 40.0, 190.0, "Secret-7")
    place = tmp_path_factory.mktemp("scans")
    child = phantom.child
    patient = PatientHeader(
        "Secret-7",
        sex=child.sex,
        age_y=child.age_y,
        height_m=child.height_cm / 100,
        weight_kg=child.weight_kg,
        activity_mbq=child.dose_mbq,
    )
    for name, scan in (
        ("clean", draw(expected, np.random.default_rng(0))),
        ("swapped", swapped(expected, np.random.default_rng(0))),
    ):
        study = StudyHeader(name, datetime(2024, 1, 2, 9))
        write_acquired_nm(place / f"{name}.dcm", scan, patient=patient, study=study, uid_seed=name)
    return place


def test_it_prints_what_it_found(rbs, folder: Path) -> None:
    status, text, errors = rbs("check", folder)
    assert (status, errors) == (3, "")
    clean, found, finding = text.splitlines()
    assert clean.endswith("clean.dcm: nothing found")
    assert found.endswith("swapped.dcm: 1 finding")
    assert finding.startswith("  views swapped: the lumbar spine is brighter")
    assert "p < 1e-06" in finding or "p = " in finding
    assert "name the frames with --view" in finding
    assert "Secret" not in text


def test_a_clean_scan_gives_status_0(rbs, folder: Path) -> None:
    assert rbs("check", folder / "clean.dcm")[0] == 0


def test_json(rbs, folder: Path) -> None:
    status, text, _ = rbs("check", folder, "--json")
    clean, found = json.loads(text)
    assert status == 3
    assert clean["findings"] == []
    assert found["views"] == ["posterior", "anterior"]
    (finding,) = found["findings"]
    assert finding["kind"] == "views swapped"
    assert finding["where"] == "whole scan"
    assert 0 < finding["p_value"] <= 0.001
    assert finding["remedy"]


def test_the_page_holds_everything(rbs, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    status, text, _ = rbs("check", folder, "--output", page)
    html = page.read_text()
    assert status == 3
    assert text.endswith(f"written to {page}\n")
    assert html.count('<img src="data:image/png;base64,') == 1
    for part in (
        "swapped.dcm",
        "Views swapped:",
        "Nothing found in 1 scan",
        "Research use only",
        "What to do:",
    ):
        assert part in html
    assert "Secret" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_bad_file_is_named_and_the_others_are_checked(rbs, folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad\x1b.dcm"
    bad.write_bytes(b"no scan")
    status, text, errors = rbs("check", bad, folder / "clean.dcm", tmp_path / "absent.dcm")
    assert status == 1
    assert "clean.dcm: nothing found" in text
    assert "refused: " in errors
    assert "absent.dcm" in errors
    assert "2 of 3 files were refused" in errors
    assert "\x1b" not in errors


def test_a_name_from_elsewhere_is_safe_on_the_page(tmp_path: Path) -> None:
    from rbs.report.quality import CheckedScan, write_quality_page

    scan = CheckedScan(Path("<script>\x1b[1m.dcm"), ("anterior",), None, (1,), ())
    write_quality_page([scan], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "<script>" not in html
    assert "\x1b" not in html


def test_restoring_warns_of_the_same(rbs, folder: Path, weights: Path, tmp_path: Path) -> None:
    status, text, errors = rbs(
        "restore", folder / "swapped.dcm", tmp_path / "out.dcm", "--checkpoint", weights
    )
    assert status == 0, errors
    assert "warning: views swapped" in text + errors
