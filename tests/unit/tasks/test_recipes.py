"""What stage 2 trains: the recipes joint and phased, their parts and their rivals."""

import csv
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from small_cohort import (
    CROP,
    NO_TEACHER,
    SPACING,
    Cohort,
    fitted,
    moved,
    net,
    ready,
    same,
    stage2,
    trainer,
    weights,
)

from rbs.distillation.cascade import load_cascade
from rbs.errors import CheckpointError, RbsError
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.tasks.restoration import RestorationTask
from rbs.weights.shipped import file_sha256

PHASE_A = {"trains": "f2", "skd": False, "scm": False}


@pytest.fixture
def phase_a(tmp_path, stage1, teacher):
    """The cascade.safetensors of the first phase."""
    task = stage2(tmp_path, stage1, output=tmp_path / "a", **PHASE_A)
    trainer(tmp_path).fit(task, Cohort(batches=4))
    return tmp_path / "a" / "cascade.safetensors"


def test_phase_a_trains_the_second_restorer_alone(tmp_path, stage1, teacher):
    task, before = stage2(tmp_path, stage1, **PHASE_A), {}
    task.on_train_start = lambda: before.update(
        {name: weights(getattr(task.cascade, name)) for name in ("f1", "f2", "spi")}
    )
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, logger=logger).fit(task, Cohort(batches=4))
    assert not moved(task.cascade.f1, load_restorer(stage1).restorer.state_dict())
    assert all(moved(getattr(task.cascade, name), before[name]) for name in ("f2", "spi"))
    logged = csv.DictReader((tmp_path / "metrics.csv").open()).fieldnames
    assert {"train/rec2", "val/nc_psnr_f2"} <= set(logged)
    assert "train/rec1" not in logged


def test_phase_b_trains_the_first_restorer_under_the_frozen_second(tmp_path, stage1, phase_a):
    task = stage2(tmp_path, stage1, trains="f1", cascade_from=phase_a, output=tmp_path / "b")
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, logger=logger).fit(task, Cohort(batches=4))
    taught, _ = load_cascade(phase_a, net())
    assert not moved(task.cascade.f2, taught.f2.state_dict())
    assert not moved(task.cascade.spi, taught.spi.state_dict())
    written = load_restorer(tmp_path / "b" / "restorer.safetensors")
    assert moved(written.restorer, load_restorer(stage1).restorer.state_dict())
    recorded = {"trains": "f1", "cascade_from": file_sha256(phase_a), "init_from": file_sha256(stage1)}
    assert recorded.items() <= written.provenance.items()
    logged = csv.DictReader((tmp_path / "metrics.csv").open()).fieldnames
    assert {"train/rec1", "train/skd", "train/scm", "train/grad/rec", "train/grad/skd"} <= set(logged)
    assert "train/rec2" not in logged


def test_phase_b_asks_for_the_cascade_of_its_phase_a(tmp_path, stage1, phase_a):
    phase_b = {"trains": "f1", "cascade_from": phase_a}
    with pytest.raises(RbsError, match=r"none is named; give the cascade\.safetensors"):
        stage2(tmp_path, stage1, trains="f1")
    for other in ({"sees": "rapid"}, {"embedding_dim": 0}, {"spi": False}):
        with pytest.raises(CheckpointError, match=r"its second restorer is .* make --model\.f1, sees, spi"):
            stage2(tmp_path, stage1, **phase_b, **other).setup("fit")
    save_restorer(stage1, net(), {"other": True})
    with pytest.raises(CheckpointError, match=r"other weights of stage 1; give those .* --model\.init_from"):
        stage2(tmp_path, stage1, **phase_b).setup("fit")


def test_phase_b_begins_in_training_mode(tmp_path, stage1, phase_a):
    task = stage2(tmp_path, stage1, trains="f1", cascade_from=phase_a)
    task.setup("fit")
    assert all(module.training for module in task.modules())


def test_phase_b_resumes_where_it_stopped(tmp_path, stage1, phase_a):
    def run(folder, ckpt=None):
        task = stage2(tmp_path, stage1, trains="f1", cascade_from=phase_a)
        saver = ModelCheckpoint(folder, filename="{step}", save_on_train_epoch_end=True, save_top_k=-1)
        fit = trainer(folder, saver, EMAWeightAveraging(decay=0.5), limit_val_batches=0)
        fit.fit(task, Cohort(batches=2), ckpt_path=ckpt)
        return task

    through = run(tmp_path / "through")
    resumed = run(tmp_path / "resumed", tmp_path / "through" / "step=2.ckpt")
    assert same(through, resumed)
    assert torch.equal(through.balance.running, resumed.balance.running)
    other = stage2(tmp_path, stage1, output=tmp_path / "a", **PHASE_A)
    trainer(tmp_path, steps=1).fit(other, Cohort(batches=1))
    with pytest.raises(CheckpointError, match="trained with cascade_from"):
        run(tmp_path / "other", tmp_path / "through" / "step=2.ckpt")


def test_a_second_restorer_may_see_the_rapid_scan(tmp_path, teacher, stage1):
    task = fitted(tmp_path, stage1, "cached", sees="rapid", output=tmp_path / "out")
    cascade, _ = load_cascade(tmp_path / "out" / "cascade.safetensors", task.cascade.f1)
    assert (cascade.sees, cascade.f2.sigma_px) == ("rapid", task.cascade.f1.sigma_px)
    x = torch.rand(1, 2, 16, 16)
    prior = teacher.prior(x, torch.ones(1), SPACING)
    with torch.no_grad():
        wanted = task.cascade.eval()(x, torch.ones(1), prior)
        assert torch.equal(cascade(x, torch.ones(1), prior).i2, wanted.i2)


