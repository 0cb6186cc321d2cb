"""Batches of labelled scans and of others whose labels only a teacher knows."""

import numpy as np
import pytest

from rbs.data.transfer_scans import UNLABELLED, TransferScansDataModule
from rbs.errors import ManifestError, RbsError


def samples(manifest, **options):
    data = TransferScansDataModule(
        manifest, crop=(128, 64), batch_size=4, samples_per_epoch=8, num_workers=0, **options
    )
    data.setup("fit")
    return [batch for _ in range(1) for batch in data.train_dataloader()]


def unlabelled(batch):
    hidden = (batch["labels"] == UNLABELLED).flatten(1)
    assert (hidden.all(dim=1) == hidden.any(dim=1)).all()
    return hidden.all(dim=1).tolist()


def test_both_sets_take_turns(tiny_cohort, make_cohort, tmp_path):
    other = make_cohort(tmp_path / "other", splits=("train",) * 3, truth=False, rapid=False, seed=5)
    batches = samples(tiny_cohort, transfer=other)
    assert [unlabelled(batch) for batch in batches] == [[False, True] * 2] * 2
    # Each set is shown from its first sample on, all of its cases before one comes again.
    cases = [int(case) for batch in batches for case in batch["case"]]
    assert sorted(cases[0::2]) == [0, 1, 2, 3]
    assert sorted(cases[1::2][:3]) == [0, 1, 2]


def test_a_share_of_one_shows_no_label(tiny_cohort):
    other = samples(tiny_cohort, transfer=tiny_cohort, transfer_share=1.0)
    assert all(all(unlabelled(batch)) for batch in other)


def test_without_a_manifest_phantoms_are_drawn(tiny_cohort, monkeypatch):
    drawn = []

    def child(seed, number, lesions=None):
        from rbs.data.loading import load_case
        from rbs.data.manifest import Manifest

        drawn.append((seed, number))
        case = Manifest.read(tiny_cohort).split("train")[0]
        return case, load_case(case)

    monkeypatch.setattr("rbs.data.labelled_scans.draw_child", child)
    samples(tiny_cohort, seed=3)
    # Others than those of a data module of this seed that draws its labelled scans, too.
    assert drawn == [(4, n) for n in range(4)]


def test_a_transfer_set_without_training_patients_is_named(tiny_cohort, make_cohort, tmp_path):
    empty = make_cohort(tmp_path / "empty", splits=("val",), seed=5)
    with pytest.raises(ManifestError, match=r"empty.*it lists no training patient; give its scans the split"):
        samples(tiny_cohort, transfer=empty)


def test_a_share_of_nothing_is_refused(tiny_cohort):
    with pytest.raises(RbsError, match="a transfer share of 0"):
        TransferScansDataModule(tiny_cohort, transfer_share=0.0)


def test_samples_hold_the_expectation_where_all_scans_have_one(tiny_cohort, make_cohort, tmp_path):
    from rbs.data.labelled_scans import LabelledScansDataModule

    data = LabelledScansDataModule(tiny_cohort, crop=(128, 64), num_workers=0, exposures=(0.98, 0.99))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    expected, counts = batch["expectation"].numpy(), batch["rapid"].numpy()
    assert np.isclose(expected.sum(), counts.sum(), rtol=0.05)
