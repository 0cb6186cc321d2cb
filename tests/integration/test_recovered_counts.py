"""Scans exported as pictures without their lowest counts: recovered, restored and trained on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures_of import counts_of_a_body, exported
from PIL import Image
from trainings import ROOT, small

from rbs.cli.main import main
from rbs.clinic.restore_scans import restore_scan
from rbs.data.manifest import Manifest, load_case
from rbs.inference.load import load_for_scans
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.body import body_mask
from rbs.scans.censoring import cut_counts
from rbs.scans.fidelity import decibels, peak_counts
from rbs.scans.pictures.counts import recover
from rbs.scans.scan import Scan
from rbs.synthetic.cohort import Acquisition, Patient, draw_patient
from rbs.synthetic.skeleton import SPACING_MM, VIEWS

SCALE = 2.3
CHILDREN = 4


@pytest.fixture(scope="module")
def children() -> list[Patient]:
    """Children with their rapid and standard scans and their truth."""
    return [draw_patient(np.random.SeedSequence([11, n]), Acquisition()) for n in range(CHILDREN)]


def through_a_picture(rapid: np.ndarray, cut: int) -> Scan:
    """A scan exported as a picture a view, of which counts up to `cut` were set to 0, and recovered."""
    found = []
    for view in rapid:
        recovery = recover(exported(cut_counts(view, cut), SCALE))
        assert recovery.counts is not None, recovery.fault
        assert recovery.cut == cut
        found.append(recovery.counts)
    return Scan(np.stack(found), VIEWS, (SPACING_MM, SPACING_MM), 40.0, cut=cut)


def pooled_psnr(children: list[Patient], scan_of: Callable[[np.ndarray], Scan]) -> float:
    """PSNR to the expectation of the restorations by the shipped weights, pooled over children."""
    loaded, errors = load_for_scans(), []
    spacing = SPACING_MM, SPACING_MM
    for child in children:
        mask, peak = body_mask(child.standard, spacing), peak_counts(child.standard, spacing)
        restored = restore_scan(scan_of(child.rapid), loaded).counts
        errors.append(((restored - child.phantom.expectation)[mask] ** 2).mean() / peak**2)
    return decibels(float(np.mean(errors)))


def test_a_cut_phantom_is_restored_as_well_as_a_whole_one(children: list[Patient]) -> None:
    spacing = SPACING_MM, SPACING_MM
    whole = pooled_psnr(children, lambda rapid: Scan(rapid, VIEWS, spacing, 40.0))
    assert pooled_psnr(children, lambda rapid: through_a_picture(rapid, 1)) > whole - 0.1
    # A third of the body holds two counts or fewer.
    assert pooled_psnr(children, lambda rapid: through_a_picture(rapid, 2)) > whole - 0.4
    # Zeros taken for counts.
    assert pooled_psnr(children, lambda rapid: replace(through_a_picture(rapid, 1), cut=0)) < whole - 1


def test_pictures_become_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The experiment on drawn pictures of whose counts the ones were cut."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for patient in range(6):
        for seed, view in enumerate("AP"):
            counts = counts_of_a_body(2 * patient + seed, level=12.0, shape=(256, 128))
            grey = exported(cut_counts(counts, 1), SCALE)
            Image.fromarray(grey).save(pictures / f"{patient:03d}_{view}.png")
    pattern = "(?P<patient>[0-9]+)_(?P<view>[AP])"
    counts, manifest = tmp_path / "counts", tmp_path / "manifest.csv"
    recovering = [
        "recover-counts",
        pictures,
        counts,
        "--pattern",
        pattern,
        "--spacing-mm",
        2.3,
        "--workers",
        1,
    ]
    assert main([*map(str, recovering)]) == 0
    options = ["--standard-velocity", 15, "--val", 0.3, "--test", 0.2, "--workers", 1]
    assert main([*map(str, ["index", counts, "-o", manifest, *options])]) == 0
    assert load_case(Manifest.read(manifest).cases[0]).cut == 1
    experiment = ROOT / "experiments" / "recovered_counts.yaml"
    assert main(["fit", *small(experiment, manifest, tmp_path / "runs")]) == 0, capsys.readouterr().err
    trained = load_restorer(tmp_path / "runs" / "recovered_counts" / "restorer.safetensors")
    assert trained.provenance["steps"] == 2
    assert "val/deviance" in (tmp_path / "runs/recovered_counts/version_0/metrics.csv").read_text()
