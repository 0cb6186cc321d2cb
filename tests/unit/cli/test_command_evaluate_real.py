"""`rbs evaluate-real` as a user calls it."""

import json

import pytest
from nm_files import poisson, write_nm


@pytest.fixture(autouse=True)
def _one_peer(monkeypatch):
    from rbs.evaluation.real import methods
    from rbs.evaluation.scans.classical import GAUSSIAN

    monkeypatch.setattr(methods, "available", lambda: (GAUSSIAN,))


def test_a_table_of_every_scan_that_can_be_used(rbs, tmp_path, weights):
    write_nm(tmp_path / "in" / "slow.dcm", poisson(2), views=("anterior", "posterior"), velocity=20.0)
    write_nm(tmp_path / "in" / "fast.dcm", poisson(seed=1), velocity=80.0)
    command = ["evaluate-real", tmp_path / "in", "-o", tmp_path / "out", "--stage1", weights, "--draws", 2]
    command += ["--velocities", 40, "--strengths", "--against", "restorer"]
    status, out, err = rbs(*command, "--json")
    assert status == 1
    assert "fast.dcm: it was acquired at 80.0 cm/min, which is no slower than 40 cm/min" in err
    assert "1 of 2 files were refused" in err
    document = json.loads(out, parse_constant=pytest.fail)
    rows = ["restorer", "restorer_gentle", "restorer_standard", "restorer_strong"]
    assert [row["method"] for row in document["table"]] == ["rapid", "gaussian", *rows]
    assert document["table"][0]["difference"] < 0
    assert len(document["refused"]) == 1

    # Relative to itself each scan can be thinned; one that is added costs nothing of the other.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "restorations").iterdir()}
    status, out, err = rbs(*command, "--times", 2)
    assert status == 0, err
    assert "2 times as fast: 2 scans, 3 views" in out
    assert "minus restorer, dB" in out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())

    status, out, err = rbs("report", tmp_path / "out", "-o", tmp_path / "report.html")
    assert status == 0, err
    page = (tmp_path / "report.html").read_text()
    assert "Real scans:" in page
    assert "restorer, gentle" in page
    assert page.count("data:image/png;base64,") == 2


def test_one_scan_says_what_its_intervals_leave_out(rbs, tmp_path, weights):
    scan = write_nm(tmp_path / "slow.dcm", poisson(), velocity=10.0)
    status, out, _ = rbs("evaluate-real", scan, "-o", tmp_path / "out", "--stage1", weights)
    assert status == 0
    assert "say nothing of other patients" in " ".join(out.split())
    assert [line for line in out.splitlines() if "cm/min: 1 scan, 1 view" in line]


def test_what_cannot_be_asked_is_said(rbs, tmp_path, weights):
    scan = write_nm(tmp_path / "slow.dcm", poisson(), velocity=10.0)
    asked = ["evaluate-real", scan, "-o", tmp_path / "out"]
    assert "there is no speed to simulate" in rbs(*asked, "--velocities")[2]
    assert "there is no such weight file" in rbs(*asked, "--stage1", tmp_path / "no.safetensors")[2]
    assert "there is no method 'x'" in rbs(*asked, "--stage1", weights, "--against", "x")[2]
    onnx = tmp_path / "a.onnx"
    onnx.write_bytes(b"")
    assert "--adapt looks into the network" in rbs(*asked, "--stage1", onnx, "--adapt")[2]
    assert rbs("evaluate-real", tmp_path / "no.dcm", "-o", tmp_path / "out")[0] == 1
    assert not (tmp_path / "out").exists()
