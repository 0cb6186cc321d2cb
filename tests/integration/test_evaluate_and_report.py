"""From a manifest to a page through the command line, as `make demo` ends."""

import json
import shutil
from pathlib import Path

import pytest

from rbs.cli.main import main
from rbs.report import figures
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN


@pytest.fixture(scope="module")
def cohort(make_cohort, tmp_path_factory) -> Path:
    """Manifest of one validation and two test phantoms; the second has no rapid scan."""
    path = make_cohort(tmp_path_factory.mktemp("evaluate"), splits=("val", "test", "test"))
    path.write_text(path.read_text().replace("P0003/rapid.dcm", ""))
    focus = {"region": "spine", "row": 40, "column": 32, "fwhm_mm": 12.0, "contrast": 2.0, "kind": "hot"}
    child = {"lesions": [focus], "landmarks_row_column": {}}
    for patient in ("P0002", "P0003"):
        (path.parent / patient / "child.json").write_text(json.dumps(child))
    return path


@pytest.fixture
def f1(tmp_path: Path) -> Path:
    """An untrained restorer: a Gaussian filter of one pixel."""
    save_restorer(tmp_path / "restorer.safetensors", DnCNN(depth=3, width=4, sigma_px=1.0), {"steps": 0})
    return tmp_path / "restorer.safetensors"


def test_evaluate_then_report(cohort: Path, f1: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("RBS_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(figures, "VECTOR_DPI", 20)  # the test looks at no pixel
    run, page, folder = tmp_path / "run", tmp_path / "report.html", tmp_path / "figures"
    evaluate = ["evaluate", str(cohort), "--stage1", str(f1), "--output", str(run)]
    assert main(evaluate) == 0
    printed = capsys.readouterr().out
    rows = ("ceiling", "repeat", "rapid", "gaussian", "nlm", "stage1")
    assert [name for name in rows if name not in printed] == []
    assert "too few to test: better in" in printed
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["patients"], settings["exposures"]) == (2, [0.5])
    assert sorted(path.name for path in run.iterdir()) == [
        "differences.csv",
        "per_patient.csv",
        "per_scan.csv",
        "pictures.npz",
        "regions.csv",
        "sets.csv",
        "settings.json",
        "summary.csv",
    ]
    assert main(["report", str(run), "-o", str(page), "--figures", str(folder)]) == 0
    assert [focus["region"] for shown in settings["pictures"] for focus in shown["foci"]] == ["spine"] * 2
    assert "DnCNN restorer.safetensors" in page.read_text()
    assert "a focus (hot, 12 mm, spine, " in page.read_text()
    assert (run / "sets.csv").read_text() == "method,metric,tiles,value\n"  # no weights, no figure
    assert {path.suffix for path in folder.iterdir()} == {".svg", ".pdf"}
    assert main(evaluate) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*evaluate, "--overwrite", "--against", "gauss"]) == 1
    assert "no method 'gauss'; compare with one of rapid, gaussian, " in capsys.readouterr().err
    (run / "settings.json").unlink()
    assert main(["report", str(run), "-o", str(page)]) == 1
    assert "incomplete" in capsys.readouterr().err


def test_report_of_a_real_adult(real_adult: Path, f1: Path, tmp_path: Path) -> None:
    """One patient without truth, and no validation split to tune classical peers on."""
    rows = f"patient,split,rapid,standard,truth\nadult,test,,{real_adult.resolve()},\n"
    (tmp_path / "manifest.csv").write_text(rows)
    run, page = tmp_path / "run", tmp_path / "report.html"
    evaluate = ["evaluate", str(tmp_path / "manifest.csv"), "--stage1", str(f1)]
    assert main([*evaluate, "--output", str(run)]) == 0
    assert main(["report", str(run), "-o", str(page)]) == 0
    html = page.read_text()
    for text in (
        "Against the truth",
        "rowth plates",
        "youngest",
        "Another standard scan",
        "Difference to the truth",
    ):
        assert text not in html, text
    for text in ("1 scan of 1 patient,", "Knees, enlarged", "restored minus standard scan", "NC-PSNR"):
        assert text in html, text


def test_a_rapid_scan_thinned_out_of_its_standard_scan_is_refused(
    cohort: Path, tmp_path: Path, capsys
) -> None:
    """The trap that turns every comparison round: keeping the noise would score best."""
    mine = shutil.copytree(cohort.parent, tmp_path / "mine")
    rapid, standard = mine / "P0002" / "rapid.dcm", mine / "P0002" / "standard.dcm"
    rapid.unlink()
    assert main(["thin", str(standard), str(rapid), "--velocity", "40"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(mine / "manifest.csv"), "--output", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"rbs: {rapid}: it was thinned out of {standard}")
    assert message.endswith(".")
    assert not (tmp_path / "run" / "settings.json").exists()
