"""DynUNet with wavelet-Mamba blocks and snake convolutions."""

import pytest
import torch

from rbs.inference.onnx_export import TOLERANCE, export_onnx
from rbs.segmentation.checkpoint import LoadedSegmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.wavelet_mamba import TopoWMamba

FILTERS = [4, 4, 8, 8]
GIVEN = torch.tensor([0.5]), torch.tensor([[2.4, 2.4]])


@pytest.mark.parametrize("wavelets", [True, False])
@pytest.mark.parametrize("snakes", [True, False])
def test_it_starts_as_a_dynunet_of_the_same_weights(wavelets, snakes):
    torch.manual_seed(0)
    plain, parts = DynUNet(FILTERS), TopoWMamba(FILTERS, wavelets, snakes)
    own = {name.replace(".conv2.straight.", ".conv2."): name for name in parts.state_dict()}
    weights = {own[name]: weight for name, weight in plain.state_dict().items()}
    parts.load_state_dict(parts.state_dict() | weights)
    x = torch.poisson(4 * torch.rand(1, 2, 64, 48).repeat_interleave(2, 2))
    plain.multiple = parts.multiple
    torch.testing.assert_close(parts(x, *GIVEN), plain(x, *GIVEN))
    assert (len(own) == len(weights)) == (not wavelets and not snakes)


def test_it_has_half_a_million_parameters():
    assert sum(weight.numel() for weight in TopoWMamba().parameters()) == pytest.approx(0.49e6, rel=0.01)


@pytest.fixture
def smallest():
    torch.manual_seed(0)
    segmenter = TopoWMamba([4, 4, 4], patch=4)
    with torch.no_grad():
        for weight in segmenter.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return segmenter.eval()


def difference_of_its_export(segmenter, folder):
    loaded = LoadedSegmenter(segmenter, "TopoWMamba", "0", "0" * 64)
    return export_onnx(loaded, folder / "segmenter.onnx").largest


def test_a_block_of_each_kind_exports_to_onnx_for_any_size(smallest, tmp_path):
    # An export takes half a minute a block.
    smallest.scans[0] = torch.nn.Identity()
    finest = smallest.backbone.upsamples[-1].conv_block
    finest.conv2 = finest.conv2.straight
    assert difference_of_its_export(smallest, tmp_path) <= TOLERANCE


@pytest.mark.slow
def test_it_exports_to_onnx_for_any_size(smallest, tmp_path):
    assert difference_of_its_export(smallest, tmp_path) <= TOLERANCE
