import json

import numpy as np
import pytest
import torch

from rbs.data.described_scans import (
    NUMBERS,
    AlikeScans,
    DescribedScansDataModule,
    DrawnScans,
    mirrored,
    read_child,
    with_more_foci,
)
from rbs.data.manifest import Manifest
from rbs.description.sentences import SENTENCES, TOPICS
from rbs.errors import ManifestError, RbsError
from rbs.synthetic.cohort import write_cohort

HOT = 9


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("phantoms"), 4, 11, workers=1, progress=False)


@pytest.fixture(scope="module")
def children(phantoms):
    listed = Manifest.read(phantoms)
    cases = [case for split in ("train", "val", "test") for case in listed.split(split)]
    return [(case.patient, read_child(case)) for case in cases]


def drawn(children, **changes):
    settings = {"length": 8, "seed": 3, "exposures": (0.2, 1.0), "zoom": (0.93, 1.07)}
    return DrawnScans(children, **settings | changes)


def test_a_sample_holds_the_true_sentence_of_each_topic(children) -> None:
    sample = drawn(children)[0]
    assert [SENTENCES[n][0] for n in sample["sentences"]] == list(range(len(TOPICS)))
    assert sample["rapid"].shape[2] == 128
    assert sample["rapid"].shape[1] % 8 == 0


def test_counts_are_those_of_the_exposure(children) -> None:
    _, child = children[0]
    scan = drawn(children, exposures=None, zoom=(1.0, 1.0))[0]
    expected = float(child.expectation.astype(np.float32).sum()) * DrawnScans.RAPID
    assert float(scan["rapid"].sum()) == pytest.approx(expected, abs=5 * expected**0.5)


def test_a_mirrored_child_has_its_left_on_the_right(children) -> None:
    for _, child in children:
        statements = mirrored(child.statements)
        for topic, one in zip(TOPICS, statements, strict=True):
            assert one in topic.sentences
        assert {one.mirrored() for one in statements} == set(child.statements)
        assert mirrored(statements) == child.statements


def test_flips_swap_image_and_sentences_together(children) -> None:
    """A focus in the left leg of the file is said to be where the sample shows it."""
    checked = 0
    samples = drawn(children, zoom=(1.0, 1.0), added=1.0, length=40)
    for index in range(40):
        sample = samples[index]
        told = [SENTENCES[n][1] for n in sample["sentences"]]
        legs = [one for one in told if (one.kind, one.region) == ("hot foci", "legs") and one.claims]
        only = [one for one in told if one.kind == "hot foci" and one.claims] == legs
        if len(legs) == 1 and only:
            columns = torch.nonzero(sample["foci"][0])[:, 1].float() * 8 + 4
            # An aligned view shows the patient's left on its right.
            assert bool(columns.mean() > 64) == (legs[0].side == "left")
            checked += 1
    assert checked


def test_added_foci_are_brighter_counted_and_labelled(children) -> None:
    _, child = children[0]
    for seed in range(4):
        more = with_more_foci(child, np.random.default_rng(seed))
        assert (more.expectation >= child.expectation.astype(np.float32) - 1e-3).all()
        added = len(more.hot) - len(child.hot)
        assert sum(more.foci.hot.values()) - sum(child.foci.hot.values()) == added
        changed = [one for one, was in zip(more.statements, child.statements, strict=True) if one != was]
        assert all(one.kind == "hot foci" and one.claims for one in changed)
        for row, column in more.hot[len(child.hot) :].astype(int):
            assert (more.labels[:, row, column] == HOT).all()


def test_children_of_one_length_share_a_batch_and_all_are_shown(children) -> None:
    alike = AlikeScans(drawn(children, length=16), 1)
    patients = [alike[index]["patient"][0] for index in range(4)]
    assert sorted(patients) == sorted(name for name, _ in children)
    pairs = AlikeScans(drawn(children, length=16), 2)
    batch = pairs[0]
    assert batch["rapid"].shape[0] == batch["sentences"].shape[0] == 2
    assert batch["foci"].shape[2] * 8 == batch["rapid"].shape[2] == batch["labels"].shape[2]


def test_scans_without_truth_and_records_of_no_phantom_are_refused(tiny_cohort, phantoms, tmp_path) -> None:
    data = DescribedScansDataModule(str(tiny_cohort))
    with pytest.raises(ManifestError, match="no phantom of this version is described by it"):
        data.setup("fit")
    case = Manifest.read(phantoms).split("test")[0]
    record = json.loads(case.truth.with_name("child.json").read_text())
    assert read_child(case).statements[0].kind == "age"
    assert record["child"]["age_y"] > 0
    with pytest.raises(RbsError, match="do not rise within their range"):
        DescribedScansDataModule(str(phantoms), exposures=(1.0, 0.5))


def test_numbers_of_sentences_are_their_places() -> None:
    assert all(SENTENCES[number][1] == statement for statement, number in NUMBERS.items())
