"""The wheel with its base alone in an empty environment: it restores, and says what training lacks."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from rbs.cli.main import main

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not UV.is_file(), reason="uv is not installed beside Python"),
]


def call(*command, cwd, check=True):
    # The package must come from the environment, never from the clone.
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Folder of an environment that holds the wheel and what its base needs."""
    folder = tmp_path_factory.mktemp("wheel")
    call(UV, "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)  # by way of an sdist
    call(UV, "venv", "--quiet", "--python", sys.executable, folder / "env", cwd=folder)
    wheel = next(folder.glob("*.whl"))
    constraints = ("--constraint", ROOT / "constraints.txt")
    call(UV, "pip", "install", "--quiet", "--python", folder / "env", *constraints, wheel, cwd=folder)
    return folder / "env"


@pytest.fixture(scope="module")
def cohort(environment):
    """Folder of phantoms that the installed package has made."""
    out = environment.parent / "phantoms"
    code = f"import rbs; rbs.simulate({str(out)!r}, patients=3)"
    call(environment / "bin" / "python", "-c", code, cwd=environment.parent)
    return out


def test_the_base_is_small(environment, tmp_path):
    listed = call(UV, "pip", "list", "--format", "json", "--python", environment, cwd=tmp_path).stdout
    packages = listed.count('"name"')
    size = sum(f.lstat().st_size for f in environment.rglob("*") if f.is_file()) / 2**20
    print(f"{packages} packages, {size:.0f} MiB")
    assert packages <= 14  # 13 and rbs
    assert size < 310
    assert "torch" not in listed


def test_it_restores_as_here(environment, cohort, tmp_path):
    source = cohort / "P0001" / "rapid.dcm"
    call(environment / "bin" / "rbs", "restore", source, tmp_path / "restored.dcm", cwd=tmp_path)
    assert main(["restore", str(source), str(tmp_path / "here.dcm")]) == 0
    there, here = (pydicom.dcmread(tmp_path / name) for name in ("restored.dcm", "here.dcm"))
    np.testing.assert_array_equal(there.pixel_array, here.pixel_array)


def test_it_segments_as_here(environment, cohort, tmp_path):
    source = cohort / "P0001" / "rapid.dcm"
    call(environment / "bin" / "rbs", "segment", source, tmp_path / "there/", "--table", cwd=tmp_path)
    assert main(["segment", str(source), f"{tmp_path / 'here'}/", "--table"]) == 0
    there, here = (pydicom.dcmread(tmp_path / name / "rapid_seg.dcm") for name in ("there", "here"))
    np.testing.assert_array_equal(there.pixel_array, here.pixel_array)
    assert (tmp_path / "there" / "regions.csv").read_text() == (tmp_path / "here" / "regions.csv").read_text()


def test_it_inspects_and_deidentifies(environment, cohort, tmp_path):
    rbs = environment / "bin" / "rbs"
    said = call(rbs, "inspect", cohort / "P0001" / "rapid.dcm", cwd=tmp_path).stdout
    assert "fit for restoring yes" in said
    call(rbs, "deidentify", cohort / "P0001", tmp_path / "clean", cwd=tmp_path)
    with (tmp_path / "clean" / "report.csv").open() as file:
        assert list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("fit --config stage1", "train"),
        ("report .", "evaluate"),
        ("evaluate cases.csv", "evaluate"),
    ],
)
def test_a_command_says_which_extra_it_lacks(environment, tmp_path, command, extra):
    done = call(environment / "bin" / "rbs", *command.split(), cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert f"which the extra '{extra}' installs; run `pip install '.[{extra}]'`" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_experiments_are_in_it(environment, tmp_path):
    code = "from rbs.utils.experiments import *; print(experiment_file('demo/stage1'), sweep_file('weights'))"
    found = call(environment / "bin" / "python", "-c", code, cwd=tmp_path).stdout.split()
    for path, original in zip(found, ("experiments/demo/stage1.yaml", "sweeps/weights.yaml"), strict=True):
        assert environment in Path(path).parents
        assert Path(path).read_bytes() == (ROOT / original).read_bytes()
