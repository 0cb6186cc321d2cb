"""ONNX: what ONNX Runtime computes is what PyTorch computes; of scans, see test_onnx."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rbs.cli.main import main
from rbs.errors import CheckpointError
from rbs.inference.onnx_export import export_onnx
from rbs.inference.onnx_network import session_of
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.nafnet import NAFNet


@pytest.fixture
def weights(tmp_path, request):
    torch.manual_seed(0)
    restorer = NAFNet(width=8, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), domain=request.param)
    for parameter in restorer.parameters():  # untrained, it would be a Gaussian filter or nothing at all
        torch.nn.init.normal_(parameter, std=0.1)
    save_restorer(tmp_path / "restorer.safetensors", restorer, {})
    return tmp_path / "restorer.safetensors"


@pytest.mark.parametrize("weights", ["colours"], indirect=True)
def test_frames_of_any_size_give_the_same_colours(weights, tmp_path, capsys):
    file = tmp_path / "restorer.onnx"
    assert main(["export", str(file), "--checkpoint", str(weights)]) == 0
    assert "of the peak" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors"] == ["restorer.onnx"]
    loaded = load_restorer(weights)
    x, p = np.random.default_rng(0).random((1, 3, 51, 64), np.float32), np.ones(1, np.float32)
    with torch.inference_mode():
        ours = loaded.restorer(torch.from_numpy(x), torch.from_numpy(p)).numpy()
    (theirs,) = onnxruntime.InferenceSession(file).run(None, {"rapid": x, "exposure": p})
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() < 1e-3 * ours.max()
    assert np.abs(ours - x).max() > 0.01 * ours.max()
    about = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(about["rbs"])["weights_sha256"] == loaded.sha256
    assert main(["export", str(file), "--checkpoint", str(weights)]) == 1
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["roots"], indirect=True)
def test_a_graph_alone_is_good_for_other_weights(weights, tmp_path):
    loaded, file = load_restorer(weights), tmp_path / "graph.onnx"
    assert export_onnx(loaded, file, graph_only=True).largest < 1e-4
    torch.manual_seed(3)
    for parameter in loaded.restorer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, p = torch.poisson(torch.full((1, 2, 40, 36), 3.0)), torch.tensor([0.5])
    with torch.inference_mode():
        ours = loaded.restorer(x, p).numpy()
    given = {name: tensor.half().numpy() for name, tensor in loaded.restorer.state_dict().items()}
    (theirs,) = session_of(file.read_bytes(), given).run(None, {"rapid": x.numpy(), "exposure": p.numpy()})
    assert 0 < np.abs(theirs - ours).max() < 2e-2 * ours.max()  # weights in half precision
    about = json.loads(onnx.load(file, load_external_data=False).metadata_props[0].value)
    assert about["architecture"]["class_path"].endswith("NAFNet")
    assert "weights_sha256" not in about


@pytest.mark.parametrize("weights", ["roots"], indirect=True)
def test_a_graph_whose_weights_have_other_names_is_refused(weights, tmp_path, monkeypatch):
    model = SimpleNamespace(metadata_props={}, graph=SimpleNamespace(initializers={}))
    monkeypatch.setattr("rbs.inference.onnx_export._exported", lambda *_: SimpleNamespace(model=model))
    with pytest.raises(CheckpointError, match="under no name of their own"):
        export_onnx(load_restorer(weights), tmp_path / "graph.onnx", graph_only=True)


@pytest.mark.parametrize("weights", ["roots"], indirect=True)
def test_another_answer_is_no_export(weights, tmp_path, monkeypatch, capsys):
    program = SimpleNamespace(model=SimpleNamespace(metadata_props={}), save=lambda path: path.touch())
    identity = SimpleNamespace(run=lambda _, inputs: [inputs["rapid"]])
    monkeypatch.setattr("rbs.inference.onnx_export._exported", lambda *_: program)
    monkeypatch.setattr("rbs.inference.onnx_export.session_of", lambda *_: identity)
    assert main(["export", str(tmp_path / "restorer.onnx"), "--checkpoint", str(weights)]) == 1
    assert "ONNX Runtime differs from PyTorch by" in capsys.readouterr().err
    assert not (tmp_path / "restorer.onnx").exists()


@pytest.mark.parametrize("weights", ["roots"], indirect=True)
def test_without_onnx_there_is_a_remedy(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(tmp_path / "restorer.onnx"), "--checkpoint", str(weights)]) == 1
    assert (
        "this needs onnxscript, which the extra 'onnx' installs; run `pip install '.[onnx]'`"
        in capsys.readouterr().err
    )
