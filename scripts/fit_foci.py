"""Fit how often hot spots of the shipped segmenter are foci: `foci` of rbs/weights/describer.json.

    python scripts/fit_foci.py data/ship/manifest.csv:val data/more/manifest.csv

Behind the colon stands the split, all without one. Name children that neither segmenter nor
describer was trained on and that test neither: rapid scans, two seconds each on one core. Printed
are the foci that would be found and claimed, and of how many children without foci none would be.
Fit them again where the segmenter changes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import numpy as np
from tqdm import tqdm

from rbs.data.anatomy import CHILD_FILE
from rbs.data.manifest import cases_of
from rbs.description.answers import LEAST_CONFIDENCE
from rbs.description.foci import fit_odds, seen_foci
from rbs.description.sentences import PARTS
from rbs.description.truth import foci_of
from rbs.errors import RbsError
from rbs.inference.segmentation import load_segmenter_for
from rbs.scans.dicom.reader import read_nm
from rbs.synthetic.skeleton import SPACING_MM
from rbs.weights.shipped import DESCRIBER


def main() -> None:
    """Fit, print, and write to the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST[:SPLIT]")
    args = parser.parse_args()
    segmenter = load_segmenter_for()
    children, lesions = [], []
    for case in tqdm([case for listed in args.manifests for case in cases_of(listed)], unit="child"):
        if case.truth is None or not case.rapid:
            fault = f"{case.patient} has no {'truth' if case.truth is None else 'rapid scan'}"
            remedy = "name manifests of phantom children, as rbs simulate writes them"
            raise RbsError(fault, file=case.standard[0], remedy=remedy)
        scan = read_nm(case.rapid[0])
        counts = scan.aligned()
        probabilities = segmenter.probabilities(counts, scan.exposure_of(), scan.spacing_mm)
        record = json.loads(case.truth.with_name(CHILD_FILE).read_text())
        seen = seen_foci(counts, probabilities, scan.spacing_mm, tuple(sorted(scan.views)))
        children.append((seen, foci_of(record, SPACING_MM).hot))
        lesions.append(len(record["lesions"]))
    odds = fit_odds(children)
    claimed = np.array(
        [
            [
                1 - odds.numbers([focus for focus in seen if focus.part == part])[0] >= LEAST_CONFIDENCE
                for part in PARTS
            ]
            for seen, _ in children
        ]
    )
    true = np.array([[numbers.get(part, 0) > 0 for part in PARTS] for _, numbers in children])
    free = np.array(lesions) == 0
    print(f"{len(children)} children: {true.sum()} facts, {claimed.sum()} claims, of which")
    print(f"{(claimed & true).sum()} true; none in {(~claimed[free].any(axis=1)).sum()} of {free.sum()}")
    card = DESCRIBER.with_suffix(".json")
    content = json.loads(card.read_text())
    rounded = json.loads(json.dumps(asdict(odds)), parse_float=lambda text: round(float(text), 3))
    content |= {"foci": rounded, "foci_of_segmenter": segmenter.sha256}
    card.write_text(json.dumps(content, indent=2) + "\n")
    print(rounded)


if __name__ == "__main__":
    main()
