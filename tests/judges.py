"""Other people's programs that judge what rbs writes."""

import shutil

import pytest


def judge(name: str) -> str:
    """The path of a program; without it (Debian packages dcmtk, dicom3tools, orthanc) the test is skipped."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
