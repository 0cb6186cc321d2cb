"""Other people's programs that judge what rbs writes."""

import shutil
import sys
from pathlib import Path

import pytest


def judge(name: str) -> str:
    """The path of a program; without it (Debian packages dcmtk, dicom3tools, orthanc) the test is skipped.

    One that Python packages bring lies beside Python; looked for last, as pynetdicom brings
    programs that are named like those of dcmtk.
    """
    places = (None, "/usr/sbin", Path(sys.executable).parent)
    found = next(filter(None, (shutil.which(name, path=place) for place in places)), None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found
