"""Gain of fitting the restorer to scans and of other scans' fits, and what the judge says of them.

    python benchmarks/fitting.py OUT.csv ge670_b.dcm ge670_d.dcm --manifest phantoms/manifest.csv

Real scans are thinned to half and scored by all counts left over (NC-PSNR), validation children by
their truth (PSNR). Each scan is fitted alone, and restored by the fits of the others.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rbs.data.manifest import Manifest
from rbs.evaluation.real.run import score
from rbs.evaluation.real.scans import Speed, read_scans
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.inference.test_time_adaptation import Fit, FittedRestorer, Judge, fit_to_scan
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.scans.fidelity import decibels, relative_error
from rbs.scans.scan import Array
from rbs.utils.files import write_rows

COLUMNS = ("scan", "fitted_to", "db", "gain_db", "steps", "log_likelihood", "core_s")


def decibels_of(estimate: Array, pair: ScanPair) -> float:
    """PSNR to the truth, or NC-PSNR to the rest of a real scan, mean of the views."""
    target = pair.target
    if target.expectation is None:
        return float(np.mean([view["nc_psnr"] for view in score(estimate, pair)]))
    aligned = pair.to_target(estimate)
    return decibels(relative_error(aligned, target.expectation, target.mask, target.peak))


def pairs(args: argparse.Namespace) -> dict[str, ScanPair]:
    """Rapid scans and their targets, by name: children, then patients."""
    half = Speed(2.0, relative=True)
    scans, refused = read_scans(args.scans, [half])
    for error in refused:
        raise error
    cases = {case.patient: case for case in Manifest.read(args.manifest).cases}
    return {name: load_pair(cases[name]) for name in args.children} | {
        scan.name: scan.pair(half, 1) for scan in scans
    }


def rows(loaded: LoadedRestorer, known: dict[str, ScanPair]) -> Iterator[dict[str, Any]]:
    """A row for each scan and way."""
    fits: dict[str, Fit] = {}
    plain: dict[str, float] = {}
    for fitting_others in (False, True):
        for name, pair in known.items():
            ways: list[str] = [other for other in known if other != name] if fitting_others else ["", name]
            for way in ways:
                start = time.process_time()
                fit = Fit(loaded.restorer)
                if way == name:
                    fit = fits[name] = fit_to_scan(loaded.restorer, pair.rapid, pair.exposure)
                elif way:
                    kept = fits[way].restorer
                    fit = Fit(kept, Judge(pair.rapid, pair.exposure, loaded.restorer).gain(kept))
                restorer = FittedRestorer(fit.restorer, *("",) * 3, fit=fit)
                restored = restorer.restore(pair.rapid, pair.exposure)
                spent = time.process_time() - start
                found = decibels_of(restored, pair)
                plain.setdefault(name, found)
                values = name, way, found, found - plain[name], fit.steps, fit.gain, spent
                yield dict(zip(COLUMNS, values, strict=True))


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("scans", type=Path, nargs="*")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--children", nargs="*", default=["P0063"])
    parser.add_argument("--checkpoint", default="shipped")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = []
    for row in rows(load_restorer(args.checkpoint), pairs(args)):
        row |= {name: round(value, 3) for name, value in row.items() if isinstance(value, float)}
        print(*row.values(), sep=",", flush=True)
        table.append(row)
    write_rows(args.output, table)


if __name__ == "__main__":
    main()
