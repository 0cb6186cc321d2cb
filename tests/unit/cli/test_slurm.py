"""Training on SLURM: the submit script, with commands that stand in for SLURM's, and Lightning's plugin."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "train.sbatch"
OVERLAY = ROOT / "experiments" / "overlays" / "slurm.yaml"

SRUN = """#!/bin/bash
printf '%s\\n' "$@" > arguments
while [[ ! -e end ]]; do sleep 0.05; done
exit "$(< end)"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> requeued
"""


@pytest.fixture
def job(tmp_path):
    """The script at work, as SLURM starts it: two nodes of four tasks."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RBS": "my-rbs"}
    environment |= {"SLURM_JOB_ID": "77", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
    command = ["bash", str(SCRIPT), "experiments/stage1.yaml", "--name", "a name"]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    while not (tmp_path / "arguments").exists() or not (tmp_path / "arguments").read_text().endswith(
        "last\n"
    ):
        assert process.poll() is None
        time.sleep(0.02)
    yield process
    (tmp_path / "end").write_text("0")
    process.wait(10)


def test_the_script_is_valid_and_asks_for_a_signal_before_the_end():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    asked = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert "#SBATCH --signal=B:USR1@120" in asked
    assert "#SBATCH --requeue" in asked


def test_the_experiment_comes_first_and_the_machine_last(job, tmp_path):
    given = (tmp_path / "arguments").read_text().splitlines()
    fit = given[given.index("my-rbs") + 1 :]
    assert fit[:5] == [
        "fit",
        "--config",
        "experiments/stage1.yaml",
        "--config",
        "experiments/overlays/slurm.yaml",
    ]
    assert (ROOT / fit[4]) == OVERLAY
    machine = ["--trainer.num_nodes", "2", "--trainer.devices", "4", "--ckpt_path", "last"]
    assert fit[5:] == ["--name", "a name", *machine]


@pytest.mark.parametrize("status", [0, 5])
def test_the_job_ends_as_its_training_does(job, tmp_path, status):
    (tmp_path / "end").write_text(str(status))
    assert job.wait(10) == status
    assert not (tmp_path / "requeued").exists()


@pytest.mark.parametrize("status", [0, 5])
def test_before_the_time_limit_it_is_requeued(job, tmp_path, status):
    job.send_signal(signal.SIGUSR1)
    while not (tmp_path / "requeued").exists():
        assert job.poll() is None
        time.sleep(0.02)
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    (tmp_path / "end").write_text(str(status))  # SLURM ends it when it sees fit
    assert job.wait(10) == status


def test_lightning_takes_ranks_from_slurm_and_leaves_requeueing_to_the_script(monkeypatch):
    names = {"JOB_ID": "77", "JOB_NAME": "rbs", "NTASKS": "8", "NTASKS_PER_NODE": "4", "NNODES": "2"}
    names |= {"PROCID": "6", "LOCALID": "2", "NODEID": "1", "NODELIST": "gpu[07-08]"}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # Lightning sets them; monkeypatch puts them back
        monkeypatch.delenv(name)
    monkeypatch.setattr(rank_zero_only, "rank", rank_zero_only.rank)  # so does the trainer: for good, else
    assert SLURMEnvironment.detect()
    parser = ArgumentParser()
    parser.add_class_arguments(Trainer, "trainer")
    machine = {
        **yaml.safe_load(OVERLAY.read_text())["trainer"],
        "accelerator": "cpu",
        "devices": 4,
        "num_nodes": 2,
    }
    trainer = parser.instantiate_classes(parser.parse_object({"trainer": machine})).trainer
    environment = trainer.strategy.cluster_environment
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    assert (trainer.world_size, trainer.global_rank, trainer.local_rank, trainer.node_rank) == (8, 6, 2, 1)
    assert environment.main_address == "gpu07"
    environment.validate_settings(num_devices=4, num_nodes=2)
