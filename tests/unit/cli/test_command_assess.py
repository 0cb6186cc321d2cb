"""`rbs assess` as a user calls it."""

import json

import pandas as pd
import pytest

from rbs.cli.main import main
from rbs.evaluation.observers import studies
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.dncnn import DnCNN


@pytest.fixture
def f1(tmp_path):
    """An untrained restorer: a Gaussian filter of one pixel."""
    save_restorer(tmp_path / "restorer.safetensors", DnCNN(depth=3, width=4, sigma_px=1.0), {"steps": 0})
    return tmp_path / "restorer.safetensors"


def test_tables_and_settings(tiny_cohort, f1, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(studies, "BLANK_SHAPE", (2, 96, 64))
    run = tmp_path / "run"
    command = ["assess", str(tiny_cohort), "--stage1", str(f1), "--children", "1", "--draws", "8"]
    assert main([*command, "--output", str(run)]) == 0
    printed = capsys.readouterr().out
    assert [
        word for word in ("observer", "hallucinated", "ideal rapid", "stage1") if word not in printed
    ] == []
    settings = json.loads((run / "settings.json").read_text())
    assert settings["methods"][-1]["settings"]["weights"] == "DnCNN restorer.safetensors"
    # An untrained restorer is a linear filter: an impulse keeps its counts, within their Poisson
    # noise.
    impulses = pd.read_csv(run / "impulses.csv").query("method == 'stage1'")
    assert len(impulses) > 0
    for row in impulses.itertuples():
        counted = 0.5 * row.impulse_counts * row.places * row.draws
        assert row.gain == pytest.approx(1, abs=4 / counted**0.5)
    assert main([*command, "--output", str(run)]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_missing_weights_are_named(tiny_cohort, tmp_path, capsys):
    assert main(["assess", str(tiny_cohort), "--stage1", "no.safetensors", "--output", str(tmp_path)]) == 1
    assert "no.safetensors: there is no such weight file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
