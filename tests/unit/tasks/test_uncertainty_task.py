"""Training a head on a tiny cohort: what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from trainings import brief_trainer

from rbs.data.bone_scans import RBSDataModule
from rbs.errors import CheckpointError, ManifestError, RbsError
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.restorers.uncertainty import UncertaintyHead, load_uncertainty
from rbs.tasks.uncertainty import UncertaintyTask


@pytest.fixture(scope="module")
def f1(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("f1") / "mine.safetensors"
    save_restorer(path, NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,)), {})
    return path


def fit(task: UncertaintyTask, manifest: Path, folder: Path, pairs: str = "expectation") -> Trainer:
    data = RBSDataModule(
        manifest, pairs=pairs, crop=(128, 64), batch_size=2, samples_per_epoch=8, num_workers=0
    )
    # Its last checkpoint and its validation are part of what is tested.
    trainer = brief_trainer(folder, 4, enable_checkpointing=True, limit_val_batches=1.0)
    trainer.fit(task, data)
    return trainer


def test_the_head_is_written_bound_and_fitted_and_f1_stays(f1, tiny_cohort, tmp_path):
    before = f1.read_bytes()
    task = UncertaintyTask(UncertaintyHead(4, 6), f1, output=tmp_path)
    trainer = fit(task, tiny_cohort, tmp_path)
    assert f1.read_bytes() == before
    assert not [name for name in task.state_dict() if not name.startswith("head.")]
    assert torch.isfinite(trainer.callback_metrics["val/total"])
    found = load_uncertainty(load_restorer(f1), tmp_path / "mine_uncertainty.safetensors")
    assert found.provenance["steps"] == 4
    assert found.provenance["exposure"] == [0.25, 0.75]
    assert float(found.head.factor) == pytest.approx(found.provenance["factor"])
    assert found.head.factor != 1


@pytest.mark.parametrize(
    ("head", "pairs", "fault"),
    [
        (UncertaintyHead(4, 6), "split", "pairs: split has noisy targets"),
        (UncertaintyHead(24, 6), "expectation", "its features have 4 channels, not 24"),
    ],
)
def test_what_cannot_be_trained_is_refused(head, pairs, fault, f1, tiny_cohort, tmp_path):
    with pytest.raises(RbsError, match=fault):
        fit(UncertaintyTask(head, f1, output=tmp_path), tiny_cohort, tmp_path, pairs)
    assert not list(tmp_path.glob("*.safetensors"))


def test_training_goes_on_with_the_same_restorer_only(f1, tiny_cohort, tmp_path):
    task = UncertaintyTask(UncertaintyHead(4, 6), f1, output=tmp_path)
    trainer = fit(task, tiny_cohort, tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)  # plain data: it runs no code
    task.on_load_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match="other weights than NAFNet mine"):
        task.on_load_checkpoint({**checkpoint, "f1_sha256": "0" * 64})


def test_frames_have_no_known_errors(tmp_path):
    path = tmp_path / "colours.safetensors"
    net = NAFNet(width=4, enc_blocks=(1,), middle_blocks=1, dec_blocks=(1,), domain="colours")
    save_restorer(path, net, {})
    with pytest.raises(CheckpointError, match="it restores frames"):
        UncertaintyTask(UncertaintyHead(4, 6), path).setup("fit")


def test_validation_needs_the_truth(f1, make_cohort, tmp_path):
    manifest = make_cohort(tmp_path / "cohort", splits=("train", "val"))
    (tmp_path / "cohort" / "P0002" / "truth.npz").unlink()
    text = manifest.read_text().replace("P0002/truth.npz", "")
    manifest.write_text(text)
    with pytest.raises(ManifestError, match="patient P0002 has no known expectation"):
        fit(UncertaintyTask(UncertaintyHead(4, 6), f1, output=tmp_path), manifest, tmp_path)
