"""The contract of `rbs.restorers.base.Restorer`, for every restorer. A new one: add a line to RESTORERS."""

import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from rbs.restorers.base import Restorer
from rbs.restorers.diffusion import Diffusion
from rbs.restorers.dncnn import DnCNN
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.restormer import Restormer
from rbs.restorers.semantic_nafnet import SemanticNAFNet
from rbs.restorers.swinir import SwinIR
from rbs.restorers.unet import UNet
from rbs.utils.image_ops import gaussian

SIZES = {"width": 4, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1]}
SEMANTIC = {"channels": [4, 6, 8], "blocks": [1, 1, 1]}
RESTORERS = {
    "nafnet": lambda **kw: NAFNet(**SIZES, **kw),
    "unet": lambda **kw: UNet(channels=[4, 8], **kw),
    "dncnn": lambda **kw: DnCNN(depth=3, width=4, **kw),
    "restormer": lambda **kw: Restormer(width=4, blocks=[1] * 4, heads=[1] * 4, **kw),
    "swinir": lambda **kw: SwinIR(width=8, depths=[2], heads=[2], window=4, **kw),
    "nafnet x2": lambda **kw: RESTORERS["nafnet"](scale=2, **kw),
    "swinir x2": lambda **kw: RESTORERS["swinir"](scale=2, **kw),
    "semantic x2": lambda **kw: SemanticNAFNet(SEMANTIC, **SIZES, **kw),
    "diffusion": lambda **kw: Diffusion(channels=[4, 8], groups=2, steps=3, tile=16, **kw),
}
HALF = torch.tensor([0.5])
CONDITIONED = [name for name in RESTORERS if name not in ("diffusion", "semantic x2")]
"""The sampler runs its network many times, and is a peer, never a part of the cascade; the condition
of the semantic one are facts."""


@pytest.fixture(params=RESTORERS, ids=list(RESTORERS))
def make(request):
    torch.manual_seed(0)
    return RESTORERS[request.param]


@pytest.fixture(params=CONDITIONED)
def conditioned(request):
    torch.manual_seed(0)
    return RESTORERS[request.param]


def scan(*shape, mean=1.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full(shape, mean), generator=generator)


