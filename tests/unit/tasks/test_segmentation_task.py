"""Training of segmenters from labels."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from trainings import brief_trainer

from rbs.data.labelled_scans import LabelledScansDataModule
from rbs.errors import CheckpointError, RbsError
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.tasks.distil_segmenter import DistilSegmenter
from rbs.tasks.one_label import OneLabelTask
from rbs.tasks.segmentation import SegmentationTask


def network():
    return DynUNet([4, 4, 6, 8])


@pytest.fixture
def unlabelled():
    """A batch of one scan that nobody labelled."""
    return {
        "rapid": torch.ones(1, 2, 32, 32),
        "exposure": torch.tensor([0.5]),
        "spacing_mm": torch.tensor([[4.5, 4.5]]),
        "patient": ["P7"],
        "case": torch.tensor([0]),
    }


@pytest.mark.parametrize("task", [SegmentationTask, OneLabelTask, DistilSegmenter])
def test_a_scan_without_labels_is_named(task, unlabelled):
    training = task(network())
    if isinstance(training, DistilSegmenter):
        training._outside["teacher"] = network()
    with pytest.raises(RbsError, match=r"a truth or label file is missing \(near patient P7\); label the"):
        training.losses(unlabelled)


def test_validation_passes_over_scans_without_labels(unlabelled):
    task = SegmentationTask(network())
    task.validation_step(unlabelled, 0)
    assert not task._tally.counted
    task.validation_step(unlabelled | {"labels": torch.ones(1, 2, 32, 32, dtype=torch.int64)}, 0)
    assert task._tally.counted


def test_it_says_what_it_started_from_and_goes_on_from_nothing_else(tiny_cohort, tmp_path):
    def fit(weights, folder, steps, ckpt_path=None):
        save_segmenter(tmp_path / "first.safetensors", weights, {})
        task = SegmentationTask(network(), init_from=tmp_path / "first.safetensors", output=folder)
        data = LabelledScansDataModule(
            tiny_cohort, crop=(64, 32), batch_size=1, samples_per_epoch=2, num_workers=0
        )
        last = ModelCheckpoint(folder, filename="last")
        trainer = brief_trainer(folder, steps, enable_checkpointing=True, callbacks=[last])
        trainer.fit(task, data, ckpt_path=ckpt_path)
        return load_segmenter(tmp_path / "first.safetensors").sha256

    torch.manual_seed(0)
    sha256 = fit(network(), tmp_path / "one", 1)
    assert load_segmenter(tmp_path / "one" / "segmenter.safetensors").provenance["init_from"] == sha256
    with pytest.raises(CheckpointError, match="it was trained with init_from"):
        fit(network(), tmp_path / "two", 2, tmp_path / "one" / "last.ckpt")
