"""Phantom children drawn on the fly for training."""

import numpy as np
import pytest
import torch

from rbs.data import stream as streams
from rbs.data.datasets import EpochSampler
from rbs.data.stream import PhantomStreamDataModule, draw_child
from rbs.errors import RbsError
from rbs.synthetic.cohort import make_patient


def stream(manifest, **changes):
    settings = {
        "crop": (64, 48),
        "batch_size": 4,
        "crops_per_child": 2,
        "samples_per_epoch": 8,
        "num_workers": 0,
    }
    return PhantomStreamDataModule(manifest, **(settings | changes))


@pytest.fixture(scope="module")
def batches(tiny_cohort):
    data = stream(tiny_cohort)
    data.setup("fit")
    return list(data.train_dataloader())


def test_batches_are_those_of_the_manifest_module(batches):
    assert len(batches) == 2
    for batch in batches:
        for name in ("rapid", "target", "expectation", "labels"):
            assert batch[name].shape == (4, 2, 64, 48)
        assert len(set(batch["patient"])) == 2
    seen = [patient for batch in batches for patient in batch["patient"]]
    assert sorted(set(seen)) == [f"stream-{n}" for n in range(4)]


def test_pairs_are_disjoint_draws_of_what_is_expected(batches):
    rapid, target, expected, p = (
        torch.cat([b[name] for b in batches]).double()
        for name in ("rapid", "target", "expectation", "exposure")
    )
    p = p[:, None, None, None]
    assert torch.equal(rapid, rapid.round())
    for counts, mean in ((rapid, p * expected), (target, (1 - p) * expected)):
        z2 = ((counts - mean) ** 2 / mean)[expected > 1]
        assert z2.mean() == pytest.approx(1, abs=0.1)
    residuals = torch.stack(
        [
            ((rapid - p * expected) / expected.sqrt())[expected > 1],
            ((target - (1 - p) * expected) / expected.sqrt())[expected > 1],
        ]
    )
    assert abs(torch.corrcoef(residuals)[0, 1]) < 5 / np.sqrt(residuals.shape[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_children_do_not_depend_on_workers(workers, tiny_cohort, batches):
    data = stream(tiny_cohort, num_workers=workers)
    data.setup("fit")
    for one, two in zip(batches, data.train_dataloader(), strict=True):
        assert one["patient"] == two["patient"]
        assert torch.equal(one["rapid"], two["rapid"])


def test_children_do_not_depend_on_ranks_and_never_return(tiny_cohort):
    children = stream(tiny_cohort)._children()
    drawn = []
    for epoch in range(3):
        for rank in range(2):
            sampler = EpochSampler(children, num_replicas=2, rank=rank)
            sampler.set_epoch(epoch)
            drawn += list(sampler)
    assert sorted(drawn) == list(range(12))


def test_other_seeds_and_cohorts_hold_other_children(tiny_cohort):
    one, other = (draw_child(seed, 1)[1] for seed in (1, 2))
    cohort = make_patient(1, seed=1).phantom.expectation
    assert not np.array_equal(one.expectation, other.expectation)
    assert not np.array_equal(one.expectation[0], cohort[0])


def test_measured_pairs_are_the_two_scans_as_acquired(tiny_cohort):
    data = stream(tiny_cohort, pairs="measured", single_view_probability=0)
    for sample in data._children()[5]:
        child = draw_child(data.seed, 5)[1]
        top, left, height, width = sample["crop"].tolist()
        flips = [axis for axis, flipped in zip((2, 1), sample["flip"].tolist(), strict=True) if flipped]
        for name, whole in (("rapid", child.rapid), ("target", child.standard)):
            cut = np.flip(whole[:, top : top + height, left : left + width], flips)
            assert np.array_equal(sample[name].numpy(), cut)
        assert sample["exposure"] == 0.5
        assert sample["target_exposure"] == 1


def test_priors_of_a_stream_are_refused(tiny_cohort):
    with pytest.raises(RbsError, match=r"--model\.prior\.source online"):
        stream(tiny_cohort).attach_priors(lambda counts, exposure: None)


def test_ranges_span_the_first_children(tiny_cohort, monkeypatch):
    monkeypatch.setattr(streams, "SURVEYED", 3)  # a second each
    data = stream(tiny_cohort)
    data.setup("fit")
    ranges = data.training_ranges()
    assert ranges["exposure"] == [0.25, 0.75]
    assert ranges["spacing_mm"] == [2.26, 2.26]
    low, high = ranges["counts_per_pixel"]
    assert 0.1 < low < high < 4


def test_facts_of_a_stream_are_refused(tiny_cohort):
    with pytest.raises(RbsError, match="facts of children of a stream are not kept"):
        stream(tiny_cohort, facts="own")


def test_crops_that_do_not_divide_a_batch_are_refused(tiny_cohort):
    with pytest.raises(RbsError, match="do not divide"):
        stream(tiny_cohort, crops_per_child=3)
