"""The loss of segmenters."""

import pytest
import torch

from rbs.segmentation.objective import DiceCrossEntropy


def test_rare_classes_weigh_more_by_the_inverse_root_of_their_share():
    loss = DiceCrossEntropy(3)
    labels = torch.zeros(1, 10, 100, dtype=torch.int64)
    labels[0, 0, :90], labels[0, 0, 90:] = 1, 2
    loss(torch.zeros(1, 3, 10, 100), labels)
    weights, shares = loss.weights(), torch.tensor([0.9, 0.09, 0.01], dtype=torch.float64)
    assert (weights * shares).sum().item() == pytest.approx(1)
    assert (weights[2] / weights[0]).item() == pytest.approx(((0.01 + 1e-4) / (0.9 + 1e-4)) ** -0.5)


def test_it_vanishes_for_certain_true_answers_and_not_for_others():
    loss = DiceCrossEntropy(3)
    labels = torch.randint(3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    certain = 50.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    assert loss(certain, labels).item() == pytest.approx(0, abs=1e-3)
    assert loss(certain.roll(1, dims=1), labels) > 1


def test_shares_are_learned_in_training_alone():
    loss = DiceCrossEntropy(2)
    labels = torch.ones(1, 4, 4, dtype=torch.int64)
    loss.eval()
    loss(torch.zeros(1, 2, 4, 4), labels)
    assert loss.pixels.sum() == 0
