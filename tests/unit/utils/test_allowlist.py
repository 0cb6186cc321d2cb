"""Packages that weight files may name, from the command line to every process."""

import argparse
import importlib
import subprocess
import sys

import pytest

from rbs.cli.options import take_allowed
from rbs.utils.allowlist import VARIABLE, allowed


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("restore", ["scan.dcm", "out.dcm"]),
        ("export", ["out.onnx"]),
        ("evaluate", ["manifest.csv"]),
        ("benchmark", ["manifest.csv", "run"]),
        ("ablation", ["stage1"]),
        ("sweep", ["stage1"]),
    ],
)
def test_commands_that_read_weights_allow_packages(command, arguments):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"rbs.cli.{command}").add_arguments(parser)
    parser.parse_args([*arguments, "--allow", "mine", "--allow", "theirs.nets"])
    assert allowed() == ["mine", "theirs.nets"]


def test_trainings_allow_packages_without_storing_them_in_the_configuration():
    rest = take_allowed(["fit", "--name", "a", "--allow", "mine", "--model", "mine.Task"])
    assert allowed() == ["mine"]
    assert rest == ["fit", "--name", "a", "--model", "mine.Task"]


def test_child_processes_know_them(monkeypatch):
    monkeypatch.setenv(VARIABLE, "mine,theirs")
    code = "from rbs.utils.allowlist import allow, allowed; allow('new'); print(*allowed())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mine", "theirs", "new"]
