import numpy as np
import pytest
import torch

from rbs.distillation.scm import SCM

torch.manual_seed(0)
F1, F2 = torch.randn(1, 2, 5, 4, 6), torch.randn(1, 2, 5, 4, 6)
MASKS = torch.rand(1, 2, 3, 16, 24)


def test_it_is_zero_between_equals():
    assert SCM()(F1, F1, MASKS).item() == pytest.approx(0, abs=1e-6)


def test_it_agrees_with_the_formula_in_numpy():
    total, pairs, count = 0.0, 0.0, 0
    for view in range(2):
        masks = MASKS[0, view].numpy().reshape(3, 4, 4, 6, 4).mean(axis=(2, 4))
        prototypes = []
        for features in (F1, F2):
            f = features[0, view].numpy()
            p = np.array([(f * m).sum(axis=(1, 2)) / m.sum() for m in masks])
            prototypes.append(p / np.linalg.norm(p, axis=1, keepdims=True))
        p1, p2 = prototypes
        total += (1 - (p1 * p2).sum(axis=1)).sum()
        pairs += ((p1 @ p1.T - p2 @ p2.T) ** 2).sum()
        count += 3
    assert SCM()(F1, F2, MASKS).item() == pytest.approx(total / count + pairs / (3 * count), rel=1e-4)


def test_absent_regions_are_left_out():
    masks = MASKS.clone()
    masks[:, :, 2] = 1e-3
    assert SCM()(F1, F2, masks).item() == pytest.approx(SCM()(F1, F2, masks[:, :, :2]).item(), rel=1e-5)
    assert SCM()(F1, F2, masks).item() != pytest.approx(SCM(least_mass=0)(F1, F2, masks).item(), rel=1e-3)


def test_without_any_region_it_is_zero_and_still_differentiable():
    f1 = F1.clone().requires_grad_()
    loss = SCM()(f1, F2, torch.zeros_like(MASKS))
    loss.backward()
    assert loss == 0
    assert torch.isfinite(f1.grad).all()


def test_what_happens_outside_the_regions_does_not_matter():
    masks = torch.zeros(1, 2, 1, 4, 6)
    masks[..., :2, :] = 1
    changed = F1.clone()
    changed[..., 2:, :] += 7
    assert SCM()(changed, F2, masks).item() == pytest.approx(SCM()(F1, F2, masks).item(), rel=1e-6)


def test_only_the_first_restoration_is_moved():
    f1, f2 = F1.clone().requires_grad_(), F2.clone().requires_grad_()
    SCM()(f1, f2, MASKS).backward()
    assert f1.grad.abs().sum() > 0
    assert f2.grad is None
