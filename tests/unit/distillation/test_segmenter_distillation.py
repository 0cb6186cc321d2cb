"""What a teacher of regions asks of its student."""

import pytest
import torch

from rbs.distillation.segmenter import feature_distance, output_divergence


def random_logits(seed):
    return torch.randn(2, 2, 4, 6, 5, generator=torch.Generator().manual_seed(seed))


def test_equal_logits_are_no_divergence_and_others_are():
    logits = random_logits(0)
    assert output_divergence(logits, logits, 2.0).item() == pytest.approx(0, abs=1e-6)
    # The softmax does not know a constant that is added to all logits of a pixel.
    assert output_divergence(logits + 3, logits, 2.0).item() == pytest.approx(0, abs=1e-5)
    assert output_divergence(random_logits(1), logits, 2.0) > 0.1


def test_the_divergence_of_two_pixels_by_hand():
    """One pixel of each class: both are as rare, so the weights are equal."""
    teacher = torch.tensor([[4.0, 0.0], [0.0, 4.0]])[None, None, :, None]  # (1, 1, 2, 1, 2)
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])[None, None, :, None]
    q, s = (logits[0, 0, :, 0].div(2).softmax(dim=0) for logits in (teacher, student))
    wanted = 4 * (q * (q / s).log()).sum(dim=0).mean()
    assert output_divergence(student, teacher, 2.0).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_rare_region_counts_more_than_a_common_one():
    teacher = torch.zeros(1, 1, 2, 10, 10)
    teacher[:, :, 0] = 8.0
    teacher[..., 0, 0] = torch.tensor([0.0, 8.0])
    wrong_there, wrong_elsewhere = teacher.clone(), teacher.clone()
    wrong_there[..., 0, 0] = torch.tensor([8.0, 0.0])
    wrong_elsewhere[..., 5, 5] = torch.tensor([0.0, 8.0])
    there, elsewhere = (output_divergence(s, teacher, 1.0) for s in (wrong_there, wrong_elsewhere))
    assert there > 3 * elsewhere


def test_gradients_reach_the_student_alone():
    student, teacher = (random_logits(n).requires_grad_() for n in (0, 1))
    output_divergence(student, teacher, 2.0).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    maps = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randn(1, 3, 8, 8, requires_grad=True)
    feature_distance(*maps).backward()
    assert maps[0].grad.abs().sum() > 0
    assert maps[1].grad is None


def test_features_are_compared_by_their_pattern():
    maps = torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    assert feature_distance(5 * maps + 2, maps).item() == pytest.approx(0, abs=1e-4)
    assert feature_distance(-maps, maps).item() == pytest.approx(2, abs=1e-3)
    other = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    big = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    assert feature_distance(other, big).item() == pytest.approx(1, abs=0.05)
