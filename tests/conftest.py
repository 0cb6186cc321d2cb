"""What several tests share: a small cohort of real NM DICOM files, and the places of outside material."""

import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rbs.data import loading
from rbs.data.manifest import Case, write_manifest
from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.registration import Motion
from rbs.scans.scan import REGIONS, Scan, View

# Keeps the augmentation library from asking the internet for its newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Where it is installed BM3D is one more peer of every evaluation, and takes minutes: tests do
# without, but for
# those that ask for it by the fixture below.
sys.modules["bm3d"] = None  # type: ignore[assignment]

WriteCohort = Callable[..., Path]


def pytest_collection_finish() -> None:
    """What all test files imported stays: no garbage collection need look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def registered_once() -> Iterator[None]:
    """Scans of a manifest are registered once a session, however often they are read.

    Replaced is the name in `rbs.data.loading` alone: tests of registration call
    `rbs.scans.registration.estimate_motion`, and `rbs register` imports it from there. The key is
    all that registration is given, so that other counts are registered anew.
    """
    register, known = loading.estimate_motion, dict[bytes, Motion]()

    def remembered(fixed: np.ndarray, moving: np.ndarray, spacing_mm: tuple[float, float]) -> Motion:
        about = f"{fixed.shape} {fixed.dtype} {moving.shape} {moving.dtype} {spacing_mm}".encode()
        key = hashlib.sha256(about + fixed.tobytes() + moving.tobytes()).digest()
        if key not in known:
            known[key] = register(fixed, moving, spacing_mm)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "estimate_motion", remembered)
        yield


@pytest.fixture
def with_bm3d(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of BM3D, whose licence is non-commercial; skips where it is not installed."""
    monkeypatch.delitem(sys.modules, "bm3d")
    pytest.importorskip("bm3d", reason="its licence is non-commercial: pip install bm3d")


