r"""Trainings beside each other on phantom children and on real scans.

    python benchmarks/patients.py data/phantoms/manifest.csv runs/patients scan.dcm other.dcm \
        --restorers "training goes on=a.safetensors" texture=b.safetensors

The first restorer is what the others are compared with. Each has a file of scores, named by its
weights and the number of children, so that the command may be interrupted or given again with more.
Real scans are thinned to 40 cm/min and to half of their counts, two draws each; phantoms are the
first test children. One core needs a minute a restorer.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from detection import named
from tqdm import tqdm

from rbs.data.manifest import Manifest
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.real.run import score
from rbs.evaluation.real.scans import RealScan, Speed, read_scans
from rbs.evaluation.scans.metrics import METRICS
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.evaluation.statistics.hierarchical import nested_interval, nested_mean
from rbs.inference.strengths import put_back
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.utils.files import whole_file

SPEEDS = (Speed(40.0), Speed(2.0, relative=True))
DRAWS = (1, 2)
PUT_BACK = 0.5
"""Share of the smooth residual: where it helps, the restorer takes signal for noise."""
SCORED = {
    metric.name: metric
    for metric in (*METRICS, *TASK_METRICS)
    if metric.name in ("nmse_truth", "count_bias", "lesion_recovery", "physis_peak")
}
RESAMPLES = 2000


def main() -> None:
    """Score what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--view", help="the view of scans whose header names none")
    parser.add_argument("--restorers", type=named, nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--children", type=int, default=12)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    cases = Manifest.read(args.manifest).split("test")[: args.children]
    children = [load_pair(case) for case in tqdm(cases, desc="reading", unit="child")]
    scans, refused = read_scans(args.scans, SPEEDS, views=args.view and [args.view])
    for error in refused:
        print(error)
    scores = {}
    for name, file in args.restorers:
        loaded = load_restorer(file)
        kept = args.output / f"{name}-{loaded.sha256[:8]}-{len(children)}.csv"
        if not kept.exists():
            rows = pd.DataFrame(scored(loaded, children, scans))
            with whole_file(kept, overwrite=True) as path:
                rows.to_csv(path, index=False)
        scores[name] = pd.read_csv(kept)
    table = pd.DataFrame(list(compared(scores)))
    with whole_file(args.output / "table" / "patients.csv", overwrite=True) as path:
        table.to_csv(path, index=False)
    print(table.to_string(index=False))


def scored(
    loaded: LoadedRestorer, children: Sequence[ScanPair], scans: Sequence[RealScan]
) -> Iterator[dict[str, Any]]:
    """Rows of scores: a child, or a view of a draw of a real scan, restored and put back."""
    real = [(scan, scan.pair(speed, draw)) for scan in scans for speed in SPEEDS for draw in DRAWS]
    for scan, pair in tqdm(real, desc="real scans", unit="restoration"):
        for kind, image in images(loaded, pair).items():
            for row in score(image, pair):
                place = f"{scan.name}, {row['view']}"
                yield {"set": "real", "case": place, "kind": kind, "nc_psnr": row["nc_psnr"]}
    for pair in tqdm(children, desc="phantoms", unit="restoration"):
        for kind, image in images(loaded, pair).items():
            values = {name: metric.compute(image, pair.target) for name, metric in SCORED.items()}
            yield {"set": "phantoms", "case": pair.patient, "kind": kind, **values}


def images(loaded: LoadedRestorer, pair: ScanPair) -> dict[str, npt.NDArray[np.float32]]:
    """The restoration, and the same with a share of the residual, (V, H, W) each."""
    own = pair.restored(loaded)
    more = put_back(own, pair.rapid, pair.exposure, pair.spacing_mm, PUT_BACK)
    return {"restored": own, "put back": more.astype(np.float32)}


def compared(scores: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Rows of the table: means, and differences from the first with 95 % intervals."""
    first = next(iter(scores.values()))
    for name, own in scores.items():
        child, base = (of(frame, "phantoms", "restored") for frame in (own, first))
        real, real_base, back = (
            of(frame, "real", kind)
            for frame, kind in ((own, "restored"), (first, "restored"), (own, "put back"))
        )
        errors = child["nmse_truth"], base["nmse_truth"]
        row = {
            "training": name,
            "phantoms_db": f"{-10 * np.log10(child['nmse_truth'].mean()):.2f}",
            **({} if own is first else columns("phantoms", *pooled_difference(*errors))),
            "lesion_contrast": f"{child['lesion_recovery'].mean():.3f}",
            "growth_plate_peak": f"{child['physis_peak'].mean():.3f}",
            "count_bias_percent": f"{child['count_bias'].mean():.2f}",
            "real_db": f"{nested_mean(by_scan(real)):.2f}",
            **({} if own is first else columns("real", *nested_difference(real, real_base))),
            "residual_put_back_db": f"{nested_difference(back, real)[0]:.2f}",
        }
        yield row


def of(frame: pd.DataFrame, images_of: str, kind: str) -> pd.DataFrame:
    """Scores of one set, one kind of image."""
    return frame[(frame["set"] == images_of) & (frame["kind"] == kind)]


def by_scan(frame: pd.DataFrame) -> list[list[npt.NDArray[np.float64]]]:
    """NC-PSNR, dB: draws and speeds in views, views in scans."""
    scan = frame["case"].str.rpartition(", ")[0]
    return [
        [view["nc_psnr"].to_numpy() for _, view in views.groupby("case")] for _, views in frame.groupby(scan)
    ]


def nested_difference(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[float, float, float]:
    """Difference of NC-PSNR of the same images, dB, and its interval: scans are resampled, too."""
    paired = ours.assign(nc_psnr=ours["nc_psnr"].to_numpy() - theirs["nc_psnr"].to_numpy())
    return nested_mean(by_scan(paired)), *nested_interval(by_scan(paired))


def pooled_difference(ours: pd.Series, theirs: pd.Series) -> tuple[float, float, float]:
    """Difference of PSNR, pooled over children, dB, and its interval over children."""
    errors = np.stack([ours, theirs])

    def minus(picked: npt.NDArray[np.int64]) -> float:
        return float(-10 * np.log10(np.divide(*errors[:, picked].mean(axis=1))))

    rng, n = np.random.default_rng(0), errors.shape[1]
    drawn = [minus(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return minus(np.arange(n)), float(low), float(high)


def columns(name: str, difference: float, low: float, high: float) -> dict[str, str]:
    """The columns of a difference and its interval, dB."""
    found = {"": difference, "_low": low, "_high": high}
    return {f"{name}_difference_db{end}": f"{value:.2f}" for end, value in found.items()}


if __name__ == "__main__":
    main()
