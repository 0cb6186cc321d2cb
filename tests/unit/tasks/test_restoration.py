"""RestorationTask on a synthetic cohort in memory."""

import csv
from itertools import pairwise

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from small_cohort import CROP, SPACING, Cohort, H, W, draw, net, same, stage2, trainer

from rbs.errors import CheckpointError, RbsError
from rbs.losses import PoissonDeviance, RootCharbonnier
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.tasks.priors import PriorConfig
from rbs.tasks.restoration import RestorationTask, mean_by_patient
from rbs.tasks.validation import scan_scores


def test_stage_1_trains_logs_and_writes_a_restorer(tmp_path):
    task = RestorationTask(net(), output=tmp_path / "out", warmup_steps=1, lr=3e-3)
    run = trainer(tmp_path, steps=30, logger=CSVLogger(tmp_path, name="", version=""), max_epochs=-1)
    run.fit(task, Cohort(batches=10))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    losses = [float(row["train/rec1"]) for row in rows if row["train/rec1"]]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert {"train/total", "val/nc_psnr", "val/count_bias", "val/psnr_truth"} <= rows[-1].keys()
    loaded = load_restorer(tmp_path / "out" / "restorer.safetensors")
    x = torch.ones(1, 2, 16, 16)
    assert torch.equal(loaded.restorer(x, torch.tensor([0.5])), task(x, torch.tensor([0.5])))
    assert loaded.provenance["steps"] == 30
    assert loaded.provenance["manifest"] == "small_cohort.py"
    assert not (tmp_path / "out" / "cascade.safetensors").exists()


def test_training_meets_a_target_that_moved(tmp_path):
    """The loss of a stripy child that moved by three pixels is that of one that did not, if it says so."""

    class Moved(Cohort):
        told = True

        def on_before_batch_transfer(self, batch, dataloader_idx):
            u = torch.zeros(2, 2, CROP, CROP)
            u[:, 0] = 3
            batch["target"] = batch["target"].roll(-3, -2)
            return batch | ({"displacement": u} if self.told else {})

    class Untold(Moved):
        told = False

    first = {}
    for cohort in (Cohort, Moved, Untold):
        pl.seed_everything(0, verbose=False)
        runner = trainer(tmp_path, steps=1, limit_val_batches=0)
        runner.fit(RestorationTask(net(sigma_px=0.0)), cohort())
        first[cohort] = float(runner.logged_metrics["train/rec1"])
    assert first[Moved] == pytest.approx(first[Cohort], rel=0.1)
    assert first[Untold] > 1.3 * first[Cohort]


def test_a_whole_scan_is_scored_where_its_target_lies():
    scan = draw(0)
    target, truth = (torch.tensor(counts)[None] for counts in (scan.standard, scan.expectation))
    batch = {"target": target, "target_exposure": torch.ones(1), "expectation": truth, "spacing_mm": SPACING}
    u = torch.zeros(1, 2, H, W)
    u[:, 1] = -2
    moved = batch | {name: batch[name].roll(2, -1) for name in ("target", "expectation")}
    # Stripes across every row: moved sideways, only the two columns at the border differ.
    wave = truth * torch.linspace(0.5, 1.5, W)
    batch["expectation"], moved["expectation"] = wave, wave.roll(2, -1)
    moved["expectation"][..., :2] = wave[..., :1]
    assert scan_scores(wave, moved | {"displacement": u})["nmse_truth"] < 1e-6
    assert scan_scores(wave, moved)["nmse_truth"] > 1e-4


def test_the_first_step_already_learns_and_the_last_rate_is_near_zero(tmp_path):
    task, rates = RestorationTask(net(), lr=0.5, warmup_steps=2), []
    task.on_train_batch_start = lambda *_: rates.append(task.optimizers().param_groups[0]["lr"])
    trainer(tmp_path, steps=6, max_epochs=-1, limit_val_batches=0).fit(task, Cohort())
    assert 0 < rates[0] < rates[1] < rates[2] == 0.5
    assert rates[-1] < 0.1


def test_checkpoint_holds_averaged_weights_and_no_teacher(tmp_path, teacher, stage1):
    task = stage2(tmp_path, stage1, output=tmp_path / "out", losses=[PoissonDeviance(), RootCharbonnier(0.1)])
    saver = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=4)
    trainer(tmp_path, saver, EMAWeightAveraging(decay=0.5)).fit(task, Cohort(batches=4))
    content = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert not any("teacher" in name or "stage1" in name for name in content["state_dict"])
    loaded = load_restorer(tmp_path / "last.ckpt")
    averaged = content["state_dict"]["cascade.f1.head.weight"]
    assert torch.equal(loaded.restorer.head.weight, averaged)
    assert not torch.equal(averaged, content["current_model_state"]["cascade.f1.head.weight"])
    written = load_restorer(tmp_path / "out" / "restorer.safetensors")
    assert torch.equal(written.restorer.head.weight, averaged)
    assert written.provenance["modules"] == ["spi", "skd", "scm"]
    assert written.provenance["teacher"] == "fake"
    assert (tmp_path / "out" / "cascade.safetensors").exists()
    assert content["hyper_parameters"]["losses"][1]["class_path"] == "rbs.losses.RootCharbonnier"


