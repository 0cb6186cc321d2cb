"""The kind of a file is decided by its content."""

import shutil

import numpy as np
import pytest
from drawn_frames import write_picture, write_video
from PIL import Image

from rbs.endoscopy.media_type import kind_of


def test_content_decides_whatever_the_name_says(tmp_path):
    picture, film = write_picture(tmp_path / "a.png"), write_video(tmp_path / "b.mp4")
    for name in ("scan.dcm", "movie.mp4", "nothing"):
        shutil.copy(picture, tmp_path / name)
        assert kind_of(tmp_path / name) == "picture"
        shutil.copy(film, tmp_path / name)
        assert kind_of(tmp_path / name) == "video"
    (tmp_path / "scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    assert kind_of(tmp_path / "scan.dcm") is None


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
