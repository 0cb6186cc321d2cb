"""Every file in experiments/ runs, resumes, trains in two processes, and cannot falsify an ablation."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rbs.cli import main
from rbs.data.manifest import Manifest

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(
    path
    for path in (ROOT / "experiments").rglob("*.yaml")
    if path.parent.name not in ("ablations", "overlays")
)
ABLATIONS = sorted((ROOT / "experiments" / "ablations").glob("*.yaml"))
OVERLAYS = sorted((ROOT / "experiments" / "overlays").glob("*.yaml"))


def name_of(path):
    return str(path.relative_to(ROOT / "experiments"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Where the runs of this session go; a stage-1 run and a teacher stand there already."""
    return tmp_path_factory.mktemp("runs")


def small(config: Path, manifest: Path, runs: Path) -> list[str]:
    """Arguments that shrink an experiment to two steps on a tiny cohort; it exercises the same parts."""
    settings = yaml.safe_load(config.read_text())
    arguments = ["--config", str(config), "--config", str(ROOT / "experiments" / "overlays" / "cpu.yaml")]
    arguments += ["--trainer.default_root_dir", str(runs), "--wandb", "disabled", "--trainer.max_steps", "2"]
    arguments += ["--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
    arguments += ["--trainer.val_check_interval", "null", "--trainer.check_val_every_n_epoch", "1"]
    arguments += ["--data.init_args.batch_size", "1", "--data.init_args.samples_per_epoch", "2"]
    if "manifest" in settings["data"]["init_args"]:
        arguments += ["--data.init_args.manifest", str(manifest), "--data.init_args.crop", "[64, 64]"]
    if "crops_per_child" in settings["data"]["init_args"]:
        arguments += ["--data.init_args.crops_per_child", "1"]
    if settings["model"]["class_path"].endswith("AdaptTeacher"):
        arguments += ["--model.init_args.decoder_steps", "2"]
    if settings["model"].get("init_args", {}).get("stage") == 2:
        arguments += ["--model.init_args.init_from", str(runs / "stage1" / "f1.safetensors")]
        arguments += ["--model.init_args.teacher", str(runs / "adapt_sam" / "teacher")]
    return arguments


@pytest.fixture(scope="session")
def stage1(runs, tiny_cohort):
    assert main(["fit", *small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, runs)]) == 0
    return runs / "stage1"


@pytest.fixture(scope="session")
def teacher(runs, tiny_cohort):
    assert main(["fit", *small(ROOT / "experiments" / "adapt_sam.yaml", tiny_cohort, runs)]) == 0
    return runs / "adapt_sam" / "teacher"


@pytest.mark.parametrize("config", EXPERIMENTS, ids=name_of)
def test_every_experiment_runs(config, runs, tiny_cohort, stage1, teacher):
    assert main(["fit", *small(config, tiny_cohort, runs)]) == 0
    folder = runs / yaml.safe_load(config.read_text())["name"]
    versions = list(folder.glob("version_*"))
    assert versions
    assert all((version / "config.yaml").is_file() for version in versions)
    assert all((version / "metrics.csv").is_file() for version in versions)


@pytest.mark.parametrize("overlay", ABLATIONS + OVERLAYS, ids=name_of)
def test_every_overlay_parses_on_its_experiment(overlay, capsys):
    bases = {"teacher": "adapt_sam.yaml", "stage1": "stage1.yaml"}
    base = ROOT / "experiments" / bases.get(overlay.name.split("_")[0], "stage2.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(base), "--config", str(overlay), "--print_config"])
    assert stop.value.code == 0
    changed, printed = yaml.safe_load(overlay.read_text()), yaml.safe_load(capsys.readouterr().out)

    def check(want, got):
        for key, value in want.items():
            if isinstance(value, dict):
                check(value, got[key])
            elif isinstance(value, list):
                for wanted, found in zip(value, got[key], strict=True):
                    check(wanted, found)
            else:
                assert got[key] == value

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


def test_checkpoint_does_not_override_the_command_line(runs, tiny_cohort, stage1, teacher, capsys):
    arguments = [*small(ROOT / "experiments" / "stage2.yaml", tiny_cohort, runs), "--name", "honest"]
    assert main(["fit", *arguments]) == 0
    checkpoint = next((runs / "honest").rglob("last*.ckpt"))
    assert main(["validate", *arguments, "--ckpt_path", str(checkpoint)]) == 0
    assert main(["validate", *arguments, "--ckpt_path", str(checkpoint), "--model.spi", "false"]) == 1
    assert "spi: trained with True, asked for False" in capsys.readouterr().err


def test_predict_writes_the_restored_scans(runs, tiny_cohort, stage1):
    arguments = small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, runs)
    checkpoint = next(stage1.rglob("last*.ckpt"))
    assert main(["predict", *arguments, "--ckpt_path", str(checkpoint)]) == 0
    written = sorted(stage1.rglob("restored/*.npz"))
    assert len(written) == len(Manifest.read(tiny_cohort).split("test"))
    counts = np.load(written[0])["counts"]
    assert counts.shape == (2, 128, 64)
    assert (counts >= 0).all()


@pytest.mark.parametrize("name", ["stage1", "stage2", "adapt_sam"])
def test_two_processes_train(name, runs, tiny_cohort, stage1, teacher):
    arguments = [*small(ROOT / "experiments" / f"{name}.yaml", tiny_cohort, runs), "--name", f"two/{name}"]
    arguments += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    arguments += ["--data.init_args.samples_per_epoch", "6"]  # DDP notices unused weights in the second step
    done = subprocess.run(
        [sys.executable, "-m", "rbs.cli", "fit", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "MEMBER: 2/2" in done.stderr + done.stdout
    product = "teacher/teacher.json" if name == "adapt_sam" else "f1.safetensors"
    assert (runs / "two" / name / product).is_file()
    assert len(list((runs / "two" / name).glob("version_*"))) == 1


def test_data_workers_and_the_offline_tracker_go_together(runs, tiny_cohort):
    # In a process of its own: W&B watches first imports, and does not bear one in a forked worker.
    arguments = [
        *small(ROOT / "experiments" / "stage1.yaml", tiny_cohort, runs),
        "--name",
        "tracked",
    ]
    arguments += ["--wandb", "offline", "--data.init_args.num_workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "rbs.cli", "fit", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((runs / "tracked").rglob("offline-run-*"))
