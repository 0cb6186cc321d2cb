"""A server and two sites as processes: killed in the middle, and listened to."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("flwr", reason="pip install 'rbs[federate]'")

from federated_sites import Listener
from servers import free_port

from rbs.federated.site import read_experiment
from rbs.restorers.checkpoint import load_restorer
from rbs.utils.secret_key import make_key

ROUNDS = 3


def started(folder: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    """A process of rbs, whose output goes to a file of that name."""
    # Flower's telemetry would go by this proxy, where nobody answers.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "https_proxy": f"http://127.0.0.1:{free_port()}"}
    environment |= {"no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
    output = (folder / f"{name}.txt").open("ab")
    command = [sys.executable, "-m", "rbs.cli", "federate", *words]
    return subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=folder)


def waited_for(condition, *processes: subprocess.Popen[bytes], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert all(process.poll() in (None, 0) for process in processes)
        time.sleep(0.1)


def rounds_of(folder: Path) -> list[tuple[str, str, str]]:
    file = folder / "server" / "rounds.csv"
    if not file.exists():
        return []
    return [(row["round"], row["site"], row["refused"]) for row in csv.DictReader(file.open())]


@pytest.mark.slow
def test_a_federation_survives_the_death_of_its_server_and_sends_no_patient(make_cohort, tmp_path):
    settings = read_experiment("federated")
    small = {"width": 4, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1]}
    settings["model"]["init_args"]["f1"]["init_args"] = small
    settings["data"]["init_args"] |= {"crop": [64, 64], "batch_size": 1, "samples_per_epoch": 4}
    settings["trainer"] |= {"accelerator": "cpu", "precision": "32-true"}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(settings))
    make_key(tmp_path / "key.txt")
    port = free_port()
    listener = Listener(port)
    common = ("--config", "experiment.yaml", "--key", "key.txt")
    plan = ("--clients", "2", "--rounds", str(ROUNDS), "--steps", "2")
    server = ("server", *common, *plan, "--address", f"127.0.0.1:{port}", "--output", "server")
    first = started(tmp_path, "server", *server)
    sites = []
    for number, name in enumerate(("north", "south")):
        splits = ("train",) * (2 + number) + ("val",)
        manifest = make_cohort(tmp_path / f"patients of {name}", splits=splits, truth=False, seed=number)
        words = ("--server", f"127.0.0.1:{listener.port}", "--manifest", str(manifest), "--name", name)
        sites.append(started(tmp_path, name, "client", *common, *words, "--output", name))
    try:
        waited_for((tmp_path / "server" / "restorer.safetensors").exists, first, *sites)
        first.kill()
        first.wait()
        again = started(tmp_path, "server", *server)
        waited_for(lambda: all(one.poll() is not None for one in (again, *sites)), again, *sites)
    finally:
        for process in (first, *sites):
            process.kill()
    assert [process.returncode for process in (again, *sites)] == [0, 0, 0]
    expected = [(str(n), site, "") for n in range(1, ROUNDS + 1) for site in ("north", "south")]
    assert rounds_of(tmp_path) == expected
    assert "going on after round" in (tmp_path / "server.txt").read_text()
    result = load_restorer(tmp_path / "server" / "restorer.safetensors")
    assert result.provenance["federated"]["round"] == ROUNDS
    for name in ("north", "south"):
        own = load_restorer(tmp_path / name / "restorer.safetensors").restorer.state_dict()
        assert all(torch.equal(own[key], value) for key, value in result.restorer.state_dict().items())
    sent = bytes(listener.up + listener.down)
    assert b"north" in sent
    assert b"NUMPY" in sent
    for word in ("P0001", "P0002", "patients of", ".dcm", str(tmp_path), "standard"):
        assert word.encode() not in sent
    listener.close()
