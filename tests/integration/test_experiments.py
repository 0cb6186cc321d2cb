"""Every file in experiments/ and sweeps/ runs; runs resume, and cannot falsify an ablation."""

import csv
import io
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wandb.wandb_agent
import wandb_file
import yaml
from trainings import ROOT, apart, of_frames, of_phantoms, small, weights, with_small_nafnet
from wandb.wandb_agent import Agent

from rbs.cli.main import main
from rbs.data import labelled_scans, stream, unpaired
from rbs.data.mucosa import write_mucosa
from rbs.multirun import runs as multirun
from rbs.multirun.ablation import compare
from rbs.multirun.sweep.definition import read_sweep
from rbs.multirun.sweep.results import results_table
from rbs.multirun.sweep.runner import run_sweep
from rbs.multirun.sweep.search import propose
from rbs.restorers.checkpoint import load_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.semantic_features import SemanticNetwork, save_semantic_network
from rbs.segmentation import atlas
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.synthetic.cohort import write_cohort
from rbs.utils.experiments import experiment_file

ENLARGING = [ROOT / "experiments" / "enlarge" / f"{part}.yaml" for part in ("swinir", "semantic")]
"""Those that are added to enlarge/nafnet."""

EXPERIMENTS = sorted(
    path
    for path in (ROOT / "experiments").rglob("*.yaml")
    if path.parent.name not in ("ablations", "overlays", "peers") and path not in ENLARGING
)
PEERS = sorted((ROOT / "experiments" / "peers").glob("*.yaml"))
ABLATIONS = sorted((ROOT / "experiments" / "ablations").glob("*.yaml"))
OVERLAYS = sorted((ROOT / "experiments" / "overlays").glob("*.yaml"))


SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


ON_FRAMES = (
    *("no_", "prior_none", "prior_online", "prior_truth", "prior_placebo", "sees_rapid", "region_head"),
    *("teacher_", "stage1_squared"),
)
"""Beginnings of the overlays that fit colour frames, too; others are about counts, or name a
folder."""


def name_of(path):
    return str(path.relative_to(ROOT / "experiments"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Where the runs of this session go; a stage-1 run and a teacher stand there already."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def frames(tmp_path_factory):
    """Manifest of drawn frames, 96 x 96 pixels: 6 videos of 2, in all splits."""
    return write_mucosa(tmp_path_factory.mktemp("mucosa"), 6, 2, 96, seed=2, progress=False)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("phantoms"), 3, 11, workers=1, progress=False)


@pytest.fixture(scope="session")
def trained(runs, tiny_cohort, frames, phantoms):
    """A function that trains an experiment, once a session, and gives the folder of its run."""

    @cache
    def train(config):
        manifest = phantoms if of_phantoms(config) else frames if of_frames(config) else tiny_cohort
        assert main(["fit", *small(config, manifest, runs)]) == 0
        return runs / yaml.safe_load(config.read_text())["name"]

    return train


@pytest.fixture(scope="session")
def stage1(trained):
    return trained(ROOT / "experiments" / "stage1.yaml")


@pytest.fixture(scope="session")
def teacher(trained):
    return trained(ROOT / "experiments" / "adapt_sam.yaml") / "teacher"


@pytest.fixture(scope="session")
def phase_a(trained, stage1, teacher):
    return trained(ROOT / "experiments" / "phased_a.yaml")


@pytest.fixture(scope="session")
def describer(trained):
    return trained(ROOT / "experiments" / "describe.yaml")


@pytest.fixture(scope="session")
def stage1_of_frames(trained):
    return trained(ROOT / "experiments" / "endoscopy" / "stage1.yaml")


@pytest.fixture(scope="session")
def teacher_of_frames(trained):
    return trained(ROOT / "experiments" / "endoscopy" / "adapt_sam.yaml") / "teacher"


@pytest.mark.parametrize("config", EXPERIMENTS, ids=name_of)
def test_every_experiment_runs(config, trained, request, monkeypatch):
    for module in (stream, labelled_scans):  # children drawn to know the ranges of training
        monkeypatch.setattr(module, "SURVEYED", 2)
    monkeypatch.setattr(unpaired, "FEWEST", 2)
    monkeypatch.setattr(atlas, "LEVELS", ((4, 32, 2),))  # carrying labels is tested by itself
    # Only what the experiment needs is trained before it.
    for needed in ("stage1", "teacher"):
        request.getfixturevalue(f"{needed}_of_frames" if of_frames(config) else needed)
    if config.stem == "phased_b":
        request.getfixturevalue("phase_a")
    if config.stem == "describe_decoder":
        request.getfixturevalue("describer")
    versions = list(trained(config).glob("version_*"))
    assert versions
    assert all((version / "config.yaml").is_file() for version in versions)
    assert all((version / "metrics.csv").is_file() for version in versions)


@pytest.mark.parametrize("peer", PEERS, ids=name_of)
def test_every_peer_runs_on_stage_1(peer, runs, tiny_cohort, capsys):
    arguments = small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, runs)
    assert main(["fit", *arguments[:2], "--config", str(peer), *arguments[2:]]) == 0
    wanted = yaml.safe_load(peer.read_text())
    assert wanted["name"] == f"peers/{peer.stem}"
    trained = load_restorer(runs / wanted["name"] / "restorer.safetensors")
    f1 = wanted.get("model", {}).get("init_args", {}).get("f1", {"class_path": "rbs.restorers.nafnet.NAFNet"})
    assert trained.restorer.spec()["class_path"] == f1["class_path"]
    assert trained.provenance["steps"] == 2


