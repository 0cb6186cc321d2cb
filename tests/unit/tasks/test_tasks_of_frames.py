"""Both tasks on colour frames: drawn ones, the real data module, the shipped small SAM as the teacher."""

import csv
import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from scipy.ndimage import distance_transform_edt
from segmenters import given

from rbs.data.bone_scans import RBSDataModule
from rbs.data.endoscopy import EndoscopyDataModule
from rbs.data.frames_manifest import FramesManifest, write_frames_manifest
from rbs.data.mucosa import write_mucosa
from rbs.errors import CheckpointError, RbsError
from rbs.evaluation.endoscopy.metrics import load_lesion_finder
from rbs.losses import Charbonnier
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.restorers.nafnet import NAFNet
from rbs.segmentation.adapters import load_teacher
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.tasks.adapt_teacher import AdaptTeacher
from rbs.tasks.priors import PriorConfig
from rbs.tasks.restoration import RestorationTask
from rbs.tasks.segmentation import SegmentationTask

SIDE = 64


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_mucosa(tmp_path_factory.mktemp("mucosa"), 5, 2, SIDE, seed=4, progress=False)


def frames(manifest, **kw):
    settings = {"crop": (32, 48), "batch_size": 2, "samples_per_epoch": 4, "num_workers": 0} | kw
    return EndoscopyDataModule(manifest, **settings)


def net(**kw):
    return NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], **({"domain": "colours"} | kw))


def trainer(folder, *callbacks, steps=2, **kw):
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=kw.pop("logger", False),
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **kw,
    )


@pytest.fixture(scope="module")
def teacher(manifest, tmp_path_factory):
    """A teacher adapted for two steps to drawn polyps."""
    folder = tmp_path_factory.mktemp("adapted")
    pl.seed_everything(0, verbose=False)
    task = AdaptTeacher(domain="colours", rank=2, warmup_steps=1, decoder_steps=2, output=folder)
    trainer(folder).fit(task, frames(manifest))
    return folder / "teacher"


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    torch.manual_seed(5)
    restorer, file = net(), tmp_path_factory.mktemp("stage1") / "restorer.safetensors"
    torch.nn.init.normal_(restorer.head.weight, std=0.02)
    save_restorer(file, restorer, {})
    return file


def stage2(folder, stage1, teacher, **kw):
    pl.seed_everything(0, verbose=False)
    prior = PriorConfig(kw.pop("source", "cached"), teacher, cache=folder / "priors")
    return RestorationTask(net(), stage=2, warmup_steps=1, prior=prior, init_from=stage1, **kw)


# --- segmenters


def test_a_segmenter_of_lesions_learns_and_is_used_as_a_teacher_is(manifest, tmp_path):
    pl.seed_everything(0, verbose=False)
    task = SegmentationTask(DynUNet([4, 4, 6, 6], domain="colours"), warmup_steps=1, output=tmp_path)
    before = task.segmenter.head.weight.detach().clone()
    data = frames(manifest)
    trainer(tmp_path).fit(task, data)
    assert not torch.equal(task.segmenter.head.weight, before)
    (row,) = csv.DictReader((tmp_path / "dice.csv").open())
    assert (row["level"], list(row)[3:]) == ("degraded", ["lesion", "mean"])
    assert 0 <= float(row["lesion"]) <= 1
    loaded = load_segmenter(tmp_path / "segmenter.safetensors")
    assert loaded.labels.names == ("lesion",)
    assert loaded.provenance["preset"] == "mixed"
    find, digest = load_lesion_finder(tmp_path / "segmenter.safetensors")
    frame = data.val_dataloader().dataset[0]["rapid"].numpy()
    assert digest == loaded.sha256
    with torch.inference_mode():
        logits = task.segmenter.eval().logits(*given(torch.from_numpy(frame)[None], side_mm=1.0))
    np.testing.assert_array_equal(find(frame), logits[0, 0].argmax(dim=0).numpy() == 1)


# --- stage 1


def test_stage_1_learns_logs_and_writes_a_restorer_of_frames(manifest, tmp_path):
    pl.seed_everything(0, verbose=False)
    task = RestorationTask(net(), output=tmp_path / "out", warmup_steps=1, lr=5e-3)
    assert isinstance(task.losses[0], Charbonnier)
    data = frames(manifest, preset="low-light", samples_per_epoch=200)
    run = trainer(tmp_path, steps=60, logger=CSVLogger(tmp_path, name="", version=""), val_check_interval=60)
    before = trainer(tmp_path).validate(task, data, verbose=False)[0]
    run.fit(task, data)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    losses = [float(row["train/Charbonnier1"]) for row in rows if row["train/Charbonnier1"]]
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:10])  # degradations differ: the score tells more
    scores = {name: float(rows[-1][f"val/{name}"]) for name in ("psnr", "ssim")}
    assert scores["psnr"] > before["val/psnr"] + 1
    loaded = load_restorer(tmp_path / "out" / "restorer.safetensors")
    frame = np.random.default_rng(0).random((3, 20, 24), dtype=np.float32)
    assert loaded.restore_frame(frame).shape == frame.shape
    wanted = {"domain": "colours", "preset": "low-light", "longest_side": 320, "steps": 60}
    assert wanted.items() <= loaded.provenance.items()


