"""A folder of frames becomes a manifest that training accepts; nothing is on both sides of a split."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from frame_files import scene, write_box, write_picture
from PIL import Image

from rbs.data.endoscopy import EndoscopyDataModule
from rbs.data.frames_manifest import FrameRow, FramesManifest
from rbs.data.indexing.endoscopy import FrameIndex, index_frames
from rbs.endoscopy.files import read_mask
from rbs.errors import FrameError, OutputError, RbsError
from rbs.utils import patterns

Run = Callable[..., FrameIndex]


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """The folder that is indexed."""
    return tmp_path / "ward"


@pytest.fixture
def run(ward: Path, tmp_path: Path) -> Run:
    """Index the ward."""

    def call(**options: object) -> FrameIndex:
        out = tmp_path / "out" / "manifest.csv"
        return index_frames(ward, out, **({"overwrite": True, "progress": False} | options))

    return call


def rows(found: FrameIndex) -> dict[str, FrameRow]:
    """Rows of the manifest as it is read back, by the frame's path in the ward."""
    return {
        row.frame.resolve().as_posix().split("/ward/")[1]: row
        for row in FramesManifest.read(found.manifest).frames
    }


def refused(found: FrameIndex) -> dict[str, str]:
    with found.refused.open(newline="", encoding="utf-8") as file:
        return {line["file"].split("/ward/")[1]: line["reason"] for line in csv.DictReader(file)}


def test_what_is_indexed_trains(ward, run):
    for split, seeds in (("train", range(3)), ("val", range(3, 5))):
        for seed in seeds:
            write_picture(ward / split / "images" / f"{seed}.jpg", scene(seed), quality=95)
            write_box(ward / split / "masks" / f"{seed}_mask.png")
    found = run()
    assert {name: row.split for name, row in rows(found).items()} == {
        **{f"train/images/{n}.jpg": "train" for n in range(3)},
        **{f"val/images/{n}.jpg": "val" for n in (3, 4)},
    }
    assert found.alike == (0, 0)
    assert found.warnings == ()
    data = EndoscopyDataModule(
        found.manifest, crop=(64, 64), batch_size=2, samples_per_epoch=2, num_workers=0
    )
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert batch["rapid"].shape == (2, 3, 64, 64)
    assert batch["labels"].shape == (2, 1, 64, 64)


