"""Cohorts of phantom children: the files a department would have, and their truth.

OUT/manifest.csv                  one line a patient, split by patient
OUT/cohort.json                   settings of the cohort
OUT/P0001/rapid.dcm               40 cm/min, its own Poisson draw
OUT/P0001/standard.dcm            20 cm/min, another one; registered, or of a child that has moved
OUT/P0001/truth.npz               expectation float32 and labels uint8 of the standard scan, both
                                  (2, rows, columns); of a child that has moved also
                                  expectation_rapid: expectation in the pose of the rapid scan at
                                      the standard velocity
OUT/P0001/child.json              the child, its lesions and its landmarks
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbs.errors import OutputError, RbsError
from rbs.scans.scan import STANDARD_VELOCITY, Scan
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, Phantom, make_child, make_passes
from rbs.synthetic.skeleton.growth import Sex
from rbs.utils.files import claim_folder, whole_file

RAPID_VELOCITY = 40.0
AGES_Y = (0.5, 16.0)
"""Youngest and oldest child of a cohort, years."""
PAUSE_S = 60.0
"""From the end of the first pass to the start of the second."""
TC99M_HALF_LIFE_S = 6.007 * 3600
COLUMNS = ("patient", "split", "age_y", "sex", "height_cm", "weight_kg", "rapid", "standard", "truth")
FORMAT = 3
"""Raised whenever the same seed would make other files."""

FASTEST = 200.0
"""cm/min; faster than any table travels."""

_FILES = ("rapid.dcm", "standard.dcm", "truth.npz", "child.json")
_UNFINISHED = ".making-"


@dataclass(frozen=True)
class Acquisition:
    """Acquisition of the two scans of every child, the rapid one first.

    Attributes:
        rapid_velocity: cm/min.
        standard_velocity: cm/min.
        moving: The child moves, its bladder fills and Tc-99m decays between the scans; otherwise
            they are perfectly registered and expect the same.
        dose: Administered activity relative to that for the child's weight.
        farther_mm: Added distance of both collimators from the child, mm: blur.
    """

    rapid_velocity: float = RAPID_VELOCITY
    standard_velocity: float = STANDARD_VELOCITY
    moving: bool = False
    dose: float = 1.0
    farther_mm: float = 0.0

    def settings(self) -> dict[str, Any]:
        """Settings as a cohort notes them; older cohorts know neither dose nor distance."""
        later = ("dose", "farther_mm")
        return {n: v for n, v in asdict(self).items() if n not in later or v != getattr(Acquisition, n)}


@dataclass(frozen=True)
class Patient:
    """A child and its two scans.

    Attributes:
        phantom: The child as the standard scan sees it.
        phantom_rapid: The child as the rapid scan sees it: the same unless it has moved.
        rapid: Counts of the rapid scan, (2, rows, columns).
        standard: Counts of the standard scan.
    """

    phantom: Phantom
    phantom_rapid: Phantom
    rapid: npt.NDArray[np.uint16]
    standard: npt.NDArray[np.uint16]


def write_cohort(
    out: str | Path,
    patients: int,
    seed: int,
    *,
    acquisition: Acquisition = Acquisition(),
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Write a cohort, or finish one that was interrupted; patient k depends on the seed alone.

    Args:
        out: Folder of the cohort: new, empty, or holding a cohort of the same patients and seed.
        patients: Number of children, at least 3 so that each split has one.
        seed: Decides everything random.
        acquisition: Acquisition of their scans.
        workers: Processes.
        progress: Show a progress bar.

    Returns:
        The path of the manifest.

    Raises:
        OutputError: `out` holds something else, or cannot be written.
        RbsError: Too few patients, no worker, or a negative seed.
    """
    if patients < 3:
        raise RbsError(
            f"{patients} patients cannot fill three splits", remedy="ask for at least 3 with --patients"
        )
    if patients > 9999 or workers < 1 or seed < 0:
        raise RbsError(
            f"{patients} patients, seed {seed} and {workers} workers make no cohort",
            remedy="ask for at most 9999 patients, a seed of 0 or more and at least one worker",
        )
    if not 0 <= acquisition.farther_mm < np.inf:
        fault = f"collimators {acquisition.farther_mm:g} mm farther from the child"
        raise RbsError(fault, remedy="give a distance of zero or more")
    if not 0 < acquisition.standard_velocity < acquisition.rapid_velocity <= FASTEST:
        raise RbsError(
            f"a rapid scan at {acquisition.rapid_velocity:g} cm/min beside a standard one at"
            f" {acquisition.standard_velocity:g} cm/min",
            remedy=f"let the rapid scan be the faster one, at most {FASTEST:g} cm/min",
        )
    out = Path(out)
    recipe = {"format": FORMAT, "patients": patients, "seed": seed, **acquisition.settings()}
    other = "a cohort of other patients, another seed or another version of rbs"
    claim_folder(out, "cohort.json", recipe, other=other)
    for left in out.glob(_UNFINISHED + "*"):
        shutil.rmtree(left)
    jobs = [(out, number, seed, acquisition) for number in range(1, patients + 1)]
    if workers == 1:
        rows = _collect(map(_write_patient, jobs), patients, progress)
    else:
        with multiprocessing.get_context("spawn").Pool(min(workers, patients)) as pool:
            rows = _collect(pool.imap_unordered(_write_patient, jobs), patients, progress)
    splits = split_patients(patients, seed)
    with whole_file(out / "manifest.csv", overwrite=True) as path, path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row in sorted(rows, key=lambda row: row["patient"]):
            table.writerow(row | {"split": splits[int(row["patient"][1:]) - 1]})
    return out / "manifest.csv"


