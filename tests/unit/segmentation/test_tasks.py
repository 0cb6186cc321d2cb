import csv
import json
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from segmenters import given
from torch.utils.data import DataLoader

from rbs.errors import RbsError
from rbs.segmentation.adapters import load_teacher
from rbs.segmentation.sam import ARCHITECTURES, build_sam
from rbs.synthetic.shapes import ShapesDataModule
from rbs.tasks.adapt_teacher import AdaptTeacher
from rbs.tasks.pretrain_teacher import PretrainTeacher


class Bars(lightning.LightningDataModule):
    """Scans of 128 x 32 pixels with a bright spine, as RBSDataModule hands them out."""

    def __init__(self, flipped=False):
        super().__init__()
        rng = np.random.default_rng(0)
        labels = np.zeros((2, 128, 32), np.int64)
        labels[:, 20:100, 12:20] = 2
        expected = np.where(labels == 2, 20.0, 1.0)
        rapid, target = rng.poisson(expected / 2), rng.poisson(expected)
        if flipped:
            rapid, target, labels, expected = (a[:, ::-1].copy() for a in (rapid, target, labels, expected))
        self.sample = {
            "rapid": torch.tensor(rapid, dtype=torch.float32),
            "target": torch.tensor(target, dtype=torch.float32),
            "expectation": torch.tensor(expected, dtype=torch.float32),
            "labels": torch.tensor(labels),
            "exposure": torch.tensor(0.5),
            "target_exposure": torch.tensor(1.0),
            "flip": torch.tensor([False, flipped]),
            "patient": "P1",
            "case": torch.tensor(0),
            "crop": torch.tensor([0, 0, 128, 32]),
        }

    def train_dataloader(self):
        return DataLoader([self.sample] * 4, batch_size=2)

    def val_dataloader(self):
        return DataLoader([self.sample], batch_size=1)


def fit(task, data, tmp_path, epochs=1, keep=False, ckpt_path=None):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=keep,
        default_root_dir=tmp_path,
        callbacks=[
            EMAWeightAveraging(decay=0.5),
            *([ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)] if keep else []),
        ],
    )
    trainer.fit(task, data, ckpt_path=ckpt_path)
    return trainer


def test_the_constructor_reads_nothing(monkeypatch):
    def refuse(*args):
        raise AssertionError("weights were read")

    monkeypatch.setattr("rbs.tasks.adapt_teacher.build_sam", refuse)
    AdaptTeacher(checkpoint=Path("none.safetensors"))


@pytest.mark.parametrize("mode", ["decoder", "lora", "full"])
def test_adapting_writes_a_teacher_and_its_dice(base, tmp_path, mode):
    torch.manual_seed(0)
    task = AdaptTeacher(mode, rank=2, checkpoint=base, warmup_steps=1, decoder_steps=2, output=tmp_path)
    fit(task, Bars(), tmp_path)
    teacher = load_teacher(tmp_path / ("teacher" if mode == "lora" else f"teacher_{mode}"), base)
    with torch.no_grad():
        counts = torch.rand(1, 1, 64, 32) * 9
        # The averaged weights are both what is written, in half precision, and what is left in the
        # module. The averaged weights are both what is written, in half precision, and what is left
        # in the module.
        assert torch.allclose(teacher(*given(counts)), task.teacher.eval()(*given(counts)), atol=1e-3)
    with (tmp_path / "dice.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [mode, "base"] if mode == "lora" else [mode]
    levels = ("rapid", "standard")
    assert [(row["mode"], row["level"]) for row in rows] == [(m, level) for m in wanted for level in levels]
    assert all(row["spine"] != "" and row["skull"] == "" for row in rows)


def test_adapting_learns(tmp_path):
    torch.manual_seed(0)
    trainer = fit(AdaptTeacher(lr=2e-3, warmup_steps=5, decoder_steps=60), Bars(), tmp_path, epochs=5)
    assert trainer.callback_metrics["val_dice_rapid"] > 0.8


def test_a_checkpoint_leaves_sam_out_and_resumes_to_the_same_teacher(base, tmp_path):
    def adapt(ckpt_path=None):
        lightning.seed_everything(0, verbose=False)
        task = AdaptTeacher(rank=2, checkpoint=base, warmup_steps=1, decoder_steps=2)
        fit(task, Bars(), tmp_path, epochs=2, keep=ckpt_path is None, ckpt_path=ckpt_path)
        return task

    through = adapt()
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert any("lora_A" in name for name in checkpoint[part])
        assert not any(
            name.endswith("mlp.lin1.weight") and "image_encoder" in name for name in checkpoint[part]
        )
    resumed = adapt(tmp_path / "epoch=0.ckpt")
    # Not to the last bit: which noise level a scan shows is drawn anew.
    for name, tensor in through.state_dict().items():
        if "lora_" not in name and "mask_decoder" not in name and "no_mask" not in name:
            assert torch.equal(tensor, resumed.state_dict()[name])
    assert resumed.trainer.global_step == 4
    assert torch.equal(resumed.objective.pixels, through.objective.pixels)


def test_scans_without_labels_are_refused(base, tmp_path):
    data = Bars()
    del data.sample["labels"]
    with pytest.raises(
        RbsError,
        match=r"label file is missing \(near patient P1, P1\); label the scans, or train",
    ):
        fit(AdaptTeacher(checkpoint=base, decoder_steps=1), data, tmp_path)


def test_up_down_flips_are_undone(base, monkeypatch):
    seen = []
    task = AdaptTeacher(checkpoint=base)
    monkeypatch.setattr(task, "log", lambda *args, **kwargs: None)
    task.objective.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    for flipped in (False, True):
        task.training_step(next(iter(Bars(flipped).train_dataloader())), 0)
    assert torch.equal(*seen)


def test_pretraining_writes_weights_that_load_and_their_card(tmp_path):
    torch.manual_seed(0)
    output = tmp_path / "sam_vit_t.safetensors"
    task = PretrainTeacher(warmup_steps=1, output=tmp_path)
    data = ShapesDataModule(batch_size=2, samples_per_epoch=4, validation_batches=1, num_workers=0)
    trainer = fit(task, data, tmp_path)
    sam = build_sam("vit_t", output)
    fresh = ARCHITECTURES["vit_t"].build().state_dict()
    for name, tensor in task.sam.state_dict().items():
        assert torch.equal(sam.state_dict()[name], tensor.half().float())
        assert tensor.shape == fresh[name].shape
    card = json.loads(output.with_suffix(".json").read_text())
    assert card["steps"] == 2
    assert card["metrics"]["val_dice_box"] == pytest.approx(
        float(trainer.callback_metrics["val_dice_box"]), abs=1e-3
    )
