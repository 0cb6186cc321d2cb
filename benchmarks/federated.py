"""Hospitals that train together, apart and pooled: docs/results/federated.csv.

    python benchmarks/federated.py OUT --children
    python benchmarks/federated.py OUT --seed 1
    python benchmarks/federated.py OUT --seed 2
    python benchmarks/federated.py OUT --table docs/results/federated.csv

Four hospitals differ in pixel size, velocity, age of the children, activity and blur, and have 40,
24, 12 and 8 children to train on; a fifth takes no part. Every training, and every restorer on the
children of one hospital, has a file of its own, so the command may be interrupted.
"""

import argparse
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from rbs.data.manifest import COLUMNS as MANIFEST_COLUMNS
from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.scan import STANDARD_VELOCITY, Scan
from rbs.synthetic.cohort import make_patient
from rbs.synthetic.cohort import Acquisition
from rbs.synthetic.skeleton import SPACING_MM, VIEWS
from rbs.utils.files import write_csv

TEST = 12
"""Test children of each hospital."""


@dataclass(frozen=True)
class Hospital:
    """A hospital: its children and its camera.

    Attributes:
        train: Children to train on.
        ages: Youngest and oldest, years.
        spacing_mm: Pixel size.
        velocities: Of the rapid and the standard scan, cm/min.
        dose: Activity relative to the usual.
        farther_mm: Added distance of the collimators, mm.
    """

    train: int
    ages: tuple[float, float]
    spacing_mm: float
    velocities: tuple[float, float]
    dose: float
    farther_mm: float


HOSPITALS = {
    "A": Hospital(40, (0.5, 16), 2.26, (40, 20), 1.0, 0),
    "B": Hospital(24, (8, 16), 1.8, (30, 15), 1.0, 10),
    "C": Hospital(12, (0.5, 5), 2.8, (40, 20), 0.6, 20),
    "D": Hospital(8, (3, 10), 2.4, (50, 20), 0.8, 40),
    "E": Hospital(0, (0.5, 16), 2.0, (45, 20), 0.7, 30),
}


def write_children(folder: Path, name: str) -> Path:
    """Write the children of a hospital, those that are there already left as they are.

    Children are drawn from a seed of the hospital's own until enough have the right age. Counts are
    drawn from the expectation on the grid of its camera, so that they are Poisson's.
    """
    site, seed = HOSPITALS[name], 2400 + ord(name)
    splits = ["test"] * TEST + ["val"] + ["train"] * site.train
    rows: list[dict[str, str]] = []
    number = 0
    while len(rows) < len(splits):
        number += 1
        who = np.random.default_rng(np.random.SeedSequence([seed, number]).spawn(1)[0])
        if not site.ages[0] <= who.uniform(0.5, 16.0) <= site.ages[1]:
            continue
        patient = f"{name}{number:04d}"
        if not (folder / patient / "truth.npz").exists():
            _write_child(folder / patient, site, seed, number)
        files = {file: f"{patient}/{file}.dcm" for file in ("rapid", "standard")}
        row = {"patient": patient, "split": splits[len(rows)], **files, "truth": f"{patient}/truth.npz"}
        rows.append(row)
    columns = [column for column in MANIFEST_COLUMNS if column in rows[0]]
    write_csv(folder / "manifest.csv", columns, [[row[column] for column in columns] for row in rows])
    return folder / "manifest.csv"


def _write_child(folder: Path, site: Hospital, seed: int, number: int) -> None:
    phantom = make_patient(number, seed, Acquisition(farther_mm=site.farther_mm)).phantom
    factor = SPACING_MM / site.spacing_mm
    grid = {"mode": "nearest", "grid_mode": True}
    expected = zoom(phantom.expectation.astype(float), (1, factor, factor), order=1, **grid) / factor**2
    labels = zoom(phantom.labels, (1, factor, factor), order=0, **grid)
    rng = np.random.default_rng((seed, number, 1))
    child = phantom.child
    header = PatientHeader(
        f"PHANTOM-{seed}-{number}", sex=child.sex, age_y=child.age_y, weight_kg=child.weight_kg
    )
    started = datetime(2020, 1, 1, 9) + timedelta(days=number)
    study = StudyHeader(uid_seed=f"hospital {seed} {number}", started=started)
    folder.mkdir(parents=True, exist_ok=True)
    for place, (file, velocity) in enumerate(zip(("rapid", "standard"), site.velocities, strict=True), 1):
        counts = rng.poisson(expected * site.dose * STANDARD_VELOCITY / velocity).astype(np.uint16)
        duration = phantom.scan_length_mm / (velocity * 10 / 60)
        spacing = (site.spacing_mm, site.spacing_mm)
        write_acquired_nm(
            folder / f"{file}.dcm",
            Scan(counts, VIEWS, spacing, velocity, duration, header.patient_id),
            patient=header,
            study=study,
            uid_seed=f"{study.uid_seed} {file}",
            series_description=f"Whole body bone {file}",
            series_number=place,
            acquired=started + timedelta(minutes=20 * place),
            synthetic=True,
        )
    exposure = site.dose * STANDARD_VELOCITY / site.velocities[1]
    np.savez_compressed(
        folder / "truth.npz", expectation=(expected * exposure).astype(np.float32), labels=labels
    )


def main() -> None:
    """Write the children, train and score what is missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--children", action="store_true", help="write the children of all hospitals")
    args = parser.parse_args()
    if args.children:
        for name in HOSPITALS:
            print(write_children(args.output / "hospitals" / name, name), flush=True)


if __name__ == "__main__":
    main()
