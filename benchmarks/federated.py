"""Hospitals that train together, apart and pooled: docs/results/federated.csv.

    python benchmarks/federated.py OUT --children --public data/phantoms/manifest.csv
    python benchmarks/federated.py OUT --seed 1
    python benchmarks/federated.py OUT --seed 2
    python benchmarks/federated.py OUT --table docs/results/federated.csv

All begin with a restorer that was trained on children of no hospital, as hospitals would with
weights that are public. Four hospitals differ in pixel size, velocity, age of the children,
activity and blur, and have 40, 24, 12 and 8 children to train on; a fifth takes no part. Every
training, and every restorer on the children of one hospital, has a file of its own, so the command
may be interrupted.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import zoom

from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import COLUMNS as MANIFEST_COLUMNS
from rbs.data.manifest import Manifest
from rbs.errors import ScanError
from rbs.evaluation.scans.metrics import Target, nc_nmse
from rbs.evaluation.statistics.summary import interval
from rbs.federated.network import simulate
from rbs.federated.networks import RESTORERS
from rbs.federated.plan import Plan
from rbs.federated.privacy import epsilon
from rbs.federated.site import Site, read_experiment
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.dicom.writer import PatientHeader, StudyHeader, write_acquired_nm
from rbs.scans.fidelity import relative_error
from rbs.scans.scan import STANDARD_VELOCITY, Scan
from rbs.synthetic.cohort import Acquisition, make_patient
from rbs.synthetic.skeleton import SPACING_MM, VIEWS
from rbs.tasks.fit import fit
from rbs.utils.files import write_csv

RESTORER = RESTORERS.file
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
        if row["split"] != "test":  # a hospital has neither
            row["rapid"] = row["truth"] = ""
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


NETWORK = {"width": 12, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1]}
ROUNDS, STEPS = 8, 50
"""Rounds, and optimiser steps of each hospital in a round."""
PUBLIC_STEPS = 2000
"""Steps of the restorer that all begin with, on children of no hospital."""
SITES = [name for name, site in HOSPITALS.items() if site.train]
OUTSIDE = "E"
PUBLIC_RATE, RATE = 4e-3, 2e-3
CLIP, NOISE, DELTA = 0.002, 1.5, 1e-5
FEDERATIONS: dict[str, dict[str, Any]] = {
    "federated": {},
    "federated, local layers": {"local": ("norms", "first")},
    "federated, private": {"clip": CLIP, "noise": NOISE, "delta": DELTA},
}
ALONE, POOLED, START = "alone", "pooled", "the public restorer"
ARMS = (START, ALONE, POOLED, *FEDERATIONS)


def experiment(seed: int) -> dict[str, Any]:
    """The experiment that all trainings share, small enough for minutes."""
    settings = read_experiment("federated")
    settings["seed_everything"] = seed
    settings["model"]["init_args"]["f1"]["init_args"] = NETWORK
    settings["model"]["init_args"]["lr"] = RATE
    settings["data"]["init_args"] |= {"crop": [64, 64], "batch_size": 4}
    return settings


def pooled_manifest(folder: Path) -> Path:
    """One manifest of all training children."""
    file = folder / "pooled.csv"
    rows = [
        [f"{name}/{row['standard']}" if column == "standard" else row[column] for column in _OF_TRAINING]
        for name in SITES
        for row in csv.DictReader((folder / name / "manifest.csv").open())
        if row["split"] != "test"
    ]
    write_csv(file, _OF_TRAINING, rows)
    return file


_OF_TRAINING = ("patient", "split", "standard")


def train_all(folder: Path, seed: int) -> None:
    """Train what is missing of a seed."""
    hospitals, runs = folder / "hospitals", folder / f"seed{seed}"
    manifests = {name: hospitals / name / "manifest.csv" for name in SITES}
    start, pooled = folder / START / RESTORER, pooled_manifest(hospitals)
    for name, manifest in manifests.items():
        _once(runs / f"{ALONE} {name}", _fitted, seed, manifest, ROUNDS * STEPS, start)
    _once(runs / POOLED, _fitted, seed, pooled, ROUNDS * STEPS, start)
    for name, options in FEDERATIONS.items():
        _once(runs / name, _federated, seed, manifests, options, start)


def _once(run: Path, train: Callable[..., None], *args: Any) -> None:
    if (run / "seconds.json").exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    began = time.process_time()  # of one thread: others may share the core
    train(run, *args)
    (run / "seconds.json").write_text(json.dumps(round(time.process_time() - began, 1)))
    print(run, (run / "seconds.json").read_text(), "s", flush=True)


def _fitted(run: Path, seed: int, manifest: Path, steps: int, start: Path | None = None) -> None:
    settings = {
        "name": run.name,
        "wandb": "disabled",
        "data.init_args.manifest": manifest,
        "data.init_args.seed": seed,
        "model.init_args.warmup_steps": steps // 10,
        "model.init_args.init_from": start,
        "model.init_args.lr": RATE if start else PUBLIC_RATE,
        "ema.decay": max(0.0, 1 - 10 / steps),
        "checkpoint.save_last": False,
        "checkpoint.save_top_k": 0,
        "trainer": {
            "max_steps": steps,
            "default_root_dir": run.parent,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
        },
    }
    fit(experiment(seed), **settings)


def _federated(
    run: Path, seed: int, manifests: dict[str, Path], options: dict[str, Any], start: Path
) -> None:
    own = experiment(seed)
    local = options.get("local", ())
    sites = {name: Site(own, manifest, run / name, local=local) for name, manifest in manifests.items()}
    plan = Plan(clients=len(SITES), minimum=len(SITES), rounds=ROUNDS, steps=STEPS, **options)
    simulate(plan, load_restorer(start).restorer, sites, run)


@cache
def children(folder: Path, name: str) -> list[tuple[str, LoadedCase, Target]]:
    """Test children of a hospital, who lie still, so that no scan has to be registered."""
    found = []
    for case in Manifest.read(folder / name / "manifest.csv").split("test"):
        try:
            scan = load_case(case)
        except ScanError as error:  # the noise of some coarse and sparse scans is misjudged
            print(error)
            continue
        target = Target(scan.standard, 1.0, scan.spacing_mm, scan.expectation, scan.labels)
        found.append((case.patient, scan, target))
    return found


def score_all(folder: Path, seed: int) -> None:
    """Score what is missing of a seed: own children, and those of the hospital outside."""
    runs = folder / f"seed{seed}"
    for arm in ARMS:
        for name in (*SITES, OUTSIDE):
            for file in _models(runs, arm, name):
                _score(folder / "hospitals", name, file, arm, seed)


def _models(runs: Path, arm: str, name: str) -> list[Path]:
    """Restorers of an arm that serve a hospital; outside, each of those that belong to one."""
    owners = [name] if name in SITES else SITES
    if arm == START:
        return [runs.parent / START / RESTORER]
    if arm == ALONE:
        return [runs / f"{ALONE} {owner}" / RESTORER for owner in owners]
    if "local" in FEDERATIONS.get(arm, {}):
        return [runs / arm / owner / RESTORER for owner in owners]
    return [runs / arm / RESTORER]


def _score(folder: Path, name: str, file: Path, arm: str, seed: int) -> None:
    scored = file.with_name(f"scores_{name}.csv")
    if scored.exists() or not file.exists():
        return
    loaded = load_restorer(file)
    rows = []
    for patient, scan, target in children(folder, name):
        assert scan.rapid is not None
        assert scan.exposure is not None
        assert target.expectation is not None
        restored = loaded.restore(scan.rapid, scan.exposure)
        truth = relative_error(restored, target.expectation, target.mask, target.peak)
        rows.append([arm, seed, name, patient, nc_nmse(restored, target), truth])
    write_csv(scored, ("arm", "seed", "hospital", "patient", "nc_nmse", "nmse_truth"), rows)
    print(scored, flush=True)


def table(folder: Path) -> pd.DataFrame:
    """Mean decibels of each arm and hospital, and its gains over the pooled training and alone."""
    scores = pd.concat([pd.read_csv(file) for file in sorted(folder.glob("**/scores_*.csv"))])
    # Of a hospital outside, the mean over the restorers that belong to others.
    errors = scores.groupby(["arm", "hospital", "patient"])[["nc_nmse", "nmse_truth"]].mean().reset_index()
    rows = []
    for arm in ARMS:
        about = _costs(folder, arm)
        for name in (*SITES, OUTSIDE):
            ours = _of(errors, arm, name)
            if not len(ours):
                continue
            row: dict[str, Any] = {"training": arm, "hospital": name, "children": HOSPITALS[name].train}
            for column, metric in (("nc_psnr", "nc_nmse"), ("psnr_truth", "nmse_truth")):
                row[column] = _db(ours[metric])
                row[f"{column}_low"], row[f"{column}_high"] = interval((ours[metric].to_numpy(),), _db)
            for column, other in (("over_alone", ALONE), ("over_pooled", POOLED)):
                theirs = _of(errors, other, name)
                if other == arm or not len(theirs):
                    continue
                both = (ours["nc_nmse"].to_numpy(), theirs.loc[ours.index, "nc_nmse"].to_numpy())
                row[column] = _gain(*both)
                row[f"{column}_low"], row[f"{column}_high"] = interval(both, _gain)
            rows.append(row | about)
    return pd.DataFrame(rows).round(2)


def _of(errors: pd.DataFrame, arm: str, name: str) -> pd.DataFrame:
    return errors[(errors["arm"] == arm) & (errors["hospital"] == name)].set_index("patient")


def _db(errors: Any, axis: int = -1) -> Any:
    return -10 * np.log10(np.mean(np.asarray(errors), axis=axis))


def _gain(ours: Any, theirs: Any, axis: int = -1) -> Any:
    return _db(ours, axis=axis) - _db(theirs, axis=axis)


def _costs(folder: Path, arm: str) -> dict[str, float]:
    """Core minutes and traffic of an arm, mean over seeds, all hospitals together."""
    pattern = f"{arm}*" if arm == ALONE else arm
    runs = [run for run in sorted(folder.glob("seed*")) if any(run.glob(f"{pattern}/seconds.json"))]
    if not runs:
        return {}
    seconds = [float(file.read_text()) for run in runs for file in run.glob(f"{pattern}/seconds.json")]
    costs = {"core_minutes": sum(seconds) / 60 / len(runs)}
    tables = [pd.read_csv(run / arm / "rounds.csv") for run in runs if (run / arm / "rounds.csv").exists()]
    if tables:
        costs["traffic_mb"] = 2 * float(np.mean([t["mb_up"].sum() for t in tables]))
    if "noise" in FEDERATIONS.get(arm, {}):
        costs["epsilon"] = epsilon(NOISE, ROUNDS, DELTA)
    return costs


def main() -> None:
    """Write the children, train and score what is missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--children", action="store_true", help="write the children of all hospitals")
    parser.add_argument("--public", type=Path, metavar="MANIFEST", help="train the restorer they begin with")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.children:
        for name in HOSPITALS:
            print(write_children(args.output / "hospitals" / name, name), flush=True)
    if args.public:
        _once(args.output / START, _fitted, 1, args.public.resolve(), PUBLIC_STEPS)
    if args.seed is not None:
        train_all(args.output, args.seed)
        score_all(args.output, args.seed)
    if args.table:
        table(args.output).to_csv(args.table, index=False)


if __name__ == "__main__":
    main()
