"""Scans that get their labels from one labelled scan."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rbs.data.loading import load_case
from rbs.data.one_label import OneLabelDataModule, carried
from rbs.errors import ManifestError, RbsError
from rbs.scans.scan import STANDARD_VELOCITY, View
from rbs.segmentation import atlas

SETTINGS = {"crop": (128, 64), "batch_size": 1, "samples_per_epoch": 4, "num_workers": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(atlas, "LEVELS", ((4, 32, 3),))


def module(manifest, **changes):
    return OneLabelDataModule(str(manifest), **(SETTINGS | changes))


@pytest.fixture
def patients(tiny_cohort):
    return [case.patient for case in module(tiny_cohort, atlas="x")._listed.split("train")]


def test_only_the_atlas_shows_its_labels_and_no_scan_its_truth(tiny_cohort, patients):
    data = module(tiny_cohort, atlas=patients[1])
    data.setup("fit")
    cases, kept = data.cases("train"), data._kept["train"]
    assert [case.patient for case in cases] == [patients[1], patients[0], *patients[2:]]
    own = [load_case(case).labels for case in cases]
    assert np.array_equal(kept[0].labels, own[0])
    assert all(scan.expectation is None and scan.rapid is None for scan in kept)
    for scan, true in zip(kept[1:], own[1:], strict=True):
        assert scan.labels.any()
        assert not np.array_equal(scan.labels, true)
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].shape == (1, 2, 128, 64)
    # Counts are thinned, never interpolated.
    assert torch.equal(batch["rapid"], batch["rapid"].round())


def test_exposures_are_relative_to_a_standard_scan(tiny_cohort, patients):
    data = module(tiny_cohort, atlas=patients[0], exposures=(0.9, 0.9))
    data.setup("fit")
    scans = data._scans("train", seed=0)
    assert float(scans[0]["exposure"]) == pytest.approx(0.9)
    spacing = data._kept["train"][0].spacing_mm[0]
    fast = [replace(case, standard_velocity=2 * STANDARD_VELOCITY) for case in scans.cases[1:]]
    data.cases = lambda split: [scans.cases[0], *fast]
    exposures = {round(float(data._scans("train", seed=0)[n]["exposure"]), 2) for n in range(8)}
    assert exposures == {0.9, 0.45}
    ranges = data.training_ranges()
    assert ranges["exposure"] == pytest.approx([0.45, 0.9])
    assert ranges["spacing_mm"] == pytest.approx([spacing, spacing]), "measured counts are not zoomed"


def test_without_an_atlas_or_other_scans(tiny_cohort, patients):
    assert module(tiny_cohort).cases("train")[0].patient == patients[0]
    bare = module(tiny_cohort)
    bare._listed = replace(bare._listed, cases=tuple(replace(c, truth=None) for c in bare._listed.cases))
    with pytest.raises(ManifestError, match="no training scan has labels"):
        bare.cases("train")
    with pytest.raises(ManifestError, match="no training scan is patient P9"):
        module(tiny_cohort, atlas="P9").cases("train")
    alone = module(tiny_cohort, atlas=patients[0])
    alone._listed = replace(alone._listed, cases=alone._listed.cases[:1])
    with pytest.raises(ManifestError, match="no training scan besides the atlas"):
        alone.cases("train")
    with pytest.raises(RbsError, match="0 scans without labels; set children to 1 or more"):
        module(tiny_cohort, children=0)


def test_scans_of_one_view_are_labelled_by_that_view(tiny_cohort, patients):
    one, two = (load_case(case) for case in module(tiny_cohort, atlas=patients[0]).cases("train")[:2])
    posterior = replace(two, standard=two.standard[1:], labels=None, views=(View.POSTERIOR,))
    both = replace(two, labels=None)
    found = carried(one, [posterior, both, posterior])
    assert [len(scan.labels) for scan in found] == [1, 2, 1]
    alone = replace(one, standard=one.standard[:1], labels=one.labels[:1], views=(View.ANTERIOR,))
    with pytest.raises(ManifestError, match="the atlas has no posterior view"):
        carried(alone, [both])
