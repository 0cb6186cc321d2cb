"""Shipped restorer beside classical peers, on children that no setting was ever looked at on.

    rbs simulate data/fresh --patients 40 --seed 77
    pip install '.[bm3d]'
    python benchmarks/fresh_children.py data/fresh/manifest.csv runs/fresh --bm3d 40
    python benchmarks/fresh_children.py data/fresh/manifest.csv runs/fresh --table docs/results

Children of all splits. Peers have the parameters that suit the validation children of the default
cohort. Every child has a file of scores, so the command may be interrupted, and BM3D, which takes
a minute a child, may be added later, to the first so many children.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.data.manifest import Manifest
from rbs.evaluation.methods import RAPID
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.scans.classical import BM3D, GAUSSIAN, NON_LOCAL_MEANS
from rbs.evaluation.scans.metrics import METRICS
from rbs.evaluation.scans.pairs import ScanPair, load_pair
from rbs.evaluation.scans.references import REPEAT, reference_images
from rbs.evaluation.statistics.differences import differences
from rbs.evaluation.statistics.summary import by_patient, summarise
from rbs.inference.strengths import DEFAULT, Strength, apply
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer

COLUMNS = {
    "psnr_truth": ("psnr_truth_db", 1),
    "nc_psnr": ("nc_psnr_db", 1),
    "count_bias": ("total_count_bias_percent", 2),
    "region_bias": ("region_bias_percent", 1),
    "lesion_recovery": ("lesion_contrast", 2),
    "lesion_counts": ("lesion_counts", 2),
    "physis_peak": ("growth_plate_peak", 2),
}
"""Metrics to columns and decimals of the table."""
ERRORS = ("nmse_truth", "nc_nmse")
"""Columns that the first two are pooled from."""
SCORED = [metric for metric in (*METRICS, *TASK_METRICS) if metric.name in (*COLUMNS, *ERRORS)]
RESTORER = f"restorer_{DEFAULT}"
"""What the peers are compared with: the strength that `rbs restore` has unasked."""
LABELS = {
    RAPID.name: "rapid scan",
    REPEAT: "another standard scan",
    GAUSSIAN.name: GAUSSIAN.label.format(GAUSSIAN.on_phantoms),
    NON_LOCAL_MEANS.name: NON_LOCAL_MEANS.label,
    BM3D.name: BM3D.label,
    **{f"restorer_{strength}": f"restorer, {strength}" for strength in Strength},
}


def main() -> None:
    """Score what is missing, or write both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bm3d", type=int, default=0, metavar="N", help="BM3D alone, on N children")
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="write the tables, score nothing")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.table:
        scores = pd.concat([pd.read_csv(file) for file in sorted(args.output.glob("*.csv"))])
        for name, table in {"fresh_children": means(scores), "phantom_differences": minus(scores)}.items():
            table.to_csv(args.table / f"{name}.csv", index=False)
        return
    manifest = Manifest.read(args.manifest)
    cases = [case for split in ("train", "val", "test") for case in manifest.split(split)]
    cases.sort(key=lambda case: case.patient)
    loaded = None if args.bm3d else load_restorer()
    for case in cases[: args.bm3d or None]:
        file = args.output / f"{case.patient}{'_bm3d' * bool(args.bm3d)}.csv"
        if not file.exists():
            pair = load_pair(case)
            restored = peer(pair) if loaded is None else images(pair, loaded)
            score(pair, restored).to_csv(file, index=False)


def images(pair: ScanPair, loaded: LoadedRestorer) -> Mapping[str, npt.NDArray[np.floating]]:
    """Restorations of a child by all methods but BM3D, (2, H, W) each, by name."""
    restored = pair.restored(loaded)
    scan = pair.rapid, pair.exposure, pair.spacing_mm
    classical = {p.name: p.method(p.on_phantoms).restore(pair) for p in (GAUSSIAN, NON_LOCAL_MEANS)}
    return {
        RAPID.name: RAPID.restore(pair),
        REPEAT: reference_images(pair)[REPEAT],
        **classical,
        **{f"restorer_{strength}": apply(strength, restored, *scan) for strength in Strength},
    }


def peer(pair: ScanPair) -> Mapping[str, npt.NDArray[np.floating]]:
    """The same of BM3D."""
    return {BM3D.name: BM3D.method(BM3D.on_phantoms).restore(pair)}


def score(pair: ScanPair, restored: Mapping[str, npt.NDArray[np.floating]]) -> pd.DataFrame:
    """A row a method, with all of `SCORED`."""
    rows = [
        {"patient": pair.patient, "method": name, **{m.name: m.compute(image, pair.target) for m in SCORED}}
        for name, image in restored.items()
    ]
    return pd.DataFrame(rows)


def means(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a method: means over children, of PSNR with 95 % intervals."""
    found = summarise(by_patient(scores, SCORED), SCORED).set_index(["method", "metric"])
    rows = []
    for name in (name for name in LABELS if name in set(scores["method"])):
        row = {"method": LABELS[name], "children": int(found.loc[(name, "psnr_truth"), "patients"])}
        for metric, (column, digits) in COLUMNS.items():
            ends = {"": "mean", "_low": "low", "_high": "high"} if "psnr" in metric else {"": "mean"}
            for end, value in ends.items():
                row[column + end] = f"{found.loc[(name, metric), value]:.{digits}f}"
        rows.append(row)
    return pd.DataFrame(rows)


def minus(scores: pd.DataFrame) -> pd.DataFrame:
    """The restorer minus each peer, paired over the children that both have."""
    scored = set(scores["method"])
    names = [n for n in (RESTORER, GAUSSIAN.name, NON_LOCAL_MEANS.name, BM3D.name) if n in scored]
    found = differences(by_patient(scores, SCORED), SCORED, names, names, against=RESTORER)
    found = found.set_index(["method", "metric"])
    rows = []
    for name in names[1:]:
        row = {"reference": LABELS[name], "children": int(found.loc[(name, "psnr_truth"), "patients"])}
        for metric in ("psnr_truth", "nc_psnr"):
            line = found.loc[(name, metric)]
            column = f"{metric}_difference_db"
            for end, value in (("", "difference"), ("_low", "high"), ("_high", "low")):
                row[column + end] = f"{-line[value]:.1f}"
        row["children_better"] = int(found.loc[(name, "psnr_truth"), "worse"])
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
