r"""Small spots of soft tissue in restorations: the share of their excess that other counts show.

    python benchmarks/spots.py data/phantoms/manifest.csv scan.dcm other.dcm --view anterior \
        --restorers shipped=rbs/weights/restorer.safetensors other.safetensors

A restoration T of a thinned scan has spots: local maxima of D_T, a difference of Gaussians (4 and
12 mm, as in `rbs.evaluation.observers.lesion_detection`), of at least 5 % of the uptake about them,
where that is below the body's median. The counts that were thinned away are independent of T. With
D_S of these counts, at the same scale, the share is the sum of D_S over the uptake about each spot
divided by the sum of D_T over it: 1 if the spots are true on average, 0 if they are made up.
Phantom children have an expectation, too, which must tell the same. The Gaussian filter is there to
show that chance spots are found out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from detection import named
from scipy.ndimage import gaussian_filter, maximum_filter
from tqdm import tqdm

from rbs.data.manifest import Manifest
from rbs.evaluation.observers.lesion_detection import OUTER_MM, SUPPORT_MM, detect
from rbs.evaluation.real.scans import Speed, read_scans
from rbs.evaluation.scans.classical import GAUSSIAN
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.evaluation.statistics.hierarchical import nested_interval, nested_mean
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.scan import Array
from rbs.utils.files import whole_file

SPEED, DRAWS = Speed(40.0), (1, 2, 3)
LEAST = 0.05
"""Least D_T of a spot over the uptake about it."""
CHILDREN = 6


def main() -> None:
    """Restore, measure, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--view", help="the view of scans whose header names none")
    parser.add_argument("--restorers", type=named, nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--output", type=Path, default=Path("runs/spots.csv"))
    args = parser.parse_args()
    scans, refused = read_scans(args.scans, [SPEED], views=args.view and [args.view])
    for error in refused:
        print(error)
    real = {scan.name: [scan.pair(SPEED, draw) for draw in DRAWS] for scan in scans}
    cases = Manifest.read(args.manifest).split("test")[:CHILDREN]
    children = {case.patient: [load_pair(case)] for case in tqdm(cases, desc="reading", unit="child")}
    methods: dict[str, Callable[[ScanPair], Array]] = {
        GAUSSIAN.label.format(GAUSSIAN.on_phantoms): GAUSSIAN.method(GAUSSIAN.on_phantoms).restore
    }
    for name, file in args.restorers:
        loaded = load_restorer(file)
        methods[name] = lambda pair, loaded=loaded: pair.restored(loaded)
    rows = []
    for name, restore in methods.items():
        row = {"method": name}
        for scanned, pairs in (("real", real), ("phantoms", children)):
            bar = tqdm(pairs.values(), desc=f"{name}, {scanned}", unit="scan", leave=False)
            measured = [[list(measure(restore(pair), pair)) for pair in draws] for draws in bar]
            row |= columns(scanned, measured)
        rows.append(row)
    table = pd.DataFrame(rows)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.output, overwrite=True) as path:
        table.to_csv(path, index=False)
    print(table.to_string(index=False))


def measure(restored: Array, pair: ScanPair) -> Iterator[tuple[int, float, float]]:
    """Spots of each view, the share that the counts show, and that which the expectation shows."""
    spacing, target = pair.spacing_mm, pair.target
    sigma = (0, OUTER_MM / spacing[0], OUTER_MM / spacing[1])
    about = gaussian_filter(np.asarray(restored, np.float64), sigma, mode="constant")
    found, counts = detect(restored, spacing), detect(target.standard, spacing)
    truth = None if target.expectation is None else detect(target.expectation, spacing)
    size = (1, *(2 * round(SUPPORT_MM / mm) + 1 for mm in spacing))
    peaks = (found == maximum_filter(found, size, mode="constant")) & (found > LEAST * about)
    for view, body in enumerate(target.mask):
        soft = body & (about[view] < np.median(about[view][body]))
        spots = peaks[view] & soft
        excess = (found[view] / np.maximum(about[view], 1e-9))[spots]

        def share(other: Array, spots: Array = spots, view: int = view, excess: Array = excess) -> float:
            shown = (other[view] / np.maximum(about[view], 1e-9))[spots]
            return float(shown.sum() / excess.sum()) if len(excess) else np.nan

        yield len(excess), share(counts), np.nan if truth is None else share(truth)


def columns(name: str, measured: list[list[list[tuple[int, float, float]]]]) -> dict[str, str]:
    """Columns of real scans or of phantoms, from measures by scan, draw and view."""

    def by_view(kind: int) -> list[list[np.ndarray]]:
        return [
            [np.array([view[kind] for view in views]) for views in zip(*draws, strict=True)]
            for draws in measured
        ]

    low, high = nested_interval(by_view(1))
    found = {
        f"{name}_spots_a_view": f"{nested_mean(by_view(0)):.0f}",
        f"{name}_share_counts_percent": f"{100 * nested_mean(by_view(1)):.0f}",
        f"{name}_share_counts_percent_low": f"{100 * low:.0f}",
        f"{name}_share_counts_percent_high": f"{100 * high:.0f}",
    }
    if name == "phantoms":
        found["phantoms_share_truth_percent"] = f"{100 * nested_mean(by_view(2)):.0f}"
    return found


if __name__ == "__main__":
    main()
