import pytest
import torch
from segmenters import given

from rbs.restorers.image_domain import DOMAINS
from rbs.segmentation.prior import SemanticPrior
from rbs.segmentation.sam import build_sam
from rbs.segmentation.teacher import Teacher, encode_window, picture_of


@pytest.fixture
def teacher(base):
    return Teacher("vit_t", build_sam("vit_t", base)).eval().requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(512, 128), (256, 128), (250, 90), (40, 30)])
def test_prior_lies_on_the_scan(teacher, height, width):
    prior = teacher.prior(*given(torch.rand(2, 2, height, width) * 9))
    assert prior.embedding.shape == (2, 2, teacher.embedding_dim, -(-height // 16), -(-width // 16))
    assert prior.masks.shape[:3] == (2, 2, 9)
    assert prior.masks.shape[-2] * prior.mask_stride >= height
    assert prior.masks.shape[-1] * prior.mask_stride >= width
    assert prior.masks.min() >= 0
    assert prior.masks.sum(dim=2).max() <= 1 + 1e-5


def test_whole_scans_go_through_sams_own_encoder(teacher, base):
    """A packed 1024 x 256 scan is SAM's input exactly: its encoder, untouched, says the same."""
    counts = torch.rand(1, 1, 1024, 256) * 9
    packed = torch.cat([counts[0, :, :512], counts[0, :, 512:]], dim=2)[None]
    sam = build_sam("vit_t", base)
    expected = sam.image_encoder(picture_of(packed, sam.pixel_mean, sam.pixel_std))
    prior = teacher.prior(*given(counts))
    assert torch.allclose(prior.embedding[0, 0, :, :32], expected[0, :, :, :16], atol=1e-5)
    assert torch.allclose(prior.embedding[0, 0, :, 32:], expected[0, :, :, 16:], atol=1e-5)


def test_views_and_samples_do_not_see_each_other(teacher, counts):
    other = torch.rand(2, 2, 512, 128) * 9
    together = teacher.prior(*given(torch.cat([other, counts])))
    alone = teacher.prior(*given(counts))
    assert torch.allclose(together.masks[2:], alone.masks, atol=1e-5)
    swapped = teacher.prior(*given(counts.flip(1)))
    assert torch.allclose(swapped.embedding.flip(1), alone.embedding, atol=1e-4)


def test_encode_passes_gradients_to_the_counts_only(teacher):
    counts = (torch.rand(1, 2, 64, 48) * 9).requires_grad_()
    features = teacher.embed(*given(counts))
    (features * torch.randn_like(features)).sum().backward()
    assert counts.grad is not None
    assert torch.isfinite(counts.grad).all()
    assert (counts.grad != 0).float().mean() > 0.9
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_gradient_is_finite_where_there_are_no_counts(teacher):
    counts = torch.zeros(1, 1, 32, 32, requires_grad=True)
    teacher.embed(*given(counts)).square().sum().backward()
    assert torch.isfinite(counts.grad).all()


def test_a_window_takes_its_own_positions(base):
    sam = build_sam("vit_t", base)
    picture = torch.rand(1, 3, 128, 128)
    here, there = encode_window(sam.image_encoder, picture), encode_window(sam.image_encoder, picture, 8, 16)
    assert not torch.allclose(here, there, atol=1e-3)


def test_crops_of_the_prior():
    grid = torch.arange(8.0 * 4).reshape(1, 1, 1, 8, 4)
    prior = SemanticPrior(grid, grid.repeat_interleave(8, -1).repeat_interleave(8, -2), 16, 2)
    crop = prior.crop(32, 16, 48, 32)
    assert torch.equal(crop.embedding, grid[..., 2:5, 1:3])
    assert torch.equal(crop.masks, prior.masks[..., 16:40, 8:24])
    assert torch.equal(crop.flip(True, False).embedding, grid[..., 2:5, 1:3].flip(-1))
    with pytest.raises(ValueError, match="grid"):
        prior.crop(8, 0, 16, 16)


def test_true_masks_are_the_labels_pixel_by_pixel():
    labels = torch.randint(0, 10, (1, 2, 39, 30))
    prior = SemanticPrior.of_labels(labels, DOMAINS["roots"])
    assert torch.equal(prior.masks, torch.stack([labels == k + 1 for k in range(9)], dim=2).float())
    assert prior.mask_stride == 1
    assert prior.embedding.numel() == 0


def test_what_files_keep_differs_by_less_than_half_a_255th(teacher):
    prior = teacher.prior(*given(torch.rand(1, 2, 40, 30) * 9))
    again = prior.rounded().decoded()
    assert (again.masks - prior.masks).abs().max() <= 0.5 / 255 + 1e-6
    torch.testing.assert_close(again.embedding, prior.embedding, rtol=1e-3, atol=1e-3)
    assert again.mask_stride == prior.mask_stride
