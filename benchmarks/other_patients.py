r"""Worth of patients' own counts: the shipped restorer trained on with all scans but one.

    python benchmarks/other_patients.py OUT.csv ge670_b.dcm ge670_d.dcm nm1.dcm \
        --view anterior --manifest data/phantoms/manifest.csv

An estimate of what better phantoms can bring to patients, as far as two patients tell: for each
scan the restorer is trained on with all counts of the others, and restores this one, thinned to 40
cm/min and to half of its counts. Rapid scans are drawn by thinning, and the rest of the counts is
the target (Noise2Noise). Test children are restored beside it: what patients bring may cost them.
For experiments alone: nothing that has seen a patient ships. A scan needs three minutes of one
core.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case, Manifest
from rbs.data.samples import Crops
from rbs.evaluation.real.run import score
from rbs.evaluation.real.scans import RealScan, Speed, read_scans
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.losses import PoissonDeviance
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.scans.counts import standard_scale
from rbs.scans.fidelity import decibels, relative_error
from rbs.utils.files import write_rows

SPEEDS = (Speed(40.0), Speed(2.0, relative=True))
DRAWS = (1, 2)
STEPS, JUDGED = 300, 150
"""Steps of a training, and steps between two rows of the table."""
BATCH, CROP = 4, 96
SHARES = (0.25, 0.8)
"""Of a scan's counts, those that are shown; the rest are the target."""
LEARNING_RATE, WARM_UP, AVERAGING = 3e-4, 20, 0.97


def trained_on(restorer: Restorer, scans: Sequence[RealScan]) -> Iterator[tuple[int, Restorer]]:
    """The restorer trained on with all counts of scans: steps so far, averaged weights."""
    whole = [scan.scan.aligned() for scan in scans]
    loaded = [
        LoadedCase(counts, counts, scan.scan.exposure_of(), None, None, scan.views, scan.scan.spacing_mm)
        for scan, counts in zip(scans, whole, strict=True)
    ]
    crops = Crops(
        [Case(scan.name, "train", (), ()) for scan in scans],
        loaded,
        pairs="rapid",
        realisations=None,
        exposures=SHARES,
        crop=(CROP, CROP),
        length=STEPS * BATCH,
        single_view_probability=0.25,
        foci=0,
        scenes=0,
        seed=0,
    )
    own = copy.deepcopy(restorer).train().requires_grad_(True)
    averaged = AveragedModel(own, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    optimizer = torch.optim.Adam(own.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (1 + np.cos(np.pi * step / STEPS)) / 2
    )
    loss = PoissonDeviance()
    for step, batch in enumerate(tqdm(DataLoader(crops, batch_size=BATCH), desc="training", unit="step"), 1):
        exposure = batch["exposure"]
        optimizer.zero_grad()
        estimate = own(standard_scale(batch["rapid"], exposure), exposure)
        loss(estimate, batch["target"], batch["target_exposure"]).backward()
        torch.nn.utils.clip_grad_norm_(own.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(own)
        if step % JUDGED == 0:
            yield step, copy.deepcopy(averaged.module).eval()  # type: ignore[misc]


def of_scan(restorer: Restorer, scan: RealScan) -> dict[tuple[str, Speed], float]:
    """NC-PSNR by view and speed, dB, mean of the draws."""
    loaded = LoadedRestorer(restorer, "", "", "")
    found: dict[tuple[str, Speed], list[float]] = {}
    for speed in SPEEDS:
        for draw in DRAWS:
            pair = scan.pair(speed, draw)
            for view in score(pair.restored(loaded), pair):
                found.setdefault((view["view"], speed), []).append(view["nc_psnr"])
    return {key: float(np.mean(draws)) for key, draws in found.items()}


def of_children(restorer: Restorer, children: Sequence[ScanPair]) -> float:
    """PSNR to the truth, dB, pooled over children."""
    loaded, errors = LoadedRestorer(restorer, "", "", ""), []
    for pair in children:
        aligned, target = pair.to_target(pair.restored(loaded)), pair.target
        errors.append(relative_error(aligned, target.expectation, target.mask, target.peak))
    return decibels(float(np.mean(errors)))


def rows(scans: Sequence[RealScan], children: Sequence[ScanPair]) -> Iterator[dict[str, Any]]:
    """Rows: a scan that took no part, a number of steps, gains over the shipped restorer."""
    shipped = load_restorer().restorer
    before = of_children(shipped, children)
    for scan in scans:
        plain, others = of_scan(shipped, scan), [other for other in scans if other is not scan]
        for step, restorer in trained_on(shipped, others):
            gain, cost = of_scan(restorer, scan), of_children(restorer, children) - before
            for view in scan.views:
                gains = [gain[str(view), speed] - plain[str(view), speed] for speed in SPEEDS]
                yield {
                    "scan": f"{scan.name}, {view}",
                    "trained_on": " and ".join(other.name for other in others),
                    "steps": step,
                    "gain_40_db": f"{gains[0]:.2f}",
                    "gain_2_times_as_fast_db": f"{gains[1]:.2f}",
                    "phantoms_db": f"{cost:.2f}",
                }


def main() -> None:
    """Train, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--view", help="the view of scans whose header names none")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--children", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scans, refused = read_scans(args.scans, SPEEDS, views=args.view and [args.view])
    for error in refused:
        raise error
    cases = Manifest.read(args.manifest).split("test")[: args.children]
    table = []
    for row in rows(scans, [load_pair(case) for case in cases]):
        print(*row.values(), sep=",", flush=True)
        table.append(row)
    write_rows(args.output, table)


if __name__ == "__main__":
    main()
