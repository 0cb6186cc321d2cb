"""A student from one labelled scan of a hospital."""

import numpy as np
import pytest
from nm_files import poisson, write_nm

from rbs.clinic import atlas as clinic
from rbs.clinic.atlas import refuse_cut_off, refuse_unlike, train_student
from rbs.data.labels import labels_file, read_labels
from rbs.errors import ManifestError, OutputError, ScanError
from rbs.scans.dicom.reader import read_nm
from rbs.segmentation import atlas
from rbs.segmentation.checkpoint import load_segmenter

BOTH = ("anterior", "posterior")
TINY = {
    "trainer": {"max_steps": 1, "enable_progress_bar": False, "precision": "32-true"},
    "data": {"samples_per_epoch": 2, "batch_size": 1},
    "model": {"segmenter": {"init_args": {"filters": [4, 4, 4, 4], "patch": 2}}},
}


@pytest.fixture
def folder(tmp_path):
    """Three scans of two views; the first has labels."""
    for number in range(3):
        write_nm(
            tmp_path / "in" / f"{number}.dcm", poisson(2, seed=number), views=BOTH, PatientID=f"P{number}"
        )
    labels = np.zeros((2, 64, 48), np.uint8)
    labels[:, 10:20, 16:32] = 1
    np.savez(labels_file(tmp_path / "in" / "0.dcm"), labels=labels)
    return tmp_path / "in"


def given(folder):
    scan = read_nm(folder / "0.dcm")
    return scan, read_labels(labels_file(folder / "0.dcm"), scan)


def test_a_folder_gets_a_student_which_is_found_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "LEVELS", ((4, 32, 2),))
    write_nm(folder / "other.dcm", poisson(1), PixelSpacing=[4.8, 4.8], PatientID="P9")
    files = sorted(folder.glob("*.dcm"))
    student = train_student(*given(folder), files, tmp_path / "out", **TINY)
    assert student.scans == 2
    assert "its pixels are 4.80 x 4.80 mm, those of the atlas 2.30 x 2.30 mm" in str(
        student.left_out[folder / "other.dcm"]
    )
    loaded = load_segmenter(student.weights)
    assert loaded.provenance["spacing_mm"] == [2.3, 2.3]
    assert loaded.probabilities(poisson(1), 0.5, (2.3, 2.3)).shape == (1, 10, 64, 48)

    monkeypatch.setattr(clinic, "write_manifest", None)  # a second training would write one
    assert train_student(*given(folder), files, tmp_path / "out", **TINY).weights == student.weights
    scan, labels = given(folder)
    with pytest.raises(OutputError, match="holds the student of another atlas"):
        train_student(scan, np.where(labels, 2, 0).astype(np.uint8), files, tmp_path / "out", **TINY)


def test_an_atlas_that_cannot_be_carried(folder, tmp_path):
    scan, labels = given(folder)
    with pytest.raises(ScanError, match="all its pixels are labelled background; label its bones"):
        train_student(scan, np.zeros_like(labels), [folder / "1.dcm"], tmp_path / "out")
    with pytest.raises(ScanError, match="no scan besides the atlas can be used; give a folder"):
        train_student(scan, labels, [folder / "0.dcm"], tmp_path / "out")
    damaged = folder / "damaged.dcm"
    damaged.write_bytes((folder / "1.dcm").read_bytes()[:2000])
    with pytest.raises(ScanError, match=r"no scan besides the atlas can be used: .+; give a folder"):
        train_student(scan, labels, [damaged], tmp_path / "out")


@pytest.mark.parametrize(
    ("views", "changes", "fault"),
    [
        (("anterior",), {}, "it shows the posterior view, which the atlas lacks; label a scan of the views"),
        (
            BOTH,
            {"PixelSpacing": [1.1, 1.1]},
            "its pixels are 2.30 x 2.30 mm, those of the atlas 1.10 x 1.10 mm",
        ),
    ],
)
def test_an_atlas_unlike_the_scans(folder, tmp_path, views, changes, fault):
    alone = read_nm(write_nm(tmp_path / "atlas.dcm", poisson(len(views)), views=views, **changes))
    with pytest.raises(ScanError, match=fault):
        refuse_unlike(alone, read_nm(folder / "1.dcm"))


def test_a_scan_of_next_to_nothing(folder, tmp_path):
    faint = np.random.default_rng(0).poisson(0.1, (2, 64, 48))
    scan = read_nm(write_nm(tmp_path / "faint.dcm", faint, views=BOTH))
    with pytest.raises(ScanError, match="too few counts"):
        refuse_unlike(read_nm(folder / "0.dcm"), scan)


def test_a_scan_of_a_part_of_the_body(tmp_path):
    wide = np.random.default_rng(0).poisson(20, (1, 96, 64))
    scan = read_nm(write_nm(tmp_path / "trunk.dcm", wide))
    with pytest.raises(ScanError, match=r"trunk\.dcm: it begins or ends within the body, .+ head to feet"):
        refuse_cut_off(scan)


def test_labels_of_another_size_or_kind(folder):
    scan, _ = given(folder)
    file = labels_file(folder / "0.dcm")
    np.savez(file, labels=np.zeros((2, 32, 48), np.uint8))
    with pytest.raises(ManifestError, match=r"labels have shape \(2, 32, 48\)"):
        read_labels(file, scan)
    np.savez(file, labels=np.full((2, 64, 48), 17, np.uint8))
    with pytest.raises(ManifestError, match="holds unknown labels"):
        read_labels(file, scan)