@pytest.mark.parametrize("part", ENLARGING, ids=name_of)
def test_every_part_of_twice_the_matrix_runs(part, runs, tiny_cohort, tmp_path):
    arguments = small(ROOT / "experiments" / "enlarge" / "nafnet.yaml", tiny_cohort, runs)
    arguments = [*arguments[:2], "--config", str(part), *arguments[2:]]
    if part.stem == "semantic":
        network = SemanticNetwork(channels=[4, 6, 8], blocks=[1, 1, 1])
        save_semantic_network(tmp_path / "semantic.safetensors", network, {})
        arguments += ["--model.init_args.f1.init_args.semantic", str(tmp_path / "semantic.safetensors")]
    assert main(["fit", *arguments]) == 0
    trained = load_restorer(runs / "enlarge" / part.stem / "restorer.safetensors", scale=2)
    wanted = yaml.safe_load(part.read_text())["model"]["init_args"]["f1"]["class_path"]
    assert trained.restorer.spec()["class_path"] == wanted
    assert trained.provenance["spacing_mm"] == [19.2, 19.2]
    assert str(tmp_path) not in str(trained.restorer.spec())


@pytest.mark.parametrize("peer", ["unet", "dncnn", "restormer", "swinir"])
def test_peers_of_frames_keep_to_colours(peer, runs, frames):
    """The overlay replaces f1's class; the domain its experiment has set must survive that."""
    overlay = ROOT / "experiments" / "peers" / f"{peer}.yaml"
    arguments = small(ROOT / "experiments" / "endoscopy" / "stage1.yaml", frames, runs)
    arguments += ["--trainer.default_root_dir", str(runs / "endoscopy")]
    assert main(["fit", *arguments[:2], "--config", str(overlay), *arguments[2:]]) == 0
    trained = load_restorer(runs / "endoscopy" / "peers" / peer / "restorer.safetensors")
    wanted = yaml.safe_load(overlay.read_text())["model"]["init_args"]["f1"]
    assert trained.restorer.spec()["class_path"] == wanted["class_path"]
    assert (trained.restorer.domain, trained.provenance["preset"]) == ("colours", "mixed")


