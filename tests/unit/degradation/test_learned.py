"""Degraders that are learned: the contract of `Degrader`, their files, and what they learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rbs.degradation.diffusion import DiffusionDegrader
from rbs.degradation.learned import LearnedDegrader, level_of, load_degrader, save_degrader
from rbs.degradation.munit import Munit
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.errors import CheckpointError, ScanError

SPACING = (4.0, 4.0)


def body(seed):
    """Expected counts (2, 64, 48) of a body with bones."""
    rng = np.random.default_rng(seed)
    image = np.full((2, 64, 48), 0.02, np.float32)
    image[:, 6:58, 8:40] = 2.0
    for row in rng.integers(8, 54, 5):
        image[:, row : row + 3, 12:36] += 10
    return image


def trained(model, noise=WHITE):
    goods = [body(seed) for seed in range(4)]
    relative = [good / level_of(good, SPACING) for good in goods]
    model.prepare(relative, [2.0, 3.0], SPACING, noise)
    return model.eval()


def small(kind, noise=WHITE):
    torch.manual_seed(0)
    if kind is Munit:
        return trained(Munit(channels=8, blocks=1), noise)
    return trained(DiffusionDegrader(channels=(8, 16), steps=2, depth=500, tile=(32, 32)), noise)


@pytest.fixture(params=[Munit, DiffusionDegrader], ids=["munit", "diffusion"])
def degrader(request):
    return LearnedDegrader(small(request.param), "a degrader")


def test_a_degraded_expectation_keeps_its_counts_and_is_drawn_by_its_rng(degrader):
    image = body(9)
    before = image.copy()
    one, again = (degrader(image, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(image, before)
    assert one.shape == image.shape
    assert one.dtype == np.float32
    assert (one >= 0).all()
    assert one.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-5)
    # Brighter scans are degraded alike.
    np.testing.assert_allclose(degrader(3 * image, np.random.default_rng(1)), 3 * one, rtol=2e-3, atol=2e-3)
    counts = degrader.expose(one, np.random.default_rng(2))
    assert counts.sum() == pytest.approx(one.sum(), rel=0.05)
    assert degrader(image[:1], np.random.default_rng(1)).shape == (1, 64, 48)


def test_rows_that_were_not_scanned_stay_empty(degrader):
    image = body(2)
    image[:, :4] = image[:, -3:] = 1e-6
    found = degrader(image, np.random.default_rng(1))
    assert not found[:, :4].any()
    assert not found[:, -3:].any()
    assert found[:, 4:-3].sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-5)


@pytest.mark.parametrize(
    "image", [np.full((2, 8, 8), -1.0), np.full((3, 8, 8), 1.0), np.full((8, 8), 1.0), np.zeros((2, 8, 8))]
)
def test_what_is_no_expectation_is_refused(degrader, image):
    with pytest.raises(ScanError, match="degrade"):
        degrader(image, np.random.default_rng(0))


def test_coarser_pixels_are_refused_and_finer_ones_laid_on_the_grid(degrader):
    image = body(3)
    laid = degrader.on_grid(image, (2.0, 2.0))
    assert laid.shape == (2, 32, 24)
    assert laid.sum() == pytest.approx(image.sum(), rel=1e-5)
    with pytest.raises(ScanError, match="too coarse to stand for the 4 x 4 mm"):
        degrader.on_grid(image, (6.0, 6.0))


def test_styles_differ_and_no_focus_is_added():
    model = small(Munit)
    model.common.weight.data *= 20
    degrader = LearnedDegrader(model, "a degrader")
    image = body(5)
    one, other = (degrader(image, np.random.default_rng(seed)) for seed in (1, 2))
    assert np.abs(one - other).max() > 0.05
    # Whatever content and style say, a pixel lies between its averages, but for the gain of a style,
    # which a flat image shows.
    torch.nn.init.normal_(model.weights.weight)
    good, style = torch.from_numpy(image)[:, None], torch.randn(2, model.style)
    gain = model.mix(torch.ones_like(good), style)[..., :1, :1]
    mixed, averages = model.mix(good, style) / gain, model.filters(good)
    assert (mixed <= averages.amax(dim=1, keepdim=True) + 1e-4).all()
    assert (mixed >= averages.amin(dim=1, keepdim=True) - 1e-4).all()


@pytest.mark.parametrize("kind", [Munit, DiffusionDegrader])
@pytest.mark.parametrize("noise", [WHITE, NoiseFilter(0.06, 5.0)], ids=["white", "filtered"])
def test_files_hold_all_of_a_degrader(kind, noise, tmp_path):
    model = small(kind, noise)
    save_degrader(tmp_path / "d.safetensors", model, {"steps": 3})
    loaded = load_degrader(tmp_path / "d.safetensors")
    assert (loaded.spacing_mm, loaded.provenance["steps"]) == (SPACING, 3)
    assert loaded.noise.white == noise.white
    if not noise.white:
        assert loaded.noise.cutoff_per_mm == pytest.approx(noise.cutoff_per_mm)
    own = LearnedDegrader(model, "own")(body(1), np.random.default_rng(0))
    np.testing.assert_array_equal(loaded(body(1), np.random.default_rng(0)), own)


def test_other_files_are_no_degraders(tmp_path):
    with pytest.raises(CheckpointError, match="make train-degrader"):
        load_degrader(tmp_path / "missing.safetensors")
    shipped = Path(__file__).parents[3] / "rbs" / "weights" / "restorer.safetensors"
    with pytest.raises(CheckpointError, match="no DegradationModel"):
        load_degrader(shipped)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError):
        load_degrader(tmp_path / "x.safetensors")
    save_degrader(tmp_path / "d.safetensors", Munit(channels=8, blocks=1), {})
    (tmp_path / "d.json").write_text('{"sha256": "of another file"}')
    with pytest.raises(CheckpointError, match="differs from the hash recorded beside it"):
        load_degrader(tmp_path / "d.safetensors")
    model = small(Munit)
    model.grid.zero_()
    save_degrader(tmp_path / "e.safetensors", model, {})
    with pytest.raises(CheckpointError, match="no pixel size"):
        load_degrader(tmp_path / "e.safetensors")


@pytest.mark.parametrize("kind", [Munit, DiffusionDegrader])
@pytest.mark.parametrize("noise", [WHITE, NoiseFilter(0.06, 5.0)], ids=["white", "filtered"])
def test_every_trained_weight_gets_a_finite_gradient(kind, noise):
    model = small(kind, noise).train()
    good = torch.from_numpy(np.stack([body(seed)[:1] / 4 for seed in range(2)]))
    poor = torch.poisson(8 * good)
    terms = model.losses(good, poor, torch.tensor([2.0, 3.0]))
    rest = sum(value for name, value in terms.items() if name != "total")
    torch.testing.assert_close(terms["total"], rest)
    terms["total"].backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_a_generator_is_not_moved_by_the_loss_of_discriminators():
    model = small(Munit).train()
    good = torch.from_numpy(body(0)[:, None] / 4)
    terms = model.losses(good, torch.poisson(8 * good), torch.tensor([2.0, 2.0]))
    terms["discrimination"].backward()
    assert model.weights.weight.grad is None
    assert model.discriminators["1"][1].weight.grad is not None


def test_roots_of_the_bridge_are_the_mean_of_those_of_counts():
    model = small(DiffusionDegrader)
    mean = torch.tensor([0.0, 0.1, 0.5, 1.0, 3.0, 10.0])
    counts = torch.poisson((model.part * mean).expand(200_000, -1), torch.Generator().manual_seed(0))
    wanted = ((counts + 0.375) / model.part).sqrt().mean(dim=0)
    torch.testing.assert_close(model._roots(mean), wanted, atol=0.012, rtol=0.01)
    torch.testing.assert_close(model._expectation(model._standardised(mean)), mean, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("noise", [WHITE, NoiseFilter(0.06, 5.0)], ids=["white", "filtered"])
def test_parts_get_the_white_noise_of_their_level(noise):
    model = small(DiffusionDegrader, noise)
    flat = torch.full((32, 1, 48, 48), 8 * float(model.part))
    noisy, t = model._noisy_poor(flat + noise.filtered(torch.poisson(flat) - flat, SPACING))
    power = (torch.fft.fft2(noisy - noisy.mean(dim=(2, 3), keepdim=True)).abs() ** 2 / 48**2)[:, 0]
    ratio = power / (1 - model._alphas(t))[:, 0]
    frequency = torch.fft.fftfreq(48).abs()
    low = (frequency[:, None] < 0.2) & (frequency < 0.2)
    for part in (low, ~low):
        assert float(ratio[:, part].mean()) == pytest.approx(1, abs=0.05)


def test_the_lowest_level_is_the_first_that_has_the_noise_of_a_part():
    model = small(DiffusionDegrader)
    noise = 0.25 / float(model.part * model.spread**2)
    below, lowest = (1 / model._scheduler.alphas_cumprod[model.lowest - 1 : model.lowest + 1] - 1).tolist()
    assert below < noise <= lowest


def test_a_model_on_an_accelerator_takes_scans_from_the_processor():
    model = DiffusionDegrader(channels=(8, 16)).to("meta")  # which refuses tensors of others, too
    model.prepare([body(0)], [2.0, 3.0], SPACING, NoiseFilter(0.06, 5.0))
    assert model._roots(model.part).is_meta
