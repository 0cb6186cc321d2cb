"""The teacher and the stage 1 of cascades."""

import pytest
import torch
from small_cohort import FakeTeacher, net

from rbs.restorers.checkpoint import save_restorer
from rbs.segmentation.checkpoint import LoadedSegmenter


@pytest.fixture
def teacher(monkeypatch):
    fake = FakeTeacher()
    loaded = LoadedSegmenter(fake, "fake", "", "fake")
    monkeypatch.setattr("rbs.tasks.priors.load_segmenter", lambda path, checkpoint: loaded)
    return fake


@pytest.fixture
def stage1(tmp_path):
    torch.manual_seed(5)
    restorer = net()
    torch.nn.init.normal_(restorer.head.weight, std=0.02)
    save_restorer(tmp_path / "stage1.safetensors", restorer, {})
    return tmp_path / "stage1.safetensors"