@pytest.mark.parametrize(
    ("track", "overlay"),
    [("", overlay) for overlay in ABLATIONS + OVERLAYS]
    + [
        ("endoscopy", overlay)
        for overlay in OVERLAYS + [a for a in ABLATIONS if a.name.startswith(ON_FRAMES)]
    ],
    ids=lambda value: value or "bones" if isinstance(value, str) else name_of(value),
)
def test_every_overlay_parses_on_its_experiment(track, overlay, capsys):
    bases = {"teacher": "adapt_sam.yaml", "stage1": "stage1.yaml"}
    base = ROOT / "experiments" / track / bases.get(overlay.name.split("_")[0], "stage2.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(base), "--config", str(overlay), "--print_config"])
    assert stop.value.code == 0
    changed, printed = yaml.safe_load(overlay.read_text()), yaml.safe_load(capsys.readouterr().out)

    def check(want, got):
        if isinstance(want, dict):
            for key, value in want.items():
                check(value, got[key])
        elif isinstance(want, list):
            for value, found in zip(want, got, strict=True):
                check(value, found)
        else:
            assert got == want

    check(changed, printed)


def test_interrupted_training_resumes(runs, tiny_cohort, capsys):
    arguments = [*small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, runs), "--name", "resumed"]
    assert main(["fit", *arguments, "--ckpt_path", "last"]) == 0
    first = runs / "resumed" / "version_0"
    (first / "finished").unlink()  # as if it had been interrupted after its last checkpoint
    capsys.readouterr()
    assert main(["fit", *arguments, "--ckpt_path", "last", "--trainer.max_steps", "4"]) == 0
    assert f"rbs: resuming {first}" in capsys.readouterr().out
    metrics = (runs / "resumed" / "version_1" / "metrics.csv").read_text()
    first_step = min(int(row["step"]) for row in csv.DictReader(io.StringIO(metrics)))
    assert first_step >= 2, "it began again from the start"
    import torch

    steps = [
        torch.load(p, weights_only=True)["global_step"]
        for p in sorted((runs / "resumed").rglob("last*.ckpt"))
    ]
    assert sorted(steps) == [2, 4]
    # What was resumed has finished: making it again starts afresh, from nothing stale.
    assert main(["fit", *arguments, "--ckpt_path", "last"]) == 0
    assert "rbs: a fresh run" in capsys.readouterr().out


def test_interrupted_training_on_frames_resumes(runs, frames, capsys):
    arguments = [*small(ROOT / "experiments" / "endoscopy" / "stage1.yaml", frames, runs), "--name", "again"]
    assert main(["fit", *arguments, "--ckpt_path", "last"]) == 0
    (runs / "again" / "version_0" / "finished").unlink()
    capsys.readouterr()
    assert main(["fit", *arguments, "--ckpt_path", "last", "--trainer.max_steps", "4"]) == 0
    assert f"rbs: resuming {runs / 'again' / 'version_0'}" in capsys.readouterr().out
    assert load_restorer(runs / "again" / "restorer.safetensors").provenance["steps"] == 4


def test_checkpoint_does_not_override_the_command_line(runs, tiny_cohort, stage1, teacher, capsys):
    arguments = [*small(ROOT / "experiments" / "stage2.yaml", tiny_cohort, runs), "--name", "honest"]
    assert main(["fit", *arguments]) == 0
    checkpoint = next((runs / "honest").rglob("last*.ckpt"))
    assert main(["validate", *arguments, "--ckpt_path", str(checkpoint)]) == 0
    assert main(["validate", *arguments, "--ckpt_path", str(checkpoint), "--model.spi", "false"]) == 1
    assert "spi: trained with True, asked for False" in capsys.readouterr().err


def test_stage_2_trains_resumes_and_is_scored_with_a_dynunets_priors(runs, tiny_cohort, stage1, tmp_path):
    segmenter = tmp_path / "segmenter.safetensors"
    save_segmenter(segmenter, DynUNet((8, 8, 8, 12)), {})
    arguments = [*small(ROOT / "experiments" / "stage2.yaml", tiny_cohort, runs), "--name", "any"]
    arguments += ["--trainer.default_root_dir", str(tmp_path), "--ckpt_path", "last"]
    arguments += ["--model.init_args.prior.teacher", str(segmenter)]
    arguments += ["--model.init_args.prior.embedding_dim", "12", "--model.init_args.scm", "false"]
    assert main(["fit", *arguments]) == 0
    (tmp_path / "any" / "version_0" / "finished").unlink()  # as if it had been interrupted
    assert main(["fit", *arguments, "--trainer.max_steps", "4"]) == 0
    trained = tmp_path / "any" / "restorer.safetensors"
    provenance = load_restorer(trained).provenance
    assert (provenance["steps"], provenance["teacher"]) == (4, load_segmenter(segmenter).sha256)
    evaluate = ["evaluate", str(tiny_cohort), "--stage1", str(stage1 / "restorer.safetensors")]
    evaluate += ["--stage2", str(trained), "--teacher", str(segmenter), "--output", str(tmp_path / "out")]
    assert main(evaluate) == 0
    assert "stage2_f2" in set(pd.read_csv(tmp_path / "out" / "summary.csv")["method"])


