"""The frames manifest: what it tells, and what it refuses."""

import os
from pathlib import Path

import pytest

from rbs.data.frames_manifest import FrameRow, FramesManifest, is_frames_manifest, write_frames_manifest
from rbs.errors import ManifestError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "c.png", "a_low.png", "a_mask.png"):
        (tmp_path / name).touch()
    return tmp_path


def written(folder: Path, text: str) -> Path:
    (folder / "manifest.csv").write_text(text)
    return folder / "manifest.csv"


def test_rows_by_split(folder):
    path = written(
        folder, "frame,split,low,mask,group\na.png,train,a_low.png,a_mask.png,video 1\nb.png,val,,,\n"
    )
    manifest = FramesManifest.read(path)
    (first,) = manifest.rows("train")
    assert (first.frame, first.low, first.mask) == (
        folder / "a.png",
        folder / "a_low.png",
        folder / "a_mask.png",
    )
    assert first.patient == "video 1"
    (second,) = manifest.rows("val")
    assert (second.low, second.mask, second.group) == (None, None, "b.png")


def test_what_is_written_is_read(folder):
    rows = [
        FrameRow(folder / "a.png", "train", folder / "a_low.png", folder / "a_mask.png", "v", "s"),
        FrameRow(folder / "b.png", "val", group="w"),
    ]
    write_frames_manifest(folder / "m.csv", rows)
    assert list(FramesManifest.read(folder / "m.csv").frames) == rows


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("frame,split\n", "it lists no frame"),
        ("frame,set\na.png,train\n", "line 1: no column split"),
        ("frame,split\na.png,training\n", "line 2: unknown split 'training'; use one of train, val, test"),
        ("frame,split\na.png,train\nx.png,val\n", "line 3: the frame .*x.png is missing"),
        ("frame,split,mask\na.png,train,x.png\n", "line 2: the mask .*x.png is missing"),
        ("frame,split\n,train\n", "line 2: frame is empty"),
        ("frame,split\na.png\n", "line 2: it has not 2 cells"),
        (
            "frame,split,group\na.png,train,v\nb.png,val,v\n",
            "line 3: group v is in split val but in train on line 2",
        ),
        (
            "frame,split\na.png,train\n./a.png,train\n",
            "line 3: the frame .*a.png is listed before, on line 2",
        ),
    ],
)
def test_refusals_name_the_row(folder, text, fault):
    with pytest.raises(ManifestError, match=fault):
        FramesManifest.read(written(folder, text))


def test_an_empty_split_and_a_missing_manifest(folder):
    manifest = FramesManifest.read(written(folder, "frame,split\na.png,train\n"))
    with pytest.raises(ManifestError, match="no frame is in split 'test'"):
        manifest.rows("test")
    with pytest.raises(ManifestError, match="there is no such manifest; make one with"):
        FramesManifest.read(folder / "none.csv")


def test_a_pipe_is_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ManifestError, match="it is a pipe, not a file"):
        is_frames_manifest(tmp_path / "pipe.csv")


@pytest.mark.parametrize("row", ["b.png,test,", "c.png,test,b.png"])
def test_a_copy_of_a_frame_is_in_no_other_split(folder: Path, row: str) -> None:
    for name, content in (("a.png", b"one"), ("b.png", b"one"), ("c.png", b"two")):
        (folder / name).write_bytes(content)
    path = written(folder, f"frame,split,low\na.png,train,\n{row}\n")
    with pytest.raises(ManifestError, match=r"line 3: .*b.png \(in split test\) is the picture .*a.png"):
        FramesManifest.read(path)
    path.write_text(path.read_text().replace(",test,", ",train,"))
    assert len(FramesManifest.read(path).frames) == 2


def test_it_is_told_from_a_manifest_of_scans(folder):
    assert is_frames_manifest(written(folder, "split,frame\n"))
    assert not is_frames_manifest(written(folder, "patient,split,standard\n"))
    assert not is_frames_manifest(folder / "a.png")
    assert not is_frames_manifest(folder / "none.csv")
