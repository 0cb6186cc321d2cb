"""An assessment on the page: its tables hold every figure, its curves what was measured."""

import json

import numpy as np
import pandas as pd
import pytest

from rbs.errors import RbsError
from rbs.report.assessment import curves_figure, is_assessment, read_assessment, study_tables
from rbs.report.page import write_report


@pytest.fixture
def folder(tmp_path):
    """A folder as `rbs evaluate --observers` leaves it."""
    folder = tmp_path / "assessment"
    folder.mkdir()
    methods = [{"name": n, "label": n.capitalize(), "settings": {}} for n in ("rapid", "stage1")]
    settings = {"methods": methods, "split": "test", "manifest": "m.csv", "scans": 2, "drawn": ["P1"]}
    settings |= {
        "draws": 16,
        "seed": 1,
        "observer": "as strong as asked",
        "command": "rbs evaluate m.csv --observers",
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    rows = [
        ("lesions", "small (under 8 mm)", "rapid", "recovery", "of the truth's", 7, 0.98, 0.9, 1.1),
        ("lesions", "small (under 8 mm)", "stage1", "recovery", "of the truth's", 7, 0.77, 0.7, 0.85),
        ("lesions", "all", "stage1", "cnr", np.nan, 9, 3.21, 2.9, 3.5),
        ("observer", "5 mm", "rapid", "auc", np.nan, 4, 0.891, 0.8, 0.95),
        ("observer", "5 mm", "ideal standard", "auc", np.nan, 4, 0.95, 0.94, 0.96),
        ("impulse response", "200 counts", "stage1", "fwhm_mm", "mm", 3, 4.5, np.nan, np.nan),
    ]
    columns = ["study", "group", "method", "quantity", "unit", "n", "mean", "low", "high"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "summary.csv", index=False)
    powers = [
        (patient, name, frequency, level)
        for patient in ("P1", "P2")
        for name, level in (("standard", 4.0), ("rapid", 8.0), ("stage1", 1.0))
        for frequency in (0.05, 0.15)
    ]
    columns = ["patient", "method", "frequency_per_mm", "nps_counts2_mm2"]
    pd.DataFrame(powers, columns=columns).to_csv(folder / "spectra.csv", index=False)
    return folder


def test_every_figure_of_the_summary_is_in_a_table(folder):
    tables = {table.title: table for table in study_tables(read_assessment(folder))}
    assert list(tables) == ["Lesions", "Observer", "Impulse response"]
    lesions = tables["Lesions"]
    assert lesions.columns == [
        ("Contrast recovery", "small (under 8 mm); of the truth's; n = 7"),
        ("Contrast-to-noise ratio", "n = 9"),
    ]
    rows = dict(lesions.rows)
    assert [(cell.text, cell.interval) for cell in rows["Stage1"]] == [
        ("0.77", "0.7 to 0.85"),
        ("3.21", "2.9 to 3.5"),
    ]
    assert [cell.text for cell in rows["Rapid"]] == ["0.98", ""]
    assert "Bound: ideal observer of the standard scan" in dict(tables["Observer"].rows)
    assert dict(tables["Impulse response"].rows)["Stage1"][0].interval == ""


def test_the_curves_show_what_was_measured(folder):
    noise, lesions, observer, sharpness = curves_figure(read_assessment(folder)).axes
    power = {line.get_label(): line.get_ydata() for line in noise.get_lines()}
    assert power["Rapid"] == pytest.approx([2, 2])  # twice the standard scan's
    assert power["Stage1"] == pytest.approx([0.25, 0.25])
    assert power["Standard scan, raw"] == pytest.approx([1, 1])
    heights = {c.get_label(): c.lines[0].get_ydata() for c in lesions.containers}
    assert heights == {"Rapid": [0.98], "Stage1": [0.77]}
    assert [c.get_label() for c in observer.containers] == [
        "Rapid",
        "Bound: ideal observer of the standard scan",
    ]
    assert sharpness.containers[0].lines[0].get_ydata() == [4.5]


def test_it_is_told_from_an_evaluation_and_stands_on_the_page(folder, tmp_path):
    assert is_assessment(folder)
    assert not is_assessment(tmp_path)
    write_report([folder], tmp_path / "report.html", figure_folder=tmp_path / "figures")
    page = (tmp_path / "report.html").read_text()
    assert "Assessment:" in page
    assert "0.7 to 0.85" in page
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "assessment-curves.svg",
        "assessment-curves.pdf",
    }


def test_without_phantoms_only_what_was_measured_is_drawn(folder):
    (folder / "spectra.csv").unlink()
    summary = pd.read_csv(folder / "summary.csv")
    summary[summary["study"] == "impulse response"].to_csv(folder / "summary.csv", index=False)
    first, *others = curves_figure(read_assessment(folder)).axes
    assert first.get_title().startswith("width of an impulse")
    assert not any(axis.axison for axis in others)


def test_a_damaged_assessment_is_refused(folder):
    (folder / "summary.csv").write_text("study,group\nlesions,all\n")
    with pytest.raises(RbsError, match=r"incomplete or damaged.*run `rbs evaluate --observers` again"):
        read_assessment(folder)
