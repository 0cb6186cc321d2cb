import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import generate_uid

from rbs.data.described_children import read_child, with_more_foci
from rbs.data.described_samples import DescribedSamples, LengthBatches, mirrored
from rbs.data.described_scans import DescribedScansDataModule, EncodedScansDataModule
from rbs.data.manifest import Case, Manifest, write_manifest
from rbs.description.sentences import PARTS, SENTENCES, TOPICS
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
    return DescribedSamples(children, **settings | changes)


def test_a_sample_holds_the_true_sentence_of_each_topic(children) -> None:
    sample = drawn(children)[0]
    assert [SENTENCES[n][0] for n in sample["sentences"]] == list(range(len(TOPICS)))
    assert sample["rapid"].shape[2] == 128
    assert sample["rapid"].shape[1] % 8 == 0


def test_counts_are_those_of_the_exposure(children) -> None:
    _, child = children[0]
    scan = drawn(children, exposures=None, zoom=(1.0, 1.0))[0]
    expected = float(child.expectation.astype(np.float32).sum()) * DescribedSamples.RAPID
    assert float(scan["rapid"].sum()) == pytest.approx(expected, abs=5 * expected**0.5)


def test_a_mirrored_child_has_its_left_on_the_right(children) -> None:
    for _, child in children:
        statements = mirrored(child.statements)
        for topic, one in zip(TOPICS, statements, strict=True):
            assert one in topic.sentences
        assert {one.mirrored() for one in statements} == set(child.statements)
        assert mirrored(statements) == child.statements


def test_flips_swap_image_labels_and_sentences_together(children) -> None:
    samples, unlike = drawn(children, zoom=(1.0, 1.0), exposures=(1.0, 1.0), length=24), set()
    for index in range(24):
        sample = samples[index]
        child = dict(children)[sample["patient"]]
        _, rows, columns = child.expectation.shape
        left = (128 - columns) // 2
        margins = (0, 0), (0, sample["rapid"].shape[1] - rows), (left, 128 - columns - left)
        expected = np.pad(child.expectation.astype(np.float32), margins)
        image = sample["rapid"].numpy()
        flipped = bool(np.abs(image - expected[..., ::-1]).sum() < np.abs(image - expected).sum())
        labels = np.pad(child.labels, margins)
        assert np.array_equal(sample["labels"], labels[..., ::-1] if flipped else labels)
        told = tuple(SENTENCES[n][1] for n in sample["sentences"])
        assert told == (mirrored(child.statements) if flipped else child.statements)
        if mirrored(child.statements) != child.statements:
            unlike.add(flipped)
    assert unlike == {False, True}


def test_a_focus_is_said_to_be_on_the_side_that_shows_it(children) -> None:
    """An aligned view shows the patient's left on its right."""
    samples, sides = drawn(children, zoom=(1.0, 1.0), added=1.0, length=40), {"left": 0, "right": 0}
    for index in range(40):
        sample = samples[index]
        told = {one for one in (SENTENCES[n][1] for n in sample["sentences"]) if one.claims}
        spoken = {(one.region, one.side) for one in told if one.kind == "hot foci"}
        shown = sample["where"].flatten(1).sum(dim=1) > 0
        assert spoken == {part for part, is_shown in zip(PARTS, shown, strict=True) if is_shown}
        assert torch.equal(sample["where"].amax(dim=0), sample["foci"][0])
        for where, (region, side) in zip(sample["where"], PARTS, strict=True):
            if region in ("arms", "legs") and where.any():
                columns = torch.nonzero(where)[:, 1].float() * 8 + 4
                assert bool(columns.mean() > 64) == (side == "left")
                sides[side] += 1
    assert min(sides.values()) >= 5


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
    alike = LengthBatches(drawn(children, length=16), 1)
    patients = [alike[index]["patient"][0] for index in range(4)]
    assert sorted(patients) == sorted(name for name, _ in children)
    pairs = LengthBatches(drawn(children, length=16), 2)
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


def test_children_that_are_kept_from_training_are_not_added_to_it(phantoms, tmp_path) -> None:
    """By Patient ID, and by counts where the header says nothing; names alone are no reason."""
    kept = Manifest.read(phantoms).split("test")[0]
    others = write_cohort(tmp_path / "others", 3, 12, workers=1, progress=False)
    data = DescribedScansDataModule(str(phantoms), more=[str(others)])
    own = Manifest.read(phantoms).split("train")
    assert data.cases("train")[: len(own)] == own
    assert len(data.cases("train")) == len(own) + 3
    nameless = tmp_path / "nameless.dcm"
    header = pydicom.dcmread(kept.rapid[0])
    header.PatientID, header.StudyInstanceUID, header.SOPInstanceUID = "", generate_uid(), generate_uid()
    header.save_as(nameless)
    for number, standard in enumerate((kept.standard, (nameless,))):
        again = tmp_path / f"{number}.csv"
        write_manifest(again, [Case("another", "train", (), standard)])
        data = DescribedScansDataModule(str(phantoms), more=[str(others), str(again)])
        fault = f"its patient another is {kept.patient} of split test of the manifest"
        with pytest.raises(ManifestError, match=fault) as caught:
            data.cases("train")
        assert caught.value.file == again
        assert data.cases("test") == [kept]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"exposures": (1.0, 0.5)}, "do not rise within their range"),
        ({"zoom": (0.4, 1.0)}, "do not rise within their range"),
        ({"added": 1.2}, "shares of 0.2 with one view, 1.2 with further foci"),
        ({"single_view_probability": -0.1}, "shares of -0.1 with one view"),
        ({"batch_size": 0}, "batches of 0, 800 samples an epoch"),
        ({"samples_per_epoch": 0}, "batches of 4, 0 samples an epoch"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_arguments_out_of_range_are_refused(changes, fault) -> None:
    with pytest.raises(RbsError, match=fault):
        DescribedScansDataModule(**changes)


@pytest.mark.parametrize(("scans", "together"), [(31, 32), (34, 33), (1600, 0), (0, 1)])
def test_encoded_scans_that_make_no_batch_are_refused(scans, together) -> None:
    with pytest.raises(RbsError, match=f"{scans} scans, encoded 4 at a time, make no batch of {together}"):
        EncodedScansDataModule(encoder=Path("semantic.safetensors"), scans=scans, together=together)
