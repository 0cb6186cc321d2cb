"""Restoring by ONNX Runtime: the same scans as by PyTorch, which is not even imported."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pydicom
import pytest
import torch

from rbs.cli.main import main
from rbs.data.manifest import Manifest
from rbs.errors import CheckpointError, RbsError, ScanError
from rbs.inference.onnx import load_onnx, load_shipped
from rbs.inference.onnx_export import export_onnx
from rbs.inference.onnx_file import with_description
from rbs.inference.onnx_network import session_of
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.weights import shipped

RANGES = {"spacing_mm": [9.0, 9.1]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network that is no mere Gaussian filter."""
    torch.manual_seed(0)
    restorer = NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1])
    for parameter in restorer.parameters():  # untrained, its blocks would do nothing
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "restorer.safetensors"
    save_restorer(path, restorer, RANGES)
    return path


@pytest.fixture(scope="module")
def exported(weights):
    """By the command."""
    file = weights.with_suffix(".onnx")
    assert main(["export", str(file), "--checkpoint", str(weights)]) == 0
    return file


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


def test_other_programs_give_it_any_number_of_scans(weights, exported):
    loaded = load_restorer(weights)
    x = np.random.default_rng(0).poisson(3, (2, 2, 70, 33)).astype(np.float32) / 0.25
    p = np.full(2, 0.25, np.float32)
    with torch.inference_mode():
        ours = loaded.restorer(torch.from_numpy(x), torch.from_numpy(p)).numpy()
    (theirs,) = onnxruntime.InferenceSession(exported).run(None, {"rapid": x, "exposure": p})
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() < 1e-3 * ours.max()
    assert np.abs(ours - x).max() > 0.01 * ours.max()


def test_a_scan_is_restored_without_pytorch(weights, exported, make_cohort, tmp_path, capsys):
    manifest = make_cohort(tmp_path / "cohort", splits=("test",), shape=(256, 128))
    rapid = Manifest.read(manifest).split("test")[0].rapid[0]
    assert main(["restore", str(rapid), str(tmp_path / "a.dcm"), "--checkpoint", str(weights)]) == 0
    said = capsys.readouterr().out
    code = (
        "import sys; from rbs.cli.main import main; status = main(sys.argv[1:]);"
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


def test_the_shipped_weights_need_no_pytorch(make_cohort, tmp_path):
    manifest = make_cohort(tmp_path / "cohort", splits=("test",), shape=(256, 128))
    rapid = Manifest.read(manifest).split("test")[0].rapid[0]
    code = "import sys; from rbs.cli.main import main; "
    code += "sys.exit(main(sys.argv[1:]) or 3 * ('torch' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, "restore", rapid, tmp_path / "a.dcm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert load_restorer().sha256 in pydicom.dcmread(tmp_path / "a.dcm").DerivationDescription


def test_an_export_that_enlarges_gives_what_its_weights_give(tmp_path):
    torch.manual_seed(0)
    restorer = NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], scale=2)
    torch.nn.init.normal_(restorer.head.weight, std=0.05)
    save_restorer(tmp_path / "x2.safetensors", restorer, RANGES)
    weights = load_restorer(tmp_path / "x2.safetensors", scale=2)
    export_onnx(weights, tmp_path / "x2.onnx")
    exported = load_onnx(tmp_path / "x2.onnx")
    assert exported.scale == weights.scale == 2
    for views in (1, 2):
        rapid = np.random.default_rng(0).poisson(3.0, (views, 31, 20))
        rapid[:, :7] = 0
        ours, theirs = (loaded.restore(rapid, 0.5) for loaded in (weights, exported))
        assert theirs.shape == (views, 62, 40)
        np.testing.assert_allclose(theirs, ours, atol=1e-4 * ours.max())
        assert not theirs[:, :14].any()
        assert theirs[:, 14:].any()
    for loaded in (weights, exported):
        with pytest.raises(ScanError, match="2,097,152 are restored at once"):
            loaded.restore(np.zeros((2, 1025, 512)), 0.5)


@pytest.mark.parametrize("shape", [(2, 61, 40), (1, 64, 48)])
def test_the_shipped_weights_give_what_pytorch_gives(shape):
    rapid = np.random.default_rng(0).poisson(3.0, shape)
    ours, theirs = (restorer.restore(rapid, 0.5) for restorer in (load_restorer(), load_shipped()))
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * ours.max())
    assert load_shipped().provenance == load_restorer().provenance


