"""`rbs simulate`, and the way of its scans through the other commands."""

import json
from pathlib import Path

import pydicom
import pytest


def test_phantom_children_can_be_inspected_thinned_and_restored(rbs, tmp_path: Path, weights: Path) -> None:
    cohort = tmp_path / "cohort"
    status, text, _ = rbs("simulate", cohort, "--patients", 3, "--seed", 4, "--workers", 1)
    assert (status, text) == (0, f"3 phantom children: {cohort / 'manifest.csv'}\n")
    children = [cohort / f"P000{number}" for number in (1, 2)]

    status, text, errors = rbs("inspect", *children, "--json")
    assert (status, errors) == (0, "")
    fit = {report["file"]: report["restoring"]["fit"] for report in json.loads(text)}
    assert fit == {
        str(c / f"{kind}.dcm"): kind == "rapid" for c in children for kind in ("rapid", "standard")
    }

    thinned = tmp_path / "thinned"
    for child in children:
        out, rest = thinned / f"{child.name}.dcm", tmp_path / f"{child.name}_rest.dcm"
        status, text, _ = rbs("thin", child / "standard.dcm", out, "--velocity", 40, "--remainder", rest)
        assert status == 0
        assert text.startswith(f"{child / 'standard.dcm'}: anterior, posterior (from ViewCodeSequence)\n")
    source, again = children[0] / "standard.dcm", tmp_path / "again.dcm"
    found = json.loads(rbs("thin", source, again, "--velocity", 40, "--json")[1])
    assert (found["source"], found["views"]) == (str(source), ["anterior", "posterior"])
    assert [(part["file"], part["exposure"]) for part in found["files"]] == [(str(again), 0.5)]
    found = json.loads(rbs("deidentify", children[0], tmp_path / "out", "--json")[1])
    assert (found["files"], found["patients"], found["refused"]) == (2, 1, 0)

    status, text, errors = rbs("restore", thinned, tmp_path / "restored", "--checkpoint", weights)
    assert (status, text.count(" counts in, ")) == (0, 2)
    assert "refused" not in errors
    for child in children:
        before = pydicom.dcmread(child / "standard.dcm")
        after = pydicom.dcmread(tmp_path / "restored" / f"{child.name}.dcm")
        slope = float(after.RealWorldValueMappingSequence[0].RealWorldValueSlope)
        assert after.pixel_array.sum() * slope == pytest.approx(before.pixel_array.sum(), rel=0.02)
        assert after.SyntheticData == "YES"


def test_too_few_children_are_refused(rbs, tmp_path: Path) -> None:
    status, _, error = rbs("simulate", tmp_path / "cohort", "--patients", 2)
    assert (status, error.count("\n")) == (1, 1)
    assert "ask for at least 3" in error


def test_mucosa_is_written_once_and_refusals_are_one_sentence(rbs, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    drawn = ("--kind", "endoscopy", "--videos", 3, "--frames", 1, "--size", 64)
    status, text, _ = rbs("simulate", out, *drawn, "--seed", 2)
    assert (status, text) == (0, f"3 videos of 1 frames: {out / 'manifest.csv'}\n")
    assert len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 3

    status, _, error = rbs("simulate", out, *drawn, "--seed", 3)
    assert (status, error.count("\n")) == (1, 1)
    assert "repeat the settings named in its mucosa.json" in error

    status, _, error = rbs("simulate", tmp_path / "two", "--kind", "endoscopy", "--videos", 2)
    assert (status, error.count("\n")) == (1, 1)
    assert "ask for 3 to 999 videos" in error
    assert not (tmp_path / "two").exists()


def test_options_of_the_other_kind_are_refused(rbs, tmp_path: Path) -> None:
    status, _, error = rbs("simulate", tmp_path / "out", "--videos", 4)
    assert (status, error) == (1, "rbs: --videos is for endoscopy only; leave it out.\n")
    status, _, error = rbs("simulate", tmp_path / "out", "--kind", "endoscopy", "--moving")
    assert (status, error) == (1, "rbs: --moving is for scans only; leave it out.\n")
    assert not (tmp_path / "out").exists()
