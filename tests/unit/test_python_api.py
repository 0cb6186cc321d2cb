"""The functions of `import rbs`: light to import, and the same as the commands."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

import rbs
from rbs.cli.main import main
from rbs.errors import CheckpointError, RbsError, ScanError
from rbs.scans.scan import STANDARD_VELOCITY, View


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return rbs.simulate(tmp_path_factory.mktemp("simulated") / "phantoms", patients=3, seed=5)


@pytest.fixture(scope="module")
def rapid(phantoms):
    return phantoms.parent / "P0001" / "rapid.dcm"


@pytest.fixture(scope="module")
def small(make_cohort, tmp_path_factory):
    """A rapid scan of so few pixels that it is restored in a moment."""
    manifest = make_cohort(tmp_path_factory.mktemp("small"), splits=("test",), shape=(256, 128))
    return manifest.parent / "P0001" / "rapid.dcm"


def test_importing_is_light():
    heavy = ["numpy", "torch", "pydicom", "importlib.metadata"]
    code = f"import rbs, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_standard_velocity_is_that_of_scans():
    assert rbs.STANDARD_VELOCITY == STANDARD_VELOCITY


def test_all_there_is_is_documented():
    assert all(getattr(rbs, name).__doc__ for name in rbs.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        rbs.nothing  # noqa: B018


def test_reading_and_inspecting(rapid, capsys):
    scan = rbs.read(rapid, views=("anterior", "posterior"))
    assert scan.views == (View.ANTERIOR, View.POSTERIOR)
    assert main(["inspect", str(rapid)]) == 0
    assert str(rbs.inspect(rapid)) == str(rbs.inspect(rbs.read(rapid))) == capsys.readouterr().out.strip()
    with pytest.raises(ScanError, match="posterior"):
        rbs.read(rapid, views=("posterior", "anterior"))


def test_restoring_gives_what_the_command_writes(small, tmp_path):
    restored = rbs.restore(small)
    assert main(["restore", str(small), str(tmp_path / "restored.dcm")]) == 0
    file = pydicom.dcmread(tmp_path / "restored.dcm")
    step = file.RealWorldValueMappingSequence[0].RealWorldValueSlope  # the file holds multiples of it
    np.testing.assert_allclose(file.pixel_array * step, restored.counts, atol=0.51 * step)
    np.testing.assert_array_equal(rbs.restore(rbs.read(small)).counts, restored.counts)
    assert not np.array_equal(rbs.restore(small, strength="gentle").counts, restored.counts)
    with pytest.raises(RbsError, match="no strength 'soft'; name one of gentle, standard, strong"):
        rbs.restore("none.dcm", checkpoint="none.onnx", strength="soft")  # nothing is read before


def test_what_cannot_be_restored_is_refused(rapid, tmp_path):
    with pytest.raises(ScanError, match=r"standard\.dcm"):
        rbs.restore(rapid.with_name("standard.dcm"))
    with pytest.raises(CheckpointError, match="no such weight file"):
        rbs.restore(rapid, checkpoint=tmp_path / "none.onnx")


def test_evaluating(tiny_cohort, tmp_path):
    summary = rbs.evaluate(tiny_cohort, tmp_path / "out")
    assert {"rapid", "gaussian"} <= set(summary["method"])
    assert (tmp_path / "out" / "settings.json").is_file()


def test_the_notebook_is_stored_without_results():
    cells = json.loads((Path(__file__).parents[2] / "docs" / "restore.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
