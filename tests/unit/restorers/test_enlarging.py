"""Pixels cut in four: the counts of each stay, and lie where its neighbours say."""

import pytest
import torch
import torch.nn.functional as F

from rbs.restorers.enlarging import cut_in_four


@pytest.mark.parametrize("mean", [0.05, 1.0, 300.0])
def test_the_four_hold_the_counts_of_the_pixel(mean):
    counts = torch.poisson(torch.full((2, 2, 9, 6), mean), generator=torch.Generator().manual_seed(1))
    cut = cut_in_four(counts)
    assert cut.shape == (2, 2, 18, 12)
    assert (cut >= 0).all()
    torch.testing.assert_close(4 * F.avg_pool2d(cut, 2), counts, atol=1e-5, rtol=1e-5)


def test_an_empty_pixel_stays_empty_beside_a_full_one():
    counts = torch.tensor([[[[0.0, 8.0]]]])
    cut = cut_in_four(counts)[0, 0]
    assert (cut[:, :2] == 0).all()
    # Bilinear 6 and 8 of the full one share its 8 counts.
    torch.testing.assert_close(cut[:, 2:], torch.tensor([[12 / 7, 16 / 7]] * 2))


def test_a_slope_goes_on_within_the_pixels():
    slope = torch.arange(1.0, 9.0).repeat(4, 1)[None, None]
    inner = cut_in_four(slope)[0, 0, 0, 1:-1]
    assert (inner.diff() > 0).all()
