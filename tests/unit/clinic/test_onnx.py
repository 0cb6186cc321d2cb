"""Restoring by ONNX Runtime: the same scans as by PyTorch, which is not even imported."""

import subprocess
import sys

import numpy as np
import onnx
import pydicom
import pytest
import torch

from rbs.cli import main
from rbs.clinic.onnx import load_onnx
from rbs.data.manifest import Manifest
from rbs.errors import CheckpointError, RbsError
from rbs.restorers.nafnet import NAFNet
from rbs.weights import load_restorer, save_restorer
from rbs.weights.export import export_onnx

RANGES = {"spacing_mm": [9.0, 9.1]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network that is no mere Gaussian filter."""
    torch.manual_seed(0)
    restorer = NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1])
    torch.nn.init.normal_(restorer.head.weight, std=0.05)
    path = tmp_path_factory.mktemp("weights") / "f1.safetensors"
    save_restorer(path, restorer, RANGES)
    return path


@pytest.fixture(scope="module")
def exported(weights):
    export_onnx(load_restorer(weights), weights.with_suffix(".onnx"))
    return weights.with_suffix(".onnx")


@pytest.mark.parametrize("shape", [(2, 61, 40), (1, 61, 40)])
def test_it_gives_what_the_weights_give(weights, exported, shape):
    rapid = np.random.default_rng(0).poisson(3.0, shape)
    rapid[:, :7] = rapid[:, 50:] = 0
    loaded, other = load_restorer(weights), load_onnx(exported)
    ours, theirs = (restorer.restore(rapid, 0.5) for restorer in (loaded, other))
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * ours.max())
    assert theirs.dtype == np.float32
    assert not theirs[:, :7].any()
    assert not theirs[:, 50:].any()
    assert (other.sha256, other.provenance) == (loaded.sha256, RANGES)
    assert loaded.name in other.name


def test_a_scan_is_restored_without_pytorch(weights, exported, make_cohort, tmp_path, capsys):
    manifest = make_cohort(tmp_path / "cohort", splits=("test",), shape=(256, 128))
    rapid = Manifest.read(manifest).split("test")[0].rapid[0]
    assert main(["restore", str(rapid), str(tmp_path / "a.dcm"), "--checkpoint", str(weights)]) == 0
    said = capsys.readouterr().out
    code = (
        "import sys; from rbs.cli import main; status = main(sys.argv[1:]);"
        "sys.exit(status or 3 * ('torch' in sys.modules))"
    )
    command = [sys.executable, "-c", code, "restore", rapid, tmp_path / "b.dcm", "--checkpoint", exported]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is outside what the weights were trained on" in said
    assert "is outside what the weights were trained on" in done.stdout
    by_torch, by_onnx = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    difference = by_torch.pixel_array.astype(int) - by_onnx.pixel_array.astype(int)
    assert abs(difference).max() <= 1  # the last digit of a rounded pixel
    assert load_restorer(weights).sha256 in by_onnx.DerivationDescription


def test_what_is_no_export_of_scans_is_refused(exported, tmp_path, monkeypatch, capsys):
    model = onnx.load(exported)
    (about,) = model.metadata_props
    about.value = about.value.replace('"restores": "scans"', '"restores": "frames"')
    onnx.save(model, tmp_path / "frames.onnx")
    with pytest.raises(CheckpointError, match="it restores frames, not scans"):
        load_onnx(tmp_path / "frames.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match="it does not say which restorer it holds"):
        load_onnx(tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_bytes((tmp_path / "frames.onnx").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="it is truncated or not an ONNX file"):
        load_onnx(tmp_path / "broken.onnx")
    with pytest.raises(CheckpointError, match="there is no such weight file"):
        load_onnx(tmp_path / "none.onnx")
    scan, out = str(exported), str(tmp_path / "x")  # the weights are looked at before the scan
    assert main(["restore", scan, out, "--adapt", "--checkpoint", str(exported)]) == 1
    assert "--adapt trains the network, which an ONNX file does not allow" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RbsError, match=r"pip install 'rbs\[onnx\]'"):
        load_onnx(tmp_path / "frames.onnx")