def cartoon_child(rows: int, columns: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Expected standard counts and labels (2, rows, columns), frames as the camera writes them."""
    y, x = np.mgrid[:rows, :columns]
    y, x = (y + 0.5) / rows, (x + 0.5) / columns - 0.5

    def blob(cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
        return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1

    def both(cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
        return blob(cy, cx, ry, rx) | blob(cy, -cx, ry, rx)

    side = rng.choice([-1, 1])
    shapes = {
        "skull": (blob(0.12, 0, 0.09, 0.14), 4.0),
        "thorax": (blob(0.34, 0, 0.13, 0.2), 3.0),
        "spine": (blob(0.36, 0, 0.2, 0.04), 8.0),
        "pelvis": (blob(0.55, 0, 0.06, 0.18), 6.0),
        "arms": (both(0.4, 0.32, 0.2, 0.04), 2.5),
        "legs": (both(0.76, 0.1, 0.18, 0.05), 3.0),
        "growth plates": (both(0.77, 0.1, 0.015, 0.05), 15.0),
        "urinary tract": (blob(0.58, 0, 0.025, 0.06), 30.0),
        "hot spots": (blob(rng.uniform(0.28, 0.4), side * 0.12, 0.02, 0.04), 18.0),
    }
    labels = np.zeros((rows, columns), np.uint8)
    expectation = np.full((rows, columns), 0.05) + 0.8 * (blob(0.5, 0, 0.48, 0.4))
    for name in REGIONS:
        inside, level = shapes[name]
        labels[inside] = REGIONS.index(name) + 1
        expectation[inside] = level
    # No camera sees sharp edges, and the reader takes their contrast for noise that raw counts do
    # not have.
    expectation = gaussian_filter(expectation, 1.2)
    scale = rng.uniform(0.8, 1.2)
    frames = np.stack([expectation, 0.8 * expectation[:, ::-1]])  # the camera sees the back mirrored
    return (scale * frames).astype(np.float32), np.stack([labels, labels[:, ::-1]])


def write_cohort(
    folder: Path,
    *,
    splits: tuple[str, ...] = ("train", "train", "train", "train", "val", "test"),
    shape: tuple[int, int] = (128, 64),
    rapid: bool = True,
    truth: bool = True,
    views: tuple[View, ...] = (View.ANTERIOR, View.POSTERIOR),
    seed: int = 0,
) -> Path:
    """Write one small child a split entry: DICOM scans at 40 and 20 cm/min, truth.npz; return manifest.csv.

    Args:
        folder: Where to.
        splits: The split of each patient P0001, P0002, ...
        shape: Rows and columns.
        rapid: Whether there are rapid scans.
        truth: Whether there are truth files.
        views: Frames of the scans; truth files always hold both.
        seed: Decides anatomy and counts.
    """
    cases = []
    for number, split in enumerate(splits, start=1):
        name, rng = f"P{number:04d}", np.random.default_rng((seed, number))
        expectation, labels = cartoon_child(*shape, rng)
        shown = [(View.ANTERIOR, View.POSTERIOR).index(view) for view in views]
        patient = PatientHeader(name, sex="F", age_y=6.0, height_m=1.18, weight_kg=22.0)
        study = StudyHeader(f"{seed} {name}", datetime(2025, 1, 1, 9))
        files = {"rapid": 40.0, "standard": 20.0} if rapid else {"standard": 20.0}
        for kind, velocity in files.items():
            counts = rng.poisson(expectation[shown] * 20.0 / velocity).astype(np.uint16)
            # Four times the usual pixel, so that so few pixels hold a child.
            scan = Scan(
                counts, views, (9.6, 9.6), velocity=velocity, duration_s=3600 / velocity, patient_id=name
            )
            write_acquired_nm(
                folder / name / f"{kind}.dcm",
                scan,
                patient=patient,
                study=study,
                uid_seed=f"{seed} {name} {kind}",
                series_number=len(kind),
                synthetic=True,
            )
        if truth:
            np.savez_compressed(folder / name / "truth.npz", expectation=expectation, labels=labels)
        case = Case(
            patient=name,
            split=split,
            rapid=(folder / name / "rapid.dcm",) if rapid else (),
            standard=(folder / name / "standard.dcm",),
            truth=folder / name / "truth.npz" if truth else None,
            age_y=6.0,
            sex="F",
            height_cm=118.0,
            weight_kg=22.0,
        )
        cases.append(case)
    write_manifest(folder / "manifest.csv", cases)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def make_cohort() -> WriteCohort:
    """The function `write_cohort(folder, ...)`, for tests that need a cohort of their own."""
    return write_cohort


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of six children, 128 x 64 pixels: 4 train, 1 val, 1 test; with rapid and truth. Read only."""
    return write_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def real_scan() -> Path:
    """An acquired one-view NM file (10 cm/min), from RBS_TEST_DATA."""
    return _outside("RBS_TEST_DATA", "bone/nm1_anterior_10cm_per_min.dcm")


@pytest.fixture(scope="session")
def real_adult() -> Path:
    """An acquired two-view NM file of an adult (27 cm/min), from RBS_TEST_DATA."""
    return _outside("RBS_TEST_DATA", "bone/ge670_d_both_views_27cm_per_min.dcm")


@pytest.fixture(scope="session")
def real_scans() -> list[Path]:
    """All acquired NM files, from RBS_TEST_DATA."""
    return sorted(_outside("RBS_TEST_DATA", "bone").glob("*.dcm"))


@pytest.fixture(scope="session")
def public_crops() -> list[Path]:
    """Crops of public 8-bit bone scans, from RBS_TEST_DATA."""
    return sorted(_outside("RBS_TEST_DATA", "bone/crops").glob("*.jpg"))


@pytest.fixture(scope="session")
def metric_weights() -> Path:
    """The folder of metric weights (LPIPS, FID), from RBS_WEIGHTS."""
    return _outside("RBS_WEIGHTS", ".")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 4 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", folder], check=True)


def _outside(variable: str, inside: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    path = Path(os.environ[variable]) / inside
    # Once the variable is set a missing file is a fault, not a reason to skip.
    assert path.exists(), f"{variable}: {path} does not exist"
    return path