@pytest.mark.parametrize(
    "length", [{"steps": 6}, {"steps": -1, "max_epochs": 3}], ids=["max_steps", "max_epochs"]
)
@pytest.mark.parametrize("validations", [0, 1.0], ids=["", "validated"])
def test_resuming_gives_the_same_weights_as_running_through(tmp_path, length, validations):
    def run(folder, ckpt=None):
        pl.seed_everything(0, verbose=False)
        task = RestorationTask(net(), warmup_steps=1)
        saver = ModelCheckpoint(folder, filename="{step}", save_on_train_epoch_end=True, save_top_k=-1)
        average = EMAWeightAveraging(decay=0.5)
        logger = CSVLogger(folder, name="", version="")
        fit = trainer(folder, saver, average, limit_val_batches=validations, logger=logger, **length)
        fit.fit(task, Cohort(batches=2), ckpt_path=ckpt)
        with (folder / "metrics.csv").open() as file:
            return task.state_dict(), [row for row in csv.DictReader(file) if row["train/total"]]

    through, logged = run(tmp_path / "a")
    resumed, again = run(tmp_path / "b", tmp_path / "a" / "step=2.ckpt")
    assert all(torch.equal(through[name], resumed[name]) for name in through)
    assert [row["step"] for row in again] == ["2", "3", "4", "5"]
    assert [row["train/total"] for row in again] == [row["train/total"] for row in logged][2:]
    assert len(list((tmp_path / "b").glob("*.ckpt"))) == 2


# --- the recipes


@pytest.mark.parametrize(
    "off", [{"spi", "scm"}, {"skd"}, {"spi", "skd", "scm"}], ids=lambda off: "+".join(sorted(off))
)
def test_what_is_off_is_not_there(tmp_path, stage1, teacher, off):
    flags = dict.fromkeys(off, False)
    task = stage2(tmp_path, stage1, **flags, **({"teacher": None} if {"spi", "scm"} <= off else {}))
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, steps=2, logger=logger).fit(task, Cohort())
    logged = set(csv.DictReader((tmp_path / "metrics.csv").open()).fieldnames)
    assert {f"train/{name}" for name in {"skd", "scm"} - off} <= logged
    assert not {f"train/{name}" for name in off} & logged
    assert "val/nc_psnr_f2" in logged
    assert not any(name.split(".")[1] in off for name, _ in task.named_parameters())


def test_a_gradient_that_is_not_finite_names_its_own_batch(tmp_path):
    class Burst(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.inf

    class Bursting(PoissonDeviance):
        def forward(self, estimate, target, exposure, **facts):
            return super().forward(Burst.apply(estimate), target, exposure, **facts)

    data = Cohort()
    with pytest.raises(RbsError, match=r"step 0: the gradient is not finite on P\d at row") as error:
        trainer(tmp_path, limit_val_batches=0).fit(RestorationTask(net(), losses=[Bursting()]), data)
    assert data.batch(0)["patient"][0] in str(error.value)


def test_a_training_that_is_over_still_writes_the_averaged_weights(tmp_path):
    """The disk was full when the product was written; the training is made again and has nothing to do."""

    def fit(folder, ckpt=None):
        pl.seed_everything(0, verbose=False)
        task = RestorationTask(net(), warmup_steps=1, lr=0.01, output=folder)
        saver = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=4)
        run = trainer(tmp_path, saver, EMAWeightAveraging(decay=0.9), limit_val_batches=0)
        run.fit(task, Cohort(batches=4), ckpt_path=ckpt)
        return load_restorer(folder / "restorer.safetensors").restorer

    first = fit(tmp_path / "first")
    again = fit(tmp_path / "again", tmp_path / "last.ckpt")
    assert same(first, again)
    raw = torch.load(tmp_path / "last.ckpt", weights_only=True)["current_model_state"]
    assert not torch.equal(first.head.weight, raw["cascade.f1.head.weight"])


def test_resuming_on_another_stage_1_is_refused(tmp_path, teacher, stage1):
    saver = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=2)
    trainer(tmp_path, saver, steps=2).fit(stage2(tmp_path, stage1), Cohort(batches=4))
    save_restorer(stage1, net(), {"other": True})
    with pytest.raises(CheckpointError, match=r"trained with init_from .* delete its version folder"):
        trainer(tmp_path).fit(stage2(tmp_path, stage1), Cohort(batches=4), ckpt_path=tmp_path / "last.ckpt")


def test_a_longer_training_goes_on_falling(tmp_path):
    """Resumed with more steps, the learning rate ends at zero at the new end and never climbs on the way."""
    rates = []

    def fit(steps, ckpt=None):
        task = RestorationTask(net(), warmup_steps=1, lr=0.01)
        task.on_train_batch_start = lambda *_: rates.append(task.optimizers().param_groups[0]["lr"])
        saver = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=4)
        run = trainer(tmp_path, saver, steps=steps, limit_val_batches=0, max_epochs=-1)
        run.fit(task, Cohort(batches=4), ckpt_path=ckpt)

    fit(4)
    fit(12, tmp_path / "last.ckpt")
    rates = rates[5:]  # the step after resuming still has the rate that was stored
    assert len(rates) == 7
    assert all(a > b for a, b in pairwise(rates))
    assert rates[-1] < 0.001


