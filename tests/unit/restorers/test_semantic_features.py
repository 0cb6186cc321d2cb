import pytest
import torch

from rbs.errors import CheckpointError
from rbs.restorers.checkpoint import save_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.semantic_features import (
    STRIDE,
    SemanticNetwork,
    load_semantic_network,
    save_semantic_network,
)


def small() -> SemanticNetwork:
    torch.manual_seed(0)
    return SemanticNetwork((4, 6, 8), (1, 1, 1)).eval()


def scan(rows: int, columns: int) -> torch.Tensor:
    return torch.poisson(torch.full((2, 2, rows, columns), 4.0), generator=torch.Generator().manual_seed(1))


def test_a_cell_of_the_features_is_eight_pixels_wide_and_a_part_of_one_counts() -> None:
    network, exposure = small(), torch.full((2,), 0.5)
    assert network.features(scan(64, 48), exposure).shape == (2, 8, 8, 6)
    assert network.features(scan(65, 41), exposure).shape == (2, 8, 9, 6)


def test_features_of_a_crop_are_those_of_the_whole_scan_far_from_its_border() -> None:
    network, exposure, whole = small(), torch.ones(2), scan(320, 64)
    crop = network.features(whole[:, :, 64:256], exposure)
    of_whole = network.features(whole, exposure)[:, :, 64 // STRIDE : 256 // STRIDE]
    assert torch.allclose(crop[:, :, 8:-8], of_whole[:, :, 8:-8], atol=1e-5)
    assert not torch.allclose(crop[:, :, 0], of_whole[:, :, 0], atol=1e-5)


def test_a_saved_network_is_read_back(tmp_path) -> None:
    network = small()
    save_semantic_network(tmp_path / "semantic.safetensors", network, {"steps": 3})
    read = load_semantic_network(tmp_path / "semantic.safetensors")
    assert read.spec() == network.spec()
    assert torch.equal(read(scan(16, 16), torch.ones(2)), network(scan(16, 16), torch.ones(2)))


def test_weights_of_a_restorer_are_refused(tmp_path) -> None:
    save_restorer(tmp_path / "restorer.safetensors", NAFNet(4, (1,), 1, (1,)), {})
    with pytest.raises(CheckpointError, match="is no SemanticNetwork"):
        load_semantic_network(tmp_path / "restorer.safetensors")


def test_a_network_of_two_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="levels of"):
        SemanticNetwork((4, 6), (1, 1))
