"""Segmenting by ONNX Runtime: the probabilities that PyTorch gives, without importing it."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rbs.cli.main import main
from rbs.errors import CheckpointError, ScanError
from rbs.inference.load import load_weights
from rbs.inference.onnx import load_onnx
from rbs.inference.onnx_export import TOLERANCE, export_onnx
from rbs.inference.onnx_file import with_description
from rbs.inference.onnx_network import session_of
from rbs.inference.segmentation import OnnxSegmenter, load_segmenter_for
from rbs.restorers.checkpoint import load_restorer
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.label_map import LABEL_MAPS
from rbs.weights import shipped

RANGES = {"spacing_mm": [9.0, 9.1]}
SPACING = (2.4, 1.8)


def save(path, domain):
    torch.manual_seed(0)
    segmenter = DynUNet(filters=[4, 4, 6], patch=4, domain=domain)
    for parameter in segmenter.parameters():  # untrained, all regions would be as likely everywhere
        torch.nn.init.normal_(parameter, std=0.5)
    save_segmenter(path, segmenter, RANGES)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp("weights") / "segmenter.safetensors", "roots")


@pytest.fixture(scope="module")
def exported(weights):
    """By the command, from the file of a segmenter."""
    file = weights.with_suffix(".onnx")
    assert main(["export", str(file), "--checkpoint", str(weights)]) == 0
    return file


@pytest.mark.parametrize("shape", [(2, 61, 40), (1, 61, 40), (2, 130, 64), (1, 9, 200)])
def test_it_finds_what_the_weights_find(weights, exported, shape):
    counts = np.random.default_rng(0).poisson(3.0, shape)
    by_torch, by_onnx = load_segmenter_for(weights), load_segmenter_for(exported)
    ours, theirs = (segmenter.probabilities(counts, 0.5, SPACING) for segmenter in (by_torch, by_onnx))
    assert theirs.shape == (shape[0], 1 + len(by_onnx.labels), *shape[1:])
    assert theirs.dtype == np.float32
    assert ours.std(axis=(2, 3)).max() > 0.03
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert by_onnx.sha256 == by_torch.sha256
    assert by_onnx.provenance == by_torch.provenance == RANGES
    assert by_onnx.labels == by_torch.labels
    assert by_torch.name in by_onnx.name


def test_pytorch_is_not_imported(exported):
    code = (
        "import sys, numpy; from rbs.inference.segmentation import load_segmenter_for;"
        "load_segmenter_for(sys.argv[1]).probabilities(numpy.ones((2, 70, 40)), 0.5, (2.3, 2.3));"
        "print([name for name in ('torch', 'monai', 'peft') if name in sys.modules])"
    )
    for file in (exported, "shipped"):
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
        assert done.stdout.strip() == "[]", done.stderr


def test_an_export_of_frames_gives_what_its_weights_give(tmp_path, capsys):
    weights, file = save(tmp_path / "segmenter.safetensors", "colours"), tmp_path / "segmenter.onnx"
    assert main(["export", str(file), "--checkpoint", str(weights), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rapid"] == "colours (B, 3, H, W)"
    segmenter = load_segmenter(weights).segmenter
    given = {"rapid": torch.rand(2, 3, 51, 80), "exposure": torch.ones(2), "spacing_mm": torch.ones(2, 2)}
    with torch.inference_mode():
        ours = segmenter(*given.values()).numpy()
    inputs = {name: tensor.numpy() for name, tensor in given.items()}
    (theirs,) = onnxruntime.InferenceSession(file).run(None, inputs)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    with pytest.raises(CheckpointError, match="it segments frames; a segmenter that segments scans"):
        load_segmenter_for(file)
    with pytest.raises(CheckpointError, match="it segments frames; a segmenter that segments scans"):
        load_segmenter_for(weights)


def test_what_is_no_segmenter_of_these_regions_is_refused(weights, exported, tmp_path):
    model = onnx.load(exported)
    about = json.loads(model.metadata_props[0].value)
    del about["digest"], model.metadata_props[:]
    bare = model.SerializeToString()
    model.graph.input[2].name = "pixels"
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "spacing_mm" else name for name in node.input]
    files = {
        "fewer": (with_description(bare, about | {"regions": ["skull"]}), "1 other regions"),
        "both": (with_description(bare, about | {"restores": "scans"}), "no name, kind or hash"),
        "renamed": (with_description(model.SerializeToString(), about), "not rapid and exposure and spac"),
        "graph": (shipped.SEGMENTER_GRAPH.read_bytes(), "it keeps weights in another file"),
        "broken": (exported.read_bytes()[:1000], "it is truncated or not an ONNX file"),
    }
    for name, (content, fault) in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=fault):
            load_segmenter_for(tmp_path / f"{name}.onnx")
    for name in ("none.onnx", "none.safetensors"):
        with pytest.raises(CheckpointError, match="there is no such weight file"):
            load_segmenter_for(tmp_path / name)


def test_restorers_and_segmenters_do_not_take_each_others_place(weights, exported, tmp_path):
    with pytest.raises(CheckpointError, match="it segments scans; a restorer that restores scans is needed"):
        load_onnx(exported)
    with pytest.raises(CheckpointError, match="is no Segmenter"):
        load_segmenter_for(shipped.SHIPPED)
    with pytest.raises(CheckpointError, match="is no Restorer"):
        load_restorer(weights)
    assert load_weights(weights).name.startswith("DynUNet")
    assert load_weights(shipped.SHIPPED).name.startswith("NAFNet")


def test_a_scan_of_too_many_pixels_is_refused(weights, exported):
    for file in (weights, exported):
        with pytest.raises(ScanError, match="its views have 2,400,000 pixels"):
            load_segmenter_for(file).probabilities(np.zeros((1, 2000, 1200)), 0.5, SPACING)


def test_answers_that_exclude_each_other_are_as_likely(exported, monkeypatch):
    """A view given twice may be certain of one region in one answer, and of another in the other."""
    certain = np.zeros((1, 2, 1 + len(LABEL_MAPS["scans"]), 1, 1), np.float32)
    certain[0, 0, 3] = certain[0, 1, 5] = 1
    monkeypatch.setattr(OnnxSegmenter, "answer", lambda *_, **__: certain)
    (found,) = load_segmenter_for(exported).probabilities(np.ones((1, 1, 1)), 0.5, SPACING)
    assert found[[3, 5], 0, 0] == pytest.approx([0.5, 0.5])
    assert found.sum() == pytest.approx(1)


def test_the_shipped_segmenter_gives_what_pytorch_gives():
    counts = np.random.default_rng(0).poisson(3.0, (2, 141, 77))
    by_torch, by_onnx = load_segmenter(shipped.SEGMENTER), load_segmenter_for()
    ours, theirs = (segmenter.probabilities(counts, 0.5, SPACING) for segmenter in (by_torch, by_onnx))
    np.testing.assert_allclose(theirs, ours, atol=TOLERANCE)
    assert by_onnx.provenance == by_torch.provenance
    assert by_onnx.sha256 == by_torch.sha256
    assert by_onnx.labels == LABEL_MAPS["scans"]


def test_the_shipped_graph_is_that_of_any_weights():
    """Or a training would need another graph, and nobody would notice that it has an old one."""
    torch.manual_seed(1)
    loaded = load_segmenter(shipped.SEGMENTER)
    for parameter in loaded.segmenter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, p, spacing = (
        torch.poisson(torch.full((1, 2, 50, 70), 3.0)),
        torch.tensor([0.4]),
        torch.tensor([SPACING]),
    )
    with torch.inference_mode():
        ours = loaded.segmenter(x, p, spacing).numpy()
    arrays = {name: tensor.numpy() for name, tensor in loaded.segmenter.state_dict().items()}

    (theirs,) = session_of(shipped.SEGMENTER_GRAPH.read_bytes(), arrays).run(
        None, {"rapid": x.numpy(), "exposure": p.numpy(), "spacing_mm": spacing.numpy()}
    )
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_a_shipped_file_that_was_changed_is_refused(tmp_path, monkeypatch):
    for name in ("SEGMENTER", "SEGMENTER_GRAPH"):
        file = getattr(shipped, name)
        (tmp_path / file.name).write_bytes(file.read_bytes())
        card = json.dumps({"sha256": hashlib.sha256(file.read_bytes()).hexdigest()})
        (tmp_path / file.name).with_suffix(".json").write_text(card)
        monkeypatch.setattr(shipped, name, tmp_path / file.name)
    load_segmenter_for("shipped")
    shipped.SEGMENTER.write_bytes(shipped.SEGMENTER.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="it differs from the hash recorded beside it"):
        load_segmenter_for("shipped")


def test_the_shipped_segmenter_is_small():
    files = (shipped.SEGMENTER, shipped.SEGMENTER_GRAPH)
    assert sum(file.stat().st_size for file in files) <= 2e6
    for file in files:
        card = json.loads(file.with_suffix(".json").read_text())
        assert card["file"] == file.name
        assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert card["licence"] == "Apache-2.0"


def test_another_answer_is_no_export(weights, tmp_path, monkeypatch):
    class Program:
        model = None

        def save(self, path):
            path.touch()

    class Wrong:
        def run(self, _, given):
            views, k = given["rapid"], 1 + len(LABEL_MAPS["scans"])
            return [np.repeat(views[:, :, None], k, axis=2)]

    monkeypatch.setattr("rbs.inference.onnx_export._exported", lambda *_: Program())
    monkeypatch.setattr("rbs.inference.onnx_export.session_of", lambda *_: Wrong())
    with pytest.raises(CheckpointError, match="ONNX Runtime differs from PyTorch by"):
        export_onnx(load_segmenter(weights), tmp_path / "segmenter.onnx")
    assert not (tmp_path / "segmenter.onnx").exists()