def test_a_loss_that_is_not_finite_names_patients_and_crop(tmp_path):
    data = Cohort(poison=1)
    with pytest.raises(RbsError, match=r"step 1: the loss \(rec1, total\) is not finite") as error:
        trainer(tmp_path, limit_val_batches=0).fit(RestorationTask(net()), data)
    batch = data.batch(1)
    assert f"{batch['patient'][0]} at row {batch['crop'][0, 0]}, column {batch['crop'][0, 1]}" in str(
        error.value
    )


def test_stage_2_asks_for_what_it_needs(tmp_path, teacher, stage1):
    with pytest.raises(RbsError, match="make train-stage1"):
        stage2(tmp_path, None).setup("fit")
    with pytest.raises(RbsError, match="make adapt-sam"):
        stage2(tmp_path, stage1, teacher=None).setup("fit")
    with pytest.raises(CheckpointError, match=r"--model\.f1 the same"):
        RestorationTask(net(sigma_px=3.0), stage=2, init_from=stage1).setup("fit")
    with pytest.raises(
        CheckpointError, match=r"has 128 channels, not 256; set --model\.prior\.embedding_dim 128"
    ):
        stage2(tmp_path, stage1, embedding_dim=256).setup("fit")


def test_a_restorer_that_enlarges_may_start_from_one_that_does_not(tmp_path):
    plain = net()
    torch.nn.init.normal_(plain.head.weight)
    save_restorer(tmp_path / "plain.safetensors", plain, {})
    task = RestorationTask(net(scale=2), init_from=tmp_path / "plain.safetensors")
    task.setup("fit")
    own, given = task.cascade.f1.state_dict(), plain.state_dict()
    assert all(torch.equal(own[name], given[name]) for name in given if not name.startswith("head."))
    assert not own["head.weight"].any()
    other = RestorationTask(net(scale=2, sigma_px=0.5), init_from=tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match=r"make --model\.f1 the same"):
        other.setup("fit")


@pytest.mark.parametrize(("of_f1", "of_data"), [(2, 1), (1, 2)])
def test_restorer_and_data_have_one_scale(tmp_path, of_f1, of_data):
    data = Cohort()
    data.scale = of_data
    with pytest.raises(RbsError, match=f"the restorer has scale {of_f1}, but the data have scale {of_data}"):
        trainer(tmp_path).fit(RestorationTask(net(scale=of_f1)), data)


def test_facts_that_no_restorer_reads_are_refused(tmp_path):
    data = Cohort()
    data.facts = "own"
    with pytest.raises(RbsError, match=r"data\.facts is own, but the restorer reads no facts"):
        trainer(tmp_path).fit(RestorationTask(net()), data)


def test_a_restorer_that_enlarges_trains_against_fine_targets(tmp_path):
    data = Cohort(pairs="expectation")
    data.scale = 2
    task = RestorationTask(net(scale=2), output=tmp_path)
    fitting = trainer(tmp_path, limit_val_batches=1)
    fitting.fit(task, data)
    assert fitting.callback_metrics["val/psnr_truth"] > 0
    loaded = load_restorer(tmp_path / "restorer.safetensors", scale=2)
    assert loaded.provenance["spacing_mm"] == [8.0, 8.0]
    for wanted in (1, 2):
        if wanted != loaded.scale:
            with pytest.raises(CheckpointError, match="twice as many rows and columns"):
                load_restorer(tmp_path / "restorer.safetensors", scale=wanted)
    with pytest.raises(RbsError, match="stage 2 compares two restorations of one pixel size"):
        RestorationTask(net(scale=2), stage=2)


def test_constructing_reads_no_file(tmp_path):
    missing = tmp_path / "none"
    prior = PriorConfig(teacher=missing, cache=missing)
    task = RestorationTask(net(), stage=2, prior=prior, init_from=missing)
    assert task.hparams["prior"] == {
        "source": "cached",
        "teacher": missing,
        "embedding_dim": 128,
        "base_checkpoint": None,
        "cache": missing,
    }
    assert not missing.exists()


def test_testing_gives_the_scores_of_validation(tmp_path):
    task = RestorationTask(net())
    validated, tested = (
        trainer(tmp_path).validate(task, Cohort(), verbose=False),
        trainer(tmp_path).test(task, Cohort(), verbose=False),
    )
    assert {k.removeprefix("val/"): v for k, v in validated[0].items()} == pytest.approx(
        {k.removeprefix("test/"): v for k, v in tested[0].items()}
    )


def test_patients_count_once_however_many_scans_they_have():
    scores = [("A", {"x": 1.0}), ("A", {"x": 3.0}), ("B", {"x": 10.0, "y": 5.0})]
    assert mean_by_patient(scores) == {"x": 6.0, "y": 5.0}
