import pytest
import torch

from rbs.distillation.spi import SPI
from rbs.segmentation.prior import SemanticPrior


def prior(embedding=None, height=32, width=16):
    torch.manual_seed(1)
    h, w = -(-height // 8), -(-width // 8)
    drawn = torch.randn(2, 2, 6, h, w)
    embedding = drawn if embedding is None else embedding
    return SemanticPrior(embedding, torch.rand(2, 2, 9, 4 * h, 4 * w) / 9, 8, 2)


@pytest.fixture
def spi():
    torch.manual_seed(0)
    module = SPI(6, width=8)
    torch.nn.init.normal_(module.out[1].weight, std=0.1)
    return module


COUNTS = torch.rand(2, 2, 32, 16) * 9


def test_it_starts_as_the_identity():
    torch.testing.assert_close(SPI(6)(COUNTS, prior()), COUNTS, atol=1e-5, rtol=1e-5)


def test_both_embedding_and_masks_matter(spi):
    out, other = spi(COUNTS, prior()), prior()
    assert not torch.allclose(out, spi(COUNTS, prior(embedding=0 * other.embedding)))
    blank = SemanticPrior(other.embedding, 0 * other.masks, 8, 2)
    assert not torch.allclose(out, spi(COUNTS, blank))


def test_views_are_treated_alike(spi):
    p = prior()
    swapped = SemanticPrior(p.embedding.flip(1), p.masks.flip(1), 8, 2)
    torch.testing.assert_close(spi(COUNTS.flip(1), swapped), spi(COUNTS, p).flip(1))


def test_a_prior_acts_where_it_lies(spi):
    p = prior()
    changed = p.embedding.clone()
    changed[..., 0, 0] += 5
    difference = (spi(COUNTS, p) - spi(COUNTS, prior(embedding=changed))).abs()
    assert difference[..., :8, :8].mean() > 0
    assert difference[..., 16:, :].max() == 0


def test_sizes_off_the_grid_and_zero_counts_keep_it_finite_and_non_negative(spi):
    counts = torch.zeros(2, 2, 29, 13, requires_grad=True)
    out = spi(counts, prior(height=29, width=13))
    out.sum().backward()
    assert out.shape == counts.shape
    assert (out >= 0).all()
    assert torch.isfinite(counts.grad).all()


def test_gradients_reach_every_parameter(spi):
    spi(COUNTS, prior()).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in spi.parameters())


# --- a frame is one view of three colours


def colour_spi(std=0.1):
    torch.manual_seed(0)
    module = SPI(6, width=8, domain="colours")
    torch.nn.init.normal_(module.out[1].weight, std=std)
    return module


def lesion_prior():
    torch.manual_seed(1)
    return SemanticPrior(torch.randn(2, 1, 6, 4, 2), torch.rand(2, 1, 1, 16, 8), 8, 2)


FRAMES = torch.rand(2, 3, 32, 16)


def test_frames_start_as_themselves_and_stay_within_0_and_1():
    assert torch.equal(colour_spi(std=0.0)(FRAMES, lesion_prior()), FRAMES)
    out = colour_spi(std=1.0)(FRAMES, lesion_prior())
    assert out.shape == FRAMES.shape
    assert out.min() == 0
    assert out.max() == 1


def test_each_colour_depends_on_every_other():
    x = FRAMES.clone().requires_grad_()
    colour_spi()(x, lesion_prior())[:, 0].sum().backward()
    assert (x.grad.abs().amax(dim=(0, 2, 3)) > 0).all()


def test_the_lesion_mask_acts_where_it_lies():
    prior = lesion_prior()
    masks = prior.masks.clone()
    masks[..., :4, :4] = 1 - masks[..., :4, :4]
    changed = SemanticPrior(prior.embedding, masks, 8, 2)
    difference = (colour_spi()(FRAMES, prior) - colour_spi()(FRAMES, changed)).abs()
    assert difference[..., :8, :8].mean() > 0
    assert difference[..., 16:, :].max() == 0


def test_gradients_reach_every_parameter_from_frames():
    spi = colour_spi()
    spi(FRAMES, lesion_prior()).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in spi.parameters())
