import pytest
import torch
from torchvision.models import alexnet

from rbs.distillation.analyser import ImageNetAnalyser
from rbs.distillation.scm import SCM
from rbs.errors import CheckpointError
from rbs.weights.external import ALEXNET


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RBS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nowhere"))
    return tmp_path


@pytest.fixture
def random_weights(folder):
    torch.manual_seed(0)
    state = torch.nn.ModuleDict({"features": alexnet(weights=None).features}).state_dict()
    torch.save(state, folder / ALEXNET[0])


@pytest.mark.usefixtures("random_weights")
def test_views_become_cells_of_eight_pixels_and_frames_are_one_view():
    counts = torch.rand(2, 2, 40, 51) * 5
    assert ImageNetAnalyser()(counts).shape == (2, 2, 384, 5, 7)
    assert ImageNetAnalyser()(counts[:, :1]).shape == (2, 1, 384, 5, 7)
    assert ImageNetAnalyser("colours")(torch.rand(2, 3, 40, 48)).shape == (2, 1, 384, 5, 6)


@pytest.mark.usefixtures("random_weights")
def test_a_change_of_the_image_is_seen_in_its_own_cell_most():
    analyser, x = ImageNetAnalyser(), torch.full((1, 1, 64, 64), 2.0)
    changed = x.clone()
    changed[..., 24:32, 40:48] = 9
    seen = (analyser(changed) - analyser(x)).abs().sum(dim=2)[0, 0]
    assert divmod(seen.argmax().item(), 8) == (3, 5)


@pytest.mark.usefixtures("random_weights")
def test_it_is_frozen_and_its_input_is_not():
    analyser, x = ImageNetAnalyser(), (torch.rand(1, 2, 32, 32) * 5).requires_grad_()
    with torch.no_grad():
        other = analyser(x + torch.rand(x.shape))
    with torch.autocast("cpu", torch.bfloat16):
        features = analyser(x)
    assert features.dtype == torch.float32
    SCM()(features, other, torch.rand(1, 2, 3, 32, 32)).backward()
    assert x.grad.abs().sum() > 0
    assert torch.isfinite(x.grad).all()
    assert not any(weight.requires_grad for weight in analyser.parameters())


def test_missing_and_damaged_weights_are_refused_with_the_remedy(folder):
    with pytest.raises(CheckpointError, match=r"RBS_WEIGHTS.*torchvision") as refused:
        ImageNetAnalyser()
    assert refused.value.file == folder / ALEXNET[0]
    (folder / ALEXNET[0]).write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="AlexNet"):
        ImageNetAnalyser()
