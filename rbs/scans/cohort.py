"""Writing a cohort of phantom children as the files a department would have, with their truth beside them.

OUT/manifest.csv                  one line a patient, split by patient
OUT/cohort.json                   what the cohort was made from
OUT/P0001/rapid.dcm               40 cm/min, its own Poisson draw
OUT/P0001/standard.dcm            20 cm/min, another one, perfectly registered
OUT/P0001/truth.npz               expectation float32 and labels uint8, both (2, rows, columns)
OUT/P0001/child.json              the child and its lesions
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
import tempfile
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbs.errors import OutputError, RbsError
from rbs.files import whole_file
from rbs.scans.phantom import SPACING_MM, VIEWS, Phantom, make_child
from rbs.scans.scan import STANDARD_VELOCITY, Scan

RAPID_VELOCITY = 40.0
COLUMNS = ("patient", "split", "age_y", "sex", "height_cm", "weight_kg", "rapid", "standard", "truth")
FORMAT = 2
"""Raised whenever the same seed would make other files."""

_FILES = ("rapid.dcm", "standard.dcm", "truth.npz", "child.json")
_UNFINISHED = ".making-"


def write_cohort(
    out: str | Path, patients: int, seed: int, *, workers: int = 2, progress: bool = True
) -> Path:
    """Write a cohort, or finish one that was interrupted; patient k depends on the seed alone.

    Args:
        out: Folder of the cohort: new, empty, or holding a cohort of the same patients and seed.
        patients: How many children, at least 3 so that each split has one.
        seed: Decides everything random.
        workers: Processes.
        progress: Whether to show a progress bar.

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
    out = Path(out)
    recipe = {"format": FORMAT, "patients": patients, "seed": seed}
    _claim(out, recipe)
    jobs = [(out, number, seed) for number in range(1, patients + 1)]
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


def make_patient(number: int, seed: int) -> tuple[Phantom, npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Patient `number` (from 1) of the cohort `seed`.

    Returns:
        The phantom, the counts of its rapid (40 cm/min) and of its standard scan (20 cm/min): independent
        Poisson draws of
        half the expectation and of the expectation, (2, rows, columns).
    """
    who, first, second = (np.random.default_rng(s) for s in np.random.SeedSequence([seed, number]).spawn(3))
    phantom = make_child(float(who.uniform(0.5, 16.0)), "F" if who.random() < 0.5 else "M", who)
    rapid = first.poisson(phantom.expectation.astype(np.float64) * (STANDARD_VELOCITY / RAPID_VELOCITY))
    standard = second.poisson(phantom.expectation.astype(np.float64))
    return phantom, rapid.astype(np.uint16), standard.astype(np.uint16)


def _claim(out: Path, recipe: dict[str, int]) -> None:
    """Make sure `out` is ours to fill: new, empty, or this very cohort."""
    mark = out / "cohort.json"
    try:
        if out.exists() and not out.is_dir():
            raise OutputError("it is a file, not a folder", file=out, remedy="choose another folder")
        if out.is_dir() and any(out.iterdir()):
            if not mark.is_file():
                raise OutputError(
                    "the folder holds something else", file=out, remedy="choose a new or an empty folder"
                )
            if _read_json(mark) != recipe:
                raise OutputError(
                    "the folder holds a cohort of other patients, another seed or another version of rbs",
                    file=out,
                    remedy="choose another folder, or repeat the settings named in its cohort.json",
                )
            for left in out.glob(_UNFINISHED + "*"):
                shutil.rmtree(left)
    except OSError as error:
        raise OutputError(
            f"it cannot be read ({error.strerror or error})", file=out, remedy="check its permissions"
        ) from error
    with whole_file(mark, overwrite=True) as path:
        path.write_text(json.dumps(recipe) + "\n")


def _collect(results: Any, total: int, progress: bool) -> list[dict[str, str]]:
    from tqdm import tqdm

    return list(tqdm(results, total=total, desc="phantoms", unit="child", disable=not progress))


def _write_patient(job: tuple[Path, int, int]) -> dict[str, str]:
    """Write one patient's folder whole unless it stands already; returns its row without the split."""
    out, number, seed = job
    name = f"P{number:04d}"
    folder = out / name
    made_from = {"format": FORMAT, "seed": seed, "patient": number}
    told = _read_json(folder / "child.json")
    if told.get("made_from") != made_from or not all((folder / file).is_file() for file in _FILES):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{name}-", dir=out))
            try:
                told = _fill(temporary, name, number, seed, made_from)
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


def _fill(folder: Path, name: str, number: int, seed: int, made_from: dict[str, int]) -> dict[str, Any]:
    from rbs.scans.dicom_write import PatientHeader, StudyHeader, write_acquired_nm

    phantom, rapid, standard = make_patient(number, seed)
    child = phantom.child
    header = PatientHeader(
        patient_id=f"PHANTOM-{seed}-{name}",
        sex=child.sex,
        age_y=child.age_y,
        height_m=child.height_cm / 100,
        weight_kg=child.weight_kg,
        activity_mbq=child.dose_mbq,
    )
    started = datetime(2020, 1, 1, 9) + timedelta(days=number)
    study = StudyHeader(uid_seed=f"phantom {FORMAT} {seed} {number}", started=started)
    later = started
    for file, counts, velocity in (
        ("rapid", rapid, RAPID_VELOCITY),
        ("standard", standard, STANDARD_VELOCITY),
    ):
        duration = phantom.scan_length_mm / (velocity * 10 / 60)
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
        later += timedelta(seconds=round(duration) + 60)
    np.savez_compressed(folder / "truth.npz", expectation=phantom.expectation, labels=phantom.labels)
    told = {
        "made_from": made_from,
        "child": asdict(child),
        "injection_site": phantom.injected,
        "lesions": [asdict(lesion) for lesion in phantom.lesions],
        "landmarks_row_column": phantom.marks,
    }
    (folder / "child.json").write_text(json.dumps(told, indent=1) + "\n")
    return told


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none or it is damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
