"""Rows of an ablation, and their trainings: once each, resumed, never mixed with others."""

import sys
from types import SimpleNamespace

import pytest
import yaml

from rbs.errors import OutputError, RbsError
from rbs.multirun import runs
from rbs.multirun.ablation import definition
from rbs.multirun.ablation.definition import Ablation

TRAINING = """
import pathlib, sys
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(given["trainer.default_root_dir"], given["name"])
if (folder.parent / "broken").exists():
    sys.exit("it is broken")
with (folder / "starts").open("a") as file:
    file.write(f"{given['seed_everything']}\\n")
"""


@pytest.fixture
def ablation(tmp_path, monkeypatch):
    """An ablation of stage 1 with one overlay and two seeds, whose trainings write a line each."""
    monkeypatch.setattr(definition, "fit_command", lambda *a: [sys.executable, "-c", TRAINING, *a])
    monkeypatch.setattr(runs, "_POLL_S", 0.02)
    for name in ("stage1.yaml", "other_loss.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump({"model": {"init_args": {}}}))
    (tmp_path / "cases.csv").write_text("patient\n")
    manifest = SimpleNamespace(path=tmp_path / "cases.csv")
    rows = (tmp_path / "other_loss.yaml",)
    return Ablation(manifest, tmp_path / "stage1.yaml", rows, (1, 2), tmp_path / "out")


def starts(ablation):
    files = sorted(ablation.output.glob("*/*/starts"))
    return {str(file.parent.relative_to(ablation.output)): file.read_text().split() for file in files}


def test_the_base_of_stage_1_is_not_called_the_full_method(ablation):
    assert [(row.name, row.label) for row in ablation.rows] == [
        ("full", "stage1 unchanged"),
        ("other_loss", "other loss"),
    ]


def test_every_row_is_trained_once_with_every_seed(ablation):
    trained = ablation.train(workers=2)
    assert list(trained) == [("full", 1), ("other_loss", 1), ("full", 2), ("other_loss", 2)]
    assert {run.state for run in trained.values()} == {"finished"}
    once = {f"{row}/seed_{seed}": [str(seed)] for row in ("full", "other_loss") for seed in (1, 2)}
    assert starts(ablation) == once
    ablation.train(workers=1)
    assert starts(ablation) == once


def test_nothing_else_passes_for_a_row(ablation):
    ablation.train(workers=1)
    ablation.experiment.write_text(yaml.safe_dump({"model": {"init_args": {"lr": 1}}}))
    with pytest.raises(OutputError, match="it holds a training that began otherwise: experiment changed"):
        ablation.runs()


def test_without_its_base_there_is_nothing_to_compare(ablation):
    (ablation.output / "full").mkdir(parents=True)
    (ablation.output / "full" / "broken").touch()
    with pytest.raises(RbsError, match=r"compared with did not finish \(it is broken\)"):
        ablation.train(workers=1)
    (ablation.output / "full" / "broken").unlink()
    assert {run.state for run in ablation.train(workers=1).values()} == {"finished"}


def test_while_another_process_trains_there_is_no_result_yet(ablation):
    trained = ablation.train(workers=1)
    run = trained["other_loss", 2]
    run.state = "unfinished"
    run.note()
    assert run.claim()  # as another process would
    assert ablation.train(workers=1) is None
    run.release()
    assert ablation.train(workers=1)["other_loss", 2].state == "finished"


def test_two_rows_of_one_name_are_refused(ablation, tmp_path):
    (tmp_path / "full.yaml").write_text("model: {}\n")
    twice = Ablation(ablation.manifest, ablation.experiment, (tmp_path / "full.yaml",), (1,), ablation.output)
    with pytest.raises(RbsError, match="its name is that of another row; rename it"):
        twice.runs()