def split_patients(patients: int, seed: int) -> list[str]:
    """Split of every patient: 15 % each for val and test but at least one, the others for train."""
    share = max(1, round(0.15 * patients))
    splits = np.array(["train"] * (patients - 2 * share) + ["val"] * share + ["test"] * share)
    return [str(s) for s in np.random.default_rng(np.random.SeedSequence([seed, 0])).permutation(splits)]


def make_patient(number: int, seed: int, acquisition: Acquisition = Acquisition()) -> Patient:
    """Patient `number` (from 1) of the cohort `seed`."""
    return draw_patient(np.random.SeedSequence([seed, number]), acquisition)


def draw_patient(
    seeds: np.random.SeedSequence, acquisition: Acquisition, lesions: int | None = None
) -> Patient:
    """Draw a child and independent Poisson counts of the expectation of each of its scans.

    With and without motion it is the same child.

    Args:
        seeds: Decide everything random.
        acquisition: Acquisition of both scans.
        lesions: Number of lesions of a child that does not move; None draws it.
    """
    who, first, second, moves = (np.random.default_rng(s) for s in seeds.spawn(4))
    age = float(who.uniform(*AGES_Y))
    sex: Sex = "F" if who.random() < 0.5 else "M"
    if acquisition.moving:
        early, late = make_passes(age, sex, who, moves, acquisition.farther_mm)
        durations = (
            _duration_s(early, acquisition.rapid_velocity),
            _duration_s(late, acquisition.standard_velocity),
        )
        apart = sum(durations) / 2 + PAUSE_S  # from the middle of the one to the middle of the other
        decayed = 0.5 ** (apart / TC99M_HALF_LIFE_S)
        late = replace(late, expectation=late.expectation * np.float32(decayed))
    else:
        early = late = make_child(age, sex, who, acquisition.farther_mm, lesions)

    def draw(phantom: Phantom, velocity: float, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
        exposure = acquisition.dose * STANDARD_VELOCITY / velocity
        return rng.poisson(phantom.expectation.astype(np.float64) * exposure).astype(np.uint16)

    rapid = draw(early, acquisition.rapid_velocity, first)
    return Patient(late, early, rapid, draw(late, acquisition.standard_velocity, second))


def _duration_s(phantom: Phantom, velocity: float) -> float:
    return phantom.scan_length_mm / (velocity * 10 / 60)


def _collect(results: Any, total: int, progress: bool) -> list[dict[str, str]]:
    from tqdm import tqdm

    return list(tqdm(results, total=total, desc="phantoms", unit="child", disable=not progress))


def _write_patient(job: tuple[Path, int, int, Acquisition]) -> dict[str, str]:
    """Write one patient's folder whole unless it exists; return its row without the split."""
    out, number, seed, acquisition = job
    name = f"P{number:04d}"
    folder = out / name
    made_from = {"format": FORMAT, "seed": seed, "patient": number, **acquisition.settings()}
    told = _read_json(folder / "child.json")
    if told.get("made_from") != made_from or not all((folder / file).is_file() for file in _FILES):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{name}-", dir=out))
            try:
                told = _fill(temporary, name, number, seed, acquisition, made_from)
                temporary.chmod(0o755)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            fault = f"the patient cannot be written ({error.strerror or error})"
            raise OutputError(
                fault, file=folder, remedy="free some space or check the permissions"
            ) from error
    child = told["child"]
    return {
        "patient": name,
        "age_y": f"{child['age_y']:.2f}",
        "sex": child["sex"],
        "height_cm": f"{child['height_cm']:.1f}",
        "weight_kg": f"{child['weight_kg']:.1f}",
        "rapid": f"{name}/rapid.dcm",
        "standard": f"{name}/standard.dcm",
        "truth": f"{name}/truth.npz",
    }


def _fill(
    folder: Path, name: str, number: int, seed: int, acquisition: Acquisition, made_from: dict[str, Any]
) -> dict[str, Any]:
    from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm

    patient = make_patient(number, seed, acquisition)
    phantom, child = patient.phantom, patient.phantom.child
    header = PatientHeader(
        patient_id=f"PHANTOM-{seed}-{name}",
        sex=child.sex,
        age_y=child.age_y,
        height_m=child.height_cm / 100,
        weight_kg=child.weight_kg,
        activity_mbq=child.dose_mbq * acquisition.dose,
    )
    started = datetime(2020, 1, 1, 9) + timedelta(days=number)
    # A child that moves is another acquisition than the one that lies still, so its objects are
    # others too.
    settings = ", ".join(f"{name}={value!r}" for name, value in acquisition.settings().items())
    how = "" if acquisition == Acquisition() else f" Acquisition({settings})"
    study = StudyHeader(uid_seed=f"phantom {FORMAT} {seed} {number}{how}", started=started)
    later = started
    for file, counts, velocity in (
        ("rapid", patient.rapid, acquisition.rapid_velocity),
        ("standard", patient.standard, acquisition.standard_velocity),
    ):
        duration = _duration_s(phantom, velocity)
        scan = Scan(counts, VIEWS, (SPACING_MM, SPACING_MM), velocity, duration, header.patient_id)
        write_acquired_nm(
            folder / f"{file}.dcm",
            scan,
            patient=header,
            study=study,
            uid_seed=f"{study.uid_seed} {file}",
            series_description=f"Whole body bone {file} {velocity:g} cm/min",
            series_number=1 if file == "rapid" else 2,
            acquired=later,
            synthetic=True,
        )
        later += timedelta(seconds=round(duration) + PAUSE_S)
    exposure = np.float32(acquisition.dose * STANDARD_VELOCITY / acquisition.standard_velocity)
    truth: dict[str, Any] = {"expectation": phantom.expectation * exposure, "labels": phantom.labels}
    told = {"made_from": made_from, **record_of(phantom)}
    if acquisition.moving:
        truth["expectation_rapid"] = patient.phantom_rapid.expectation * exposure
        told["motion_since_rapid"] = asdict(phantom.motion)
        told["landmarks_row_column_rapid"] = patient.phantom_rapid.marks
    np.savez_compressed(folder / "truth.npz", **truth)
    (folder / "child.json").write_text(json.dumps(told, indent=1) + "\n")
    return told


def record_of(phantom: Phantom) -> dict[str, Any]:
    """Content of `child.json`: the child, its lesions and its landmarks."""
    return {
        "child": asdict(phantom.child),
        "partial": phantom.partial,
        "injection_site": phantom.injected,
        "contamination": phantom.contaminated,
        "disease": asdict(phantom.disease),
        "attenuators": [
            {"name": one.name, "row": one.row, "column": one.column, "depth_mm": one.depth_mm}
            for one in phantom.attenuators
        ],
        "lesions": [asdict(lesion) for lesion in phantom.lesions],
        "landmarks_row_column": phantom.marks,
    }


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none or it is damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
