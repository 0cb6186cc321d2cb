"""Outlined pictures on their way to labelled training scans."""

import json
from pathlib import Path

import numpy as np
import pytest
from coco_files import box, write_coco
from pictures_of import counts_of_a_body, exported
from PIL import Image

from rbs.cli import main as cli
from rbs.data.bone_scans import RBSDataModule
from rbs.data.labels import labels_file, read_labels, read_regions, write_labels
from rbs.data.loading import load_case
from rbs.data.manifest import Manifest
from rbs.errors import ManifestError
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import REGIONS, View

SHAPE = (256, 128)
SKULL, LEGS = REGIONS.index("skull") + 1, REGIONS.index("legs") + 1


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two patients of two views, and the annotations of the first alone."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, patient in enumerate("12"):
        for view in "AP":
            grey = exported(counts_of_a_body(2 * number + "AP".index(view), shape=SHAPE, level=9), 2.3)
            Image.fromarray(grey).save(folder / f"{patient}_{view}.png")
    masks = [("1_A.png", "skull", [box(10, 40, 40, 90)]), ("1_P.png", "femur L", [box(150, 70, 200, 100)])]
    masks.append(("1_P.png", "mystery", [box(0, 0, 9, 9)]))
    write_coco(folder / "bones.json", {"1_A.png": SHAPE, "1_P.png": SHAPE, "9_A.png": SHAPE}, masks)
    (folder / "regions.csv").write_text("category,region\nmystery,background\n")
    return folder


def recover(capsys, pictures: Path, out: Path, *options: object) -> tuple[int, str, str]:
    command = ["recover-counts", pictures, out, "--pattern", "(?P<patient>[0-9])_(?P<view>[AP])"]
    command += ["--spacing-mm", 4, "--velocity", 20, "--workers", 1, *options]
    status = cli.main([str(argument) for argument in command])
    return status, *capsys.readouterr()


def test_outlined_pictures_become_labelled_training_scans(pictures, tmp_path, capsys):
    out = tmp_path / "counts"
    named = ("--coco", pictures / "bones.json", "--coco-regions", pictures / "regions.csv")
    status, said, error = recover(capsys, pictures, out, *named, "--json")
    assert status == 0, error
    document = json.loads(said)
    assert (document["labelled"], document["without_labels"]) == (2, ["2_A.png", "2_P.png"])
    assert labels_file(out / "1_A.dcm").is_file()
    assert not labels_file(out / "2_A.dcm").exists()
    # A run that is finished is labelled again from what it left.
    labels_file(out / "1_A.dcm").unlink()
    assert "2 scans labelled, 2 are not in" in recover(capsys, pictures, out, *named)[1]

    manifest = tmp_path / "manifest.csv"
    assert cli.main(["index", str(out), "-o", str(manifest), "--workers", "1"]) == 0
    first, second = sorted(Manifest.read(manifest).cases, key=lambda case: case.patient)
    assert [file.name for file in first.labels] == ["1_A.labels.npz", "1_P.labels.npz"]
    assert second.labels == ()
    loaded = load_case(first)
    assert loaded.views == (View.ANTERIOR, View.POSTERIOR)
    assert loaded.expectation is None
    expected = np.zeros((2, *SHAPE), np.uint8)
    expected[0, 10:40, 40:90] = SKULL
    expected[1, 150:200, 128 - 100 : 128 - 70] = LEGS  # mirrored onto the anterior view, as its counts
    np.testing.assert_array_equal(loaded.labels, expected)
    assert load_case(second).labels is None


def test_files_named_by_uids_have_label_files_of_their_own():
    named = [labels_file(Path(name)).name for name in ("1.2.840.1", "1.2.840.2", "a.b.dcm")]
    assert named == ["1.2.840.1.labels.npz", "1.2.840.2.labels.npz", "a.b.labels.npz"]


