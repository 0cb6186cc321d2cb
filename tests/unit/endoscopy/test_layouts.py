"""Collections are read as they lie on disk after their archives are unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbs.endoscopy.layouts import CLINICDB_ENDS, FrameFiles, search


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"a picture")


def listed(root: Path) -> dict[str, tuple[list[str], str, str]]:
    """Masks, group and source of every frame."""
    found: dict[str, tuple[list[str], str, str]] = {}
    for one in search(root).frames:
        masks = [mask.relative_to(root).as_posix() for mask in one.masks]
        found[one.frame.relative_to(root).as_posix()] = (masks, one.group, one.source)
    return found


def only(root: Path) -> FrameFiles:
    (one,) = search(root).frames
    return one


def test_polypgen(tmp_path):
    top = "PolypGen2021_MultiCenterData_v3"
    tree(
        tmp_path,
        f"{top}/data_C1/images_C1/326OLCV1_100H0006.jpg",
        f"{top}/data_C1/masks_C1/326OLCV1_100H0006_mask.jpg",
        f"{top}/data_C1/bbox_image_C1/326OLCV1_100H0006_mask_bbox.jpg",
        f"{top}/data_C1/bbox_C1/326OLCV1_100H0006_mask.txt",
        f"{top}/data_C3/images_C3/C3_EndoCV2021_00489_.jpg",
        f"{top}/data_C3/masks_C3/C3_EndoCV2021_00489_mask.jpg",
        f"{top}/sequenceData/positive/seq2/images_seq2/a.jpg",
        f"{top}/sequenceData/positive/seq2/masks_seq2/a_mask.jpg",
        f"{top}/sequenceData/positive/seq2/masks_seq2/a_mask.txt",
        f"{top}/sequenceData/negativeOnly/seq1_neg/b.jpg",
        f"{top}/imagesAll_positive/a.jpg",
    )
    assert listed(tmp_path / top) == {
        "data_C1/images_C1/326OLCV1_100H0006.jpg": (
            ["data_C1/masks_C1/326OLCV1_100H0006_mask.jpg"],
            "PolypGen C1 326OLCV1",
            "PolypGen C1",
        ),
        "data_C3/images_C3/C3_EndoCV2021_00489_.jpg": (
            ["data_C3/masks_C3/C3_EndoCV2021_00489_mask.jpg"],
            "",
            "PolypGen C3",
        ),
        "sequenceData/positive/seq2/images_seq2/a.jpg": (
            ["sequenceData/positive/seq2/masks_seq2/a_mask.jpg"],
            "PolypGen seq2",
            "PolypGen seq2",
        ),
        "sequenceData/negativeOnly/seq1_neg/b.jpg": ([], "PolypGen seq1_neg", "PolypGen, no polyp"),
    }
    assert [one.healthy for one in search(tmp_path).frames].count(True) == 1
    assert search(tmp_path / top).passed_over == {"data_C1/bbox_image_C1": 1, "imagesAll_positive": 1}
    # A part of the download is read alike.
    part = tmp_path / top / "sequenceData/positive/seq2"
    assert listed(part) == {
        "images_seq2/a.jpg": (["masks_seq2/a_mask.jpg"], "PolypGen seq2", "PolypGen seq2")
    }


def test_hyperkvasir(tmp_path):
    finding = "labeled-images/lower-gi-tract/pathological-findings/polyps"
    tree(
        tmp_path,
        f"{finding}/0d.jpg",
        "labeled-images/upper-gi-tract/anatomical-landmarks/pylorus/1e.jpg",
        "segmented-images/images/0d.jpg",
        "segmented-images/masks/0d.jpg",
        "unlabeled-images/images/2f.jpg",
    )
    assert listed(tmp_path) == {
        f"{finding}/0d.jpg": ([], "", "HyperKvasir polyps"),
        "labeled-images/upper-gi-tract/anatomical-landmarks/pylorus/1e.jpg": ([], "", "HyperKvasir pylorus"),
        "segmented-images/images/0d.jpg": (["segmented-images/masks/0d.jpg"], "", "HyperKvasir segmented"),
        "unlabeled-images/images/2f.jpg": ([], "", "HyperKvasir unlabeled"),
    }


def test_kvasir_seg(tmp_path):
    tree(tmp_path, "Kvasir-SEG/images/cju0.jpg", "Kvasir-SEG/masks/cju0.jpg", "Kvasir-SEG/kavsir_bboxes.json")
    assert listed(tmp_path) == {
        "Kvasir-SEG/images/cju0.jpg": (["Kvasir-SEG/masks/cju0.jpg"], "", "Kvasir-SEG")
    }


@pytest.mark.parametrize("inside", ["", "TIF/"])
def test_clinicdb_frames_are_grouped_by_sequence(tmp_path, inside):
    numbers = (1, 25, 26, 205, 206, 612)
    tree(tmp_path, *(f"{inside}{kind}/{n}.tif" for kind in ("Original", "Ground Truth") for n in numbers))
    groups = {Path(name).stem: group for name, (_, group, _) in listed(tmp_path).items()}
    sequences = {"1": 1, "25": 1, "26": 2, "205": 10, "206": 11, "612": 29}
    assert groups == {number: f"CVC-ClinicDB {sequence}" for number, sequence in sequences.items()}
    assert all(len(masks) == 1 for masks, *_ in listed(tmp_path).values())


def test_clinicdb_in_two_formats_is_listed_once(tmp_path):
    tree(
        tmp_path,
        *(
            f"{form}/{kind}/7.{form.lower()}"
            for form in ("PNG", "TIF")
            for kind in ("Original", "Ground Truth")
        ),
    )
    assert only(tmp_path).frame == tmp_path / "PNG/Original/7.png"
    assert search(tmp_path).passed_over == {"TIF/Ground Truth": 1, "TIF/Original": 1}


def test_clinicdb_has_29_sequences_of_612_frames():
    assert len(CLINICDB_ENDS) == 29
    assert CLINICDB_ENDS[-1] == 612
    assert list(CLINICDB_ENDS) == sorted(set(CLINICDB_ENDS))


def test_endovis(tmp_path):
    tree(
        tmp_path,
        "train/instrument_dataset_1/left_frames/frame000.png",
        "train/instrument_dataset_1/right_frames/frame000.png",
        "train/instrument_dataset_1/ground_truth/Left_Prograsp_Forceps_labels/frame000.png",
        "train/instrument_dataset_1/ground_truth/Maryland_Bipolar_Forceps_labels/frame000.png",
        "test/instrument_dataset_1/left_frames/frame225.png",
        "test/instrument_dataset_1/gt/BinarySegmentation/frame225.png",
        "test/instrument_dataset_1/gt/TypeSegmentation/frame225.png",
        "scene/seq_3/left_frames/frame001.png",
        "scene/seq_3/labels/frame001.png",
    )
    found = {one.frame.parent.parent.relative_to(tmp_path).as_posix(): one for one in search(tmp_path).frames}
    first, last, other = (
        found[k] for k in ("train/instrument_dataset_1", "test/instrument_dataset_1", "scene/seq_3")
    )
    assert [mask.parent.name for mask in first.masks] == [
        "Left_Prograsp_Forceps_labels",
        "Maryland_Bipolar_Forceps_labels",
    ]
    assert [mask.parent.name for mask in last.masks] == ["BinarySegmentation"]
    assert (first.split, last.split, other.split) == ("train", "test", None)
    assert first.group == last.group == "EndoVis instrument_dataset_1"
    assert (other.group, other.masks) == ("EndoVis seq_3", ())
    assert search(tmp_path).passed_over["train/instrument_dataset_1/right_frames"] == 1


@pytest.mark.parametrize(("low", "high"), [("low", "high"), ("LQ", "GT"), ("noisy", "clean")])
def test_mirrored_folders_are_pairs(tmp_path, low, high):
    tree(tmp_path, *(f"{kind}/v1/{name}.png" for kind in (low, high) for name in "ab"), f"{high}/v1/c.png")
    tree(tmp_path, "masks/v1/a.png")
    found = search(tmp_path)
    assert [(one.frame.name, one.low) for one in found.frames] == [
        ("a.png", tmp_path / low / "v1/a.png"),
        ("b.png", tmp_path / low / "v1/b.png"),
    ]
    assert [len(one.masks) for one in found.frames] == [1, 0]
    assert found.passed_over == {f"{high}/v1": 1}, "a frame without its picture is no pair"


def test_images_with_and_without_masks_and_splits(tmp_path):
    tree(
        tmp_path,
        "train/images/0001.jpg",
        "train/masks/0001.png",
        "val/images/0001.jpg",
        "images/test/x.png",
        "loose.png",
        ".hidden.png",
        "__MACOSX/loose.png",
        "notes.txt",
    )
    found = {one.frame.relative_to(tmp_path).as_posix(): one for one in search(tmp_path).frames}
    # What stands beside `images` is no part of that layout, and is not passed over in silence.
    assert set(found) == {"images/test/x.png"}
    assert search(tmp_path).passed_over == {".": 1, "train/images": 1, "train/masks": 1, "val/images": 1}
    (tmp_path / "images/test/x.png").unlink()
    (tmp_path / "images/test").rmdir()
    (tmp_path / "images").rmdir()
    found = {one.frame.relative_to(tmp_path).as_posix(): one for one in search(tmp_path).frames}
    assert {name: (one.split, len(one.masks)) for name, one in found.items()} == {
        "train/images/0001.jpg": ("train", 1),
        "val/images/0001.jpg": ("val", 0),
        "loose.png": (None, 0),
    }


def test_folders_of_unknown_meaning_are_guessed_to_be_videos(tmp_path):
    tree(tmp_path, "ward/video1/1.png", "ward/video2/1.png", "train/images/patient7/1.png", "1.png")
    found = {one.group: one.guessed for one in search(tmp_path).frames}
    assert found == {"ward/video1": True, "ward/video2": True, "train/images/patient7": True, "": False}
