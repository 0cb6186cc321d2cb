"""The guard around the work on one file of many."""

import errno
from pathlib import Path

import pytest

from rbs.errors import DiskFullError, RbsError, ScanError, UnforeseenError
from rbs.utils.guard import attempt

FILE = Path("scan.dcm")


def failing(error: Exception) -> None:
    raise error


def test_an_error_is_returned_with_the_file() -> None:
    told = attempt(FILE, failing, ScanError("it is empty", remedy="export it again"))
    assert isinstance(told, ScanError)
    assert str(told) == "scan.dcm: it is empty; export it again."


def test_an_unforeseen_error_tells_its_kind_and_not_its_value() -> None:
    told = attempt(FILE, failing, KeyError("Doe^Jane"))
    assert isinstance(told, UnforeseenError)
    assert "KeyError" in str(told)
    assert "Doe" not in str(told)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_concerns_all_files_and_is_raised(number: int) -> None:
    with pytest.raises(DiskFullError, match="free some space"):
        attempt(FILE, failing, OSError(number, "no room"))


def test_other_errors_of_the_system_concern_the_file_alone() -> None:
    told = attempt(FILE, failing, PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(told, RbsError)
    assert str(told) == "scan.dcm: it cannot be read or written (Permission denied); check the permissions."
