"""The kind of a file is decided by its content."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn_frames import write_picture, write_video
from PIL import Image

from rbs.endoscopy.media_type import kind_of, pictures_or_videos
from rbs.errors import FrameError


def dicom(path: Path) -> Path:
    path.write_bytes(bytes(128) + b"DICM" + bytes(100))
    return path


def test_content_decides_whatever_the_name_says(tmp_path):
    picture, film = write_picture(tmp_path / "a.png"), write_video(tmp_path / "b.mp4")
    for name in ("scan.dcm", "movie.mp4", "nothing"):
        shutil.copy(picture, tmp_path / name)
        assert kind_of(tmp_path / name) == "picture"
        shutil.copy(film, tmp_path / name)
        assert kind_of(tmp_path / name) == "video"
        assert kind_of(dicom(tmp_path / name)) == "scan"


@pytest.mark.parametrize("end", ["bmp", "gif", "jpg", "jp2", "ppm", "tif", "webp"])
def test_pictures_of_many_formats(tmp_path, end):
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(tmp_path / f"a.{end}")
    assert kind_of(tmp_path / f"a.{end}") == "picture"


def test_mpeg_is_a_video_though_pillow_opens_it(tmp_path):
    assert kind_of(write_video(tmp_path / "a.mpg", codec="mpeg2video")) == "video"


def test_a_damaged_file_is_what_it_is_called(tmp_path):
    for name, kind in (
        ("a.mp4", "video"),
        ("a.avi", "video"),
        ("a.jpg", "picture"),
        ("a.txt", None),
        ("a", None),
    ):
        (tmp_path / name).write_bytes(b"\0damaged" * 100)
        assert kind_of(tmp_path / name) == kind


def test_a_folder_of_one_kind(tmp_path):
    assert pictures_or_videos(tmp_path) is None
    (tmp_path / "notes.txt").write_text("Dear colleague")
    (tmp_path / ".hidden").mkdir()
    write_video(tmp_path / ".hidden" / "v.mp4")
    files = [write_picture(tmp_path / "b.png"), write_picture(tmp_path / "deep" / "a.png")]
    assert pictures_or_videos(tmp_path) == ("picture", files)


def test_scans_are_left_to_their_own_search(tmp_path):
    dicom(tmp_path / "a.dcm")
    assert pictures_or_videos(tmp_path) is None


def test_a_mixed_folder_is_refused(tmp_path):
    dicom(tmp_path / "a.dcm")
    for name in ("c.png", "b.png"):
        write_picture(tmp_path / name)
    with pytest.raises(
        FrameError, match=r"mixes kinds \(pictures: 2, such as b.png; scans: 1, such as a.dcm\)"
    ):
        pictures_or_videos(tmp_path)
