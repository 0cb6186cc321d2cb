"""Quality checks on clean children and on injected faults: AUC, and clean scans that are flagged.

    python benchmarks/check.py                        # all of it: an hour of one core
    python benchmarks/check.py calibration            # the tails of rbs/scans/quality/clean.py
    python benchmarks/check.py clean faulty table     # docs/results/check.csv

Draws phantom children of 0.5 to 16 years, at 20 and 40 cm/min, with 0.55 to 1.8 times the usual
counts, three in four clean ones seen by both heads. Children that were drawn with metal, with
contamination or with a part of the body alone are no clean ones. The tail of each score is fitted
on other children than those of the table. Scores are kept in `--scores` and not computed again.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rbs.scans.quality.check import findings_of, suspicions
from rbs.scans.quality.clean import CLEAN, FLAGGED
from rbs.scans.quality.findings import Finding, Kind, Suspicion
from rbs.scans.scan import STANDARD_VELOCITY, Scan
from rbs.synthetic.faults import FAULTS, draw
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child

SEEDS = {"calibration": 12, "clean": 11, "faulty": 13}
NUMBERS = {"calibration": 395, "clean": 500, "faulty": 50}

FLOORS = {
    Kind.COVERAGE: 8.0,
    Kind.SATURATION: 0.3,
    Kind.CONTAMINATION: 0.1,
    Kind.HEAD: 0.04,
    Kind.VELOCITY: 0.15,
    Kind.METAL: 0.15,
    Kind.BETWEEN: 0.8,
}
"""Least scales of the tails: patients and cameras differ in these more than phantoms do."""

LEAST = {Kind.SWAPPED: 0.1, Kind.MIRRORED: 0.1}
"""Least thresholds: a log ratio below 0 speaks for the labels as they are."""

Scores = dict[str, float]
"""Score of each kind of one scan."""


def main() -> None:
    """Draw and score what is missing, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = (*SEEDS, "table")
    parser.add_argument("steps", nargs="*", choices=(*steps, []), default=list(steps), metavar="STEP")
    parser.add_argument("--scores", type=Path, default=Path("runs/check"), metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("docs/results/check.csv"), metavar="FILE")
    args = parser.parse_args()
    args.scores.mkdir(parents=True, exist_ok=True)
    for step in args.steps:
        kept = args.scores / f"{step}.json"
        if step != "table" and not kept.exists():
            kept.write_text(json.dumps(scores_of_faulty() if step == "faulty" else scores_of_clean(step)))
        if step == "calibration":
            print_tails(json.loads(kept.read_text()))
        if step == "table":
            write_table(
                *(json.loads((args.scores / f"{s}.json").read_text()) for s in ("clean", "faulty")),
                args.output,
            )


def children(step: str) -> Iterator[tuple[Scan, np.random.Generator]]:
    """Expected counts of clean children, and the generator of what follows."""
    seed, number = SEEDS[step], NUMBERS[step]
    found = islice(_clean_children(seed), number)
    return iter(tqdm(found, total=number, unit="child", desc=step, file=sys.stderr))


def _clean_children(seed: int) -> Iterator[tuple[Scan, np.random.Generator]]:
    for child in range(10_000):
        rng = np.random.default_rng([seed, child])
        phantom = make_child(float(rng.uniform(0.5, 16)), "F" if rng.random() < 0.5 else "M", rng)
        if phantom.partial or phantom.contaminated or phantom.attenuators:
            continue
        rng = np.random.default_rng([seed, child, 1])
        cm_per_min = float(rng.choice([20, 40]))
        exposure = np.exp(np.clip(rng.normal(0, 0.25), -0.6, 0.6)) * STANDARD_VELOCITY / cm_per_min
        yield Scan(phantom.expectation * exposure, VIEWS, (SPACING_MM, SPACING_MM), cm_per_min), rng


def scores_of_clean(step: str) -> list[Scores]:
    """Scores of clean children, a quarter of them of one view."""
    scores = []
    for expected, rng in children(step):
        scan = draw(expected, rng)
        view = int(rng.integers(8))
        if view < 2:
            scan = replace(scan, counts=scan.counts[view : view + 1], views=scan.views[view : view + 1])
        scores.append(scores_of(scan))
    return scores


def scores_of_faulty() -> dict[str, list[Scores]]:
    """Scores of children with each fault, by the name of its function."""
    faults = [fault for those in FAULTS.values() for fault in those]
    scores: dict[str, list[Scores]] = {fault.__name__: [] for fault in faults}
    for expected, rng in children("faulty"):
        for fault in faults:
            scores[fault.__name__].append(scores_of(fault(expected, rng)))
    return scores


def scores_of(scan: Scan) -> Scores:
    """Score of each kind."""
    return {str(sign.kind): sign.score for sign in suspicions(scan)}


def print_tails(scans: list[Scores]) -> None:
    """Print the exponential tail of each score: threshold and scale, as Python."""
    for kind in Kind:
        found = np.sort([scan[kind] for scan in scans if kind in scan])
        start = float(np.quantile(found, 0.95))
        # What hardly varies among phantoms, such as zero, has a tail of 2 % of it, or a floor.
        above = found[found > start] - start
        scale = max(above.mean() if above.size else 0, 0.02 * abs(start), FLOORS.get(kind, 0))
        threshold = max(start + scale * np.log(0.05 / FLAGGED), LEAST.get(kind, -np.inf))
        note = f"# largest of {len(found)}: {found[-1]:.3g}"
        print(f"        Kind.{kind.name}: Tail({threshold:.3g}, {scale:.2g}),  {note}")


def write_table(clean: list[Scores], faulty: dict[str, list[Scores]], output: Path) -> None:
    """Write a row a fault, and one of all."""
    found = [{finding.kind for finding in findings(scan)} for scan in clean]
    rows = []
    for kind, those in FAULTS.items():
        for fault in those:
            scans = faulty[fault.__name__]
            values, usual = (np.array([scan[kind] for scan in of if kind in scan]) for of in (scans, clean))
            first = [next((finding.kind for finding in findings(scan)), None) for scan in scans]
            rows.append(
                [
                    (values[:, None] > usual).mean() + 0.5 * (values[:, None] == usual).mean(),
                    100 * np.mean(values >= CLEAN[kind].threshold),
                    100 * np.mean([name == kind for name in first]),
                    100 * np.mean([kind in kinds for kinds in found]),
                ]
            )
    mean = [*np.mean(rows, axis=0)[:3], 100 * np.mean([bool(kinds) for kinds in found])]
    names = [
        (kind, " ".join((fault.__doc__ or "").split()).rstrip("."))
        for kind, of in FAULTS.items()
        for fault in of
    ]
    names.append(("all", f"mean of {len(rows)} faults; clean scans with any finding"))
    with output.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["kind", "fault", "auc", "found_percent", "named_first_percent", "clean_flagged_percent"]
        )
        for name, (auc, *shares) in zip(names, [*rows, mean], strict=True):
            table.writerow([*name, f"{auc:.3f}", *(f"{share:.1f}" for share in shares)])


def findings(scores: Scores) -> list[Finding]:
    """Findings of a scan with these scores."""
    return findings_of(Suspicion(Kind(kind), score, "", "") for kind, score in scores.items())


if __name__ == "__main__":
    main()
