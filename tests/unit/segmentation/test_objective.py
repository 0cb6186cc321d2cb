"""The loss of segmenters."""

import pytest
import torch
from monai.losses import SoftclDiceLoss

from rbs.errors import RbsError
from rbs.segmentation.objective import DiceCrossEntropy, centreline_loss
from rbs.segmentation.wavelet_mamba import TopoWMamba
from rbs.tasks.segmentation import SegmentationTask


def test_rare_classes_weigh_more_by_the_inverse_root_of_their_share():
    loss = DiceCrossEntropy(3)
    labels = torch.zeros(1, 10, 100, dtype=torch.int64)
    labels[0, 0, :90], labels[0, 0, 90:] = 1, 2
    loss(torch.zeros(1, 3, 10, 100), labels)
    weights, shares = loss.weights(), torch.tensor([0.9, 0.09, 0.01])
    assert (weights * shares).sum().item() == pytest.approx(1)
    assert (weights[2] / weights[0]).item() == pytest.approx(((0.01 + 1e-4) / (0.9 + 1e-4)) ** -0.5)


def test_its_buffers_are_of_a_precision_that_every_accelerator_has():
    assert {buffer.dtype for buffer in DiceCrossEntropy(3).buffers()} == {torch.float32}


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


def bars(gap=0):
    """Logits of three classes, sure of bars of class 1 with a gap; labels without it."""
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[:, 8:11, 4:28] = 1
    labels[:, 20:26, 4:28] = 2
    found = labels.clone()
    found[:, :, 16 : 16 + gap][found[:, :, 16 : 16 + gap] == 1] = 0
    logits = 8 * torch.nn.functional.one_hot(found, 3).permute(0, 3, 1, 2).float()
    return logits.requires_grad_(), labels


def test_the_centreline_loss_of_a_region_is_that_of_monai():
    torch.manual_seed(0)
    found = torch.rand(3, 1, 24, 20)
    there = (torch.rand(3, 1, 24, 20) > 0.6).float()
    theirs = SoftclDiceLoss(iter_=3, smooth=1e-9)
    # A region is counted over all images, which MONAI counts for each.
    expected = theirs(found.transpose(0, 1), there.transpose(0, 1))
    torch.testing.assert_close(centreline_loss(found, there), expected)
    both = torch.cat([found, found.flip(3)], dim=1), torch.cat([there, there.flip(2)], dim=1)
    second = theirs(both[0][:, 1:].transpose(0, 1), both[1][:, 1:].transpose(0, 1))
    torch.testing.assert_close(centreline_loss(*both), (expected + second) / 2)


def test_it_is_nearly_nothing_for_the_truth_and_for_what_is_neither_found_nor_there():
    _, labels = bars()
    there = torch.stack([labels == 1, labels == 2, labels == 3], dim=1).float()
    assert centreline_loss(there, there).item() == pytest.approx(0, abs=1e-6)


def test_a_gap_in_a_thin_region_costs_more_with_cldice():
    plain, with_lines = DiceCrossEntropy(3), DiceCrossEntropy(3, 0.5, [1])
    cost = {}
    for gap in (0, 3):
        logits, labels = bars(gap)
        cost[gap] = with_lines.eval()(logits, labels) - plain.eval()(logits, labels)
    assert cost[0] < 0.01
    assert cost[3] > 0.01
    logits, labels = bars(3)
    with_lines(logits, labels).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[:, 1, 8:11, 16:19].abs().min() > 0


def test_only_the_thin_regions_are_asked_for_their_lines():
    logits, labels = bars(3)
    broad = DiceCrossEntropy(3, 0.5, [2])
    plain = DiceCrossEntropy(3).eval()(logits, labels)
    assert broad.eval()(logits, labels).item() == pytest.approx(plain.item(), abs=0.01)


@pytest.mark.parametrize(("thin", "named"), [((), "of no name"), (("thorax", "ribs"), "thorax, ribs")])
def test_a_task_refuses_regions_it_does_not_know(thin, named):
    with pytest.raises(RbsError, match=f"{named}; set `thin` to some of skull, spine"):
        SegmentationTask(TopoWMamba(filters=[4, 4, 4, 4]), cldice_weight=0.5, thin=thin)


def test_a_task_passes_the_regions_on_by_their_labels():
    task = SegmentationTask(TopoWMamba(filters=[4, 4, 4, 4]), cldice_weight=0.5)
    assert task.objective.thin == [3, 5, 6, 7]
    assert SegmentationTask(TopoWMamba(filters=[4] * 4, domain="colours")).objective.cldice_weight == 0
