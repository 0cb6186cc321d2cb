"""A cohort in memory, a teacher of one convolution, and trainings of seconds on them."""

from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import PassThroughProfiler
from torch.nn import functional as F

from rbs.data.bone_scans import RBSDataModule
from rbs.data.datasets import collate
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.restorers.image_domain import DOMAINS
from rbs.restorers.nafnet import NAFNet
from rbs.scans.scan import View
from rbs.segmentation.prior import SemanticPrior
from rbs.tasks.priors import PriorConfig
from rbs.tasks.restoration import RestorationTask

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


def fitted(tmp_path, stage1, prior, data=None, **options):
    task = stage2(tmp_path, stage1, source=prior, **options)
    trainer(tmp_path).fit(task, data or Cohort(batches=4))
    return task


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def ready(task, data=None):
    """A task outside a training."""
    task.trainer = SimpleNamespace(profiler=PassThroughProfiler(), datamodule=data)
    task.setup("fit")
    return task


NO_TEACHER = {"teacher": None, "scm": False}


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(module, before):
    """Whether any of its weights is another than before."""
    return any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
