"""The hint of an image reconstruction teacher."""

import pytest
import torch

from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.reconstruction import ReconstructionTeacher, hint


@pytest.fixture
def student():
    torch.manual_seed(0)
    return DynUNet(filters=(4, 4, 4, 4), patch=2)


def scans():
    counts = torch.poisson(torch.full((1, 2, 32, 32), 4.0), generator=torch.Generator().manual_seed(0))
    return counts / 0.5, torch.tensor([0.5]), torch.tensor([[4.5, 4.5]])


def test_the_hint_teaches_the_student_and_not_the_teacher(student):
    """A public version of the method detaches the student, which then learns nothing from it."""
    teacher = ReconstructionTeacher(student)
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    _, guide = teacher(*scans())
    _, features = student.logits_with_features(*scans())
    hint(features, guide).backward()
    learned = [weight.grad for weight in student.backbone.upsamples.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in learned)
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_hint_is_the_disagreement_of_the_last_two_levels():
    levels = [torch.randn(2, 3, size, size) for size in (2, 4, 8)]
    assert float(hint(levels, levels)) == pytest.approx(0, abs=1e-5)
    assert float(hint(levels, [-level for level in levels])) == pytest.approx(4, abs=1e-5)
    # Its size does not matter, and neither does the level before the last two.
    other = [torch.randn(2, 3, 2, 2), 5 * levels[1], 0.1 * levels[2]]
    assert float(hint(levels, other)) == pytest.approx(0, abs=1e-5)


def test_the_teacher_learns_to_reconstruct_what_it_does_not_see(student):
    teacher = ReconstructionTeacher(student)
    optimiser = torch.optim.Adam([w for w in teacher.parameters() if w.requires_grad], 0.02)
    losses = []
    for _ in range(40):
        loss, features = teacher(*scans())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert [f.shape for f in features] == [f.shape for f in student.logits_with_features(*scans())[1]]
    # Roots of Poisson counts have a variance of 1/4 about what can be known.
    assert losses[-1] < 0.5 < losses[0]
    # None of its weights goes unused, which would stop a distributed training.
    assert all(w.grad is not None for w in teacher.parameters() if w.requires_grad)
