"""Semantic priors of a training: cached, frozen, online, of labels, of any segmenter."""

import csv
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from small_cohort import (
    CROP,
    NO_TEACHER,
    SPACING,
    Cohort,
    draw,
    fitted,
    net,
    ready,
    same,
    stage2,
    trainer,
)
from torch.nn import functional as F

from rbs.data.manifest import Case
from rbs.distillation.cascade import load_cascade
from rbs.distillation.scm import SCM
from rbs.errors import CheckpointError, RbsError
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.segmentation.checkpoint import load_segmenter, save_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.tasks.profiler import StepProfiler

CPU = torch.device("cpu")


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
    task.priors.stage1 = type("Same", (torch.nn.Module,), {"forward": lambda self, x, exposure: x})()
    data.attach_priors(partial(task.priors.of_counts, device=CPU))
    for index in range(8):
        batch = data.batch(index)
        prior = task.priors.of_crops(batch)
        expected = teacher.prior(batch["rapid"] / 0.5, batch["exposure"], batch["spacing_mm"])
        torch.testing.assert_close(prior.embedding, expected.embedding, atol=2e-2, rtol=2e-3)
        torch.testing.assert_close(prior.masks, expected.masks, atol=3e-3, rtol=0)


# --- masks without a segmenter


def test_true_masks_need_no_segmenter_and_lie_on_every_pixel(tmp_path, stage1):
    task, data = ready(stage2(tmp_path, stage1, source="truth", **NO_TEACHER)), Cohort()
    data.setup("fit")
    batch = data.batch(0)
    labels = torch.zeros(2, 2, CROP, CROP, dtype=torch.long)
    labels[:, :, 8:16, 4:12] = 3
    prior = task.priors.of_crops(batch | {"labels": labels})
    assert torch.equal(prior.masks[:, :, 2, 8:16, 4:12], torch.ones(2, 2, 8, 8))
    assert prior.masks.sum() == 2 * 2 * 64
    del batch["labels"]
    with pytest.raises(RbsError, match=r"regions of every case, but there is no truth or label file"):
        task.priors.of_crops(batch)


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
            task.priors.of_crops(batch).masks, F.one_hot(wanted["labels"], 10)[..., 1:].movedim(-1, 2).float()
        )
        assert not torch.equal(batch["labels"], wanted["labels"])
    for batch, other in zip(data.val_dataloader(), (1, 0), strict=True):
        wanted = torch.from_numpy(labels[other])[None]
        assert torch.equal(
            task.priors.of_scan(batch).masks, F.one_hot(wanted.long(), 10)[..., 1:].movedim(-1, 2).float()
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
    prior = task.priors.of_counts(scan.rapid, 0.5, (4.0, 4.0), device=CPU).decoded()
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
    data.attach_priors(partial(task.priors.of_counts, device=CPU))
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
