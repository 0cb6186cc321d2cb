"""Sentences of `rbs describe` against the truth of phantom children: docs/results/descriptions.csv.

    python benchmarks/descriptions.py data/ship/manifest.csv:test data/fresh/manifest.csv \
        --table docs/results/descriptions.csv

The rapid scan of each child is described; behind the colon stands the split, all without one. The
shipped weights were trained on split train of data/ship (seed 2026) and on all of data/phantoms
(seed 1), and the odds of hot spots fitted on split val of data/ship and on seed 4711: do not test
them on these. A row tells of hot foci by the description network alone, without hot spots. A second
table, `NAME_confidence.csv`, tells how often sentences of a confidence are true.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from rbs.data.anatomy import CHILD_FILE
from rbs.data.manifest import cases_of
from rbs.description.answers import LEAST_CONFIDENCE
from rbs.description.coarse import coarse_counts
from rbs.description.truth import statements_of
from rbs.evaluation.descriptions import DescriptionPair, compare, free_of_claims, reliability, scores
from rbs.evaluation.statistics.summary import interval
from rbs.inference.description import load_scan_describer
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import View, align
from rbs.synthetic.skeleton import SPACING_MM
from rbs.utils.files import write_csv


def main() -> None:
    """Describe all children and print, or write, how true it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST[:SPLIT]")
    parser.add_argument("--describer", default="shipped")
    parser.add_argument("--confidence", type=float, default=LEAST_CONFIDENCE)
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    loaded = load_scan_describer(args.describer)
    pairs: list[DescriptionPair] = []
    alone: list[DescriptionPair] = []
    seconds = []
    for case in (case for listed in args.manifests for case in cases_of(listed)):
        assert case.truth is not None, f"{case.patient} is no phantom"
        scan = read_nm(case.rapid[0])
        start = time.process_time()
        chances = loaded.chances(scan, scan.exposure_of(), hot_spots=True)
        seconds.append(time.process_time() - start)
        with np.load(case.truth) as content:
            expectation, labels = (
                align(content[name], (View.ANTERIOR, View.POSTERIOR)) for name in ("expectation", "labels")
            )
        record = json.loads(case.truth.with_name(CHILD_FILE).read_text())
        truth = statements_of(record, expectation, labels, SPACING_MM)
        about = case.patient, len(record["lesions"])
        pairs.append(compare(*about, chances, truth, args.confidence))
        by_network = loaded.network.chances(coarse_counts(scan), scan.exposure_of())
        alone.append(compare(*about, by_network, truth, args.confidence))
    table, sure = scores(pairs), reliability(pairs).round(3)
    before = scores(alone).query("kind == 'hot foci'").replace("hot foci", "hot foci, network alone")
    table = pd.concat([table, before], ignore_index=True).round(3)
    print(table.to_string(index=False))
    print(sure.to_string(index=False))
    for name, described in (("hot spots", pairs), ("network alone", alone)):
        free = free_of_claims(described)
        low, high = interval((free,), np.mean)
        print(f"{name}: of {len(free)} of {len(pairs)} children, without foci, no focus is claimed")
        print(f"in {free.mean():.3f} ({low:.3f} to {high:.3f})")
    print(f"{np.median(seconds):.2f} s of a core a scan")
    if args.table:
        write(args.table, table)
        write(args.table.with_stem(f"{args.table.stem}_confidence"), sure)


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table; the precision of no claims is left blank."""
    if "claims" in table:
        table = table.mask(
            (table["claims"] == 0).to_numpy()[:, None] & table.columns.str.startswith("precision")
        )
    cells = [
        ["" if pd.isna(cell) else cell if isinstance(cell, str) else f"{cell:g}" for cell in row]
        for row in table.values.tolist()
    ]
    write_csv(path, list(table.columns), cells)


if __name__ == "__main__":
    main()
