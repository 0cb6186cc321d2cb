"""`rbs describe`, with networks whose answers are known."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from rbs.description.sentences import OLDEST, SENTENCES, Statement
from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.regions import HOT, label_of
from rbs.scans.scan import REGIONS, Scan, View, align
from rbs.synthetic.cohort import AGES_Y
from rbs.weights.shipped import SEGMENTER, file_sha256

VIEWS = (View.ANTERIOR, View.POSTERIOR)
SHAPE = (256, 128)


class Describes:
    """A network that is sure of one focus in the spine, and sees no metal with 0.5."""

    name, sha256, provenance = "known answers", "0" * 64, {"exposure": [0.2, 1.0]}

    def chances(self, counts: np.ndarray, exposure: float) -> np.ndarray:
        assert counts.shape[1:] == (SHAPE[0] // 2, SHAPE[1] // 2)
        assert exposure == pytest.approx(0.5)
        seen = Statement("hot foci", "spine", "", "one")
        found, topics = np.zeros(len(SENTENCES), np.float32), set()
        for number, (topic, statement, _) in enumerate(SENTENCES):
            if topic not in topics:
                topics.add(topic)
                found[number] = 0.5 if statement.kind == "metal" else 0.96
            if statement == seen:
                found[[n for n, one in enumerate(SENTENCES) if one[0] == topic]] = 0
                found[number] = 0.9
        return found


class Segments:
    """A segmenter that sees a pelvis with a hot spot on the side where most counts lie."""

    name, sha256, provenance = "known regions", file_sha256(SEGMENTER), {}

    def probabilities(self, counts: np.ndarray, exposure: float, spacing_mm: tuple) -> np.ndarray:
        assert counts.shape[1:] == SHAPE
        assert exposure == pytest.approx(0.5)
        middle = SHAPE[1] // 2
        left = counts[..., middle:].sum() > counts[..., :middle].sum()
        column = middle + (20 if left else -20)
        found = np.zeros((len(counts), 1 + len(REGIONS), *SHAPE), np.float32)
        labels = np.zeros(SHAPE, int)
        labels[100:150, middle - 30 : middle + 30] = label_of("pelvis")
        labels[120:125, column : column + 5] = HOT
        found[:, labels, np.arange(SHAPE[0])[:, None], np.arange(SHAPE[1])] = 1
        return found


def write(
    path: Path,
    views: tuple[View, ...] = VIEWS,
    mm: float = 2.26,
    side: str = "left",
    shape: tuple[int, int] = SHAPE,
    age_y: float = 9.0,
) -> Path:
    """A scan at 40 cm/min with most counts on one side of the patient."""
    rng = np.random.default_rng(0)
    mean = np.full((2, *shape), 3.0)
    half = slice(shape[1] // 2, None) if side == "left" else slice(0, shape[1] // 2)
    mean[..., half] = 6.0
    counts = align(rng.poisson(mean).astype(np.uint16), VIEWS)
    kept = [VIEWS.index(view) for view in views]
    scan = Scan(counts[kept], views, (mm, mm), 40.0, 190.0, "Secret-7")
    patient = PatientHeader(
        "Secret-7", sex="F", age_y=age_y, height_m=1.3, weight_kg=30.0, activity_mbq=280.0
    )
    of = StudyHeader("study", datetime(2024, 1, 2, 9))
    write_acquired_nm(path, scan, patient=patient, study=of, uid_seed=path.name)
    return path


@pytest.fixture(autouse=True)
def known_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbs.inference.description.load_describer_for", lambda *_: Describes())
    monkeypatch.setattr("rbs.inference.description.load_segmenter_for", lambda *_: Segments())


def test_sentences_of_a_scan(rbs, tmp_path: Path) -> None:
    out = tmp_path / "facts.json"
    status, text, errors = rbs("describe", write(tmp_path / "scan.dcm"), "--json", out)
    assert (status, errors) == (0, "")
    lines = text.splitlines()
    assert lines[0] == "Research use only, not a report."
    assert "  0.93  One focus of raised uptake in the left side of the pelvis." in lines
    assert "spine" not in text
    assert "  left out: 5 sentences below 0.70" in lines
    assert "  foci of raised uptake by: hot spots of known regions" in lines
    assert "Secret" not in text
    told = json.loads(out.read_text())
    assert told["use"] == lines[0]
    facts = told["scans"][0]["sentences"]
    assert told["weights"]["segmenter"] == {"name": "known regions", "sha256": Segments.sha256}
    assert told["scans"][0]["foci_of_raised_uptake_by"] == "hot spots of known regions"
    assert {"kind": "hot foci", "region": "pelvis", "side": "left", "grade": "one"}.items() <= next(
        one for one in facts if one["grade"] == "one"
    ).items()
    assert told["scans"][0]["left_out"] == 5
    status, _, errors = rbs("describe", tmp_path / "scan.dcm", "--json", out)
    assert status == 1
    assert "exists already" in errors


@pytest.mark.parametrize("side", ["left", "right"])
def test_left_is_the_patients_left_in_both_views(rbs, tmp_path: Path, side: str) -> None:
    for view in VIEWS:
        file = write(tmp_path / f"{view}.dcm", (view,), side=side)
        assert f"in the {side} side of the pelvis." in rbs("describe", file)[1]


def test_two_files_of_a_view_each_are_one_scan(rbs, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for view in VIEWS:
        write(folder / f"{view}.dcm", (view,))
    status, text, _ = rbs("describe", folder)
    assert status == 0
    assert "anterior.dcm + posterior.dcm:" in text


def test_confidence_is_asked_for(rbs, tmp_path: Path) -> None:
    file = write(tmp_path / "scan.dcm")
    assert "left out" not in rbs("describe", file, "--confidence", "0.4")[1]
    assert "One focus" not in rbs("describe", file, "--confidence", "0.95")[1]
    with pytest.raises(SystemExit):
        rbs("describe", file, "--confidence", "1.5")


def test_on_coarse_pixels_foci_are_told_by_the_description_network(rbs, tmp_path: Path) -> None:
    shape = SHAPE[0] // 2, SHAPE[1] // 2
    text = rbs("describe", write(tmp_path / "scan.dcm", mm=4.52, shape=shape))[1]
    assert "  0.90  One focus of raised uptake in the spine." in text
    assert "  foci of raised uptake by: the description network alone" in text


@pytest.mark.parametrize(
    ("provenance", "doubt"),
    [({"counts_per_pixel": [0.07, 4.0]}, "counts per pixel"), ({"exposure": [0.6, 0.99]}, "standard counts")],
)
def test_outside_the_segmenters_training_foci_are_told_by_the_description_network(
    rbs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provenance: dict, doubt: str
) -> None:
    monkeypatch.setattr(Segments, "provenance", provenance)
    status, text, _ = rbs("describe", write(tmp_path / "scan.dcm"))
    assert status == 0
    assert "  0.90  One focus of raised uptake in the spine." in text
    assert "pelvis" not in text
    assert "  foci of raised uptake by: the description network alone" in text
    (warning,) = (line for line in text.splitlines() if "warning" in line)
    assert warning.startswith("  warning: the segmenter is not used for foci: ")
    assert doubt in warning


def test_other_pixels_are_refused_and_the_others_of_a_folder_go_on(rbs, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    write(folder / "coarse.dcm", mm=3.3)
    write(folder / "fine.dcm")
    status, text, errors = rbs("describe", folder)
    assert status == 1
    assert "fine.dcm:" in text
    assert (
        "its pixels are 3.3 x 3.3 mm, and scans of 2.05 to 2.5 mm, or of 4.1 to 5 mm, are described" in errors
    )
    assert "1 of 2 files were refused" in errors


def test_an_adult_is_described_with_a_warning(rbs, tmp_path: Path) -> None:
    assert "years old" not in rbs("describe", write(tmp_path / "child.dcm", age_y=OLDEST - 1))[1]
    status, text, _ = rbs("describe", write(tmp_path / "adult.dcm", age_y=60))
    assert status == 0
    assert "  warning: the patient is 60 years old, and sentences are learned from children" in text


def test_the_oldest_described_is_the_oldest_phantom_of_a_cohort() -> None:
    assert AGES_Y[1] == OLDEST
