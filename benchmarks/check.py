"""Quality checks on clean children and on injected faults: AUC, and clean scans that are flagged.

    python benchmarks/check.py --calibrate --clean 1000
    python benchmarks/check.py --clean 500 --faulty 50 --output docs/results/check.csv

Draws phantom children of 0.5 to 16 years, at 20 and 40 cm/min, with 0.55 to 1.8 times the usual
counts, three in four seen by both heads, every fourth after the motion of a second pass. Children
that were drawn with metal, contamination or a part of the body alone are no clean ones. With
`--calibrate` the tail of each score is fitted on other children and printed; without, the faults
of `rbs.synthetic.faults` are injected, all scores are kept in `--scores`, and a table is written.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rbs.scans.quality.check import findings_of, suspicions
from rbs.scans.quality.clean import CLEAN, FLAGGED
from rbs.scans.quality.findings import Finding, Kind, Suspicion
from rbs.scans.scan import STANDARD_VELOCITY, Scan
from rbs.synthetic.faults import FAULTS, draw
from rbs.synthetic.skeleton import SPACING_MM, VIEWS, make_child, make_passes

CALIBRATED_ON, REPORTED, FAULTY = 31_000, 32_000, 33_000
"""Seeds of the children."""


def main() -> None:
    """Calibrate, or measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clean", type=int, default=500)
    parser.add_argument("--faulty", type=int, default=50)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--scores", type=Path, default=Path("runs/check/scores.json"), help="used if they are there")
    parser.add_argument("--output", type=Path, default=Path("docs/results/check.csv"))
    args = parser.parse_args()
    if args.calibrate:
        calibrate(args.clean)
    else:
        measure(args.clean, args.faulty, args.scores, args.output)


def children(seed: int, number: int) -> Iterator[tuple[Scan, np.random.Generator]]:
    """Expected counts of clean children, as many as asked for, and the generator of what follows."""
    with tqdm(total=number, unit="child", file=sys.stderr) as progress:
        for child in range(10 * number):
            rng = np.random.default_rng([seed, child])
            age, sex = float(rng.uniform(0.5, 16)), "FM"[int(rng.integers(2))]
            if child % 4 == 3:
                phantom = make_passes(age, sex, rng, np.random.default_rng([seed, child, 1]))[1]
            else:
                phantom = make_child(age, sex, rng)
            if phantom.partial or phantom.contaminated or phantom.attenuators:
                continue
            cm_per_min = float(rng.choice([20, 40]))
            counts = np.exp(np.clip(rng.normal(0, 0.25), -0.6, 0.6)) * STANDARD_VELOCITY / cm_per_min
            yield Scan(phantom.expectation * counts, VIEWS, (SPACING_MM, SPACING_MM), cm_per_min), rng
            progress.update()
            if progress.n >= number:
                return


def clean_scans(seed: int, number: int) -> Iterator[Scan]:
    """Counts of clean children, a quarter of them of one view."""
    for expected, rng in children(seed, number):
        scan = draw(expected, rng)
        view = int(rng.integers(8))
        if view < 2:
            scan = replace(scan, counts=scan.counts[view : view + 1], views=scan.views[view : view + 1])
        yield scan


def calibrate(number: int) -> None:
    """Print threshold and scale of the exponential tail of each score, as CSV."""
    scores: dict[Kind, list[float]] = defaultdict(list)
    for scan in clean_scans(CALIBRATED_ON, number):
        for sign in suspicions(scan):
            scores[sign.kind].append(sign.score)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["kind", "threshold", "scale"])
    for kind in Kind:
        found = np.sort(scores[kind])
        start = float(np.quantile(found, 0.95))
        # The floor keeps a score that hardly varies, such as zero, from a threshold beside it.
        scale = max(float((found[found > start] - start).mean()), 0.02 * abs(start), FLOORS.get(kind, 0.0))
        table.writerow([kind, f"{start + scale * np.log(0.05 / FLAGGED):.4g}", f"{scale:.3g}"])
        print(kind, np.round(np.quantile(found, [0.5, 0.95, 0.99, 1]), 3), file=sys.stderr)


FLOORS = {Kind.COVERAGE: 8.0, Kind.SATURATION: 0.3, Kind.CONTAMINATION: 0.1, Kind.HEAD: 0.04, Kind.VELOCITY: 0.15, Kind.BETWEEN: 0.8}
"""Least scales: patients differ in these more than phantoms do."""


Scores = dict[str, float]
"""Score of each kind of one scan."""


def measure(clean: int, faulty: int, kept: Path, output: Path) -> None:
    """Write the table of all faults."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(drawn(clean, faulty)))
    scores = json.loads(kept.read_text())
    found = [{finding.kind for finding in findings(scan)} for scan in scores["clean"]]
    rows = []
    for kind, those in FAULTS.items():
        for fault in those:
            signs = scores[fault.__name__]
            named = [findings(scan) for scan in signs]
            row = [
                auc(*(np.array([scan[kind] for scan in scans if kind in scan]) for scans in (signs, scores["clean"]))),
                100 * np.mean([scan[kind] >= CLEAN[kind].threshold for scan in signs]),
                100 * np.mean([bool(n) and n[0].kind == kind for n in named]),
                100 * np.mean([kind in kinds for kinds in found]),
            ]
            rows.append([kind, summary(fault.__doc__), *printed(row)])
    flagged = 100 * np.mean([bool(kinds) for kinds in found])
    mean = np.mean([[float(cell) for cell in row[2:5]] for row in rows], axis=0)
    rows.append(["all", f"mean of {len(rows)} faults; any finding", *printed([*mean, flagged])])
    with output.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["kind", "fault", "auc", "found_percent", "named_first_percent", "clean_flagged_percent"])
        table.writerows(rows)


def drawn(clean: int, faulty: int) -> dict[str, list[Scores]]:
    """Scores of clean scans, and of those with each fault."""
    scores = {"clean": [scores_of(scan) for scan in clean_scans(REPORTED, clean)]}
    faults = [fault for those in FAULTS.values() for fault in those]
    scores |= {fault.__name__: [] for fault in faults}
    for expected, rng in children(FAULTY, faulty):
        for fault in faults:
            scores[fault.__name__].append(scores_of(fault(expected, rng)))
    return scores


def scores_of(scan: Scan) -> Scores:
    """Score of each kind."""
    return {str(sign.kind): sign.score for sign in suspicions(scan)}


def findings(scores: Scores) -> list[Finding]:
    """Findings of a scan with these scores."""
    return findings_of(Suspicion(Kind(kind), score, "", "") for kind, score in scores.items())


def auc(faulty: np.ndarray, clean: np.ndarray) -> float:
    """Probability that a faulty scan scores higher than a clean one."""
    higher = (faulty[:, None] > clean).mean() + 0.5 * (faulty[:, None] == clean).mean()
    return float(higher)


def summary(text: str | None) -> str:
    """A docstring on one line, without its full stop."""
    return " ".join((text or "").split()).rstrip(".")


def printed(row: list[float]) -> list[str]:
    """AUC to three digits, per cent to one."""
    return [f"{row[0]:.3f}", *(f"{value:.1f}" for value in row[1:])]


if __name__ == "__main__":
    main()