def test_near_duplicates_without_given_splits_are_dealt_together(ward, run):
    for seed in range(40):
        write_picture(ward / f"{seed:02d}.png", scene(seed))
    write_picture(ward / "y.jpg", scene(7) // 2, quality=40)
    write_picture(ward / "z.png", np.asarray(Image.fromarray(scene(7)).resize((64, 48))))
    found = run(seed=3)
    listed = rows(found)
    assert found.alike == (3, 1)
    assert {listed[name].split for name in ("07.png", "y.jpg", "z.png")} == {listed["07.png"].split}
    # They count once: as one group, named by the first of them.
    assert {listed[name].group for name in ("07.png", "y.jpg", "z.png")} == {"07.png"}
    assert len({row.split for row in listed.values()}) == 3
    with found.duplicates.open() as file:
        pairs = [(Path(p["frame"]).name, Path(p["other"]).name) for p in csv.DictReader(file)]
    assert pairs == [("07.png", "y.jpg"), ("07.png", "z.png"), ("y.jpg", "z.png")]


def test_splits_follow_from_names_and_seed_and_newcomers_move_nobody(ward, run):
    for seed in range(40):
        write_picture(ward / f"{seed:02d}.png", scene(seed))
    before = {name: row.split for name, row in rows(run(seed=1)).items()}
    assert {name: row.split for name, row in rows(run(seed=1, workers=1)).items()} == before
    assert {name: row.split for name, row in rows(run(seed=2)).items()} != before
    for seed in range(40, 50):
        write_picture(ward / f"{seed:02d}.png", scene(seed))
    after = rows(run(seed=1))
    assert len(after) == 50
    assert {name: after[name].split for name in before} == before


def test_what_shows_the_same_in_two_folders_goes_to_train_and_is_named(ward, run):
    for split, seeds in (("train", range(3)), ("val", range(3, 6)), ("test", range(6, 9))):
        for seed in seeds:
            write_picture(ward / split / f"{seed}.png", scene(seed))
    write_picture(ward / "val" / "again.jpg", scene(1), quality=60)
    write_picture(ward / "test" / "darker.png", scene(4) // 2)
    found = run()
    splits = {name: row.split for name, row in rows(found).items()}
    moved = {"val/again.jpg", "test/darker.png", "val/4.png"}
    assert {name for name in splits if splits[name] != name.split("/")[0]} == moved
    assert {splits[name] for name in moved} == {"train"}
    second, first = found.warnings
    assert "train/1.png (train) and" in first
    assert "val/again.jpg (val) show the same (likeness" in first
    assert first.endswith("all 2 frames that belong to them are in train")
    assert "test/darker.png (test)" in second
    assert "val/4.png (val)" in second


def test_a_video_whose_frames_lie_in_two_folders_goes_to_train(ward, run):
    for split, video, seed in (("train", 1, 1), ("test", 1, 2), ("train", 2, 3), ("test", 9, 4)):
        write_picture(
            ward / split / f"instrument_dataset_{video}" / "left_frames" / f"{seed}.png", scene(seed)
        )
    found = run()
    splits = {row.group: row.split for row in rows(found).values()}
    assert splits["EndoVis instrument_dataset_1"] == "train"
    assert splits["EndoVis instrument_dataset_9"] == "test"
    assert any(
        "frames of EndoVis instrument_dataset_1 lie in folders of different splits" in d
        for d in found.warnings
    )


def test_without_a_folder_val_validation_comes_from_train(ward, run):
    for seed in range(30):
        write_picture(ward / "train" / f"{seed}.png", scene(seed))
    for seed in range(30, 34):
        write_picture(ward / "test" / f"{seed}.png", scene(seed))
    found = run()
    splits = {name: row.split for name, row in rows(found).items()}
    assert {split for name, split in splits.items() if name.startswith("test")} == {"test"}
    assert {split for name, split in splits.items() if name.startswith("train")} == {"train", "val"}
    assert any("no folder is named val" in warning for warning in found.warnings)


def test_exact_copies_are_listed_once_and_the_one_with_a_mask_stays(ward, run):
    write_picture(ward / "labeled-images/lower-gi-tract/x/polyps/a.png", scene(1))
    write_picture(ward / "segmented-images/images/a.png", scene(1))
    write_box(ward / "segmented-images/masks/a.png")
    found = run()
    assert list(rows(found)) == ["segmented-images/images/a.png"]
    ((name, reason),) = refused(found).items()
    assert name.endswith("polyps/a.png")
    assert reason.endswith("segmented-images/images/a.png again")


def test_masks_that_have_no_file_are_written(ward, run):
    video = ward / "instrument_dataset_1"
    write_picture(video / "left_frames" / "frame000.png", scene(1))
    write_box(video / "ground_truth" / "One_labels" / "frame000.png", rows=slice(0, 10))
    write_box(video / "ground_truth" / "Other_labels" / "frame000.png", rows=slice(30, 50))
    write_picture(ward / "sequenceData/negativeOnly/seq1_neg/n.jpg", scene(2))
    listed = rows(run())
    both = read_mask(listed["instrument_dataset_1/left_frames/frame000.png"].mask)
    expected = np.zeros((96, 128), bool)
    expected[[*range(10), *range(30, 50)], 20:60] = True
    np.testing.assert_array_equal(both, expected)
    healthy = listed["sequenceData/negativeOnly/seq1_neg/n.jpg"]
    assert read_mask(healthy.mask).shape == (96, 128)
    assert not read_mask(healthy.mask).any()


def test_pairs_are_checked_by_content(ward, run):
    for seed in range(6):
        write_picture(ward / "high" / f"{seed}.png", scene(seed))
        low = scene(seed) // 3
        if seed == 4:
            low = np.asarray(Image.fromarray(low).resize((64, 48), Image.Resampling.BOX))
        write_picture(ward / "low" / f"{seed}.png", low)
    write_picture(ward / "low" / "2.png", scene(3) // 3)
    write_picture(ward / "low" / "5.png", scene(5, 90, 128))
    found = run()
    assert {Path(name).stem for name in rows(found)} == {"0", "1", "3", "4"}
    assert all(row.low is not None for row in rows(found).values())
    reasons = refused(found)
    assert "does not show what" in reasons["low/2.png"]
    assert "high/2.png shows" in reasons["low/2.png"]
    assert "128 x 90 pixels, but" in reasons["low/5.png"]


def test_whatever_cannot_be_used_is_refused_by_name(ward, run):
    for name, seed in (("good", 1), ("small_mask", 2), ("no_mask", 3)):
        write_picture(ward / "images" / f"{name}.png", scene(seed))
    write_box(ward / "masks" / "good.png")
    write_box(ward / "masks" / "small_mask.png", shape=(64, 128))
    write_picture(ward / "images" / "black.png", np.zeros((96, 128, 3), np.uint8))
    write_picture(ward / "images" / "icon.png", scene(4, 16, 16))
    (ward / "images" / "empty.jpg").touch()
    whole = write_picture(ward / "images" / "cut.jpg", scene(5)).read_bytes()
    (ward / "images" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (ward / "images" / "text.png").write_text("a letter")
    found = run()
    assert set(rows(found)) == {"images/good.png", "images/no_mask.png"}
    reasons = refused(found)
    for name, reason in (
        ("masks/small_mask.png", "the mask has 128 x 64 pixels, but"),
        ("images/black.png", "it shows nothing"),
        ("images/icon.png", "it has 16 x 16 pixels, as icons have"),
        ("images/empty.jpg", "it is empty"),
        ("images/cut.jpg", "it cannot be decoded"),
        ("images/text.png", "it is no picture"),
    ):
        assert reason in reasons[name]
    assert len(reasons) == 6
    assert any("frames without a mask: 1 of 2" in warning for warning in found.warnings)


def test_groups_by_pattern(ward, run):
    for patient, seed in (("A", 1), ("A", 2), ("B", 3)):
        write_picture(ward / "images" / f"P{patient}_{seed}.png", scene(seed))
    write_picture(ward / "images" / "stray.png", scene(9))
    found = run(group=r"P([A-Z])_")
    assert {name: row.group for name, row in rows(found).items()} == {
        "images/PA_1.png": "A",
        "images/PA_2.png": "A",
        "images/PB_3.png": "B",
        "images/stray.png": "../ward/images/stray.png",
    }
    assert "frames that --group does not match: 1" in found.warnings
    for pattern, fault in (
        ("(", "no regular expression"),
        ("P.", "has no group"),
        ("(Q)", "matches none of 4"),
    ):
        with pytest.raises(RbsError, match=fault):
            run(group=pattern)


def test_settings_and_places_that_cannot_be_meant(ward, run, tmp_path):
    with pytest.raises(FrameError, match="there is no such folder"):
        run()
    ward.mkdir()
    with pytest.raises(FrameError, match="there is no picture in this folder"):
        run()
    write_picture(ward / "1.png", scene(1))
    with pytest.raises(OutputError, match="the manifest is a CSV file"):
        index_frames(ward, tmp_path / "m.txt")
    for options in ({"shares": (0, 0, 0)}, {"shares": (-1, 1, 1)}, {"workers": 0}, {"seed": -1}):
        with pytest.raises(RbsError, match="out of range"):
            run(**options)
    before = run().manifest.read_bytes()
    with pytest.raises(
        OutputError, match="exists already; choose another name, or replace it with --overwrite"
    ):
        run(overwrite=False)
    assert run().manifest.read_bytes() == before


def test_linked_folders_are_searched_and_no_pattern_hangs(ward, run, tmp_path, monkeypatch):
    write_picture(ward / "here" / "1.jpg", scene(1))
    write_picture(tmp_path / "elsewhere" / ("a" * 60 + ".jpg"), scene(2))
    (ward / "link").symlink_to(tmp_path / "elsewhere")
    (ward / "here" / "round").symlink_to(ward)
    os.mkfifo(ward / "here" / "pipe.jpg")
    assert len(run().rows) == 2
    monkeypatch.setattr(patterns, "LONGEST_S", 0.1)
    with pytest.raises(RbsError, match="takes too long"):
        run(group="((a|aa)+)_")


@pytest.mark.skipif(not os.environ.get("RBS_TEST_DATA"), reason="RBS_TEST_DATA is not set")
def test_real_frames_a_second_apart_are_kept_together(tmp_path):
    real = Path(os.environ["RBS_TEST_DATA"]) / "endoscopy"
    ward = tmp_path / "ward"
    for place in ("images", "masks"):
        (ward / place).mkdir(parents=True)
        for file in sorted((real / "train" / place).iterdir())[20:60] + [
            file for file in (real / "train" / place).iterdir() if file.stem == "0156"
        ]:
            (ward / place / file.name).symlink_to(file)
    found = index_frames(ward, tmp_path / "m.csv", progress=False)
    assert len(found.rows) == 41
    assert found.alike == (2, 1)
    (pair,) = list(csv.DictReader(found.duplicates.open()))
    assert {Path(pair["frame"]).stem, Path(pair["other"]).stem} == {"0031", "0156"}