def test_a_teacher_is_given_them(pictures, tmp_path, capsys):
    out, manifest = tmp_path / "counts", tmp_path / "manifest.csv"
    named = ("--coco", pictures / "bones.json", "--coco-regions", pictures / "regions.csv")
    assert recover(capsys, pictures, out, *named)[0] == 0
    files = "counts/1_A.dcm;counts/1_P.dcm,counts/1_A.labels.npz;counts/1_P.labels.npz"
    others = "counts/2_A.dcm;counts/2_P.dcm,"
    manifest.write_text(f"patient,split,standard,labels\n1,train,{files}\n2,val,{others}\n")
    data = RBSDataModule(
        manifest, crop=(256, 128), single_view_probability=0, batch_size=1, samples_per_epoch=8
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert "expectation" not in batch
    assert set(batch["labels"].unique().tolist()) == {0, SKULL, LEGS}
    # The regions move with the counts, which are flipped at random.
    flip = batch["flip"][0].tolist()
    counts = (batch["rapid"] + batch["target"])[0].numpy()
    labels = batch["labels"][0].numpy()
    axes = [axis for axis, flipped in zip((2, 1), flip, strict=True) if flipped]
    whole = load_case(Manifest.read(manifest).cases[0])
    np.testing.assert_array_equal(np.flip(counts, axes), whole.standard)
    np.testing.assert_array_equal(np.flip(labels, axes), whole.labels)
    assert "labels" not in next(iter(data.val_dataloader()))


def test_annotations_that_do_not_fit_are_refused_before_or_beside_the_counts(pictures, tmp_path, capsys):
    out = tmp_path / "counts"
    status, _, error = recover(capsys, pictures, out, "--coco", pictures / "bones.json")
    assert status == 1
    assert "the region of these categories is unknown: 'mystery'" in error
    assert not out.exists()
    assert "--coco-regions is for --coco only" in recover(capsys, pictures, out, "--coco-regions", "a.csv")[2]
    other = write_coco(tmp_path / "other.json", {"x.png": SHAPE}, [])
    assert (
        "it annotates none of the 4 pictures, but x.png" in recover(capsys, pictures, out, "--coco", other)[2]
    )
    sizes = {"a/1_A.png": SHAPE, "b/1_A.png": SHAPE}
    twice = write_coco(tmp_path / "twice.json", sizes, [])
    assert "1_A.png may be one of several" in recover(capsys, pictures, out, "--coco", twice)[2]
    small = write_coco(tmp_path / "small.json", {"1_A.png": (128, 64)}, [])
    message = recover(capsys, pictures, out, "--coco", small)[2]
    assert "1_A.png has 128 x 64 rows and columns, but it has 256 x 128" in message


def test_label_files_of_another_scan_and_wrong_tables_are_refused(pictures, tmp_path, capsys):
    out = tmp_path / "counts"
    assert recover(capsys, pictures, out)[0] == 0
    scan, file = read_nm(out / "1_A.dcm"), labels_file(out / "1_A.dcm")
    for labels, fault in (
        (np.zeros((1, 9, 9), np.uint8), "its labels have shape"),
        (np.full((1, *SHAPE), 10, np.uint8), "unknown labels"),
        (np.zeros((1, *SHAPE)), "unknown labels"),
    ):
        write_labels(out / "1_A.dcm", labels)
        with pytest.raises(ManifestError, match=fault):
            read_labels(file, scan)
    file.write_bytes(b"no")
    with pytest.raises(ManifestError, match="it is no label file"):
        read_labels(file, scan)
    lines = "patient,split,standard,labels\n1,train,counts/1_A.dcm;counts/1_P.dcm,counts/1_A.labels.npz\n"
    (tmp_path / "manifest.csv").write_text(lines)
    with pytest.raises(ManifestError, match="line 2: 1 label files for 2 standard files"):
        Manifest.read(tmp_path / "manifest.csv")
    table = tmp_path / "regions.csv"
    for text, fault in (
        ("category,region\na,toe\n", "unknown region 'toe'"),
        ("a,b\n1,2\n", "it is no CSV of"),
    ):
        table.write_text(text)
        with pytest.raises(ManifestError, match=fault):
            read_regions(table)
