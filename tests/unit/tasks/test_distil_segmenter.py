"""A segmenter is taught by another; pretrained weights are gone on from."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from trainings import brief_trainer

from rbs.data.labelled_scans import LabelledScansDataModule
from rbs.data.transfer_scans import TransferScansDataModule
from rbs.errors import CheckpointError, RbsError
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.tasks.distil_segmenter import DistilSegmenter
from rbs.tasks.pretrain_segmenter import MaskedAutoencoder
from rbs.tasks.segmentation import SegmentationTask

OPTIONS = {"crop": (128, 64), "batch_size": 2, "samples_per_epoch": 4, "num_workers": 0}


def student():
    torch.manual_seed(0)
    return DynUNet([4, 4, 6, 8])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_segmenter(path, DynUNet([8, 8, 8, 12]), {})
    return path


def task(teacher, **options):
    return DistilSegmenter(student(), teacher, **{"embedding_dim": 12, "warmup_steps": 0, **options})


def fit(task, data, folder, steps=2, ckpt_path=None, averaged=True):
    callbacks = [
        ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=1),
        *([EMAWeightAveraging(decay=0.5)] if averaged else []),
    ]
    trainer = brief_trainer(folder, steps, enable_checkpointing=True, callbacks=callbacks)
    trainer.fit(task, data, ckpt_path=ckpt_path)
    return trainer


def both(manifest):
    return TransferScansDataModule(manifest, transfer=manifest, **OPTIONS)


def batch(data):
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def test_gradients_reach_the_student_and_not_the_teacher(teacher, tiny_cohort):
    distil = task(teacher)
    distil.setup("fit")
    before = load_segmenter(teacher).segmenter.state_dict()
    terms = distil.losses(batch(both(tiny_cohort)))
    assert set(terms) == {"labels", "outputs", "features", "total"}
    terms["total"].backward()
    for name, weight in distil.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0 or "conv.bias" in name, name
    outside = distil._outside["teacher"]
    assert all(weight.grad is None for weight in outside.parameters())
    assert not outside.training
    assert all(torch.equal(before[name], weight) for name, weight in outside.state_dict().items())
    assert not [name for name in distil.state_dict() if "teacher" in name or "outside" in name]


def test_a_scan_without_labels_teaches_by_the_teacher_alone(teacher, tiny_cohort):
    distil = task(teacher)
    distil.setup("fit")
    found = batch(both(tiny_cohort))
    one = {name: value[1:] for name, value in found.items()}  # the second is of the transfer set
    assert set(distil.losses(one)) == {"outputs", "features", "total"}
    labelled = distil.losses({name: value[:1] for name, value in found.items()})
    alone = SegmentationTask(student()).losses({name: value[:1] for name, value in found.items()})
    torch.testing.assert_close(labelled["labels"], alone["total"])


def test_features_alone_give_every_weight_of_the_student_a_gradient(teacher, tiny_cohort):
    distil = task(teacher, output_weight=0.0)
    distil.setup("fit")
    unlabelled = TransferScansDataModule(tiny_cohort, transfer=tiny_cohort, transfer_share=1.0, **OPTIONS)
    distil.losses(batch(unlabelled))["total"].backward()
    assert not [name for name, weight in distil.named_parameters() if weight.grad is None]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(tiny_cohort, tmp_path):
    save_segmenter(tmp_path / "same.safetensors", student(), {})
    distil = task(tmp_path / "same.safetensors", embedding_dim=8, feature_weight=0.0)
    distil.setup("fit")
    found = batch(TransferScansDataModule(tiny_cohort, transfer=tiny_cohort, transfer_share=1.0, **OPTIONS))
    assert distil.losses(found)["total"].item() == pytest.approx(0, abs=1e-5)


def test_it_learns_what_its_teacher_finds(teacher, tiny_cohort, tmp_path):
    unlabelled = TransferScansDataModule(tiny_cohort, transfer=tiny_cohort, transfer_share=1.0, **OPTIONS)
    distil, found = task(teacher, lr=1e-2, feature_weight=0.0), batch(unlabelled)
    distil.setup("fit")
    before = distil.losses(found)["outputs"].item()
    fit(distil, unlabelled, tmp_path, steps=20, averaged=False)
    assert distil.losses(found)["outputs"].item() < 0.7 * before


def test_an_interrupted_training_goes_on_alike(teacher, tiny_cohort, tmp_path):
    whole = task(teacher, output=tmp_path / "whole")
    fit(whole, both(tiny_cohort), tmp_path / "a", steps=4)
    again = task(teacher, output=tmp_path / "again")
    fit(again, both(tiny_cohort), tmp_path / "b", steps=4, ckpt_path=tmp_path / "a" / "step=2.ckpt")
    one, other = (load_segmenter(tmp_path / name / "segmenter.safetensors") for name in ("whole", "again"))
    for name, weight in one.segmenter.state_dict().items():
        torch.testing.assert_close(other.segmenter.state_dict()[name], weight)
    assert other.provenance["teacher"] == load_segmenter(teacher).sha256


def test_it_does_not_go_on_with_another_teacher(teacher, tiny_cohort, tmp_path):
    fit(task(teacher), both(tiny_cohort), tmp_path, steps=1)
    torch.manual_seed(7)
    save_segmenter(tmp_path / "other.safetensors", DynUNet([8, 8, 8, 12]), {})
    with pytest.raises(CheckpointError, match=r"it was trained with teacher \w+, which is now"):
        fit(
            task(tmp_path / "other.safetensors"),
            both(tiny_cohort),
            tmp_path / "again",
            ckpt_path=tmp_path / "step=1.ckpt",
        )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"teacher": None}, "needs a teacher.*--model.teacher"),
        ({"embedding_dim": 128}, "has 12 channels, not 128.*--model.embedding_dim 12"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(options, fault, teacher):
    with pytest.raises(RbsError, match=fault):
        task(**{"teacher": teacher, **options}).setup("fit")


def test_a_teacher_of_frames_is_refused(teacher, tmp_path):
    save_segmenter(tmp_path / "polyps.safetensors", DynUNet([8, 8, 8, 12], domain="colours"), {})
    with pytest.raises(CheckpointError, match="it finds the regions lesion"):
        task(tmp_path / "polyps.safetensors").setup("fit")


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"output_weight": 0.0, "feature_weight": 0.0}])
def test_settings_that_teach_nothing_are_refused(options, teacher):
    with pytest.raises(RbsError, match="give a temperature above 0, and a weight above 0"):
        task(teacher, **options)


def test_hidden_blocks_are_found_again_and_training_goes_on_from_there(tiny_cohort, tmp_path):
    labelled = LabelledScansDataModule(tiny_cohort, **OPTIONS)
    pretraining = MaskedAutoencoder(student(), lr=1e-2, warmup_steps=0, output=tmp_path)
    found = batch(labelled)
    torch.manual_seed(3)
    before = pretraining.losses(found)["total"].item()
    fit(pretraining, labelled, tmp_path, steps=30, averaged=False)
    torch.manual_seed(3)
    assert pretraining.losses(found)["total"].item() < 0.6 * before
    head = student().head.state_dict()
    assert torch.equal(pretraining.segmenter.head.weight, head["weight"])
    going_on = SegmentationTask(student(), init_from=tmp_path / "segmenter.safetensors")
    going_on.setup("fit")
    for name, weight in pretraining.segmenter.state_dict().items():
        assert torch.equal(going_on.segmenter.state_dict()[name], weight), name


def test_only_hidden_pixels_are_judged_and_they_are_hidden(tiny_cohort, monkeypatch):
    pretraining, found = MaskedAutoencoder(student()), batch(LabelledScansDataModule(tiny_cohort, **OPTIONS))
    hidden = torch.zeros(2, 1, 128, 64, dtype=torch.bool)
    hidden[:, :, 32:64, 16:48] = True
    monkeypatch.setattr("rbs.tasks.pretrain_segmenter.hidden_blocks", lambda *_: hidden)
    given = []
    whole = pretraining.segmenter.logits_with_features
    monkeypatch.setattr(
        pretraining.segmenter, "logits_with_features", lambda x, *rest: (given.append(x), whole(x, *rest))[1]
    )
    pretraining.losses(found)
    assert given[0][:, :, 32:64, 16:48].sum() == 0
    assert given[0].sum() > 0


@pytest.mark.parametrize(
    ("domain", "options", "fault"),
    [
        ("roots", {"masked": 1.0}, "a share of 1 of blocks of 16 pixels"),
        ("roots", {"block": 0}, "blocks of 0 pixels"),
        ("colours", {}, "one of frames; set its domain to roots"),
    ],
)
def test_what_cannot_be_hidden_is_refused(domain, options, fault):
    with pytest.raises(RbsError, match=fault):
        MaskedAutoencoder(DynUNet([4, 4, 6, 8], domain=domain), **options)


def test_weights_of_another_network_are_refused(teacher):
    with pytest.raises(CheckpointError, match=r"make --model\.segmenter the same"):
        SegmentationTask(student(), init_from=teacher).setup("fit")