# Stage 1 of scans and the processes themselves: see test_scale. Stage 2 is one task for scans and
# frames.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["adapt_sam", "endoscopy/stage2"])
def test_two_processes_train(name, runs, tiny_cohort, frames, request):
    config = ROOT / "experiments" / f"{name}.yaml"
    if name.endswith("stage2"):
        for needed in ("stage1", "teacher"):
            request.getfixturevalue(f"{needed}_of_frames" if of_frames(config) else needed)
    arguments = [*small(config, frames if of_frames(config) else tiny_cohort, runs), "--name", f"two/{name}"]
    arguments += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    arguments += ["--data.init_args.samples_per_epoch", "6"]  # DDP notices unused weights in the second step
    done = subprocess.run(
        [sys.executable, "-m", "rbs.cli", "fit", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MEMBER: 2/2" in done.stderr + done.stdout
    product = "teacher/teacher.json" if name.endswith("adapt_sam") else "restorer.safetensors"
    assert (runs / "two" / name / product).is_file()
    assert len(list((runs / "two" / name).glob("version_*"))) == 1
    if name.endswith("adapt_sam"):
        return  # the overlap it maximises is of all pixels of a batch, and no mean over ranks
    # One process that is given as many crops a step ends with the same (averaged) weights, but for
    # a bit.
    alone = [*small(config, frames if of_frames(config) else tiny_cohort, runs), "--name", f"one/{name}"]
    alone += ["--data.init_args.samples_per_epoch", "6", "--data.init_args.batch_size", "2"]
    assert main(["fit", *alone]) == 0
    one, two = (weights(runs / ranks / name / "restorer.safetensors") for ranks in ("one", "two"))
    other = request.getfixturevalue("stage1_of_frames" if of_frames(config) else "stage1")
    assert apart(one, two) < 1e-2 * apart(one, weights(other / "restorer.safetensors"))


def command_of_the_agent(file, extra, monkeypatch, tmp_path):
    """Command line of a sweep's first run, by `wandb agent` itself, `extra` before the values."""
    sweep = read_sweep(file)
    started = []

    class Process:
        def __init__(self, command=None, **_):
            started.append(command)

    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", Process)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them; monkeypatch puts them back
    _, values = propose(sweep, [], 0)
    nested = {}
    for parameter in sweep.parameters:
        branch = nested
        for key in parameter.path[:-1]:
            branch = branch.setdefault(key, {})
        branch[parameter.path[-1]] = values[parameter.name]
    agent = Agent(api=None, queue=None)
    place = sweep.command.index("${args}")
    agent._sweep_command = [*sweep.command[:place], *extra, *sweep.command[place:]]
    args = {name: {"value": value} for name, value in nested.items()}
    agent._command_run({"run_id": "run1", "program": sweep.program, "args": args})
    return started[0], values


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.name)
def test_what_wandb_agent_runs_for_every_sweep_runs(
    file, runs, tiny_cohort, stage1, teacher, monkeypatch, tmp_path
):
    config = next(w.split("=")[1] for w in read_sweep(file).command if w.startswith("--config="))
    extra = [*small(experiment_file(config), tiny_cohort, runs), "--trainer.default_root_dir", str(tmp_path)]
    command, values = command_of_the_agent(file, extra, monkeypatch, tmp_path)
    assert command[:5] == ["/usr/bin/env", "python", "-m", "rbs.cli", "fit"]
    assert main(command[4:]) == 0
    # All runs of an agent have one name: each has a folder of its own.
    written = next(tmp_path.rglob("run1/version_0/config.yaml"))
    init_args = yaml.safe_load(written.read_text())["model"]["init_args"]
    for name, value in values.items():
        branch = init_args
        for key in name.removeprefix("model.").removeprefix("init_args.").split("."):
            branch = branch.get("init_args", branch)[key]
        assert branch == value, name


def test_the_agents_command_line_runs_as_a_process(runs, tiny_cohort, monkeypatch, tmp_path):
    """Its run is the agent's own, and pictures are recorded on request."""
    file = ROOT / "sweeps" / "stage1.yaml"
    small_ = small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, runs)
    place = small_.index("disabled")
    extra = [*small_[: place - 1], *small_[place + 1 :], "--trainer.default_root_dir", str(tmp_path)]
    command, _ = command_of_the_agent(file, [*extra, "--log_images", "true"], monkeypatch, tmp_path)
    # The agent sends runs to its server; there is none here.
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_RUN_ID": "run1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = wandb_file.records(next(tmp_path.rglob("*.wandb")))
    run = next(record.run for record in found if record.run.run_id)
    assert (run.run_id, run.sweep_id) == ("run1", "sweep1")
    assert len(list(tmp_path.rglob("media/images/val/*.png"))) == 1


