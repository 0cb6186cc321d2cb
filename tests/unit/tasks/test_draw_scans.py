"""Scans drawn by a diffusion model that learned from labelled ones: a transfer set."""

import numpy as np
import pytest
import torch
from trainings import brief_trainer

from rbs.data.labelled_scans import LabelledScansDataModule
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.errors import RbsError
from rbs.synthetic.scan_diffusion import ScanDiffusion
from rbs.tasks.draw_scans import DrawScans


def model():
    torch.manual_seed(0)
    return ScanDiffusion(channels=[8, 16], groups=4)


def fit(task, data, folder, steps=2):
    brief_trainer(folder, steps, limit_val_batches=1).fit(task, data)


def scans(manifest, **options):
    settings = {"binning": 2, "batch_size": 2, "samples_per_epoch": 4, "single_view_probability": 0.0}
    return LabelledScansDataModule(manifest, crop=(128, 64), num_workers=0, **(settings | options))


def test_drawn_scans_are_cases_that_are_read_back(tiny_cohort, tmp_path):
    fit(DrawScans(model(), scans=3, steps=2, output=tmp_path), scans(tiny_cohort), tmp_path)
    cases = Manifest.read(tmp_path / "drawn" / "manifest.csv").split("train")
    assert len(cases) == 3
    for case in cases:
        scan = load_case(case)
        assert scan.standard.shape == scan.expectation.shape == scan.labels.shape == (2, 128, 64)
        # Poisson counts of the expectation, whose labels are those of a training child.
        assert np.isfinite(scan.expectation).all()
        spread = (scan.standard - scan.expectation) / np.sqrt(scan.expectation + 0.1)
        assert spread.std() < 1.5
        assert scan.labels.max() > 0


def test_a_drawn_scan_shows_the_regions_it_was_asked_for():
    """Regions of known counts, anywhere: after some steps the drawn counts follow the labels."""
    torch.manual_seed(0)
    labels = torch.zeros(8, 2, 32, 32, dtype=torch.int64)
    for n in range(8):
        labels[n, :, 4 * (n % 4) : 4 * (n % 4) + 12, 8:20] = 1 + n // 4
    expectation = torch.tensor([0.5, 4.0, 12.0])[labels]
    diffusion = model()
    diffusion.standardise(expectation)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        diffusion.denoising_error(expectation, labels).backward()
        optimizer.step()
    drawn = diffusion.draw(labels, 5, torch.Generator().manual_seed(0))
    means = [drawn[labels == k].mean().item() for k in range(3)]
    assert means == pytest.approx([0.5, 4.0, 12.0], rel=0.3, abs=0.3)
    assert (drawn >= 0).all()


def test_measured_counts_are_refused(make_cohort, tmp_path):
    from dataclasses import replace

    manifest = make_cohort(tmp_path / "cohort", splits=("train", "val"))
    data = scans(manifest)
    data.setup("fit")
    data._kept["train"] = [replace(scan, expectation=None) for scan in data._kept["train"]]
    with pytest.raises(RbsError, match="measured counts, and a diffusion model draws their noise"):
        fit(DrawScans(model(), scans=1, output=tmp_path), data, tmp_path)


def test_samples_of_one_view_are_refused(tiny_cohort, tmp_path):
    with pytest.raises(RbsError, match=r"show one view twice.*set --data\.single_view_probability 0"):
        fit(DrawScans(model(), scans=1), scans(tiny_cohort, single_view_probability=0.25), tmp_path)


def test_nothing_to_draw_is_refused():
    with pytest.raises(RbsError, match="draw at least one"):
        DrawScans(model(), scans=0)
