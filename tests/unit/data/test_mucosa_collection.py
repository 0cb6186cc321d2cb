"""Drawn videos as a data set on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rbs.data.frames_manifest import FramesManifest
from rbs.data.mucosa import write_mucosa
from rbs.errors import OutputError, RbsError
from rbs.synthetic.mucosa.video import Video


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mucosa") / "drawn"
    write_mucosa(out, videos=3, frames=2, size=64, seed=5, progress=False)
    return out


def test_the_manifest_can_be_read_and_keeps_videos_together(collection: Path) -> None:
    manifest = FramesManifest.read(collection / "manifest.csv")
    groups = []
    for split in ("train", "val", "test"):
        rows = manifest.rows(split)
        assert len(rows) == 2
        groups.append({row.group for row in rows})
        for row in rows:
            assert row.mask is not None
            for path, mode in ((row.frame, "RGB"), (row.mask, "L")):
                with Image.open(path) as picture:
                    assert (picture.size, picture.mode) == ((64, 64), mode)
    assert sorted(set.union(*groups)) == ["V001", "V002", "V003"]
    assert all(len(group) == 1 for group in groups)


def test_files_hold_what_was_drawn(collection: Path) -> None:
    picture = Video(5, 2, 64).draw(1)
    frame = np.asarray(Image.open(collection / "images" / "V002_01.png"))
    assert np.array_equal(frame, np.round(picture.frame.transpose(1, 2, 0) * 255))
    mask = np.asarray(Image.open(collection / "masks" / "V002_01.png"))
    assert np.array_equal(mask, picture.polyp * 255)


def test_an_interrupted_collection_is_finished_and_whole_frames_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    write_mucosa(out, 3, 2, 64, 5, progress=False)
    lost, kept = out / "images" / "V003_01.png", out / "images" / "V001_00.png"
    bytes_lost, time_kept = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    (out / "manifest.csv").unlink()
    write_mucosa(out, 3, 2, 64, 5, progress=False)
    assert lost.read_bytes() == bytes_lost
    assert kept.stat().st_mtime_ns == time_kept
    assert (out / "manifest.csv").is_file()


def test_a_folder_that_holds_something_else_is_refused(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(OutputError, match="something else"):
        write_mucosa(tmp_path, 3, 2, 64, 5, progress=False)
    with pytest.raises(OutputError, match="not a folder"):
        write_mucosa(tmp_path / "thesis.txt", 3, 2, 64, 5, progress=False)
    with pytest.raises(OutputError, match="other settings"):
        write_mucosa(collection, 3, 2, 64, 6, progress=False)


@pytest.mark.parametrize(
    ("videos", "frames", "size", "seed", "remedy"),
    [
        (2, 6, 64, 1, "3 to 999 videos"),
        (3, 101, 64, 1, "1 to 100 frames"),
        (3, 1, 32, 1, "64 to 1024 pixels"),
        (3, 1, 64, -1, "a seed of 0 or more"),
    ],
)
def test_settings_that_make_no_collection_are_refused_before_anything_is_written(
    videos: int, frames: int, size: int, seed: int, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(RbsError, match=remedy):
        write_mucosa(tmp_path / "out", videos, frames, size, seed)
    assert not (tmp_path / "out").exists()
