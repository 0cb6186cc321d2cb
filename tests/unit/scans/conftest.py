"""A small two-view scan, its file, and a way to change one attribute of it."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.scan import Scan, View

Change = Callable[[pydicom.FileDataset], object]


@pytest.fixture(scope="session")
def acquired() -> Scan:
    """A smooth blob in each view, 96 x 64 pixels, Poisson counts, at 40 cm/min."""
    y, x = np.mgrid[:96, :64]
    blob = 0.2 + 6 * np.exp(-((y - 45) ** 2 / 800 + (x - 25) ** 2 / 150))
    counts = np.random.default_rng(0).poisson(np.stack([blob, 0.7 * blob[:, ::-1]])).astype(np.int32)
    return Scan(counts, (View.ANTERIOR, View.POSTERIOR), (2.4, 2.2), 40.0, 300.0, "P0001")


@pytest.fixture(scope="session")
def nm_file(acquired: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan as an acquired NM object. Read only."""
    path = tmp_path_factory.mktemp("nm") / "acquired.dcm"
    patient = PatientHeader("P0001", sex="F", age_y=8.3, height_m=1.27, weight_kg=25.1, activity_mbq=205)
    write_acquired_nm(
        path, acquired, patient=patient, study=StudyHeader("P0001", datetime(2024, 1, 2, 9)), uid_seed="P0001"
    )
    return path


@pytest.fixture
def changed(nm_file: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """A copy of the file to which a change has been made."""

    def change(how: Change) -> Path:
        ds = pydicom.dcmread(nm_file)
        how(ds)
        ds.save_as(tmp_path / "changed.dcm")
        return tmp_path / "changed.dcm"

    return change
