"""Rows of an ablation, and their trainings: once each, resumed, in turn, never mixed with others."""

import copy
import sys
from pathlib import Path

import pytest
import yaml

from rbs.data.manifest import Manifest
from rbs.errors import OutputError, RbsError
from rbs.multirun import runs
from rbs.multirun.ablation import definition
from rbs.multirun.ablation.definition import Ablation, Key
from rbs.utils.experiments import ablation_file

TRAINING = """
import pathlib, sys
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(given["trainer.default_root_dir"], given["name"])
if (folder.parent / "broken").exists():
    sys.exit("it is broken")
for start in ("model.init_args.init_from", "model.init_args.cascade_from"):
    if start in given and not pathlib.Path(given[start]).exists():
        sys.exit(f"{given[start]} is missing")
for name in ("restorer.safetensors", "cascade.safetensors"):
    (folder / name).write_text(" ".join(sys.argv))
with (folder / "starts").open("a") as file:
    file.write(f"{given['seed_everything']}\\n")
"""

ROWS = {
    "control": {"label": "stage 1 goes on", "arguments": {"model.stage": 1}},
    "phase_b": {"from": "phase_a"},
    "phase_a": {"overlays": ["other.yaml"], "arguments": {"model.prior.source": "truth", "model.scm": False}},
    "few_only": {"regimes": ["few"]},
}


@pytest.fixture
def content(tmp_path):
    for name in ("base", "first", "other"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"model": {"init_args": {}}}))
    rows = {name: copy.deepcopy(ROWS[name]) for name in ("control", "phase_a", "phase_b", "few_only")}
    rows["phase_a"] = rows["phase_a"] | {"overlays": [str(tmp_path / "other.yaml")]}
    return {
        "experiment": str(tmp_path / "base.yaml"),
        "seeds": [1, 2],
        "stage1": {"experiment": str(tmp_path / "first.yaml")},
        "regimes": {"few": {"children": 2}, "many": {"arguments": {"data.pairs": "split"}}},
        "references": {"f1": ["control", "stage1"], "f2": ["phase_a"]},
        "rows": rows,
    }


@pytest.fixture
def make(tmp_path, content, tiny_cohort, monkeypatch):
    """A function that reads the ablation of `content`, whose trainings write a line each."""
    monkeypatch.setattr(definition, "fit_command", lambda *a: [sys.executable, "-c", TRAINING, *a])
    monkeypatch.setattr(runs, "_POLL_S", 0.02)

    def read(**options):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return Ablation.read(tmp_path / "mine.yaml", tmp_path / "out", **{"manifest": tiny_cohort, **options})

    return read


def starts(ablation):
    files = sorted(ablation.output.glob("*/*/*/starts"))
    return {str(file.parent.relative_to(ablation.output)): file.read_text().split() for file in files}


def test_every_row_is_trained_once_in_every_regime_with_every_seed(make):
    trained = make().train(workers=3)
    assert {run.state for run in trained.values()} == {"finished"}
    rows = {"few": ("stage1", "control", "phase_a", "phase_b", "few_only")}
    rows["many"] = rows["few"][:-1]
    once = {f"{g}/{row}/seed_{s}": [str(s)] for g in rows for row in rows[g] for s in (1, 2)}
    assert starts(make()) == once
    make().train(workers=1)
    assert starts(make()) == once


def test_a_training_is_told_where_it_starts_and_what_it_is_given(make, tmp_path):
    ablation = make(teacher=Path("teacher"), arguments=["--config=machine.yaml"], seeds=[2])
    ablation.train(workers=1)
    out, found = ablation.output, ablation.runs()
    words = found[Key("many", "phase_b", 2)].command
    assert f"--model.init_args.init_from={out}/many/stage1/seed_2/restorer.safetensors" in words
    assert f"--model.init_args.cascade_from={out}/many/phase_a/seed_2/cascade.safetensors" in words
    assert {"--data.pairs=split", "--data.init_args.seed=2", "--config=machine.yaml"} < set(words)
    words = found[Key("few", "phase_a", 2)].command
    assert words.index("--config=machine.yaml") < words.index(f"--config={tmp_path / 'other.yaml'}")
    assert {"--model.prior.source=truth", "--model.scm=false"} < set(words)
    assert f"--data.init_args.manifest={out}/few/manifest.csv" in words
    words = found[Key("few", "stage1", 2)].command
    assert f"--config={tmp_path / 'first.yaml'}" in words
    assert not [w for w in words if w.startswith(("--model.init_args.init_from", "--model.init_args.prior"))]


