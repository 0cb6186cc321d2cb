"""Restorers on one slow real scan, thinned to several speeds and judged by all other counts.

    pip install 'rbs[bm3d]'
    python benchmarks/real_scan.py slow.dcm --view anterior --weights restorer.safetensors --adapt

The slow scan's counts are split, three times over, into a rapid scan and the rest; the
restoration of the one is compared with the other, whose own noise is taken off (noise-corrected
PSNR). Peers keep the settings that suit phantom children best: nothing is tuned on the scan. BM3D
is left out where its package is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from details import BM3D_SIGMA, GAUSSIAN_MM, NLM_STRENGTH, kept

from rbs.degradation.thinning import split
from rbs.evaluation.scans.classical import BM3D, available, bm3d, gaussian, non_local_means
from rbs.evaluation.scans.metrics import Target, decibels, nc_nmse
from rbs.evaluation.scans.pairs import ScanPair
from rbs.inference.residual import SUFFIX
from rbs.inference.test_time_adaptation import AdaptingRestorer
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import STANDARD_VELOCITY, Array
from rbs.utils.markdown import markdown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scan", type=Path, help="a raw scan slower than all velocities")
    parser.add_argument("--view", choices=("anterior", "posterior"), help="where the file is silent")
    parser.add_argument("--velocities", type=float, nargs="+", default=[40, 60, 80], metavar="V")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--weights", type=Path, nargs="+", help="several are compared (default: the shipped)")
    parser.add_argument("--adapt", action="store_true", help="also fitted to the scan")
    args = parser.parse_args()
    scan = read_nm(args.scan, **({"views": [args.view]} if args.view else {}))
    if scan.velocity is None:
        parser.error(f"{args.scan} does not say how fast the bed moved")
    methods = peers()
    for file in args.weights or [None]:
        plain = load_restorer(file)
        name = str(file or "f1")
        methods[name] = partial(restored, plain)
        methods[f"{name}{SUFFIX}"] = partial(kept, loaded=plain)
        if args.adapt:
            methods[f"{name}, adapted"] = partial(restored, AdaptingRestorer.of(plain))
    rows = []
    for velocity in args.velocities:
        share = scan.velocity / velocity
        found: dict[str, list[float]] = {name: [] for name in methods}
        for draw in range(1, args.draws + 1):
            rapid, rest = split(scan.aligned(), (share, 1 - share), np.random.default_rng(draw))
            standard = scan.velocity / STANDARD_VELOCITY
            target = Target(rest, (1 - share) / standard, scan.spacing_mm)
            pair = ScanPair("", rapid, share / standard, target, tuple(scan.views))
            for name, restore in methods.items():
                found[name].append(decibels(nc_nmse(restore(pair), target)))
        for name, dB in found.items():
            rows.append(
                [f"{velocity:g}", name, f"{np.mean(dB):.2f}", ", ".join(f"{each:.2f}" for each in dB)]
            )
    print(markdown(["cm/min", "method", "NC-PSNR, dB", "each draw"], rows))


def restored(loaded: LoadedRestorer, pair: ScanPair) -> Array:
    """The restoration of a scan."""
    return pair.restored(loaded)


def peers() -> dict[str, Callable[[ScanPair], Array]]:
    """The classical ones."""
    found: dict[str, Callable[[ScanPair], Array]] = {
        "rapid scan, scaled": lambda pair: pair.rapid / pair.exposure,
        f"Gaussian, {GAUSSIAN_MM:g} mm": lambda pair: gaussian(pair, GAUSSIAN_MM),
        "Anscombe + non-local means": lambda pair: non_local_means(pair, NLM_STRENGTH),
    }
    if BM3D in available():
        found["Anscombe + BM3D"] = lambda pair: bm3d(pair, BM3D_SIGMA)
    return found


if __name__ == "__main__":
    main()
