"""Cameras that nobody knows, and the children that they and ours see; for `degraders.py`.

A camera differs from ours in blur by depth, scatter, uniformity and pixel size, one of two also in
a Butterworth filter before export. Its parameters are drawn by a seed and enter no training.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from rbs.data.anatomy import Anatomy, Focus
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.resampling import resample_expectation, resample_labels
from rbs.scans.scan import STANDARD_VELOCITY, Scan, align
from rbs.synthetic.skeleton import COLUMNS, SPACING_MM, VIEWS, Phantom, make_child
from rbs.synthetic.skeleton.projection import Camera
from rbs.utils.files import whole_file, write_csv

RAPID_VELOCITY = 40.0
EXPOSURE = STANDARD_VELOCITY / RAPID_VELOCITY
CHILDREN, TEST = 40, 12
"""Good scans, poor scans of a camera, and test children of a camera."""
OWN, POOR, TESTED = 8100, 8200, 8300
"""Seeds of the children: those of the good scans, and of a camera's poor scans and tests."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hidden:
    """A camera.

    Attributes:
        seed: It was drawn by.
        spacing_mm: Pixel size.
        blur: Factor on the nominal resolution; ours has 0.92 to 1.4.
        scatter: Scattered counts as a fraction of all; ours has 0.15 to 0.35.
        tail_mm: FWHM of scatter; ours has 65 to 95 mm.
        streaks: Standard deviation of its sensitivity along the columns; ours has 0.003 to 0.012.
        cutoff_per_mm: Of a Butterworth filter before export; infinite for none.
        order: Of that filter.
    """

    seed: int
    spacing_mm: float
    blur: float
    scatter: float
    tail_mm: float
    streaks: float
    cutoff_per_mm: float = np.inf
    order: float = 0.0

    @classmethod
    def draw(cls, seed: int, *, filtered: bool) -> Hidden:
        """Draw a camera."""
        rng = np.random.default_rng((4200, seed))
        drawn = [rng.uniform(*r) for r in ((2.6, 3.2), (1.7, 2.3), (0.36, 0.5), (75, 110), (0.015, 0.03))]
        cutoff, order = rng.uniform(0.07, 0.11), float(rng.integers(4, 9))
        drawn[0] = round(drawn[0], 2)
        return cls(seed, *drawn, *((cutoff, order) if filtered else ()))

    @property
    def noise(self) -> NoiseFilter:
        """Filter of the noise of its scans."""
        return NoiseFilter(self.cutoff_per_mm, self.order) if self.order else WHITE

    def camera(self, ours: Camera) -> Camera:
        """The camera in place of ours, which stands as near to the child."""
        rng = np.random.default_rng((4201, self.seed))
        streaks = gaussian_filter(rng.standard_normal((2, COLUMNS)), (0, 12), mode="reflect")
        sensitivity = ours.sensitivity * (1 + self.streaks * streaks / streaks.std())
        return replace(
            ours,
            blur=self.blur,
            scatter=self.scatter,
            tail_mm=self.tail_mm,
            sensitivity=sensitivity.astype(np.float32),
        )

    def expected(self, phantom: Phantom) -> Array:
        """Expected standard counts on its pixels, aligned (2, H, W), of a child that it saw."""
        onto = (self.spacing_mm, self.spacing_mm)
        mean = resample_expectation(align(phantom.expectation, VIEWS), (SPACING_MM, SPACING_MM), onto)
        filtered = mean if self.noise is WHITE else self.noise.filtered(mean, onto)
        return np.maximum(filtered, 1e-6).astype(np.float32)


CAMERAS = {
    "A": Hidden.draw(1, filtered=False),
    "B": Hidden.draw(2, filtered=True),
    "trial": Hidden.draw(0, filtered=False),
    "filtered trial": Hidden.draw(3, filtered=True),
}
"""The two of the table, and two on which all settings were tried."""


def draw_child(seed: int, number: int, camera: Callable[[Camera], Camera] | None = None) -> Phantom:
    """Child `number` of a seed, as seen by our camera or by another one."""
    who = np.random.default_rng((seed, number))
    age, sex = float(who.uniform(0.5, 16.0)), "F" if who.random() < 0.5 else "M"
    return make_child(age, sex, who, camera=camera)  # type: ignore[arg-type]


