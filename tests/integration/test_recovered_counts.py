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
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.inference.load import load_for_scans
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.body import body_mask
from rbs.scans.censoring import cut_counts
from rbs.scans.fidelity import decibels, peak_counts
from rbs.scans.pictures.counts import recover
from rbs.scans.scan import Scan
from rbs.synthetic.cohort import Acquisition, draw_patient
from rbs.synthetic.skeleton import SPACING_MM, VIEWS

SCALE = 2.3
SPACING = SPACING_MM, SPACING_MM
CHILDREN = 3
DOSE = 2.0
"""Gives a trunk the five to eight counts a pixel that chests have in the public pictures of adults."""
TRUNK = slice(160, 544)
"""Rows that are restored: all would take half a minute."""

Child = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def children() -> list[Child]:
    """The trunks of children: rapid scan, standard scan and expectation."""
    acquisition = Acquisition(dose=DOSE)
    drawn = [draw_patient(np.random.SeedSequence([11, n]), acquisition) for n in range(CHILDREN)]
    return [
        (child.rapid[:, TRUNK], child.standard[:, TRUNK], DOSE * child.phantom.expectation[:, TRUNK])
        for child in drawn
    ]


def through_a_picture(rapid: np.ndarray, cut: int) -> Scan:
    """A scan exported as a picture a view, of which counts up to `cut` were set to 0, and recovered."""
    found = []
    for view in rapid:
        recovery = recover(exported(cut_counts(view, cut), SCALE))
        assert recovery.counts is not None, recovery.fault
        assert recovery.cut == cut
        found.append(recovery.counts)
    return Scan(np.stack(found), VIEWS, SPACING, 40.0, cut=cut)


def pooled_psnr(children: list[Child], scan_of: Callable[[np.ndarray], Scan]) -> float:
    """PSNR to the expectation of the restorations by the shipped weights, pooled over children."""
    loaded, errors = load_for_scans(), []
    for rapid, standard, truth in children:
        mask, peak = body_mask(standard, SPACING), peak_counts(standard, SPACING)
        restored = restore_scan(scan_of(rapid), loaded).counts
        errors.append(((restored - truth)[mask] ** 2).mean() / peak**2)
    return decibels(float(np.mean(errors)))


def test_a_cut_phantom_is_restored_as_well_as_a_whole_one(children: list[Child]) -> None:
    whole = pooled_psnr(children, lambda rapid: Scan(rapid, VIEWS, SPACING, 40.0))
    cut = [pooled_psnr(children, lambda rapid, k=k: through_a_picture(rapid, k)) for k in (1, 2)]
    taken = pooled_psnr(children, lambda rapid: replace(through_a_picture(rapid, 1), cut=0))
    print(f"{whole:.3f} dB; cut at 1 and 2 {cut[0]:.3f}, {cut[1]:.3f}; zeros taken for counts {taken:.3f}")
    assert cut[0] > whole - 0.1
    assert cut[1] > whole - 0.3
    assert taken < whole - 1


def test_pictures_become_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The experiment on drawn pictures of whose counts the ones were cut."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for patient in range(6):
        for seed, view in enumerate("AP"):
            body = counts_of_a_body(2 * patient + seed, level=12.0, shape=(256, 128))
            grey = exported(cut_counts(body, 1), SCALE)
            Image.fromarray(grey).save(pictures / f"{patient:03d}_{view}.png")
    counts, manifest, runs = tmp_path / "counts", tmp_path / "manifest.csv", tmp_path / "runs"
    named = ("--pattern", "(?P<patient>[0-9]+)_(?P<view>[AP])", "--spacing-mm", "2.3", "--workers", "1")
    assert main(["recover-counts", str(pictures), str(counts), *named]) == 0
    splits = tmp_path / "splits.csv"
    rows = [f"{patient:03d},{('train', 'val')[patient % 2]}" for patient in range(6)]
    splits.write_text("\n".join(["patient,split", *rows]) + "\n")
    halves = ("--standard-velocity", "15", "--splits", str(splits), "--workers", "1")
    assert main(["index", str(counts), "-o", str(manifest), *halves]) == 0
    assert load_case(Manifest.read(manifest).cases[0]).cut == 1
    experiment = ROOT / "experiments" / "recovered_counts.yaml"
    assert main(["fit", *small(experiment, manifest, runs)]) == 0, capsys.readouterr().err
    assert load_restorer(runs / "recovered_counts" / "restorer.safetensors").provenance["steps"] == 2
    assert "val/deviance" in (runs / "recovered_counts" / "version_0" / "metrics.csv").read_text()
