"""The diffusion restorer beside NAFNet on pairs of MUNIT-LQ: docs/results/diffusion_restorer.csv.

    python benchmarks/diffusion_restorer.py OUT
    python benchmarks/diffusion_restorer.py OUT --table docs/results/diffusion_restorer.csv

OUT is that of `degraders.py`, which has trained the degraders of camera B. Both restorers are
trained from nothing on their pairs, for numbers of steps that take the same core minutes, and
restore the same test children. One core needs 15 minutes a seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from degraders import (
    MUNIT,
    SCORED,
    decibels,
    minutes,
    pairs_of,
    place,
    run_settings,
    seeds_of,
    test_children,
    train_once,
    with_interval,
)
from hidden_cameras import EXPOSURE, TEST
from tqdm import tqdm

from rbs.restorers.checkpoint import load_restorer
from rbs.tasks.fit import fit
from rbs.utils.files import whole_file

CAMERA = "B"


@dataclass(frozen=True)
class Row:
    """A training of 4 crops of 64 x 64 pixels a step.

    Attributes:
        label: As printed.
        steps: Optimiser steps.
        task: Class of the training.
        network: Class of the restorer.
        arguments: Its arguments.
    """

    label: str
    steps: int
    task: str
    network: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


DIFFUSION, NAFNET = "diffusion", "nafnet"
ROWS = {
    DIFFUSION: Row(
        "diffusion restorer",
        350,
        "rbs.tasks.diffusion.DiffusionTask",
        "rbs.restorers.diffusion.Diffusion",
        {"tile": 64},
    ),
    NAFNET: Row("NAFNet", 1100, "rbs.tasks.restoration.RestorationTask", "rbs.restorers.nafnet.NAFNet"),
}


def main() -> None:
    """Train and score what is missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=(1,))
    parser.add_argument("--table", type=Path, help="write the table, train nothing")
    args = parser.parse_args()
    if args.table:
        with whole_file(args.table, overwrite=True) as path:
            table(args.output, args.seeds).to_csv(path, index=False)
        return
    torch.set_num_threads(1)
    for seed in args.seeds:
        for name in ROWS:
            train_once(weights(args.output, name, seed), train, args.output, name, seed)
            score(args.output, name, seed)


def weights(folder: Path, name: str, seed: int) -> Path:
    """File of a trained restorer."""
    return place(folder, CAMERA, MUNIT, seed) / f"from nothing {name}" / "restorer.safetensors"


def train(run: Path, folder: Path, name: str, seed: int) -> None:
    """Train a restorer from nothing."""
    row = ROWS[name]
    network = {"class_path": row.network, "init_args": dict(row.arguments)}
    config = {
        "model": {
            "class_path": row.task,
            "init_args": {"f1": network, "lr": 2e-3, "warmup_steps": 50},
        },
        "data": pairs_of(folder, CAMERA, MUNIT, seed, row.steps),
    }
    fit(config, **run_settings(run, **seeds_of(seed), **{"ema.decay": 0.99, "trainer.max_steps": row.steps}))


def score(folder: Path, name: str, seed: int) -> None:
    """Score a restorer on the test children, if it was not."""
    file = weights(folder, name, seed).with_name("scores.csv")
    if file.exists():
        return
    loaded = load_restorer(weights(folder, name, seed))
    size = sum(w.numel() for w in loaded.restorer.parameters())
    rows = []
    for number, child in tqdm(test_children(folder, CAMERA), desc=name, total=TEST):
        began = time.process_time()
        restored = loaded.restore(child.rapid, EXPOSURE)
        row = {"child": number, "parameters": size, "seconds": time.process_time() - began}
        rows.append(row | {metric.name: metric.compute(restored, child.target) for metric in SCORED})
    with whole_file(file) as path:
        pd.DataFrame(rows).to_csv(path, index=False)


def table(folder: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """A row a restorer: means over children and seeds; intervals resample children."""
    scores = {
        name: pd.concat([pd.read_csv(weights(folder, name, seed).with_name("scores.csv")) for seed in seeds])
        for name in ROWS
    }
    errors = {name: own.groupby("child")["nmse_truth"].mean().to_numpy() for name, own in scores.items()}
    rows = []
    for name, own in scores.items():
        row = {
            "restorer": ROWS[name].label,
            "children": own["child"].nunique(),
            "seeds": len(seeds),
            "parameters": f"{own['parameters'].iloc[0] / 1e6:.2f}",
            "steps": ROWS[name].steps,
            "core_minutes": minutes([weights(folder, name, seed) for seed in seeds]),
            **with_interval("psnr_truth_db", (errors[name],), decibels),
            "nc_psnr_db": f"{decibels(own['nc_nmse'].to_numpy()):.2f}",
        }
        if name != NAFNET:
            row |= with_interval("over_nafnet_db", (errors[name], errors[NAFNET]), gain)
        row["lesion_contrast"] = f"{own['lesion_recovery'].mean():.2f}"
        row |= {f"{kind}_foci": f"{own[kind].mean():.2f}" for kind in ("hallucinated", "lost")}
        row["count_bias_percent"] = f"{own['count_bias'].mean():.1f}"
        row["core_s_a_scan"] = f"{own['seconds'].median():.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def gain(ours: Any, theirs: Any, axis: int = -1) -> Any:
    """PSNR of the mean error over another, dB."""
    return decibels(ours, axis) - decibels(theirs, axis)


if __name__ == "__main__":
    main()
