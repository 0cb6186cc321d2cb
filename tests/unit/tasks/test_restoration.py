"""RestorationTask on a synthetic cohort in memory, with a teacher of one convolution."""

import csv
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import PassThroughProfiler
from torch.nn import functional as F

from rbs.data.bone_scans import RBSDataModule
from rbs.data.datasets import collate
from rbs.data.manifest import Case, LoadedCase
from rbs.distillation.cascade import load_cascade
from rbs.distillation.scm import SCM
from rbs.errors import CheckpointError, RbsError
from rbs.losses import PoissonDeviance, RootCharbonnier
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.image_domain import DOMAINS
from rbs.restorers.nafnet import NAFNet
from rbs.scans.scan import View
from rbs.segmentation.checkpoint import LoadedSegmenter, load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.prior import SemanticPrior
from rbs.tasks.profiler import StepProfiler
from rbs.tasks.restoration import PriorConfig, RestorationTask, mean_by_patient
from rbs.tasks.validation import scan_scores
from rbs.weights.shipped import file_sha256

H, W, CROP = 64, 48, 32
SPACING = torch.tensor([[4.0, 4.0]])


class FakeTeacher(torch.nn.Module):
    embedding_dim, embedding_stride, mask_stride, reads_crops = 128, 16, 2, True
    images = DOMAINS["roots"]

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.kernel = torch.nn.Parameter(
            torch.randn(128, 1, 16, 16, generator=generator), requires_grad=False
        )
        self.mask = torch.nn.Parameter(torch.randn(9, 1, 2, 2, generator=generator), requires_grad=False)
        self.seen = 0

    def embed(self, counts, exposure, spacing_mm):
        flat = counts.flatten(0, 1)[:, None]
        return F.conv2d(flat, self.kernel, stride=16).unflatten(0, counts.shape[:2])

    def prior(self, counts, exposure, spacing_mm):
        self.seen += 1
        flat = counts.flatten(0, 1)[:, None]
        masks = F.conv2d(flat, self.mask, stride=2).softmax(dim=1).unflatten(0, counts.shape[:2])
        return SemanticPrior(self.embed(counts, exposure, spacing_mm), masks, 16, 2)


def draw(case):
    rng = np.random.default_rng(case)
    truth = np.full((2, H, W), 2.0, np.float32)
    labels = np.zeros(truth.shape, np.uint8)
    for row in rng.integers(4, H - 4, 4):
        truth[:, row : row + 2] += 12
        labels[:, row : row + 2] = 1 + row % 9
    return LoadedCase(
        rapid=rng.poisson(truth / 2).astype(np.float32),
        standard=rng.poisson(truth).astype(np.float32),
        exposure=0.5,
        labels=labels,
        expectation=truth,
        views=(View.ANTERIOR, View.POSTERIOR),
        spacing_mm=(4.0, 4.0),
    )


class Cohort(RBSDataModule):
    """Children in memory, with acquired rapid scans; two crops a batch, validated on two children."""

    def __init__(self, cases=3, batches=2, poison=None, pairs="measured"):
        settings = {"crop": (CROP, CROP), "batch_size": 2, "samples_per_epoch": 2 * batches, "num_workers": 0}
        super().__init__(__file__, pairs=pairs, single_view_probability=0.5, **settings)
        self.scans = [draw(case) for case in range(cases)]
        self.poison = poison

    def cases(self, split):
        return [Case(f"P{number}", split, (), ()) for number in range(len(self._read(split)))]

    def _read(self, split):
        return self.scans if split == "train" else self.scans[:2]

    def batch(self, number):
        """One batch of training."""
        crops = self._crops()
        return collate([crops[2 * number], crops[2 * number + 1]])

    def on_before_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training and self.trainer.global_step == self.poison:
            batch["rapid"][0, 0, 0, 0] = torch.nan
        return batch


def net(**kw):
    return NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], **kw)


@pytest.fixture
def teacher(monkeypatch):
    fake = FakeTeacher()
    loaded = LoadedSegmenter(fake, "fake", "", "fake")
    monkeypatch.setattr("rbs.tasks.restoration.load_segmenter", lambda path, checkpoint: loaded)
    return fake


@pytest.fixture
def stage1(tmp_path):
    torch.manual_seed(5)
    restorer = net()
    torch.nn.init.normal_(restorer.head.weight, std=0.02)
    save_restorer(tmp_path / "stage1.safetensors", restorer, {})
    return tmp_path / "stage1.safetensors"


