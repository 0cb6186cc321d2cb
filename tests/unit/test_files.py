"""Files written whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from rbs.errors import OutputError
from rbs.files import whole_file


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