def test_validation_looks_at_valid_pixels_only(manifest, tmp_path, monkeypatch):
    task, data = RestorationTask(net()), frames(manifest)
    whole = trainer(tmp_path).validate(task, data, verbose=False)[0]
    for frame in data._kept["val"]:
        assert not frame.valid.all(), "the drawn frames have borders"
    spoilt = RestorationTask(net())
    restore = spoilt.cascade.f1.restore_with_features

    def spoil(x, exposure, condition):
        out, features = restore(x, exposure, condition)
        # SSIM's window reaches five pixels beyond what is valid.
        valid = data._kept["val"][spoil.seen].valid[0]
        spoil.seen += 1
        out = out.clone()
        # SSIM looks 5 pixels up and 5 across: 7.1 away.
        out[0, :, torch.from_numpy(distance_transform_edt(~valid) > 7.1)] = 1.0
        return out, features

    spoil.seen = 0
    monkeypatch.setattr(spoilt.cascade.f1, "restore_with_features", spoil)
    assert trainer(tmp_path).validate(spoilt, data, verbose=False)[0] == pytest.approx(whole)


def test_scans_and_frames_are_not_mixed_up(manifest, tmp_path, tiny_cohort):
    with pytest.raises(RbsError, match=r"works on scans \(B, 1 or 2 views.* \(2, 3, 32, 48\).*colours"):
        trainer(tmp_path, limit_val_batches=0).fit(RestorationTask(net(domain="roots")), frames(manifest))
    scans = RBSDataModule(tiny_cohort, crop=(32, 32), batch_size=2, samples_per_epoch=2, num_workers=0)
    with pytest.raises(RbsError, match=r"works on frames \(B, 3 colours.* data are \(2, 2, 32, 32\)"):
        trainer(tmp_path, limit_val_batches=0).fit(RestorationTask(net()), scans)
    with pytest.raises(RbsError, match=r"works on scans .*--model.domain of the teacher"):
        trainer(tmp_path, limit_val_batches=0).fit(AdaptTeacher(decoder_steps=1), frames(manifest))


# --- the teacher


def test_the_teacher_of_frames_knows_one_region_and_writes_its_dice(teacher):
    settings = json.loads((teacher / "teacher.json").read_text())
    assert (settings["domain"], settings["regions"]) == ("colours", ["lesion"])
    assert "grey_half" not in settings
    with (teacher.parent / "dice.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["mode"], row["level"]) for row in rows] == [
        (mode, level) for mode in ("lora", "base") for level in ("clean", "degraded")
    ]
    assert all(0 <= float(row["lesion"]) <= 1 for row in rows)
    loaded = load_teacher(teacher)
    prior = loaded.prior(*given(torch.rand(2, 3, 40, 56)))
    assert prior.embedding.shape == (2, 1, loaded.embedding_dim, 3, 4)
    assert prior.masks.shape[:3] == (2, 1, 1)
    assert loaded.embed(*given(torch.rand(1, 3, 40, 56))).shape == (1, 1, loaded.embedding_dim, 3, 4)
    assert loaded.logits(*given(torch.rand(1, 3, 40, 56))).shape == (1, 1, 2, 40, 56)


def test_colours_matter_to_it(teacher):
    loaded, x = load_teacher(teacher), torch.rand(1, 3, 64, 64)
    assert not torch.allclose(loaded.embed(*given(x)), loaded.embed(*given(x.flip(1))), atol=1e-3)


@pytest.mark.parametrize("mode", ["decoder", "full"])
def test_the_other_modes_adapt_to_frames_too(manifest, tmp_path, mode):
    task = AdaptTeacher(mode, domain="colours", warmup_steps=1, decoder_steps=1, output=tmp_path)
    trainer(tmp_path, limit_val_batches=1).fit(task, frames(manifest))
    assert load_teacher(tmp_path / f"teacher_{mode}").labels.names == ("lesion",)


def test_up_down_flips_of_frames_are_kept(manifest):
    task = AdaptTeacher(domain="colours")
    batch = {"flip": torch.tensor([[False, True]])}
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(task._upright(batch, x), x)
    assert torch.equal(AdaptTeacher()._upright(batch, x), x.flip(-2))


def test_frames_without_masks_cannot_adapt_it(manifest, tmp_path):
    rows = FramesManifest.read(manifest).frames
    bare = [type(row)(row.frame, row.split, group=row.group) for row in rows]
    write_frames_manifest(tmp_path / "bare.csv", bare)
    with pytest.raises(
        RbsError,
        match=r"a mask is missing \(near patient V.*; give every frame .* `rbs simulate --kind endoscopy`",
    ):
        trainer(tmp_path).fit(AdaptTeacher(domain="colours"), frames(tmp_path / "bare.csv"))