def trainer(tmp_path, *callbacks, steps=4, **kw):
    return pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=steps,
        logger=kw.pop("logger", False),
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **kw,
    )


def stage2(tmp_path, stage1, **kw):
    pl.seed_everything(0, verbose=False)
    kw = {
        "stage": 2,
        "source": "cached",
        "teacher": tmp_path,
        "embedding_dim": 128,
        "init_from": stage1,
        "warmup_steps": 1,
    } | kw
    names = ("source", "teacher", "embedding_dim")
    prior = PriorConfig(cache=tmp_path / "priors", **{name: kw.pop(name) for name in names})
    return RestorationTask(net(), prior=prior, **kw)


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
    assert loaded.provenance["manifest"] == "test_restoration.py"
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


def fitted(tmp_path, stage1, prior, data=None, **options):
    task = stage2(tmp_path, stage1, source=prior, **options)
    trainer(tmp_path).fit(task, data or Cohort(batches=4))
    return task


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_cached_priors_train_as_frozen_ones_do(tmp_path, teacher, stage1):
    cached = fitted(tmp_path, stage1, "cached")
    first = teacher.seen
    again = fitted(tmp_path, stage1, "cached")
    assert teacher.seen == first, "the second run must read all priors"
    frozen = fitted(tmp_path, stage1, "frozen")
    assert teacher.seen > first
    assert same(cached, again)
    assert same(cached, frozen)


def test_online_priors_follow_the_current_restoration(tmp_path, teacher, stage1):
    online = fitted(tmp_path, stage1, "online")
    assert not same(online, fitted(tmp_path, stage1, "frozen"))