@pytest.fixture(scope="module")
def swept(tiny_cohort, tmp_path_factory):
    """A sweep of one run without a server, which W&B recorded offline: its definition and the run.

    In a process of its own: W&B watches first imports, and does not bear one in a forked worker.
    """
    folder = tmp_path_factory.mktemp("sweep")
    changes = {"run_cap": 1, "method": "random", "early_terminate": None}
    sweep = read_sweep(ROOT / "sweeps" / "stage1.yaml").model_copy(update=changes)
    extra = small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, folder)
    extra += ["--wandb", "offline", "--tags", "[first, try]", "--data.init_args.num_workers", "2"]
    (run,) = run_sweep(sweep, folder / "swept", arguments=extra)
    return sweep, run


def test_a_sweep_runs_without_a_server(swept):
    sweep, run = swept
    assert run.state == "finished", run.last_line()
    assert np.isfinite(results_table(sweep, [run])["val/nc_psnr"]).all()
    config = yaml.safe_load((run.folder / "version_0" / "config.yaml").read_text())
    assert config["model"]["init_args"]["lr"] == run.about["values"]["model.lr"]


def test_an_offline_run_records_what_it_is_and_no_image(swept):
    version = swept[1].folder / "version_0"
    folder = next(version.rglob("offline-run-*"))
    found = wandb_file.records(next(folder.glob("*.wandb")))
    run = next(record.run for record in found if record.run.run_id)
    assert (run.project, run.display_name, list(run.tags)) == ("rbs", "0001/version_0", ["first", "try"])
    assert run.run_group == "swept"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    assert run.git.commit == (commit.stdout.strip() if commit.returncode == 0 else "")
    config = wandb_file.config(found)
    written = yaml.safe_load((version / "config.yaml").read_text())
    assert config["model"]["init_args"]["lr"] == written["model"]["init_args"]["lr"] != 2e-3
    assert config["data"]["init_args"]["crop"] == [64, 64]
    assert config["trainer"]["max_steps"] == 2
    logged = [h["val/nc_psnr"] for h in wandb_file.history(found) if "val/nc_psnr" in h]
    with (version / "metrics.csv").open() as file:
        wanted = [float(row["val/nc_psnr"]) for row in csv.DictReader(file) if row["val/nc_psnr"]]
    assert logged == pytest.approx(wanted)
    assert not [path for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".npz", ".dcm")]
    assert not list(folder.rglob("output.log"))


@pytest.fixture
def trained_here(monkeypatch):
    """Names of an ablation's trainings, run in this process, which has imported all it needs."""
    monkeypatch.setattr(compare, "RESAMPLES", 200)  # intervals are tested with compare
    names = []

    class Process:
        def __init__(self, command, **_):
            names.append(next(word.split("=")[1] for word in command if word.startswith("--name=")))
            self.returncode = main(command[3:])

        def poll(self):
            return self.returncode

    monkeypatch.setattr(multirun.subprocess, "Popen", Process)
    monkeypatch.setattr(multirun, "_POLL_S", 0)
    return names