STANDARD = {"sees": "standard", "trains": "f1", "spi": False}


def test_a_teacher_that_sees_the_standard_scan_is_stage_1_of_all_counts(tmp_path, stage1):
    task = stage2(tmp_path, stage1, output=tmp_path / "out", **STANDARD, **NO_TEACHER)
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, steps=2, logger=logger).fit(task, Cohort(pairs="split"))
    logged = csv.DictReader((tmp_path / "metrics.csv").open()).fieldnames
    assert {"train/skd", "val/nc_psnr"} <= set(logged)
    assert "val/nc_psnr_f2" not in logged
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["restorer.safetensors"]
    trained_on = load_restorer(stage1).restorer
    assert not moved(task.cascade.f2, trained_on.state_dict())
    assert moved(task.cascade.f1, trained_on.state_dict())
    data = Cohort(pairs="split")
    data.setup("fit")
    again = ready(stage2(tmp_path, stage1, **STANDARD, **NO_TEACHER), data)
    batch = data.batch(0)
    counts, exposure = again._standard(batch)
    torch.testing.assert_close(exposure, torch.ones(2))
    torch.testing.assert_close(counts, batch["rapid"] + batch["target"])
    out = again.cascade(batch["rapid"], batch["exposure"], None, (counts, exposure))
    torch.testing.assert_close(out.i2, trained_on(counts, exposure))


def test_a_teacher_that_sees_the_standard_scan_needs_all_counts_of_a_patient_at_rest(tmp_path, stage1):
    class Moved(Cohort):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch | {"displacement": torch.zeros(2, 2, CROP, CROP)}

    for data in (Cohort(pairs="expectation"), Moved(pairs="split")):
        task = stage2(tmp_path, stage1, **STANDARD, **NO_TEACHER)
        with pytest.raises(RbsError, match=r"at rest; set --model\.sees i1, or"):
            trainer(tmp_path, limit_val_batches=0).fit(task, data)
    for other in ({"trains": "both"}, {"spi": True}):
        with pytest.raises(RbsError, match=r"--model\.trains f1 and --model\.spi false"):
            stage2(tmp_path, stage1, **(STANDARD | other))


@pytest.mark.parametrize("part", ["skd", "scm", "region_head"])
def test_what_trains_the_first_restorer_is_refused_where_it_is_frozen(tmp_path, stage1, part):
    with pytest.raises(RbsError, match=r"trains: f2 keeps frozen; set --model\.skd"):
        stage2(tmp_path, stage1, **(PHASE_A | {part: True}))


def test_a_region_head_has_its_share_of_the_gradient(tmp_path):
    task = RestorationTask(net(), region_head=True, region_share=0.3, warmup_steps=1)
    torch.nn.init.normal_(task.cascade.f1.head.weight, std=0.02)
    before = weights(task.region_head)
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, steps=2, logger=logger, limit_val_batches=0).fit(task, Cohort())
    row = {k: float(v) for k, v in next(csv.DictReader((tmp_path / "metrics.csv").open())).items() if v}
    weight = 0.3 * row["train/grad/rec"] / row["train/grad/regions"]
    assert weight * row["train/regions"] > 1e-5
    assert row["train/total"] == pytest.approx(row["train/rec1"] + weight * row["train/regions"], rel=1e-5)
    assert moved(task.region_head, before)


def test_a_region_head_needs_labels(tmp_path):
    data = Cohort()
    data.scans = [replace(scan, labels=None, expectation=None) for scan in data.scans]
    with pytest.raises(RbsError, match="needs labelled regions, but a truth or label file is missing"):
        trainer(tmp_path, limit_val_batches=0).fit(RestorationTask(net(), region_head=True), data)


def test_restorations_are_compared_in_features_of_imagenet(tmp_path, stage1):
    from rbs.weights.external import ALEXNET, find

    if find(*ALEXNET) is None:
        pytest.skip("no AlexNet in RBS_WEIGHTS")
    task = stage2(tmp_path, stage1, source="truth", teacher=None, analyser="imagenet")
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, steps=3, logger=logger, limit_val_batches=0).fit(task, Cohort(batches=3))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert float(rows[-1]["train/scm"]) > 0
    assert not any("analyser" in name for name in task.state_dict())


RECIPES = {
    "joint": {},
    "joint rapid": {"sees": "rapid"},
    "masks alone": {"embedding_dim": 0},
    "truth": {"source": "truth"},
    "phase A": PHASE_A,
    "phase A rapid": PHASE_A | {"sees": "rapid"},
    "phase B": {"trains": "f1", "cascade_from": True},
    "standard": STANDARD | {"scm": False, "teacher": None},
    "region head": {"region_head": True},
    "stage 1, region head": {"stage": 1, "region_head": True},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_trainable_parameter_is_used_in_the_first_step(tmp_path, stage1, teacher, recipe, request):
    """Unused parameters stop distributed training."""
    options = RECIPES[recipe]
    if "cascade_from" in options:
        options = options | {"cascade_from": request.getfixturevalue("phase_a")}
    task = stage2(tmp_path, stage1, **options)
    pairs = "split" if recipe == "standard" else "measured"
    trainer(tmp_path, steps=1, limit_val_batches=0).fit(task, Cohort(pairs=pairs))
    trainable = {name: weight for name, weight in task.named_parameters() if weight.requires_grad}
    assert trainable
    assert [name for name, weight in trainable.items() if weight.grad is None] == []
