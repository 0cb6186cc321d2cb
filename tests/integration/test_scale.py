"""One training in several processes: on several machines, and when one of them is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from trainings import ROOT, apart, small, weights, with_small_nafnet

from rbs.cli.main import main

STEPS = 8
PATIENCE_S = 300
"""A training of these takes half a minute; this is for machines that do much else."""


@pytest.fixture(scope="module")
def training(tmp_path_factory, make_cohort):
    """Arguments and folder by the name of a training: four epochs, each validates three cases."""
    runs = tmp_path_factory.mktemp("runs")
    manifest = make_cohort(runs / "cohort", splits=("train", "train", "val", "val", "val"))

    def arguments(name):
        stage1 = small(ROOT / "experiments" / "stage1.yaml", manifest, runs)
        given = [*with_small_nafnet(stage1), "--name", name]
        given += ["--trainer.max_steps", str(STEPS), "--trainer.limit_val_batches", "1.0"]
        given += ["--data.init_args.samples_per_epoch", "4", "--ema.decay", "0.5"]
        return [*given, "--checkpoint.save_top_k", "-1", "--ckpt_path", "last"], runs / name

    return arguments


@pytest.fixture(scope="module")
def alone(training):
    """Folder of that training by one process, which is given twice as many crops a step."""
    arguments, folder = training("alone")
    assert main(["fit", *arguments, "--data.init_args.batch_size", "2"]) == 0
    return folder


def two_agents(arguments, log):
    """What two agents of torchrun, each as on a machine of its own, ended with and printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    fit = ["-m", "rbs.cli", "fit", *arguments, "--trainer.num_nodes", "2", "--trainer.devices", "1"]
    fit += ["--trainer.strategy", "ddp", "--trainer.callbacks+", "rank_weights.RankWeights"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    logs = [log.with_name(f"{log.name}_{node}") for node in (0, 1)]
    agents = []
    for node, file in enumerate(logs):
        with file.open("w") as output:
            command = [*torchrun, "--node-rank", str(node), *fit]
            agents.append(subprocess.Popen(command, stdout=output, stderr=output, env=environment))
    try:
        codes = [agent.wait(PATIENCE_S) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    return codes, "".join(file.read_text() for file in logs)


def ended_like(alone, folder, version):
    """Same weights, on both ranks, and same figures of validation as one process has."""
    one = weights(alone / "restorer.safetensors")
    far = apart(one, weights(alone / "version_0" / "checkpoints" / "epoch=1-step=4.ckpt"))
    assert apart(one, weights(folder / "restorer.safetensors")) < 1e-2 * far
    ranks = [torch.load(folder / version / f"rank_{rank}.pt") for rank in (0, 1)]
    assert apart(*ranks) == 0
    assert apart(ranks[0], weights(folder / "restorer.safetensors")) == 0
    scores = validated(folder / version)
    wanted = validated(alone / "version_0").loc[scores.index]
    assert wanted["val/nc_psnr"].iloc[-1] != wanted["val/nc_psnr"].iloc[-2]
    pd.testing.assert_frame_equal(scores, wanted, rtol=1e-5, atol=1e-7)
    return scores


def validated(version: Path) -> pd.DataFrame:
    """Figures of validation by step."""
    logged = pd.read_csv(version / "metrics.csv").set_index("step")
    return logged.filter(like="val/").dropna()


def test_two_agents_of_torchrun_train(training, alone, tmp_path):
    arguments, folder = training("two_agents")
    codes, said = two_agents(arguments, tmp_path / "agent")
    assert codes == [0, 0], said[-3000:]
    assert "MEMBER: 1/2" in said
    assert "MEMBER: 2/2" in said
    assert said.count("rbs: a fresh run") == 2
    assert [path.name for path in folder.glob("version_*")] == ["version_0"]
    assert len(ended_like(alone, folder, "version_0")) == 4


@pytest.mark.slow
def test_a_training_goes_on_after_a_rank_was_killed(training, alone, tmp_path):
    """Started by Lightning on one machine, it goes on by torchrun on two."""
    arguments, folder = training("killed")
    command = [sys.executable, "-m", "rbs.cli", "fit", *arguments]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    with (tmp_path / "said").open("w+") as output:
        first = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while not list(folder.glob("version_0/checkpoints/last.ckpt")):
                assert first.poll() is None, (tmp_path / "said").read_text()[-3000:]
                time.sleep(0.05)
            (second,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
            os.kill(int(second), signal.SIGKILL)
            assert first.wait(60) != 0
        finally:
            first.kill()
    said = (tmp_path / "said").read_text()
    if first.returncode == 1:
        assert "rbs: another process of this training has ended or cannot be reached" in said
        assert "give the same command again, with --ckpt_path last" in said
    else:  # Lightning's observer was faster
        assert first.returncode == -signal.SIGKILL
        assert "terminated with code -9" in said
    assert not (folder / "restorer.safetensors").exists()
    codes, said = two_agents(arguments, tmp_path / "agent")
    assert codes == [0, 0], said[-3000:]
    assert said.count(f"rbs: resuming {folder / 'version_0'}") == 2
    scores = ended_like(alone, folder, "version_1")
    assert 2 <= len(scores) < 4, "it began again from the start, or had not been interrupted"
