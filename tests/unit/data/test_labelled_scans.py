"""Whole labelled scans for segmenters."""

import numpy as np
import pytest
import torch

from rbs.data.labelled_scans import LabelledScansDataModule, binned
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.errors import ManifestError, RbsError


def scans(manifest, **changes):
    settings = {"crop": (128, 64), "batch_size": 4, "samples_per_epoch": 16, "num_workers": 0}
    data = LabelledScansDataModule(manifest, **(settings | changes))
    data.setup("fit")
    return data


def test_samples_are_whole_labelled_scans_of_changing_size_and_exposure(tiny_cohort):
    batches = list(scans(tiny_cohort).train_dataloader())
    assert len(batches) == 4
    for batch in batches:
        assert batch["rapid"].shape == batch["labels"].shape == (4, 2, 128, 64)
    spacing, exposure = (torch.cat([b[name] for b in batches]) for name in ("spacing_mm", "exposure"))
    assert 9.6 / 1.25 <= spacing.min() < spacing.max() <= 9.6 / 0.8
    assert 0.1 <= exposure.min() < exposure.max() <= 0.99


def test_zoomed_counts_are_poisson_of_a_known_expectation_that_keeps_its_counts(tiny_cohort):
    """The sum over a scan does not depend on the pixel size, and pixels vary as they should."""
    data = scans(tiny_cohort, exposures=(0.5, 0.5), zoom=(0.8, 0.8), children=1, samples_per_epoch=40)
    case = load_case(data.cases("train")[0])
    two_views = [s for b in data.train_dataloader() for s in b["rapid"] if not torch.equal(s[0], s[1])]
    whole = [float(scan.sum()) for scan in two_views]
    # One in five samples shows a part of the body: the largest sums are of whole ones.
    assert np.median(sorted(whole)[len(whole) // 2 :]) == pytest.approx(
        0.5 * case.expectation.sum(), rel=0.03
    )


def test_labels_lie_on_the_counts(tiny_cohort):
    """The urinary tract is the brightest region of these children wherever it is drawn."""
    for batch in scans(tiny_cohort).train_dataloader():
        for counts, labels in zip(batch["rapid"], batch["labels"], strict=True):
            bladder, bone = counts[labels == 8], counts[labels == 6]
            if len(bladder) > 20 and len(bone) > 20:
                assert bladder.mean() > 3 * bone.mean()


def test_the_same_number_is_the_same_sample(tiny_cohort):
    first, second = (next(iter(scans(tiny_cohort).train_dataloader())) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in ("rapid", "labels", "exposure"))


def test_binning_sums_counts(tiny_cohort):
    case = load_case(Manifest.read(tiny_cohort).split("train")[0])
    coarse = binned(case, 2)
    assert coarse.standard.sum() == case.standard.sum()
    assert coarse.standard.shape == coarse.labels.shape == (2, 64, 32)
    assert coarse.spacing_mm == (19.2, 19.2)
    assert coarse.standard[0, 3, 4] == case.standard[0, 6:8, 8:10].sum()


def test_a_crop_is_stated_in_pixels_before_binning(tiny_cohort):
    batch = next(iter(scans(tiny_cohort, binning=2).train_dataloader()))
    assert batch["rapid"].shape == (4, 2, 64, 32)


def test_ranges_are_those_of_the_zoomed_samples(tiny_cohort):
    data = scans(tiny_cohort, zoom=(0.5, 2.0), exposures=(0.1, 0.5))
    means = [view.mean() for scan in data._kept["train"] for view in scan.standard]
    ranges = data.training_ranges()
    assert ranges["spacing_mm"] == pytest.approx([4.8, 19.2])
    assert ranges["counts_per_pixel"] == pytest.approx([0.1 * min(means) / 4, 0.5 * max(means) * 4], abs=1e-4)


def test_a_stream_is_surveyed_once(tiny_cohort, monkeypatch):
    drawn = []
    child = Manifest.read(tiny_cohort).split("train")[0]
    monkeypatch.setattr(
        "rbs.data.labelled_scans.draw_child", lambda seed, n: (drawn.append(n), load_case(child))
    )
    data = scans(tiny_cohort, children=0)
    assert data.training_ranges() == data.training_ranges()
    assert drawn == list(range(16))


def test_a_stream_needs_no_training_cases_but_those_that_validate(tiny_cohort, monkeypatch):
    monkeypatch.setattr("rbs.data.labelled_scans.SURVEYED", 2)  # a second each
    data = scans(tiny_cohort, children=0, crop=(1024, 256), batch_size=1, samples_per_epoch=2)
    patients = [batch["patient"][0] for batch in data.train_dataloader()]
    assert patients == ["stream-0", "stream-1"]
    assert data.training_ranges()["spacing_mm"] == pytest.approx([1.81, 2.82], abs=0.01)


def test_measured_scans_are_thinned_at_their_own_pixel_size(make_cohort, tmp_path):
    from rbs.data.labels import write_labels

    manifest = make_cohort(tmp_path, truth=False)
    listed = Manifest.read(manifest)
    for case in listed.cases:
        write_labels(case.standard[0], np.ones((2, 128, 64), np.uint8))
    lines = manifest.read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    for row in rows:
        row["labels"] = row["standard"].replace(".dcm", ".labels.npz")
    manifest.write_text("\n".join([lines[0], *(",".join(row[n] for n in names) for row in rows)]) + "\n")
    for batch in scans(manifest).train_dataloader():
        assert torch.equal(batch["rapid"], batch["rapid"].round())
        assert batch["spacing_mm"].unique().tolist() == pytest.approx([9.6])
    assert scans(manifest).training_ranges()["spacing_mm"] == pytest.approx([9.6, 9.6])


def test_cases_without_labels_are_named(make_cohort, tmp_path):
    with pytest.raises(ManifestError, match=r"patient P0001 has neither a truth nor a label file"):
        scans(make_cohort(tmp_path, truth=False))


@pytest.mark.parametrize("wrong", [{"children": -1}, {"zoom": (2.0, 1.0)}, {"binning": 3}])
def test_settings_out_of_range_are_refused(tiny_cohort, wrong):
    with pytest.raises(RbsError):
        LabelledScansDataModule(tiny_cohort, **wrong)