def trained(restorer):
    """Move every parameter off its initial value, as training would."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in restorer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return restorer


@pytest.mark.parametrize("shape", [(2, 2, 16, 8), (1, 2, 37, 53), (1, 1, 17, 9), (1, 2, 5, 3), (1, 1, 1, 1)])
def test_shape_is_kept_and_counts_are_finite_and_non_negative(make, shape):
    restorer = trained(make())
    out, features = restorer.restore_with_features(scan(*shape), torch.full((shape[0],), 0.5))
    assert out.shape == (*shape[:2], *(restorer.scale * side for side in shape[2:]))
    assert features.shape == (shape[0], restorer.feature_channels, *shape[2:])
    assert torch.isfinite(out).all()
    assert (out >= 0).all()


def check_geometry(restorer, height, width):
    """The field of view and its counts stay; pixels become `scale` times as many a side, and as small."""
    x = scan(1, 2, height, width, mean=20.0)
    out = restorer(x, HALF)
    assert out.shape == (1, 2, height * restorer.scale, width * restorer.scale)
    spacing = restorer.spacing_out((2.4, 1.8))
    sides = [pixels * mm for pixels, mm in zip(out.shape[2:], spacing, strict=True)]
    assert sides == pytest.approx([height * 2.4, width * 1.8])
    assert out.sum().item() == pytest.approx(x.sum().item(), rel=1e-4)


def test_field_of_view_and_counts_stay(make):
    check_geometry(make(sigma_px=0.0), 21, 14)


def test_scans_are_enlarged_twice_or_not_at_all():
    assert [RESTORERS[name]().scale for name in ("nafnet", "nafnet x2", "swinir x2")] == [1, 2, 2]
    for wrong in ({"scale": 3}, {"scale": 2, "domain": "colours"}):
        with pytest.raises(ValueError, match="a scale of"):
            RESTORERS["nafnet"](**wrong)


def coarse(restorer, restored):
    """A restoration summed up to the pixels of its image."""
    return restorer.scale**2 * F.avg_pool2d(restored, restorer.scale)


def test_untrained_it_is_the_gaussian_filter(make):
    x = scan(1, 2, 40, 31)
    restorer = make(sigma_px=1.3)
    out = coarse(restorer, restorer(x, HALF)).detach().numpy()
    expected = gaussian_filter(x.numpy().astype(np.float64), sigma=(0, 0, 1.3, 1.3), mode="nearest")
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_untrained_with_sigma_zero_it_is_the_identity(make):
    x, restorer = scan(1, 2, 21, 13, mean=20.0), make(sigma_px=0.0)
    torch.testing.assert_close(coarse(restorer, restorer(x, HALF)), x, atol=1e-4, rtol=1e-5)


def test_one_view_is_the_mean_of_showing_it_twice(make):
    restorer, x = trained(make()), scan(1, 1, 16, 16)
    twice = restorer(x.expand(-1, 2, -1, -1), HALF)
    assert not torch.allclose(twice[:, 0], twice[:, 1])
    torch.testing.assert_close(restorer(x, HALF)[:, 0], twice.mean(dim=1))


def test_gradients_reach_every_parameter_and_the_input(make):
    restorer = trained(make())
    x = scan(1, 2, 16, 16).requires_grad_()
    restorer(x, HALF).square().sum().backward()
    trainable = {n: p for n, p in restorer.named_parameters() if p.requires_grad}
    dead = [n for n, p in trainable.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert x.grad.abs().sum() > 0


CONDITION = torch.rand(1, 7, 21, 14)


def test_a_condition_joins_the_input_and_starts_without_effect(conditioned):
    plain, x = trained(conditioned()), scan(1, 2, 21, 14)
    restorer = conditioned(condition_channels=7)
    restorer.start_from(plain)
    torch.testing.assert_close(restorer(x, HALF, CONDITION), plain(x, HALF))
    assert not torch.equal(*(trained(restorer)(x, HALF, c) for c in (CONDITION, 1 - CONDITION)))


def test_a_gradient_reaches_what_reads_the_condition_in_the_first_step(conditioned):
    restorer = conditioned(condition_channels=7)
    restorer.start_from(trained(conditioned()))
    restorer(scan(1, 2, 21, 14), HALF, CONDITION).square().sum().backward()
    wider = [p for p in restorer.parameters() if p.ndim == 4 and p.shape[1] == restorer.input_channels]
    assert wider
    assert all(p.grad[:, -7:].abs().sum() > 0 for p in wider)


def test_it_may_start_as_its_filter_with_the_features_of_another(conditioned):
    restorer, x = conditioned(sigma_px=0.0, condition_channels=7), scan(1, 2, 21, 14, mean=20.0)
    plain = trained(conditioned())
    restorer.start_from(plain, head=False)
    torch.testing.assert_close(coarse(restorer, restorer(x, HALF, CONDITION)), x, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("channels", "given"), [(0, CONDITION), (7, None), (7, CONDITION[:, :3])])
def test_another_condition_than_its_own_is_refused(conditioned, channels, given):
    with pytest.raises(ValueError, match="the condition must be"):
        conditioned(condition_channels=channels)(scan(1, 2, 21, 14), HALF, given)


def test_an_empty_scan_gives_finite_counts_and_gradients(make):
    restorer = trained(make())
    x = torch.zeros(1, 2, 16, 16, requires_grad=True)
    out = restorer(x, HALF)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in restorer.parameters() if p.requires_grad)
    assert torch.isfinite(x.grad).all()


def test_the_exposure_matters_once_trained(make):
    restorer, x = make(), scan(1, 2, 16, 16)
    torch.testing.assert_close(restorer(x, HALF), restorer(x, HALF / 4))
    optimizer = torch.optim.SGD([p for p in restorer.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        (restorer(x, HALF) - 2).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(restorer(x, HALF), restorer(x, HALF / 4))


def test_what_else_is_in_the_batch_does_not_matter(make):
    restorer, x = trained(make()), scan(3, 2, 16, 16)
    exposure = torch.tensor([0.5, 0.25, 1.0])
    alone = torch.cat([restorer(x[i : i + 1], exposure[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(restorer(x, exposure), alone, atol=1e-5, rtol=1e-4)


def test_spec_builds_it_again(make):
    restorer = make(sigma_px=2.25)
    spec = restorer.spec()
    module, _, name = spec["class_path"].rpartition(".")
    again = getattr(importlib.import_module(module), name)(**spec["init_args"])
    assert again.spec() == spec
    again.load_state_dict(restorer.state_dict())
    assert again.sigma_px == 2.25


def test_bfloat16_autocast_keeps_the_physics_in_float32(make):
    restorer, x = make(), scan(1, 2, 16, 16, mean=300.0)
    plain = restorer(x, HALF)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = restorer(x, HALF)
    assert mixed.dtype == torch.float32
    # Untrained, only physics is left: bfloat16 would be wrong in the third digit.
    torch.testing.assert_close(mixed, plain, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("mean", [0.1, 50.0])
def test_backbones_see_numbers_of_order_one(make, mean):
    restorer, seen = make(), []
    restorer.features = lambda x: seen.append(x) or torch.zeros(1, restorer.feature_channels, *x.shape[2:])
    restorer(scan(1, 2, 64, 64, mean=mean), HALF)
    of_scan = seen[0][:, : restorer.images.input_channels]
    assert of_scan.abs().mean(dim=(0, 2, 3)).min() > 0.05
    assert seen[0].abs().max() < 6


def test_the_own_channel_has_known_noise():
    restorer, seen = RESTORERS["dncnn"](), []
    restorer.features = lambda x: seen.append(x) or torch.zeros(1, restorer.feature_channels, *x.shape[2:])
    p = torch.tensor([0.4])
    for expectation in (5.0, 40.0):
        raw = scan(1, 2, 128, 128, mean=expectation * 0.4)
        restorer(raw / 0.4, p)
        noise = (2 * seen[-1][:, 0]).std()  # undo ROOT_SCALE
        assert noise == pytest.approx(seen[-1][0, 4, 0, 0].item(), rel=0.05)


@pytest.mark.parametrize(("shape", "batch"), [((1, 3, 8, 8), 1), ((2, 8, 8), 2), ((2, 2, 8, 8), 1)])
def test_wrong_shapes_are_refused(make, shape, batch):
    with pytest.raises(ValueError, match=r"must be|one exposure"):
        make()(torch.ones(shape), torch.full((batch,), 0.5))


def test_gaussian_agrees_with_scipy_on_images_smaller_than_the_kernel():
    x = torch.rand(1, 1, 3, 4, dtype=torch.float64)
    expected = gaussian_filter(x.numpy(), sigma=(0, 0, 2, 2), mode="nearest")
    np.testing.assert_allclose(gaussian(x, 2.0).numpy(), expected, atol=1e-12)


def test_every_restorer_of_the_package_is_under_contract():
    covered = {type(build()) for build in RESTORERS.values()}
    families = [c for c in Restorer.__subclasses__() if c.__module__.startswith("rbs.")]
    assert {c for family in families for c in (family, *family.__subclasses__())} == covered


def test_a_small_nafnet_beats_the_gaussian_it_starts_from():
    """In noise-corrected error against an independent draw: bars on a soft background."""
    torch.manual_seed(3)
    truth = torch.full((1, 2, 64, 64), 2.0)
    truth[..., 8::16, :] = 14.0
    truth[..., :, 10:13] = 30.0
    restorer = NAFNet(width=8, enc_blocks=[1], middle_blocks=1, dec_blocks=[1])

    def error():
        standard = torch.poisson(truth.expand(8, -1, -1, -1))
        rapid = torch.poisson(0.5 * truth.expand(8, -1, -1, -1)) / 0.5
        with torch.no_grad():
            return ((restorer(rapid, HALF.expand(8)) - standard) ** 2).mean() - standard.mean()

    before = error()
    optimizer = torch.optim.AdamW(restorer.parameters(), lr=3e-3)
    for _ in range(60):
        rapid, target = torch.poisson(0.5 * truth.expand(2, -1, -1, -1)) / 0.5, torch.poisson(truth)
        optimizer.zero_grad()
        out = restorer(rapid, HALF.expand(2)) + 1e-3
        (out - target * out.log()).mean().backward()
        optimizer.step()
    assert error() < 0.5 * before
