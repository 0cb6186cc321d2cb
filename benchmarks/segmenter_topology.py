"""Parts of the topology-aware segmenter, one by one: docs/results/topology.csv.

    for seed in 1 2; do
        python benchmarks/segmenter_topology.py MANIFEST OUT --start SEGMENTER --seed $seed
    done
    python benchmarks/segmenter_topology.py MANIFEST OUT --table docs/results/topology.csv

Each row goes on from the weights of a trained DynUNet: the parts add nothing before their first
step, so all rows begin as the same function. Steps are chosen so that all rows take equally long;
one more row trains the DynUNet for the steps of the slowest. Training children alone are learned
from, the rapid scans of the test children are scored, both with pixels of 4.5 mm.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from core_seconds import train
from lightning.pytorch import seed_everything

from rbs.data.labelled_scans import LabelledScansDataModule, binned
from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Manifest
from rbs.evaluation.statistics.summary import interval
from rbs.evaluation.topology import centreline_dice, parts_error
from rbs.scans.counts import standard_scale
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.segmenter import Segmenter
from rbs.segmentation.wavelet_mamba import TopoWMamba
from rbs.tasks.segmentation import SegmentationTask

BINNING, CHILDREN, BATCH = 2, 48, 1


@dataclass(frozen=True)
class Row:
    """One training: its parts, and how long it goes on."""

    wavelets: bool
    snakes: bool
    cldice_weight: float
    steps: int


ROWS = {
    "DynUNet": Row(False, False, 0, 240),
    "with clDice": Row(False, False, 0.5, 90),
    "with snake convolutions": Row(False, True, 0, 105),
    "with wavelet-Mamba": Row(True, False, 0, 155),
    "all three": Row(True, True, 0.5, 54),
    "DynUNet, steps of all three": Row(False, False, 0, 54),
}
LR, WARMUP = 1e-3, 10
REFERENCE = "DynUNet"
SHOWN = ("thorax", "arms", "growth plates")


def main() -> None:
    """Train and score the rows of one seed, or write the table of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--start", type=Path, help="weights of a DynUNet")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.table:
        table(args.output).to_csv(args.table, index=False)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    data = LabelledScansDataModule(
        str(args.manifest),
        children=CHILDREN,
        binning=BINNING,
        batch_size=BATCH,
        seed=args.seed,
        num_workers=0,
        samples_per_epoch=2000,
    )
    start = load_segmenter(args.start).segmenter
    test = [
        (case.patient, binned(load_case(case), BINNING))
        for case in Manifest.read(args.manifest).split("test")
    ]
    for name in args.rows:
        row = ROWS[name]
        seed_everything(args.seed)
        segmenter = TopoWMamba(wavelets=row.wavelets, snakes=row.snakes)
        take(segmenter, start.state_dict())
        task = SegmentationTask(segmenter, lr=LR, warmup_steps=WARMUP, cldice_weight=row.cldice_weight)
        seconds = train(task, data, row.steps, 0.95)
        about = {
            "row": name,
            "seed": args.seed,
            "steps": row.steps,
            "core_s": round(seconds, 1),
            "parameters": sum(weight.numel() for weight in segmenter.parameters()),
        }
        scores = pd.DataFrame([about | score for score in scored(segmenter, test)])
        scores.to_csv(args.output / f"{name.replace(' ', '_')}_{args.seed}.csv", index=False)
        means = scores.groupby("region")[["dice", "cldice", "parts"]].mean()
        print(name, args.seed, f"{seconds:.0f} s", means.round(3).to_string(), sep="\n", flush=True)


def take(segmenter: Segmenter, weights: dict[str, torch.Tensor]) -> None:
    """Give it the weights of a DynUNet; those of its further parts stay."""
    own = segmenter.state_dict()
    names = {name.replace(".conv2.straight.", ".conv2."): name for name in own}
    segmenter.load_state_dict(own | {names[name]: weight for name, weight in weights.items()})


def scored(segmenter: Segmenter, cases: list[tuple[str, LoadedCase]]) -> list[dict[str, object]]:
    """Scores of each patient and region of the rapid scans, views taken together."""
    segmenter.eval()
    rows: list[dict[str, object]] = []
    for patient, scan in cases:
        assert scan.rapid is not None
        assert scan.labels is not None
        assert scan.exposure is not None
        x = torch.as_tensor(standard_scale(np.asarray(scan.rapid, np.float32), scan.exposure))
        exposure, spacing = torch.tensor([scan.exposure]), torch.tensor([scan.spacing_mm])
        with torch.inference_mode():
            found = segmenter.logits(x[None], exposure.float(), spacing.float())[0].argmax(dim=1).numpy()
        for k, region in enumerate(segmenter.labels.names):
            ours, there = found == k + 1, scan.labels == k + 1
            row: dict[str, object] = {"patient": patient, "region": region}
            overlap = 2 * (ours & there).sum() / max(1, ours.sum() + there.sum())
            row["dice"] = overlap if there.any() else np.nan
            row["cldice"] = centreline_dice(ours, there)
            row["parts"] = parts_error(ours, there) if there.any() else np.nan
            rows.append(row)
    return rows


def table(folder: Path) -> pd.DataFrame:
    """Means over patients of the means over seeds, with intervals over patients."""
    scores = pd.concat([pd.read_csv(file) for file in sorted(folder.glob("*.csv"))])
    order = {name: place for place, name in enumerate(ROWS)}
    scores = scores.sort_values("row", key=lambda names: names.map(order), kind="stable")
    whole = scores.groupby(["row", "seed", "patient"])["dice"].mean().reset_index()
    scores = pd.concat([scores, whole.assign(region="mean")])
    rows = []
    for name in scores["row"].unique():
        of_row = scores[scores["row"] == name]
        about = of_row.dropna(subset=["steps"])
        for region in (*SHOWN, "mean"):
            line: dict[str, object] = {
                "row": name,
                "region": region,
                "steps": int(about["steps"].iloc[0]),
                "core_minutes": round(about["core_s"].mean() / 60, 1),
                "parameters_thousands": round(about["parameters"].iloc[0] / 1e3),
            }
            for metric in ("dice", "cldice", "parts"):
                ours, other = (
                    paired(scores[(scores["row"] == n) & (scores["region"] == region)], metric)
                    for n in (name, REFERENCE)
                )
                if not len(ours):
                    continue
                line |= {metric: ours.mean(), **ends(metric, ours)}
                seeds = of_row[of_row["region"] == region].groupby("seed")[metric].mean()
                line[f"{metric}_sd"] = float(seeds.std())
                gain = (ours - other).to_numpy()
                if name != REFERENCE:
                    line |= {f"{metric}_gain": gain.mean(), **ends(f"{metric}_gain", gain)}
            rows.append(line)
    return pd.DataFrame(rows).round(3)


def paired(scores: pd.DataFrame, metric: str) -> pd.Series:
    """Mean over seeds of each patient who has the region."""
    return scores.dropna(subset=[metric]).groupby("patient")[metric].mean()


def ends(name: str, values: pd.Series | np.ndarray) -> dict[str, float]:
    """The 95 % bootstrap interval of a mean over patients, as two columns."""
    low, high = interval((np.asarray(values, float),), np.mean)
    return {f"{name}_low": low, f"{name}_high": high}


if __name__ == "__main__":
    main()
