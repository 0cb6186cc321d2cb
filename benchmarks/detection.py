"""Detection of foci by model observers in what several restorers make of a few phantom children.

    python benchmarks/detection.py data/phantoms/manifest.csv first=a.safetensors b=b.safetensors

All restorers see the same draws; the first is what the others are compared with. `--strengths` adds
each at each strength, and the Gaussian filter. One core needs a second a draw and restorer of width
16. Writes `areas.csv`, a row a place, and prints the means.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from rbs.data.manifest import Manifest
from rbs.evaluation.methods import once, trained_methods
from rbs.evaluation.observers.areas import detection_areas, summarise_areas
from rbs.evaluation.scans.classical import GAUSSIAN
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.inference.strengths import Strength, apply
from rbs.scans.scan import Array
from rbs.utils.files import whole_file


def named(text: str) -> tuple[str, Path]:
    """The name and the file of NAME=FILE."""
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=FILE")
    return name, Path(file)


def of_strengths(name: str, restore: Callable[[ScanPair], Array]) -> dict[str, Callable[[ScanPair], Array]]:
    """A restorer at each strength, which restores a pair once for all of them."""
    own = once(restore)

    def at(strength: Strength, pair: ScanPair) -> Array:
        return apply(strength, own(pair), pair.rapid, pair.exposure, pair.spacing_mm)

    return {f"{name}, {strength}": partial(at, strength) for strength in Strength}


def main() -> None:
    """Draw, restore, observe, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("restorers", type=named, nargs="+", metavar="NAME=FILE")
    parser.add_argument("--strengths", action="store_true")
    parser.add_argument("--children", type=int, default=12, help="the first of the test split")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/detection"))
    args = parser.parse_args()
    methods = {name: trained_methods([file])[0].restore for name, file in args.restorers}
    if args.strengths:
        each = [of_strengths(name, restore) for name, restore in methods.items()]
        methods = {name: restore for at in each for name, restore in at.items()}
        methods[GAUSSIAN.name] = GAUSSIAN.method(GAUSSIAN.on_phantoms).restore
    cases = Manifest.read(args.manifest).split("test")[: args.children]
    pairs = (load_pair(case) for case in tqdm(cases, unit="child"))
    areas = detection_areas(pairs, methods, args.draws, args.seed)
    summary = pd.DataFrame(summarise_areas(areas, args.seed))
    for name, table in (("areas", areas), ("summary", summary)):
        with whole_file(args.output / f"{name}.csv", overwrite=True) as path:
            table.to_csv(path, index=False, float_format="%.4f")
    print(summary.to_string(index=False))


if __name__ == "__main__":
    main()
