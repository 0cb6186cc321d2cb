"""Other people's programs that judge what rbs writes."""

import shutil
import sys
from pathlib import Path

import pytest


def judge(name: str) -> str:
    """The path of a program; without it (Debian packages dcmtk, dicom3tools, orthanc) the test is skipped.

    One that Python packages bring lies beside Python.
    """
    found = (
        shutil.which(name, path=Path(sys.executable).parent)
        or shutil.which(name)
        or shutil.which(name, path="/usr/sbin")
    )
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
