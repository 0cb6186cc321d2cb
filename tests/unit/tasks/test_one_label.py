"""Training from one labelled scan."""

import pytest
import torch

from rbs.segmentation.dynunet import DynUNet
from rbs.tasks.one_label import OneLabelTask


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "rapid": torch.poisson(torch.full((1, 2, 32, 32), 4.0), generator=generator),
        "labels": torch.randint(0, 10, (1, 2, 32, 32), generator=generator),
        "exposure": torch.tensor([0.5]),
        "spacing_mm": torch.tensor([[4.5, 4.5]]),
    }


def test_the_loss_has_labels_reconstruction_and_hint(batch):
    torch.manual_seed(0)
    task = OneLabelTask(DynUNet(filters=(4, 4, 4, 4)))
    terms = task.losses(batch)
    assert set(terms) == {"labels", "reconstruction", "hint", "total"}
    parts = terms["labels"] + terms["reconstruction"] + terms["hint"]
    assert float(terms["total"]) == pytest.approx(float(parts), rel=1e-5)
    # Labels teach the student alone, reconstruction the teacher alone.
    terms["labels"].backward(retain_graph=True)
    assert all(weight.grad is None for weight in task.teacher.parameters())
    task.zero_grad()
    terms["reconstruction"].backward()
    assert all(weight.grad is None for weight in task.segmenter.parameters())


def test_without_the_hint_there_is_no_teacher(batch):
    task = OneLabelTask(DynUNet(filters=(4, 4, 4, 4)), hinted=False)
    assert task.teacher is None
    assert set(task.losses(batch)) == {"labels", "total"}
    assert task.hparams["hinted"] is False