def ablation_of(tmp_path, **content):
    """The command of an ablation that a file of this content describes."""
    file = tmp_path / "ablation.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return ["ablation", str(file), "--output", str(tmp_path / "out")]


def test_an_ablation_of_regimes_and_recipes(
    runs, tmp_path, make_cohort, teacher, trained_here, monkeypatch, capsys
):
    splits = ("train", "train", "train", "val", "val", *["test"] * 4)
    manifest = make_cohort(tmp_path / "cohort", splits=splits)
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RBS_WEIGHTS", raising=False)  # LPIPS takes as long as all other metrics
    extra = small(ROOT / "experiments" / "stage2.yaml", manifest, runs)[2:]  # without the experiment
    place = extra.index("--model.init_args.init_from")
    # That, the teacher and the cache are the ablation's.
    extra = with_small_nafnet([*extra[:place], *extra[place + 6 :]])
    alone = {"model.skd": False, "model.scm": False}
    command = ablation_of(
        tmp_path,
        experiment="stage2",
        seeds=[1],
        arguments={"model.prior.embedding_dim": 0},
        stage1={"experiment": "stage1"},
        regimes={"few": {"children": 2}, "known": {"arguments": {"data.pairs": "expectation"}}},
        references={"f1": ["control", "stage1"], "f2": ["f2_none", "stage1"]},
        contrasts={"SKD": [["b_skd", "control"]]},
        rows={
            "control": {"arguments": {"model.stage": 1}},
            "f2_none": {"arguments": {"model.trains": "f2", "model.spi": False, **alone}},
            "f2_truth": {"arguments": {"model.trains": "f2", "model.prior.source": "truth", **alone}},
            "f2_placebo": {
                "regimes": ["known"],
                "arguments": {"model.trains": "f2", "model.prior.source": "placebo", **alone},
            },
            "f2": {"bound": "f2_truth", "arguments": {"model.trains": "f2", **alone}},
            "b_skd": {"from": "f2", "arguments": {"model.trains": "f1", "model.scm": False}},
            "joint": {"regimes": ["known"]},
        },
    )
    command += ["--manifest", str(manifest), "--teacher", str(teacher)]
    assert main([*command, "--fit", *extra]) == 0
    assert trained_here.index("few/f2/seed_1") < trained_here.index("few/b_skd/seed_1")
    assert len(trained_here) == 6 + 8
    per_scan = pd.read_csv(tmp_path / "out" / "per_scan.csv")
    networks = per_scan[per_scan["regime"] == "known"].groupby("row")["network"].unique().map(sorted)
    assert dict(networks) == {
        **{row: ["f1"] for row in ("stage1", "control")},
        **{row: ["f2"] for row in ("f2_none", "f2_truth", "f2_placebo", "f2")},
        **{row: ["f1", "f2"] for row in ("b_skd", "joint")},
    }
    table = pd.read_csv(tmp_path / "out" / "ablation.csv")
    by_hand = per_scan.set_index(["regime", "row", "network", "patient"])["nmse_spine"]
    line = table.query("regime == 'few' and row == 'f2_truth' and metric == 'psnr_spine'")
    line = line.set_index("reference").loc["f2_none"]
    errors = [by_hand.loc["few", row, "f2"].mean() for row in ("f2_none", "f2_truth")]
    assert line["difference"] == pytest.approx(10 * np.log10(errors[0] / errors[1]), abs=1e-4)
    assert line["low"] <= line["difference"] <= line["high"]
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "is **not tested** (one seed" in text
    assert "Every row is trained for equally many steps on equally many crops" in text
    assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "report.html")]) == 0
    assert "is <strong>not tested</strong> (one seed" in (tmp_path / "report.html").read_text()
    # Nothing is trained or scored twice, and nothing else is passed off as it.
    fewer = manifest.with_name("fewer.csv")
    fewer.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    slow = manifest.parent / "P0006" / "standard.dcm"
    more = ["--elsewhere", f"fewer={fewer}", "--real", str(slow)]
    assert main([*command, *more, "--fit", *extra]) == 0
    assert len(trained_here) == 14
    later = pd.read_csv(tmp_path / "out" / "per_scan.csv")
    last = per_scan["patient"].max()
    of_fewer = later[later["images"] == "fewer"].drop(columns="images").reset_index(drop=True)
    wanted = per_scan[per_scan["patient"] != last].drop(columns="images").reset_index(drop=True)
    unlike = wanted["row"] != "f2_placebo"  # the other child of the last one is another
    # A column of whole numbers is read as such where no value is missing.
    of_fewer, wanted = (table[unlike].convert_dtypes() for table in (of_fewer, wanted))
    pd.testing.assert_frame_equal(of_fewer, wanted)
    real = later[later["images"] == "real"]
    assert {"f2", "f2_none"} < set(real["row"])
    assert not {"f2_truth", "f2_placebo"} & set(real["row"])
    assert main([*command, "--fit", *extra, "--trainer.max_steps", "3"]) == 1
    assert "it holds a training that began otherwise: the command changed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--elsewhere", str(fewer), "--fit", *extra])
    assert "is not NAME=MANIFEST" in capsys.readouterr().err


