"""Describing by ONNX Runtime: the probabilities that PyTorch gives, without importing it."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from rbs.description.checkpoint import load_describer, save_describer
from rbs.description.describer import Describer
from rbs.description.sentences import SENTENCES
from rbs.errors import CheckpointError, ScanError
from rbs.inference.description import OnnxDescriber, load_describer_for, load_scan_describer
from rbs.inference.onnx_export import export_description_graph
from rbs.weights.shipped import DESCRIBER, file_sha256


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "describer.safetensors"
    save_describer(file, Describer((4, 6, 8), (0, 0, 1), heads=2, layers=1), {"exposure": [0.2, 1.0]})
    return file


@pytest.fixture(scope="module")
def graph(weights):
    file = weights.with_name("describer_graph.onnx")
    assert export_description_graph(load_describer(weights), file) < 1e-4
    return file


@pytest.mark.parametrize("shape", [(2, 128, 64), (1, 99, 77)])
def test_the_graph_gives_what_the_weights_give(weights, graph, shape) -> None:
    counts = np.random.default_rng(0).poisson(3.0, shape)
    ours = load_describer(weights).chances(counts, 0.5)
    theirs = OnnxDescriber.shipped(weights, graph).chances(counts, 0.5)
    assert ours.shape == (len(SENTENCES),)
    assert np.allclose(ours, theirs, atol=1e-4)


def test_weights_of_another_network_do_not_fit_the_graph(graph, tmp_path) -> None:
    other = tmp_path / "describer.safetensors"
    save_describer(other, Describer((4, 6, 8), (0, 0, 2), heads=2, layers=1), {})
    with pytest.raises(CheckpointError, match=r"another architecture than|does not fit"):
        OnnxDescriber.shipped(other, graph)


def test_missing_weights_are_named_by_the_option_of_rbs_describe(graph, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="name a weight file with --describer"):
        OnnxDescriber.shipped(tmp_path / "describer.safetensors", graph)


def test_a_scan_that_is_too_large_is_refused(weights, graph) -> None:
    with pytest.raises(ScanError, match="2,097,152 are described at once"):
        OnnxDescriber.shipped(weights, graph).chances(np.zeros((1, 2049, 1024)), 0.5)


def test_the_shipped_network_is_run_without_pytorch_and_gives_what_pytorch_gives() -> None:
    counts = np.random.default_rng(1).poisson(3.0, (2, 200, 128))
    shipped = load_describer_for()
    assert shipped.sha256 == file_sha256(DESCRIBER)
    assert np.allclose(
        shipped.chances(counts, 0.5), load_describer(DESCRIBER).chances(counts, 0.5), atol=1e-3
    )
    script = (
        "import sys; from rbs.clinic.describe_scans import describe_scan;"
        "from rbs.inference.description import load_scan_describer; load_scan_describer();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_weights_that_are_not_whole_are_named(tmp_path, monkeypatch) -> None:
    card = tmp_path / "describer.json"
    for text in ("{", "{}", '{"foci": {"trunk": [1.0], "limbs": [0.0, 1.0], "missed": 0.1}}'):
        card.write_text(text)
        monkeypatch.setattr("rbs.weights.shipped.DESCRIBER", card.with_suffix(".safetensors"))
        with pytest.raises(CheckpointError, match="does not say how often hot spots are foci"):
            load_scan_describer()


def test_odds_of_another_segmenter_are_refused(tmp_path, monkeypatch) -> None:
    content = json.loads(DESCRIBER.with_suffix(".json").read_text())
    card = tmp_path / "describer.json"
    card.write_text(json.dumps(content | {"foci_of_segmenter": "0" * 64}))
    monkeypatch.setattr("rbs.weights.shipped.DESCRIBER", card.with_suffix(".safetensors"))
    with pytest.raises(CheckpointError, match="odds of foci hold for another segmenter") as refused:
        load_scan_describer()
    assert "scripts/fit_foci.py" in str(refused.value)
