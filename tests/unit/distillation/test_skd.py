import numpy as np
import pytest
import torch

from rbs.distillation.skd import SKD

I1, I2 = torch.rand(2, 2, 8, 8) * 5, torch.rand(2, 2, 8, 8) * 5
F1, F2 = torch.randn(2, 4, 8, 8), torch.randn(2, 6, 8, 8)


def test_it_is_zero_between_equals():
    assert SKD(4, 4)(I1, I1, F1, F1).item() == pytest.approx(0, abs=1e-6)


def test_half_precision_features_that_hardly_differ_are_told_apart():
    near = F1 + 1e-3 * torch.randn(F1.shape)
    with torch.autocast("cpu", torch.bfloat16):
        loss = SKD(4, 4)(I1, I1, F1, near)
    assert loss.item() == pytest.approx(SKD(4, 4)(I1, I1, F1, near).item(), rel=1e-5)


def test_closed_form():
    i1, i2 = torch.full((1, 1, 2, 2), 15.625), torch.full((1, 1, 2, 2), 8.625)
    f1, f2 = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    f1[:, 0] = 3.0
    f2[:, :2] = 7.0
    expected = (4.0 - 3.0) + (1 - np.cos(np.pi / 4))
    assert SKD(4, 4)(i1, i2, f1, f2).item() == pytest.approx(expected, rel=1e-6)


def test_the_length_of_features_does_not_matter():
    assert SKD(4, 4)(I1, I1, F1, 10 * F1).item() == pytest.approx(0, abs=1e-6)


def test_only_the_student_is_moved():
    i1, i2, f1, f2 = (t.clone().requires_grad_() for t in (I1, I2, F1, F2))
    SKD(4, 6)(i1, i2, f1, f2).backward()
    assert i1.grad.abs().sum() > 0
    assert f1.grad.abs().sum() > 0
    assert i2.grad is None
    assert f2.grad is None


def test_a_bright_bladder_does_not_outweigh_noise_of_the_same_size_in_the_skeleton():
    """An error of one standard deviation costs about the same at 5 as at 500 counts."""
    skd, cost = SKD(4, 4), []
    for mean in (5.0, 500.0):
        counts = torch.full((1, 1, 2, 2), mean)
        cost.append(skd(counts + mean**0.5, counts, F1, F1).item())
    assert cost[0] == pytest.approx(cost[1], rel=0.15)


def test_colours_are_compared_as_they_are():
    i1, i2 = torch.rand(2, 1, 3, 8, 8)
    assert SKD(4, 4, "colours")(i1, i2, F1[:1], F1[:1]).item() == pytest.approx(
        (i1 - i2).abs().mean().item(), rel=1e-5
    )
