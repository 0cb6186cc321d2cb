"""A whole assessment of a small cohort on disk."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rbs.data.manifest import Manifest
from rbs.errors import ManifestError, OutputError, RbsError
from rbs.evaluation.methods import Method
from rbs.evaluation.observers import simulation
from rbs.evaluation.observers.assess import assess, printed_table, summarise_tables
from rbs.evaluation.scans.classical import gaussian
from rbs.report.assessment import coverage_tables, read_assessment
from rbs.report.page import write_report

OPTIONS = {"children": 1, "draws": 8}


class Interrupted(Exception):
    pass


def restorer(fails_at=None, calls=None):
    calls = [] if calls is None else calls

    def restore(pair):
        calls.append(pair.patient)
        if fails_at is not None and len(calls) == fails_at:
            raise Interrupted
        return gaussian(pair, 12.0)

    return Method("stage1", "Stage 1", restore, {"sha256": "abc"})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, make_cohort):
    """Two test children, the second with a lesion and landmarks."""
    folder = tmp_path_factory.mktemp("assessed")
    path = make_cohort(folder, splits=("val", "test", "test"))
    focus = {"region": "thorax", "row": 45, "column": 40, "fwhm_mm": 20.0, "contrast": 3.0}
    marks = {
        f"{bone} {side}": [row, 32 + 6 * int(side)]
        for side in ("-1", "+1")
        for bone, row in (("femoral diaphysis", 85), ("distal femoral physis", 98))
    }
    told = {"lesions": [focus], "landmarks_row_column": marks}
    (folder / "P0003" / "child.json").write_text(json.dumps(told))
    return Manifest.read(path)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(simulation, "BLANK_SHAPE", (2, 96, 64))
    monkeypatch.setattr(simulation, "APART", 12)


@pytest.fixture(scope="module")
def done(cohort, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "BLANK_SHAPE", (2, 96, 64))
        patch.setattr(simulation, "APART", 12)
        out = tmp_path_factory.mktemp("out") / "run"
        return assess(cohort, out, [restorer()], command="rbs evaluate", **OPTIONS), out


def value(summary, study, method, quantity, group="all"):
    rows = summary[
        (summary["study"] == study)
        & (summary["method"] == method)
        & (summary["quantity"] == quantity)
        & (summary["group"] == group)
    ]
    return float(rows["mean"].iloc[0])


def test_every_study_is_in_the_summary(done):
    summary, out = done
    assert set(summary["study"]) >= {"foci", "lesions", "blank images", "consistency", "observer"}
    pd.testing.assert_frame_equal(summary, pd.read_csv(out / "summary.csv").fillna({"unit": ""}))
    # Known by construction: the truth agrees with its counts, a scan with itself.
    assert value(summary, "consistency", "truth", "ratio") == pytest.approx(1, abs=0.2)
    assert value(summary, "consistency", "rapid", "ratio") < 0.05
    assert value(summary, "foci", "stage1", "hallucinated", "lesions: some") <= value(
        summary, "foci", "rapid", "hallucinated", "lesions: some"
    )
    assert set(summary[summary["study"] == "observer"]["method"]) == {
        *("rapid", "gaussian", "stage1", "standard", "ideal rapid", "ideal standard")
    }
    assert "stage1" in printed_table(summary)


def test_both_observers_stand_beside_their_bounds_and_differences(done):
    summary, out = done
    for study in ("observer", "observer, Laguerre-Gauss channels"):
        assert value(summary, study, "ideal rapid", "auc", "5 mm") == pytest.approx(0.878, abs=0.0005)
        assert value(summary, study, "ideal standard", "auc", "5 mm") == pytest.approx(0.95)
        minus = value(summary, study, "stage1", "auc_minus_rapid", "5 mm")
        area = [value(summary, study, method, "auc", "5 mm") for method in ("stage1", "rapid")]
        assert minus == pytest.approx(area[0] - area[1])
        assert value(summary, study, "gaussian", "auc_minus_first", "5 mm") == pytest.approx(
            value(summary, study, "gaussian", "auc", "5 mm") - area[0]
        )
    areas = pd.read_csv(out / "areas.csv")
    assert set(areas["channels"]) == {"dog", "laguerre_gauss"}
    assert "0.878" in json.loads((out / "settings.json").read_text())["observer"]


def test_settings_name_everything_that_decides_the_numbers(done, cohort):
    settings = json.loads((done[1] / "settings.json").read_text())
    assert settings["seed"] == 1
    assert settings["children"] == 1
    assert settings["draws"] == 8
    assert settings["command"] == "rbs evaluate"
    assert settings["methods"][-1]["settings"] == {"sha256": "abc"}
    assert len(settings["drawn"]) == 1
    assert not (done[1] / "unfinished").exists()
    for name in ("places", "impulses"):
        assert (pd.read_csv(done[1] / f"{name}.csv")["seed"] == 1).all()


def test_only_known_lesions_are_scored(done):
    lesions = pd.read_csv(done[1] / "lesions.csv")
    assert set(lesions["patient"]) == {"P0003"}
    assert set(lesions["method"]) == {"rapid", "gaussian", "stage1", "standard"}
    foci = pd.read_csv(done[1] / "foci.csv")
    assert set(zip(foci["patient"], foci["lesions"], strict=True)) == {
        ("P0002", "unknown"),
        ("P0003", "some"),
    }


def test_an_interrupted_run_goes_on_and_ends_the_same(done, cohort, tmp_path):
    calls = []
    with pytest.raises(Interrupted):
        assess(cohort, tmp_path / "run", [restorer(fails_at=4, calls=calls)], **OPTIONS)
    assert not (tmp_path / "run" / "settings.json").exists()
    before = len(calls)
    again = assess(cohort, tmp_path / "run", [restorer(calls=calls)], **OPTIONS)
    pd.testing.assert_frame_equal(again, done[0])
    assert "P0003" not in calls[before:]  # its scan was finished
    with pytest.raises(OutputError, match="holds results already"):
        assess(cohort, tmp_path / "run", [restorer()], **OPTIONS)


def test_a_stated_deviation_is_judged(make_cohort, tmp_path):
    """A Gaussian filter that states the deviation the raw scan has, and what a bootstrap would state."""
    manifest = Manifest.read(make_cohort(tmp_path, splits=("test",)))

    def deviation(pair):
        return np.sqrt(np.maximum(gaussian(pair, 12.0), 0.01) / pair.exposure)

    method = replace(restorer(), deviation=deviation)
    gentle = replace(method, name="stage1_gentle", label="Stage 1, gentle")
    summary = assess(manifest, tmp_path / "run", [method, gentle], **OPTIONS)
    table = pd.read_csv(tmp_path / "run" / "coverage.csv")
    assert len(table) == 3 * 10 * 4  # both, and one bootstrap: they are of one restorer
    assert set(table["method"]) == {"stage1", "stage1_gentle", "bootstrap"}
    # sqrt(T / p) is what the raw scan would have: far too much for a filter.
    assert value(summary, "uncertainty", "stage1", "covered_0.683") > 0.95
    assert value(summary, "uncertainty", "stage1", "pixel_error") < 0.5
    assert value(summary, "coverage", "stage1", "covered_0.9", "tenth 5") > 0.95
    # The bootstrap does not see what the filter smooths away.
    assert value(summary, "uncertainty", "bootstrap", "pixel_error") > 1.2
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["split"] == "test"
    assert [t.title for t in coverage_tables(read_assessment(tmp_path / "run"))] == [
        "Stage 1: share of pixels that intervals cover",
        "Stage 1, gentle: share of pixels that intervals cover",
        "Parametric bootstrap: share of pixels that intervals cover",
    ]
    write_report([tmp_path / "run"], tmp_path / "report.html")
    assert "Covered, claimed 68.3 %" in (tmp_path / "report.html").read_text()


def test_real_scans_are_judged_by_other_counts(tmp_path, make_cohort):
    manifest = Manifest.read(make_cohort(tmp_path, splits=("test",), truth=False))
    method = replace(restorer(), deviation=lambda pair: np.ones(pair.rapid.shape))
    summary = assess(manifest, tmp_path / "run", [method], **OPTIONS)
    judged = summary[summary["study"] == "uncertainty"]
    assert set(judged["quantity"]) == {"pixel_z", "pixel_error_by_counts", "block_error_by_counts"}
    assert "coverage" not in set(summary["study"])


def test_real_scans_are_checked_against_their_own_counts(tmp_path, make_cohort):
    manifest = Manifest.read(make_cohort(tmp_path, splits=("test",), truth=False))
    summary = assess(manifest, tmp_path / "run", [restorer()], **OPTIONS)
    assert set(summary["study"]) == {"consistency"}
    assert set(summary["method"]) == {"rapid", "stage1"}  # nothing to tune a Gaussian on


@pytest.mark.parametrize("options", [{"draws": 10}, {"draws": 4}, {"children": 0}])
def test_settings_that_cannot_be_meant_are_refused(cohort, tmp_path, options):
    with pytest.raises(RbsError, match="cannot be halved"):
        assess(cohort, tmp_path / "run", [], **OPTIONS | options)
    assert not (tmp_path / "run").exists()


def test_an_empty_split_is_refused(cohort, tmp_path):
    with pytest.raises(ManifestError, match="'train' is empty"):
        assess(cohort, tmp_path / "run", [], split="train", **OPTIONS)


def test_intervals_resample_children():
    table = pd.DataFrame(
        {"patient": ["a", "a", "b", "b"], "method": "m", "ratio": [1.0, 1, 3, 3], "clusters": 0}
    )
    summary = summarise_tables({"consistency": table}, 0)
    row = summary[summary["quantity"] == "ratio"].iloc[0]
    assert (row["n"], row["mean"], row["low"], row["high"]) == (4, 2.0, 1.0, 3.0)
