import pytest
import torch

from rbs.distillation.spi import SPI
from rbs.restorers.image_domain import DOMAINS
from rbs.segmentation.prior import SemanticPrior

SIZE = (32, 16)


def prior(views=2, regions=9, mask_stride=2):
    torch.manual_seed(1)
    cells = [side // mask_stride for side in SIZE]
    return SemanticPrior(
        torch.randn(2, views, 6, 4, 2), torch.rand(2, views, regions, *cells) / 9, 8, mask_stride
    )


def test_every_region_of_every_view_is_a_channel_at_full_resolution():
    labels = torch.randint(0, 10, (2, 2, *SIZE))
    condition = SPI(0)(SemanticPrior.of_labels(labels, DOMAINS["roots"]), SIZE)
    assert condition.shape == (2, SPI(0).channels, *SIZE) == (2, 18, *SIZE)
    for view in range(2):
        for region in range(9):
            assert torch.equal(condition[:, 9 * view + region], (labels[:, view] == region + 1).float())


def test_the_embedding_adds_channels_and_0_leaves_it_out():
    spi, given = SPI(6, width=4), prior()
    condition = spi(given, SIZE)
    assert spi.channels == condition.shape[1] == 2 * (9 + 4)
    assert SPI(0).channels == 18
    other = SemanticPrior(given.embedding.flip(0), given.masks, 8, 2)
    assert not torch.allclose(condition, spi(other, SIZE))
    assert torch.equal(SPI(0)(given, SIZE), SPI(0)(other, SIZE))


def test_a_prior_acts_where_it_lies():
    spi, given = SPI(6), prior()
    embedding, masks = given.embedding.clone(), given.masks.clone()
    embedding[..., 0, 0] += 5
    masks[..., 0, 0] += 5
    difference = (spi(given, SIZE) - spi(SemanticPrior(embedding, masks, 8, 2), SIZE)).abs().amax(dim=1)
    assert (difference[:, :2, :2] > 0).all()
    assert difference[:, 16:].max() == 0


def test_cells_that_overhang_the_image_are_cut():
    assert SPI(6)(prior(), (29, 13)).shape[2:] == (29, 13)


def test_one_view_is_given_twice():
    spi, given = SPI(6), prior(views=1)
    twice = SemanticPrior(
        given.embedding.expand(-1, 2, -1, -1, -1), given.masks.expand(-1, 2, -1, -1, -1), 8, 2
    )
    assert torch.equal(spi(given, SIZE), spi(twice, SIZE))


def test_a_frame_is_one_view():
    spi = SPI(6, domain="colours")
    assert spi(prior(views=1, regions=1), SIZE).shape[1] == spi.channels == 1 + 8


def test_gradients_reach_every_parameter():
    spi = SPI(6)
    spi(prior(), SIZE).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in spi.parameters())


@pytest.mark.parametrize("stride", [1, 4])
def test_masks_of_other_cells_are_laid_on_the_pixels(stride):
    given = prior(mask_stride=stride)
    condition = SPI(0)(given, SIZE)
    whole = torch.nn.functional.avg_pool2d(condition, stride)
    inner = slice(1, -1)  # interpolation beyond the border repeats the last cell
    flat = given.masks.flatten(1, 2)
    if stride == 1:
        assert torch.equal(whole, flat)
    else:
        error = (whole - flat)[..., inner, inner].abs().mean()
        assert error < flat.std()
