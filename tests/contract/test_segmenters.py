"""The contract of `rbs.segmentation.segmenter.Segmenter`, for every family and both kinds of images.

A new family: add a line to FAMILIES. Files and trainings of the teacher: see test_teacher.
"""

import importlib
import pkgutil

import numpy as np
import pytest
import torch

import rbs.segmentation
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.objective import DiceCrossEntropy
from rbs.segmentation.sam import build_sam
from rbs.segmentation.segmenter import Segmenter
from rbs.segmentation.teacher import Teacher
from rbs.segmentation.wavelet_mamba import TopoWMamba

FAMILIES = {
    "dynunet": lambda **kw: DynUNet(filters=[4, 4, 6, 6], **kw),
    "topowmamba": lambda **kw: TopoWMamba(filters=[4, 4, 8, 8], **kw),
    "teacher": lambda **kw: Teacher("vit_t", build_sam("vit_t"), **kw),
}
ENCODER_DECODERS = [name for name in FAMILIES if name != "teacher"]
SIZES = [(64, 48), (128, 64), (75, 53), (17, 90), (5, 3)]
SPACING_MM = torch.tensor([[2.4, 1.8]])
HALF = torch.tensor([0.5])


@pytest.fixture(scope="module", params=FAMILIES)
def segmenter(request):
    return trained(request.param)


@pytest.fixture(
    scope="module", params=[(f, d) for f in FAMILIES for d in ("roots", "colours")], ids=" of ".join
)
def of_a_domain(request):
    family, domain = request.param
    return trained(family, domain=domain)


@pytest.fixture(scope="module", params=ENCODER_DECODERS)
def encoder_decoder(request):
    return trained(request.param)


@pytest.fixture(
    scope="module", params=[(f, d) for f in ENCODER_DECODERS for d in ("roots", "colours")], ids=" of ".join
)
def encoder_decoder_of_a_domain(request):
    family, domain = request.param
    return trained(family, domain=domain)


def trained(family, **arguments):
    """Move every parameter off its initial value, as training would."""
    torch.manual_seed(0)
    segmenter = FAMILIES[family](**arguments).eval()
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return segmenter