def test_a_regime_of_few_children_keeps_all_others(make, tiny_cohort):
    ablation = make()
    ablation.write_manifests()
    whole, few = Manifest.read(tiny_cohort), Manifest.read(ablation.output / "few" / "manifest.csv")
    assert [c.patient for c in few.split("train")] == [c.patient for c in whole.split("train")][:2]
    for split in ("val", "test"):
        assert few.split(split)[0].standard[0].samefile(whole.split(split)[0].standard[0])


def test_weights_made_elsewhere_are_started_from(make, tmp_path):
    for regime in ("few", "many"):
        (tmp_path / f"{regime}_1").write_text("weights")
    ablation = make(stage1=f"{tmp_path}/{{regime}}_{{seed}}", seeds=[1])
    assert Key("few", "stage1", 1) not in ablation.keys
    assert ablation.start(Key("many", "control", 1)) == tmp_path / "many_1"
    ablation.train(workers=1)
    assert "few/stage1/seed_1" not in starts(ablation)


def test_nothing_else_passes_for_a_row(make, content, tmp_path):
    make(seeds=[1]).train(workers=1)
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"lr": 1}}}))
    with pytest.raises(OutputError, match="it holds a training that began otherwise: settings changed"):
        make(seeds=[1]).runs()


def test_what_starts_from_a_failed_training_is_left_out(make):
    ablation = make(seeds=[1])
    (ablation.output / "few" / "phase_a").mkdir(parents=True)
    (ablation.output / "few" / "phase_a" / "broken").touch()
    with pytest.raises(RbsError, match=r"compared with did not finish \(it is broken\)"):
        ablation.train(workers=1)
    assert "few/phase_b/seed_1" not in starts(ablation)
    assert "few/few_only/seed_1" in starts(ablation)
    (ablation.output / "few" / "phase_a" / "broken").unlink()
    assert {run.state for run in ablation.train(workers=1).values()} == {"finished"}
    assert "few/phase_b/seed_1" in starts(ablation)


def test_while_another_process_trains_there_is_no_result_yet(make):
    ablation = make(seeds=[1])
    run = ablation.train(workers=2)[Key("few", "few_only", 1)]
    run.state = "unfinished"
    run.note()
    assert run.claim()  # as another process would
    assert ablation.train(workers=1) is None
    run.release()
    assert ablation.train(workers=1)[Key("few", "few_only", 1)].state == "finished"


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("rows", "phase_b", "from"), "few_only", "phase_b goes on from few_only, which comes after it"),
        (("rows", "phase_b", "form"), "phase_a", "a row has no 'form'"),
        (("rows", "stage1"), {}, "stage1 is no name of a row"),
        (("rows", "few_only", "regimes"), ["fwe"], "there is no regime fwe"),
        (("references", "f1"), ["contrl"], "there is no row contrl"),
        (("references", "f3"), ["control"], "references are of f1 and f2, not of f3"),
        (("contrasts",), {"SKD": [["phase_b", "none"]]}, "there is no row none"),
        (("regimes", "few", "children"), 5, "4 training patients, but the regime few needs 5"),
        (("rows",), {}, "it names no rows"),
        (("rows", "control"), "model.stage: 1", "a row is described by names and values"),
    ],
)
def test_what_makes_no_sense_is_refused(make, content, place, value, fault):
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(RbsError, match=fault):
        make().write_manifests()


@pytest.mark.parametrize("name", ["semantics", "endoscopy", "stage1"])
def test_the_ablations_of_rbs_can_be_read(name, tmp_path):
    ablation = Ablation.read(ablation_file(name), tmp_path)
    assert len(ablation.keys) >= 6
    assert all(ablation.rows_of(regime.name) for regime in ablation.regimes)
