"""Files written whole or not at all."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from rbs.errors import OutputError, ScanError
from rbs.utils.files import regular_files, require_regular, versions, whole_file


def test_a_full_disk_is_told_whoever_says_so(small_disk: Path) -> None:
    with (
        pytest.raises(OutputError, match="the disk is full; nothing was written; free some space") as caught,
        whole_file(small_disk / "weights.safetensors") as path,
    ):
        save_file({"a": np.zeros(100_000, np.float32)}, path)
    assert isinstance(caught.value.__cause__, SafetensorError)
    assert list(small_disk.iterdir()) == []


def test_other_errors_of_the_writer_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a") as path:
        path.write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_searched_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_entry(self: Path) -> bool:  # as pathlib does up to Python 3.11
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "exists", no_entry)
    with (
        pytest.raises(OutputError, match=r"it cannot be written \(Permission denied\)"),
        whole_file(tmp_path / "a"),
    ):
        pass


def test_versions_come_by_number_and_only_those_that_hold_the_file(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        (tmp_path / f"version_{number}").mkdir()
    for number in (10, 2):
        (tmp_path / f"version_{number}" / "config.yaml").touch()
    assert [path.name for path in versions(tmp_path)] == ["version_2", "version_9", "version_10"]
    assert [path.parent.name for path in versions(tmp_path, "config.yaml")] == ["version_2", "version_10"]


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    for file in (tree / "z" / "own", tree / ".hidden" / "file", elsewhere / "below" / "other"):
        file.parent.mkdir(parents=True)
        file.touch()
    (tree / ".file").touch()
    links = {
        tree / "a": tree / "z",
        tree / "z" / "round": tree,
        tree / "out": elsewhere,
        tree / "again": elsewhere / "below",
        elsewhere / "back": tree,
        tree / "nowhere": tmp_path / "removed",
        tree / "itself": tree / "itself",
    }
    for link, target in links.items():
        link.symlink_to(target)
    files, closed = regular_files(tree)
    names = [file.relative_to(tree).as_posix() for file in files]
    assert names == ["again/other", "itself", "nowhere", "z/own"]
    assert closed == []


def test_what_is_no_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("pipe.dcm")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.dcm")
        Path("scan.dcm").touch()
        assert regular_files(Path())[0] == [Path("scan.dcm")]
        require_regular(Path("scan.dcm"))
        require_regular(Path("missing.dcm"))
        for name, kind in {"pipe.dcm": "pipe", "socket.dcm": "socket", "/dev/zero": "device"}.items():
            with pytest.raises(ScanError, match=f"{name}: it is a {kind}, not a file; name a file"):
                require_regular(Path(name), ScanError)
    with pytest.raises(ScanError, match="it is a folder, not a file"):
        require_regular(tmp_path, ScanError)