def scan(*shape, mean=4.0, seed=1):
    """Poisson counts around a few bright bars."""
    expectation = torch.full(shape, 0.3 * mean)
    expectation[..., 1::8, :] = 4 * mean
    expectation[..., : shape[-2] // 2, ::5] = 2 * mean
    return torch.poisson(expectation, generator=torch.Generator().manual_seed(seed))


def images(segmenter, batch, height, width, views=2, seed=1):
    """Images of the domain of a segmenter, and how many views they have."""
    if segmenter.images.shows == "scans":
        return scan(batch, views, height, width, seed=seed), views
    x = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return x, 1


def ask(segmenter, x, exposure=HALF, spacing_mm=SPACING_MM):
    with torch.no_grad():
        return segmenter(x, exposure.expand(len(x)), spacing_mm.expand(len(x), 2))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_probabilities_of_every_pixel_of_every_view(of_a_domain, height, width):
    for asked in (1, 2) if of_a_domain.images.shows == "scans" else (1,):
        x, views = images(of_a_domain, 2, height, width, asked)
        found = ask(of_a_domain, x)
        assert found.shape == (2, views, 1 + len(of_a_domain.labels), height, width)
        assert torch.isfinite(found).all()
        assert found.min() >= 0
        torch.testing.assert_close(found.sum(dim=2), torch.ones(2, views, height, width))
        assert torch.equal(found, ask(of_a_domain, x))


def test_logits_are_those_of_the_probabilities_and_of_the_features(of_a_domain):
    x, _ = images(of_a_domain, 1, 75, 53)
    with torch.no_grad():
        logits, features = of_a_domain.logits_with_features(x, HALF, SPACING_MM)
        assert torch.equal(logits, of_a_domain.logits(x, HALF, SPACING_MM))
    assert torch.equal(logits.softmax(dim=2), ask(of_a_domain, x))
    assert features
    assert all(level.ndim == 4 and level.isfinite().all() for level in features)
    sides = [level.shape[-2] for level in features]
    assert sides == sorted(sides)


@pytest.mark.parametrize(("height", "width"), [(128, 64), (75, 53)])
def test_its_prior_lies_on_the_image(of_a_domain, height, width):
    x, views = images(of_a_domain, 1, height, width)
    with torch.no_grad():
        prior = of_a_domain.prior(x, HALF, SPACING_MM)
        torch.testing.assert_close(of_a_domain.embed(x, HALF, SPACING_MM), prior.embedding)
    cells = [-(-side // prior.embedding_stride) for side in (height, width)]
    assert prior.embedding.shape[:3] == (1, views, of_a_domain.embedding_dim)
    assert list(prior.embedding.shape[3:]) == cells
    assert prior.masks.shape[:3] == (1, views, len(of_a_domain.labels))
    for masks, side in zip(prior.masks.shape[3:], (height, width), strict=True):
        assert 0 <= masks * prior.mask_stride - side < prior.embedding_stride  # it may overhang
    assert prior.masks.min() >= 0
    assert prior.masks.sum(dim=2).max() <= 1 + 1e-5


def test_one_view_is_answered_as_the_same_view_twice(segmenter):
    x = scan(2, 1, 75, 53)
    with torch.no_grad():
        one = segmenter.logits(x, HALF.expand(2), SPACING_MM.expand(2, 2))
        two = segmenter.logits(x.expand(-1, 2, -1, -1), HALF.expand(2), SPACING_MM.expand(2, 2))
    torch.testing.assert_close(one[:, 0], two.mean(dim=1), atol=1e-4, rtol=1e-4)


def test_counts_may_be_stated_for_pixels_of_any_area(encoder_decoder):
    """x A0 / A with the exposure p A / A0 is the same scan; x alone is another."""
    x, factor = scan(1, 2, 64, 48), 2.25
    found = ask(encoder_decoder, x)
    same = ask(encoder_decoder, x * factor, HALF / factor, SPACING_MM * factor**0.5)
    torch.testing.assert_close(same, found, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(ask(encoder_decoder, x * factor), found, atol=1e-3)


def test_what_else_is_in_the_batch_does_not_matter(of_a_domain):
    x, _ = images(of_a_domain, 3, 64, 48)
    exposure, spacing = torch.tensor([0.5, 0.2, 1.0]), torch.tensor([[2.4, 1.8], [4.5, 4.5], [2.0, 2.0]])
    alone = torch.cat([ask(of_a_domain, x[i : i + 1], exposure[i], spacing[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(ask(of_a_domain, x, exposure, spacing), alone, atol=1e-4, rtol=1e-3)


def test_gradients_reach_every_parameter_and_the_image(encoder_decoder_of_a_domain):
    segmenter = encoder_decoder_of_a_domain
    x, views = images(segmenter, 2, 128, 64)
    x.requires_grad_()
    labels = torch.arange(128) * (1 + len(segmenter.labels)) // 128
    labels = labels[:, None].expand(2 * views, -1, 64)
    logits = segmenter.logits(x, HALF.expand(2), SPACING_MM.expand(2, 2))
    segmenter.zero_grad()
    DiceCrossEntropy(1 + len(segmenter.labels))(logits.flatten(0, 1), labels).backward()
    asked = [(name, weight) for name, weight in segmenter.named_parameters() if weight.requires_grad]
    assert asked
    assert [name for name, weight in asked if weight.grad is None or not weight.grad.abs().sum() > 0] == []
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("level", [0.0, 1e-3, 1e4])
def test_an_empty_or_a_very_bright_image_gives_finite_numbers_and_gradients(encoder_decoder, level):
    x = torch.full((1, 2, 64, 48), level, requires_grad=True)
    found = encoder_decoder(x, HALF, SPACING_MM)
    found.square().sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(x.grad).all()


def test_single_pixels_below_zero_give_finite_numbers(encoder_decoder):
    x = scan(1, 2, 64, 48)
    x[:, :, 10::20, 10::20] = -0.1
    with torch.no_grad():
        assert torch.isfinite(encoder_decoder(x, HALF, SPACING_MM)).all()


def test_bfloat16_autocast_answers_in_float32_and_nearly_the_same(segmenter):
    x = scan(1, 2, 64, 48, mean=300.0)
    plain = ask(segmenter, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ask(segmenter, x)
    assert mixed.dtype == torch.float32
    assert (mixed - plain).abs().mean() < 0.03


def test_a_file_gives_the_same_segmenter_again(encoder_decoder_of_a_domain, tmp_path):
    save_segmenter(tmp_path / "segmenter.safetensors", encoder_decoder_of_a_domain, {"steps": 3})
    loaded = load_segmenter(tmp_path / "segmenter.safetensors")
    assert type(loaded.segmenter) is type(encoder_decoder_of_a_domain)
    assert loaded.segmenter.spec() == encoder_decoder_of_a_domain.spec()
    assert loaded.segmenter.labels == encoder_decoder_of_a_domain.labels
    assert loaded.provenance == {"steps": 3}
    assert not loaded.segmenter.training
    assert not any(weight.requires_grad for weight in loaded.segmenter.parameters())
    x, _ = images(encoder_decoder_of_a_domain, 1, 75, 53)
    torch.testing.assert_close(
        ask(loaded.segmenter, x), ask(encoder_decoder_of_a_domain, x), rtol=1e-5, atol=1e-6
    )


def test_a_loaded_segmenter_takes_raw_counts(encoder_decoder, tmp_path):
    save_segmenter(tmp_path / "segmenter.safetensors", encoder_decoder, {})
    loaded = load_segmenter(tmp_path / "segmenter.safetensors")
    raw = scan(2, 75, 53).numpy()
    found = loaded.probabilities(raw, 0.5, (2.4, 1.8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ask(encoder_decoder, torch.tensor(raw)[None] / 0.5)[0], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 64, 48), (2, 64, 48), (64, 48)])
def test_what_is_no_scan_is_refused(segmenter, shape):
    with pytest.raises(ValueError, match=r"scans must be \(B, 1 or 2 views, H, W\), not"):
        segmenter(torch.ones(shape), HALF, SPACING_MM)


def test_every_scan_has_an_exposure_and_a_spacing(segmenter):
    x = scan(2, 2, 64, 48)
    with pytest.raises(ValueError, match="an exposure and a spacing for each of 2"):
        segmenter(x, HALF, SPACING_MM.expand(2, 2))
    with pytest.raises(ValueError, match="an exposure and a spacing for each of 2"):
        segmenter(x, HALF.expand(2), SPACING_MM)


def test_every_segmenter_of_the_package_is_under_contract():
    for module in pkgutil.iter_modules(rbs.segmentation.__path__, "rbs.segmentation."):
        importlib.import_module(module.name)
    known, open_ = set(), [Segmenter]
    while open_:
        open_ += (found := open_.pop().__subclasses__())
        known |= set(found)
    known = {c for c in known if c.__module__.startswith("rbs.") and not c.__abstractmethods__}
    assert known == {type(build()) for build in FAMILIES.values()}
