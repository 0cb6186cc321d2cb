"""Each file is opened once, and its content decides its kind; a folder is of one kind."""

import os
import sys
from pathlib import Path

import pytest
from drawn_frames import write_picture, write_video
from nm_files import poisson, write_nm

from rbs.clinic import sources as module
from rbs.clinic.sources import Source, source_of, sources_in
from rbs.errors import FrameError, ScanError


def dicom(path: Path) -> Path:
    path.write_bytes(bytes(128) + b"DICM" + bytes(100))
    return path


def kinds(folder: Path) -> list[tuple[str, str]]:
    return [
        (source.kind, source.path.relative_to(folder).as_posix()) for source in sources_in(folder).sources
    ]


def test_a_scan_is_known_by_its_beginning(tmp_path):
    for name in ("scan.dcm", "movie.mp4", "picture.png", "nothing"):
        assert source_of(dicom(tmp_path / name)).kind == "scan"
    (tmp_path / "notes.txt").write_text("Dear colleague")
    assert source_of(tmp_path / "notes.txt").kind == "scan"  # whose reader says best what it is not
    with pytest.raises(ScanError, match="no such file"):
        source_of(tmp_path / "none")


def test_a_folder_of_one_kind(tmp_path):
    with pytest.raises(ScanError, match="no scan"):
        sources_in(tmp_path)
    (tmp_path / "notes.txt").write_text("Dear colleague")
    (tmp_path / "README").write_text("")  # named like an export, but beside pictures it is none
    (tmp_path / ".hidden").mkdir()
    write_video(tmp_path / ".hidden" / "v.mp4")
    write_picture(tmp_path / "b.png")
    write_picture(tmp_path / "deep" / "a.png")
    assert kinds(tmp_path) == [("picture", "b.png"), ("picture", "deep/a.png")]


def test_no_export_is_passed_over(tmp_path):
    (tmp_path / "IM0001").write_bytes(b"short")
    (tmp_path / "notes.txt").write_text("Dear colleague")
    dicom(tmp_path / "DICOMDIR")
    dicom(tmp_path / "a.dcm")
    assert kinds(tmp_path) == [("scan", "IM0001"), ("scan", "a.dcm")]


def test_pictures_beside_scans_are_passed_over(tmp_path):
    dicom(tmp_path / "a.dcm")
    for name in ("c.png", "b.png", "notes.txt"):
        write_picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("Dear")
    found = sources_in(tmp_path)
    assert [source.path.name for source in found.sources] == ["a.dcm"]
    assert [path.name for path in found.passed_over] == ["b.png", "c.png"]
    assert str(found) == "2 pictures beside the scans, such as b.png"


def test_pictures_and_videos_are_not_mixed(tmp_path):
    write_video(tmp_path / "a.mp4")
    for name in ("c.png", "b.png"):
        write_picture(tmp_path / name)
    fault = r"mixes kinds \(pictures: 2, such as b.png; videos: 1, such as a.mp4\)"
    with pytest.raises(FrameError, match=fault):
        sources_in(tmp_path)


def test_studies_are_told_and_content_is_held_while_there_is_room(tmp_path, monkeypatch):
    for name in ("a.dcm", "b.dcm"):
        write_nm(tmp_path / name, poisson(), study="1.2.3")
    write_nm(tmp_path / "c.dcm", poisson(), study=None)
    first, second, third = sources_in(tmp_path).sources
    assert first.study == second.study == "1.2.3" != third.study
    assert first.content == (tmp_path / "a.dcm").read_bytes()
    monkeypatch.setattr(module, "HELD", len(first.content))
    assert [source.content is None for source in sources_in(tmp_path).sources].count(True) == 2
    assert sources_in(tmp_path).sources == [first, second, third]


OPENED: dict[str, int] = {}


@pytest.fixture
def opened(tmp_path):
    """Names of the files below tmp_path that were opened for reading, and how often."""
    if not OPENED:  # a hook cannot be taken away again
        sys.addaudithook(lambda event, args: event == "open" and _count(*args))
    OPENED.clear()
    OPENED["folder"] = tmp_path / "in"
    return OPENED


def _count(path, mode, flags):
    if isinstance(path, str | os.PathLike) and OPENED and Path(path).is_relative_to(OPENED["folder"]):
        OPENED[Path(path).name] = OPENED.get(Path(path).name, 0) + 1


@pytest.mark.parametrize("room", [2**27, 0], ids=["held", "read again"])
def test_a_file_of_a_folder_is_opened_once(opened, tmp_path, room, monkeypatch):
    from rbs.cli.main import main

    monkeypatch.setattr(module, "HELD", room)
    for view in ("anterior", "posterior"):
        write_nm(tmp_path / "in" / view, poisson(), views=(view,), study="1.2.3")
    write_nm(tmp_path / "in" / "both.dcm", poisson(2), views=("anterior", "posterior"))
    opened.update(anterior=0, posterior=0)
    opened["both.dcm"] = 0
    assert main(["restore", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    expected = 1 if room else 3
    assert {name: opened[name] for name in ("anterior", "posterior", "both.dcm")} == dict.fromkeys(
        ("anterior", "posterior", "both.dcm"), expected
    )


def test_two_sources_of_one_path_are_one(tmp_path):
    assert Source(tmp_path, "scan", content=b"a") == Source(tmp_path, "scan")