def write_children(folder: Path, name: str, workers: int = 1) -> None:
    """Write what is missing of the good scans, and of a camera's poor scans, pairs and tests."""
    hidden = CAMERAS[name]
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "good").mkdir(exist_ok=True)
    jobs = [partial(_write_good, folder / "good", number) for number in range(CHILDREN)]
    jobs += [partial(_write_poor, folder / name, hidden, number) for number in range(CHILDREN)]
    jobs += [partial(_write_pair, folder / name, hidden, number) for number in range(CHILDREN)]
    jobs += [partial(_write_test, folder / name, hidden, number) for number in range(TEST)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        list(tqdm(pool.imap(_call, jobs), total=len(jobs), desc=name, unit="child"))
    good = [[f"G{n:02d}", "train", f"G{n:02d}.dcm", f"G{n:02d}.npz"] for n in range(CHILDREN)]
    write_csv(folder / "good" / "manifest.csv", ("patient", "split", "standard", "truth"), good)
    poor = [[f"{name[0]}{n:02d}", "train", f"poor{n:02d}.dcm"] for n in range(CHILDREN)]
    write_csv(folder / name / "manifest.csv", ("patient", "split", "standard"), poor)


def _call(job: Callable[[], None]) -> None:
    job()


def _write_good(folder: Path, number: int) -> None:
    truth = folder / f"G{number:02d}.npz"
    if truth.exists():
        return
    phantom = draw_child(OWN, number)
    counts = np.random.default_rng((OWN, number, 1)).poisson(phantom.expectation)
    _write_scan(truth.with_suffix(".dcm"), counts, SPACING_MM, STANDARD_VELOCITY, f"good {number}")
    _save(truth, expectation=phantom.expectation, labels=phantom.labels)


def _write_poor(folder: Path, hidden: Hidden, number: int) -> None:
    file = folder / f"poor{number:02d}.dcm"
    if file.exists():
        return
    expected = hidden.expected(draw_child(POOR + hidden.seed, number, hidden.camera))
    counts = exported(hidden, expected, np.random.default_rng((POOR, hidden.seed, number)))
    name = f"poor {hidden.seed} {number}"
    _write_scan(file, align(counts, VIEWS), hidden.spacing_mm, RAPID_VELOCITY, name)


def _write_pair(folder: Path, hidden: Hidden, number: int) -> None:
    file = folder / f"pair{number:02d}.npz"
    if not file.exists():
        _save(file, expectation=hidden.expected(draw_child(OWN, number, hidden.camera)))


def _write_test(folder: Path, hidden: Hidden, number: int) -> None:
    file = folder / f"test{number:02d}.npz"
    if file.exists():
        return
    seed, own, onto = TESTED + hidden.seed, (SPACING_MM, SPACING_MM), (hidden.spacing_mm,) * 2
    phantom = draw_child(seed, number)
    expected = hidden.expected(draw_child(seed, number, hidden.camera))
    good = resample_expectation(align(phantom.expectation, VIEWS), own, onto)
    rng = np.random.default_rng((seed, number, 1))
    _save(
        file,
        good=good,
        standard=rng.poisson(good).astype(np.uint16),
        labels=resample_labels(align(phantom.labels, VIEWS), own, onto),
        hidden=expected,
        rapid=exported(hidden, expected, rng).astype(np.uint16),
    )
    scale = SPACING_MM / hidden.spacing_mm
    foci = [
        asdict(Focus(one.region, *_moved(one, scale), one.fwhm_mm, one.contrast, one.kind))
        for one in phantom.lesions
    ]
    marks = {name: (row * scale, column * scale) for name, (row, column) in phantom.marks.items()}
    file.with_suffix(".json").write_text(json.dumps({"foci": foci, "landmarks": marks}))


def _moved(lesion: object, scale: float) -> tuple[float, float]:
    return tuple((getattr(lesion, axis) + 0.5) * scale - 0.5 for axis in ("row", "column"))  # type: ignore[return-value]


def exported(hidden: Hidden, expected: Array, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Whole counts of a rapid scan as exported, of aligned expected standard counts."""
    return hidden.noise.expose(EXPOSURE * expected, (hidden.spacing_mm,) * 2, rng).astype(np.int64)


def read_anatomy(file: Path) -> Anatomy:
    """Lesions and landmarks of a test child on the pixels of its camera."""
    told = json.loads(file.with_suffix(".json").read_text())
    return Anatomy(tuple(Focus(**focus) for focus in told["foci"]), told["landmarks"])


def _save(file: Path, **arrays: npt.NDArray[np.generic]) -> None:
    with whole_file(file, overwrite=True) as part:
        np.savez_compressed(part, **arrays)  # type: ignore[arg-type]


def _write_scan(
    file: Path, counts: npt.NDArray[np.int64], spacing_mm: float, velocity: float, name: str
) -> None:
    scan = Scan(counts.astype(np.uint16), VIEWS, (spacing_mm, spacing_mm), velocity, patient_id=name)
    study = StudyHeader(name, datetime(2020, 1, 1) + timedelta(days=len(name)))
    write_acquired_nm(file, scan, patient=PatientHeader(name), study=study, uid_seed=name, synthetic=True)