# --- stage 2


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_the_cascade_trains_with_cached_priors_as_with_frozen_ones(manifest, tmp_path, teacher, stage1):
    trained = {}
    for prior in ("cached", "frozen", "online"):
        task = stage2(tmp_path, stage1, teacher, source=prior, output=tmp_path / prior)
        logger = CSVLogger(tmp_path, name=prior, version="")
        trainer(tmp_path, steps=3, logger=logger).fit(task, frames(manifest, realisations=2))
        logged = csv.DictReader((tmp_path / prior / "metrics.csv").open()).fieldnames
        names = {"train/skd", "train/scm", "val/psnr", "val/ssim", "val/psnr_f2", "val/ssim_f2"}
        assert names <= set(logged)
        trained[prior] = task
    assert len(list((tmp_path / "priors").glob("*.safetensors"))) >= 2 * len(
        FramesManifest.read(manifest).rows("train")
    )
    assert same(trained["cached"], trained["frozen"])
    assert not same(trained["cached"], trained["online"])
    provenance = load_restorer(tmp_path / "cached" / "restorer.safetensors").provenance
    assert provenance["modules"] == ["spi", "skd", "scm"]
    assert provenance["teacher"] == load_teacher(teacher).digest
    assert (tmp_path / "cached" / "cascade.safetensors").exists()


def test_a_written_cascade_of_frames_is_read_again(manifest, tmp_path, teacher, stage1):
    from rbs.distillation.cascade import load_cascade

    task = stage2(tmp_path, stage1, teacher, output=tmp_path)
    trainer(tmp_path, limit_val_batches=0).fit(task, frames(manifest, realisations=1))
    f1 = load_restorer(tmp_path / "restorer.safetensors").restorer
    again, _ = load_cascade(tmp_path / "cascade.safetensors", f1)
    x = torch.rand(1, 3, 40, 56)
    prior = load_teacher(teacher).prior(*given(x))
    with torch.no_grad():
        wanted, got = task.cascade.eval()(x, torch.ones(1), prior), again(x, torch.ones(1), prior)
    torch.testing.assert_close(got.i2, wanted.i2)
    assert got.i2.shape == x.shape


def test_every_parameter_of_the_colour_cascade_is_used(manifest, tmp_path, teacher, stage1):
    """Unused parameters stop distributed training."""
    task = stage2(tmp_path, stage1, teacher)
    trainer(tmp_path, steps=1, limit_val_batches=0).fit(task, frames(manifest, realisations=1))
    unused = [n for n, p in task.cascade.named_parameters() if p.grad is None]
    assert unused == []


def test_a_placebo_is_the_lesions_of_another_video(manifest):
    data = frames(manifest)
    data.placebo = True
    data.setup("fit")
    crops = data.train_dataloader().dataset
    videos = [frame.patient for frame in crops.cases]
    for row, video in enumerate(videos):
        found = crops.other_labels(row)["other_labels"]
        same_video = [image.labels for image, name in zip(crops.images, videos, strict=True) if name == video]
        assert found.any()
        assert not any(np.array_equal(found, labels) for labels in same_video)


def test_frames_have_no_standard_scan(manifest, tmp_path, stage1):
    task = stage2(tmp_path, stage1, None, sees="standard", trains="f1", spi=False, scm=False)
    with pytest.raises(RbsError, match=r"needs all counts of one patient at rest"):
        trainer(tmp_path, limit_val_batches=0).fit(task, frames(manifest))


def test_a_teacher_of_scans_does_not_teach_frames(manifest, tmp_path, teacher, stage1):
    restorer = NAFNet(width=4, enc_blocks=[1], middle_blocks=1, dec_blocks=[1])
    save_restorer(tmp_path / "scans.safetensors", restorer, {})
    task = RestorationTask(
        restorer, stage=2, init_from=tmp_path / "scans.safetensors", prior=PriorConfig(teacher=teacher)
    )
    with pytest.raises(CheckpointError, match=r"trained on frames, but f1 restores scans; .*make adapt-sam"):
        task.setup("fit")


def test_resuming_frames_gives_the_same_weights_as_running_through(manifest, tmp_path):
    def run(folder, epochs, ckpt=None):
        pl.seed_everything(0, verbose=False)
        task = RestorationTask(net(), warmup_steps=1)
        saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=2, save_top_k=-1)
        runner = trainer(folder, saver, steps=4, limit_val_batches=0)
        runner.fit_loop.max_epochs = epochs
        runner.fit(task, frames(manifest), ckpt_path=ckpt)
        return task

    through = run(tmp_path / "a", 2)
    resumed = run(tmp_path / "b", 2, tmp_path / "a" / "step=2.ckpt")
    assert same(through, resumed)