@pytest.mark.parametrize("prior", ["frozen", "online"])
def test_what_the_teacher_takes_is_counted_as_the_teachers(tmp_path, teacher, stage1, monkeypatch, prior):
    """It alone lets the clock go on: as SPI looks at the scans, and as SCM encodes what was restored."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now, process_time=lambda: clock.now)
    monkeypatch.setattr("rbs.tasks.profiler.time", clock)

    def slowly(work, seconds):
        def worked(*given):
            clock.now += seconds
            return work(*given)

        return worked

    monkeypatch.setattr(teacher, "embed", slowly(teacher.embed, 1))
    monkeypatch.setattr(teacher, "prior", slowly(teacher.prior, 10))
    profiler = StepProfiler()
    task = stage2(tmp_path, stage1, source=prior)
    trainer(tmp_path, steps=6, profiler=profiler).fit(task, Cohort(batches=6))
    result = profiler.result()
    # Two whole scans, one batch of crops; a look encodes, too.
    looks, encodings = divmod(result["parts_s"]["teacher"], 10)
    assert looks == {"frozen": 2, "online": 1}[prior]
    assert encodings > looks
    assert result["step_s"] == result["parts_s"]["teacher"]


def test_another_stage_1_does_not_read_its_priors(tmp_path, teacher, stage1):
    fitted(tmp_path, stage1, "cached")
    files = set((tmp_path / "priors").iterdir())
    save_restorer(stage1, net(), {"other": True})
    fitted(tmp_path, stage1, "cached")
    assert len(set((tmp_path / "priors").iterdir())) == 2 * len(files)


def test_whole_scan_priors_need_numbered_rapid_scans(tmp_path, teacher, stage1):
    afresh = Cohort()
    afresh.realisations = None
    for prior in ("cached", "frozen"):
        with pytest.raises(RbsError, match=r"--data\.realisations 4"):
            fitted(tmp_path, stage1, prior, afresh)
    fitted(tmp_path, stage1, "online", afresh)


def test_priors_of_another_exposure_are_others(tmp_path, teacher, stage1):
    fitted(tmp_path, stage1, "cached")
    files = set((tmp_path / "priors").iterdir())
    brighter = Cohort(batches=4)
    # The same picture x = rapid / exposure, said to be of another exposure.
    brighter.scans = [replace(scan, exposure=0.25, rapid=scan.rapid / 2) for scan in brighter.scans]
    fitted(tmp_path, stage1, "cached", brighter)
    assert len(set((tmp_path / "priors").iterdir())) > len(files)


def test_the_prior_of_a_crop_lies_on_the_crop(tmp_path, teacher, stage1):
    """Crop, views and flips: the prior must equal what the teacher says of exactly these pixels."""
    task, data = ready(stage2(tmp_path, stage1, source="frozen")), Cohort(batches=8)
    data.setup("fit")
    # Even kernels, so that a mirrored scan gives the mirrored prior.
    for kernel in (teacher.kernel, teacher.mask):
        kernel.data = kernel.data.mean(dim=(-2, -1), keepdim=True).expand_as(kernel).contiguous()
    task._outside["stage1"] = type("Same", (torch.nn.Module,), {"forward": lambda self, x, exposure: x})()
    data.attach_priors(task._scan_prior)
    for index in range(8):
        batch = data.batch(index)
        prior = task._prior_of_crops(batch)
        expected = teacher.prior(batch["rapid"] / 0.5, batch["exposure"], batch["spacing_mm"])
        torch.testing.assert_close(prior.embedding, expected.embedding, atol=2e-2, rtol=2e-3)
        torch.testing.assert_close(prior.masks, expected.masks, atol=3e-3, rtol=0)


def ready(task, data=None):
    """A task outside a training."""
    task.trainer = SimpleNamespace(profiler=PassThroughProfiler(), datamodule=data)
    task.setup("fit")
    return task


# --- masks without a segmenter

NO_TEACHER = {"teacher": None, "scm": False}


def test_true_masks_need_no_segmenter_and_lie_on_every_pixel(tmp_path, stage1):
    task, data = ready(stage2(tmp_path, stage1, source="truth", **NO_TEACHER)), Cohort()
    data.setup("fit")
    batch = data.batch(0)
    labels = torch.zeros(2, 2, CROP, CROP, dtype=torch.long)
    labels[:, :, 8:16, 4:12] = 3
    prior = task._prior_of_crops(batch | {"labels": labels})
    assert torch.equal(prior.masks[:, :, 2, 8:16, 4:12], torch.ones(2, 2, 8, 8))
    assert prior.masks.sum() == 2 * 2 * 64
    del batch["labels"]
    with pytest.raises(RbsError, match=r"regions of every case, but there is no truth or label file"):
        task._prior_of_crops(batch)


@pytest.mark.parametrize("source", ["truth", "placebo"])
def test_masks_without_a_segmenter_train_are_validated_and_written(tmp_path, stage1, source):
    task = stage2(tmp_path, stage1, source=source, output=tmp_path / "out", **NO_TEACHER)
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, steps=2, logger=logger).fit(task, Cohort())
    assert "val/nc_psnr_f2" in csv.DictReader((tmp_path / "metrics.csv").open()).fieldnames
    cascade, provenance = load_cascade(tmp_path / "out" / "cascade.safetensors", net())
    assert (cascade.spi.embedding, cascade.f2.condition_channels) == (None, 18)
    assert (provenance["prior"], provenance["teacher"]) == (source, None)


def test_a_placebo_is_the_next_childs_masks_in_the_same_place(tmp_path, stage1):
    """In crops they lie as that child's own would, with the same views and flips; and on whole scans."""
    data, swapped = Cohort(batches=8), Cohort(batches=8)
    labels = [scan.labels for scan in swapped.scans]
    swapped.scans = [replace(s, labels=labels[(n + 1) % 3]) for n, s in enumerate(swapped.scans)]
    task = ready(stage2(tmp_path, stage1, source="placebo", **NO_TEACHER), data)
    for cohort in (data, swapped):
        cohort.setup("fit")
    for batch, wanted in zip(data.train_dataloader(), swapped.train_dataloader(), strict=True):
        assert torch.equal(batch["rapid"], wanted["rapid"])
        assert torch.equal(
            task._prior_of_crops(batch).masks, F.one_hot(wanted["labels"], 10)[..., 1:].movedim(-1, 2).float()
        )
        assert not torch.equal(batch["labels"], wanted["labels"])
    for batch, other in zip(data.val_dataloader(), (1, 0), strict=True):
        wanted = torch.from_numpy(labels[other])[None]
        assert torch.equal(
            task._prior_of_scan(batch).masks, F.one_hot(wanted.long(), 10)[..., 1:].movedim(-1, 2).float()
        )


