"""The contract of restorers in the colour domain, for every family of test_restorers.py that has it."""

import inspect

import numpy as np
import pytest
import torch
from test_restorers import RESTORERS, trained

from rbs.losses import Charbonnier
from rbs.restorers.image_domain import Colours
from rbs.restorers.nafnet import NAFNet
from rbs.utils.image_ops import gaussian

FAMILIES = {name: build for name, build in RESTORERS.items() if name != "diffusion" and "x2" not in name}
ONE = torch.ones(1)


@pytest.fixture(params=FAMILIES, ids=list(FAMILIES))
def make(request):
    torch.manual_seed(0)
    return lambda: FAMILIES[request.param](domain="colours")


def frame(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_all_others_say_that_they_restore_scans_only():
    for name in RESTORERS.keys() - FAMILIES.keys():
        restorer = RESTORERS[name]()
        if "domain" not in inspect.signature(type(restorer)).parameters:
            assert "restores scans only" in type(restorer).__doc__
        else:
            with pytest.raises(ValueError, match="a scale of 2 of frames: scans may have 1 or 2"):
                RESTORERS[name](domain="colours")


@pytest.mark.parametrize("shape", [(2, 3, 16, 8), (1, 3, 37, 53), (1, 3, 5, 3), (1, 3, 1, 1)])
def test_shape_is_kept_and_colours_stay_within_0_and_1(make, shape):
    restorer = trained(make())
    out, features = restorer.restore_with_features(frame(*shape), torch.ones(shape[0]))
    assert out.shape == shape
    assert features.shape == (shape[0], restorer.feature_channels, *shape[2:])
    assert out.min() >= 0
    assert out.max() <= 1
    out = restorer(10 * frame(*shape), torch.ones(shape[0]))  # a careless caller's 0..10
    assert out.max() <= 1


def test_untrained_it_is_the_identity_whatever_sigma(make):
    x = frame(1, 3, 21, 13)
    restorer = make()
    assert restorer.sigma_px == 1.5
    assert torch.equal(restorer(x, ONE), x)


def test_gradients_reach_every_parameter_and_the_input(make):
    restorer = trained(make())
    x = frame(1, 3, 16, 16).requires_grad_()
    (restorer(x, ONE) - frame(1, 3, 16, 16, seed=2)).square().sum().backward()
    dead = [n for n, p in restorer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("too_far", [0.0, 0.2])
def test_black_and_white_pixels_can_be_called_back(make, too_far):
    """Clamping must not cut off the gradient of pixels that lie on its edge, or beyond."""
    restorer = make()
    for value, beyond in ((0.0, -too_far), (1.0, too_far)):
        restorer.zero_grad()
        restorer.head.bias.data.fill_(beyond)
        (restorer(torch.full((1, 3, 16, 16), value), ONE) - 0.5).square().mean().backward()
        assert (restorer.head.bias.grad * (value - 0.5)).min() > 0


def test_colours_are_not_mixed_up_by_the_physics(make):
    """Untrained, each colour is answered by itself; and the backbone sees all three and their local means."""
    restorer, seen = make(), []
    restorer.features = lambda x: seen.append(x) or torch.zeros(1, restorer.feature_channels, *x.shape[2:])
    x = frame(1, 3, 16, 16)
    restorer(x, ONE)
    torch.testing.assert_close(seen[0][..., :16, :16], torch.cat([x, gaussian(x, 2.0)], dim=1))


def test_the_exposure_is_no_part_of_it(make):
    restorer, x = trained(make()), frame(1, 3, 16, 16)
    torch.testing.assert_close(restorer(x, ONE), restorer(x, ONE / 4))


def test_spec_builds_it_again_with_its_domain(make):
    restorer = make()
    spec = restorer.spec()
    assert spec["init_args"]["domain"] == "colours"
    again = type(restorer)(**spec["init_args"])
    again.load_state_dict(restorer.state_dict())
    assert isinstance(again.images, Colours)


def test_bfloat16_autocast_answers_in_float32(make):
    restorer, x = make(), frame(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = restorer(x, ONE)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, x)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_what_is_no_frame_is_refused(make, channels):
    with pytest.raises(ValueError, match=r"frames must be \(B, 3 colours, H, W\), not"):
        make()(torch.ones(1, channels, 8, 8), ONE)


def test_a_small_nafnet_learns_to_take_noise_off_a_striped_frame():
    torch.manual_seed(3)
    rows, columns = np.mgrid[:48, :48]
    clean = np.stack([0.5 + 0.3 * np.sin(rows / 3), 0.4 + 0.2 * np.cos(columns / 4), 0.3 + 0 * rows])
    clean = torch.from_numpy(clean).float()[None]
    restorer = NAFNet(width=8, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], domain="colours")

    def noisy(seed):
        return clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))

    def error():
        with torch.no_grad():
            return ((restorer(noisy(99).clamp(0, 1), ONE) - clean) ** 2).mean()

    before, optimizer = error(), torch.optim.AdamW(restorer.parameters(), lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        Charbonnier()(restorer(noisy(step).clamp(0, 1), ONE), clean, ONE).backward()
        optimizer.step()
    assert error() < 0.3 * before
