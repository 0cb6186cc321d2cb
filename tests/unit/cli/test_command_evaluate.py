"""`rbs evaluate --observers` as a user calls it; the rest is in tests/integration."""

import json

import pandas as pd
import pytest

from rbs.cli.main import main
from rbs.errors import RbsError
from rbs.evaluation.observers import assess, simulation
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN


@pytest.fixture
def f1(tmp_path):
    """An untrained restorer: a Gaussian filter of one pixel."""
    save_restorer(tmp_path / "restorer.safetensors", DnCNN(depth=3, width=4, sigma_px=1.0), {"steps": 0})
    return tmp_path / "restorer.safetensors"


def test_observers_follow_the_evaluation_and_an_interrupted_run_resumes(
    tiny_cohort, f1, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(simulation, "BLANK_SHAPE", (2, 96, 64))
    monkeypatch.setattr("rbs.evaluation.scans.images.available", lambda: ())
    run = tmp_path / "run"
    command = ["evaluate", str(tiny_cohort), "--stage1", str(f1), "--observers", "--output", str(run)]
    command += ["--children", "1", "--draws", "8", "--json"]
    monkeypatch.setattr("sys.argv", ["rbs", *command])

    def stop(*_):
        raise RbsError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(assess, "_detection", stop)
        assert main(command) == 1
    evaluated = (run / "settings.json").stat().st_mtime_ns
    noted = json.loads((run / "settings.json").read_text())
    assert (noted["manifest"], noted["command"][:31]) == ("manifest.csv", "rbs evaluate manifest.csv --sta")
    assert str(tmp_path) not in str(noted)
    assert not (run / "observers" / "settings.json").exists()
    capsys.readouterr()

    assert main(command) == 0
    assert (run / "settings.json").stat().st_mtime_ns == evaluated
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {row["method"] for row in document["summary"]} >= {"rapid", "stage1"}
    assert {row["study"] for row in document["observers"]} >= {"observer", "foci"}
    assert {"ideal rapid", "stage1"} <= {row["method"] for row in document["observers"]}
    settings = json.loads((run / "observers" / "settings.json").read_text())
    assert settings["methods"][-1]["settings"]["weights"] == "DnCNN restorer.safetensors"
    # An untrained restorer is a linear filter: an impulse keeps its counts, within their Poisson
    # noise.
    impulses = pd.read_csv(run / "observers" / "impulses.csv").query("method == 'stage1'")
    assert len(impulses) > 0
    for row in impulses.itertuples():
        counted = 0.5 * row.impulse_counts * row.places * row.draws
        assert row.gain == pytest.approx(1, abs=4 / counted**0.5)

    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_missing_weights_are_named(tiny_cohort, tmp_path, capsys):
    command = ["evaluate", str(tiny_cohort), "--stage1", "no.safetensors", "--output", str(tmp_path)]
    assert main(command) == 1
    assert "no.safetensors: there is no such weight file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_options_of_the_observers_alone_are_refused(tiny_cohort, tmp_path, capsys):
    assert main(["evaluate", str(tiny_cohort), "--draws", "8", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "rbs: --draws is for --observers only; leave it out.\n"


def test_frames_have_no_observers(tmp_path, capsys):
    manifest = tmp_path / "frames.csv"
    manifest.write_text("frame,split\na.png,test\n")
    assert main(["evaluate", str(manifest), "--observers", "--output", str(tmp_path / "out")]) == 1
    assert "it lists frames" in capsys.readouterr().err