def test_the_shipped_weights_that_enlarge_give_what_pytorch_gives():
    rapid = np.random.default_rng(0).poisson(12.0, (2, 33, 20))
    by_onnx, by_pytorch = load_shipped(enlarging=True), load_restorer(shipped.ENLARGING, scale=2)
    ours, theirs = (restorer.restore(rapid, 0.5) for restorer in (by_pytorch, by_onnx))
    assert theirs.shape == (2, 66, 40)
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * ours.max())
    assert by_onnx.provenance == by_pytorch.provenance


def test_the_shipped_graph_is_that_of_any_weights():
    """Or it would have to be made again with every training, and nobody would notice that it was not."""
    torch.manual_seed(1)
    restorer = NAFNet().eval()
    for parameter in restorer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    weights = {name: tensor.numpy() for name, tensor in restorer.state_dict().items()}
    x, exposure = torch.poisson(torch.full((1, 2, 50, 70), 3.0)), torch.tensor([0.4])
    with torch.inference_mode():
        ours = restorer(x, exposure).numpy()
    (theirs,) = session_of(shipped.GRAPH.read_bytes(), weights).run(
        None, {"rapid": x.numpy(), "exposure": exposure.numpy()}
    )
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * ours.max())


def test_shipped_files_that_do_not_belong_together_are_refused(tmp_path, monkeypatch):
    def put(name, content):
        (tmp_path / name).write_bytes(content)
        card = json.dumps({"sha256": hashlib.sha256(content).hexdigest()})
        (tmp_path / name).with_suffix(".json").write_text(card)

    graph = shipped.GRAPH
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "restorer.safetensors")
    monkeypatch.setattr(shipped, "GRAPH", tmp_path / "restorer_graph.onnx")
    with pytest.raises(CheckpointError, match="name a weight file with --checkpoint"):
        load_shipped()
    save_restorer(tmp_path / "other.safetensors", NAFNet(width=4), {})
    put("restorer.safetensors", (tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"restorer_graph.*there is no such weight file"):
        load_shipped()
    put("restorer_graph.onnx", graph.read_bytes())
    with pytest.raises(CheckpointError, match=r"restorer.safetensors: it does not fit restorer_graph.onnx"):
        load_shipped()
    save_restorer(tmp_path / "other.safetensors", NAFNet(sigma_px=2.0), {})  # weights of the same shapes
    put("restorer.safetensors", (tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"restorer.safetensors: it holds another architecture"):
        load_shipped()
    put("restorer_graph.onnx", graph.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="does not fit restorer_graph"):
        load_shipped()
    (tmp_path / "restorer_graph.onnx").write_bytes(graph.read_bytes())
    with pytest.raises(CheckpointError, match="it differs from the hash recorded beside it"):
        load_shipped()


def test_what_is_no_export_of_scans_is_refused(exported, tmp_path, capsys):
    model = onnx.load(exported)
    about = json.loads(model.metadata_props[0].value)
    del about["digest"], model.metadata_props[:]
    bare, broken = model.SerializeToString(), exported.read_bytes()[:1000]
    files = {
        "frames": (
            with_description(bare, about | {"restores": "frames"}),
            "it restores frames; a restorer that restores scans is needed here",
        ),
        "other": (bare, "it does not say which network it holds"),
        "broken": (broken, "it is truncated or not an ONNX file"),
        "graph": (shipped.GRAPH.read_bytes(), "it keeps weights in another file"),
    }
    for name, (content, fault) in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=fault):
            load_onnx(tmp_path / f"{name}.onnx")
    with pytest.raises(CheckpointError, match="there is no such weight file"):
        load_onnx(tmp_path / "none.onnx")
    arguments = ["restore", str(exported), str(tmp_path / "x"), "--adapt", "--checkpoint", str(exported)]
    assert main(arguments) == 1
    assert "--adapt looks into the network, which an ONNX file does not allow" in capsys.readouterr().err


def test_an_export_is_evaluated_as_its_weights_are(weights, exported):
    from rbs.evaluation.methods import trained_methods
    from rbs.evaluation.scans.pairs import ScanPair

    (ours,), (theirs,) = trained_methods([weights]), trained_methods([exported])
    assert theirs.settings["sha256"] == ours.settings["sha256"]
    assert theirs.settings["shows"] == "scans"

    class Scan:
        rapid, exposure = np.random.default_rng(0).poisson(3.0, (2, 61, 40)), 0.5
        restored = ScanPair.restored

    np.testing.assert_allclose(theirs.restore(Scan()), ours.restore(Scan()), atol=1e-2)
    names = [method.name for method in trained_methods([exported], strengths=True)]
    assert names == ["stage1", "stage1_gentle", "stage1_standard", "stage1_strong"]
    for option in ({"adapt": True}, {"uncertainty": True}, {"stage2": weights}):
        with pytest.raises(RbsError, match=r"looks into the network of stage 1, which an ONNX file does not"):
            trained_methods([exported], **option)
