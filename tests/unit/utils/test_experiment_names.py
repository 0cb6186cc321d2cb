"""Experiments and sweeps are found by name from any folder."""

from pathlib import Path

import pytest

from rbs.errors import RbsError
from rbs.utils.experiments import ablation_file, experiment_file, sweep_file

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["stage1", "demo/stage1", "overlays/cpu", "ablations/no_spi"])
def test_an_experiment_is_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiment_file(name) == ROOT / "experiments" / f"{name}.yaml"


def test_a_sweep_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep_file("teacher") == ROOT / "sweeps" / "teacher.yaml"


def test_an_ablation_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ablation_file("semantics") == ROOT / "sweeps" / "ablations" / "semantics.yaml"


def test_a_file_is_preferred_to_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stage1").mkdir()  # a folder of runs is no experiment
    assert experiment_file("stage1") == ROOT / "experiments" / "stage1.yaml"
    Path("stage2").write_text("model:\n")
    assert experiment_file("stage2") == Path("stage2")


def test_an_unknown_name_lists_those_most_like_it():
    with pytest.raises(RbsError, match=r"stag1: .*none of the experiments.* such as stage1, stage2, "):
        experiment_file("stag1")
    with pytest.raises(RbsError, match=r"none of the sweeps .*such as stage1, teacher, weights\.$"):
        sweep_file(Path("sweeps/nothing.yaml"))