def test_who_saw_one_view_is_given_one(runs, tmp_path, tiny_cohort, trained_here, monkeypatch):
    monkeypatch.chdir(ROOT)
    extra = small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, runs)[2:]
    rows = {"unchanged": {}, "one_view": {"overlays": ["ablations/stage1_one_view"]}}
    command = ablation_of(
        tmp_path, experiment="stage1", seeds=[1], references={"f1": ["unchanged"]}, rows=rows
    )
    seen = []
    whole = NAFNet.forward
    monkeypatch.setattr(
        NAFNet, "forward", lambda self, x, *a: (seen.append(x.shape[1]), whole(self, x, *a))[1]
    )
    assert main([*command, "--manifest", str(tiny_cohort), "--fit", *extra]) == 0
    assert trained_here == ["all/unchanged/seed_1", "all/one_view/seed_1"]
    assert seen[-3:] == [2, 1, 1]
    assert set(pd.read_csv(tmp_path / "out" / "ablation.csv")["row"]) == {"unchanged", "one_view"}


def test_an_ablation_on_frames(
    runs, tmp_path, frames, stage1_of_frames, teacher_of_frames, trained_here, monkeypatch
):
    monkeypatch.chdir(ROOT)
    extra = small(ROOT / "experiments" / "endoscopy" / "stage2.yaml", frames, runs)[2:]
    alone, masks = {"model.skd": False, "model.scm": False}, {"model.prior.embedding_dim": 0}
    command = ablation_of(
        tmp_path,
        experiment="endoscopy/stage2",
        seeds=[1],
        references={"f1": ["control", "stage1"], "f2": ["truth"]},
        rows={
            "control": {"arguments": {"model.stage": 1}},
            "truth": {"arguments": {"model.prior.source": "truth", **masks, **alone}},
            "spi": {"arguments": alone},
        },
    )
    command += ["--manifest", str(frames), "--stage1", str(stage1_of_frames / "restorer.safetensors")]
    command += ["--teacher", str(teacher_of_frames)]
    assert main([*command, "--fit", *extra]) == 0
    assert trained_here == [f"all/{row}/seed_1" for row in ("control", "truth", "spi")]
    table = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert {"psnr", "ssim", "delta_e"} <= set(table["metric"])
    per_frame = pd.read_csv(tmp_path / "out" / "per_frame.csv")
    assert set(per_frame["row"]) == {"control", "truth", "spi", "stage1"}
    assert {"patient", "psnr", "dice"} <= set(per_frame.columns)
    by_hand = (
        per_frame.groupby(["row", "network", "patient"])["psnr"].mean().groupby(["row", "network"]).mean()
    )
    psnr = table[table["metric"] == "psnr"].drop_duplicates(["row", "network"])
    for line in psnr.to_dict("records"):
        assert line["value"] == pytest.approx(by_hand[line["row"], line["network"]], abs=1e-3)
    assert "1 group of the test split" in (tmp_path / "out" / "ablation.md").read_text()