def test_the_placebo_of_a_child_with_two_visits_is_of_another_child(tmp_path, stage1):
    data = Cohort()
    data.placebo = True
    data.cases = lambda split: [Case(name, split, (), ()) for name in ("A", "A", "B")]
    data.setup("fit")
    crops = data._crops()
    crops.placebo = True
    found = [crops.other_labels(row)["other_labels"] for row in range(3)]
    for labels, other in zip(found, (2, 2, 0), strict=True):
        np.testing.assert_array_equal(labels, data.scans[other].labels)
    task = stage2(tmp_path, stage1, source="placebo", **NO_TEACHER)
    with pytest.raises(RbsError, match="of two patients of each split"):
        trainer(tmp_path, limit_val_batches=0).fit(task, Cohort(cases=1))


def test_a_segmenters_masks_alone(tmp_path, teacher, stage1):
    task = fitted(tmp_path, stage1, "cached", embedding_dim=0)
    assert teacher.seen
    assert task.cascade.spi.embedding is None
    assert task.cascade.f2.condition_channels == 18


# --- the recipes


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(module, before):
    """Whether any of its weights is another than before."""
    return any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


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


# --- a teacher that is no SAM


@pytest.fixture
def dynunet(tmp_path):
    """Options of a segmenter of random weights, which is shown no crops."""
    torch.manual_seed(6)
    save_segmenter(tmp_path / "segmenter.safetensors", DynUNet((8, 8, 8, 12)), {})
    return {"teacher": tmp_path / "segmenter.safetensors", "embedding_dim": 12, "scm": False}


def test_any_segmenter_gives_priors_that_are_cached(tmp_path, stage1, dynunet):
    cached = stage2(tmp_path, stage1, **dynunet)
    trainer(tmp_path).fit(cached, Cohort(batches=4))
    files = {file: file.read_bytes() for file in (tmp_path / "priors").iterdir()}
    assert files
    frozen = stage2(tmp_path, stage1, source="frozen", **dynunet)
    trainer(tmp_path).fit(frozen, Cohort(batches=4))
    assert same(cached, frozen)
    save_segmenter(dynunet["teacher"], DynUNet((8, 8, 8, 12)), {})
    trainer(tmp_path, steps=1).fit(stage2(tmp_path, stage1, **dynunet), Cohort(batches=4))
    assert len(list((tmp_path / "priors").iterdir())) == 2 * len(files), "another file, other priors"


def test_the_segmenter_of_a_scan_is_told_exposure_and_spacing(tmp_path, stage1, dynunet):
    """And it reads the frozen stage-1 restoration of the whole rapid scan."""
    task, scan = ready(stage2(tmp_path, stage1, source="frozen", **dynunet)), draw(0)
    prior = task._scan_prior(scan.rapid, 0.5, (4.0, 4.0)).decoded()
    x, p = torch.tensor(scan.rapid / 0.5)[None], torch.tensor([0.5])
    segmenter = load_segmenter(dynunet["teacher"]).segmenter
    with torch.no_grad():
        expected = segmenter.prior(load_restorer(stage1).restorer(x, p), p, SPACING)
        elsewhere = segmenter.prior(load_restorer(stage1).restorer(x, p), p, SPACING / 2)
    torch.testing.assert_close(prior.masks, expected.masks, atol=3e-3, rtol=0)
    torch.testing.assert_close(prior.embedding, expected.embedding, atol=2e-2, rtol=2e-3)
    assert not torch.allclose(prior.embedding, elsewhere.embedding, atol=2e-2, rtol=2e-3)


def test_the_embedding_of_any_segmenter_has_a_gradient_everywhere(tmp_path, stage1, dynunet):
    task, data = ready(stage2(tmp_path, stage1, source="frozen", **dynunet)), Cohort()
    data.setup("fit")
    data.attach_priors(task._scan_prior)
    batch = data.batch(0)
    i1 = (batch["rapid"] / 0.5).requires_grad_()
    features = (task._analyse(i, batch["exposure"], batch["spacing_mm"]) for i in (i1, i1.detach() + 1))
    SCM()(*features, batch["prior"].masks).backward()
    assert torch.isfinite(i1.grad).all()
    assert (i1.grad != 0).any()


def test_a_segmenter_that_needs_whole_scans_is_not_shown_crops(tmp_path, stage1, dynunet):
    with pytest.raises(
        CheckpointError, match=r"online priors show it crops; set --model\.prior\.source cached"
    ):
        stage2(tmp_path, stage1, **(dynunet | {"source": "online"})).setup("fit")
    stage2(tmp_path, stage1, **(dynunet | {"scm": True})).setup("fit")
