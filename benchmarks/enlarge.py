"""Twice the matrix: restorers that enlarge beside bicubic interpolation, on phantom children.

    rbs simulate data/ship --patients 300 --seed 2026
    rbs simulate data/fresh --patients 40 --seed 77
    python benchmarks/enlarge.py data/ship/manifest.csv data/fresh/manifest.csv runs/enlarge \
        --semantic runs/describe/semantic.safetensors
    python benchmarks/enlarge.py data/ship/manifest.csv data/fresh/manifest.csv runs/enlarge \
        --table docs/results/enlarge.csv

Rapid scans are summed over 2 x 2 pixels, targets stay fine. All rows are trained alike: as many
steps of the same crops; SwinIR for fewer, which take it as long. Every training and its scores have
files of their own, so the command may be interrupted; rows come in the order of their importance.
One core needs five minutes a training.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
import yaml
from tqdm import tqdm

from rbs.data.anatomy import read_anatomy
from rbs.data.bone_scans import RBSDataModule
from rbs.data.facts import FactsOf, facts_row
from rbs.data.labelled_scans import binned
from rbs.data.loading import LoadedCase, load_case
from rbs.data.manifest import Case, Manifest
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.scans.metrics import METRICS, Target
from rbs.evaluation.statistics.summary import interval
from rbs.restorers.checkpoint import LoadedRestorer, load_restorer
from rbs.scans.counts import block_sums, on_pixels_of
from rbs.scans.scan import Array
from rbs.tasks.fit import fit
from rbs.utils.experiments import experiment_file
from rbs.utils.files import whole_file
from rbs.weights.shipped import ENLARGING

CHILDREN = 20
TRAINED_ON = 105
STEPS = 800
SWINIR_STEPS = 200
KEPT = "RBS_ENLARGE_SCANS"
"""Variable that holds the file in which training scans are kept."""
NAFNET = "rbs.restorers.nafnet.NAFNet"
SEMANTIC = "rbs.restorers.semantic_nafnet.SemanticNAFNet"
SWINIR = "rbs.restorers.swinir.SwinIR"
SIZE = {"width": 16, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1]}
NAMES = ("nmse_truth", "nc_nmse", "count_bias", "lesion_recovery", "physis_fwhm", "physis_peak")
SCORED = {metric.name: metric for metric in (*METRICS, *TASK_METRICS) if metric.name in NAMES}


@dataclass(frozen=True)
class Row:
    """A row of the table: a training, or the restorer that ships, which needs none.

    Attributes:
        label: As printed.
        network: Class of the restorer; empty for the one that ships.
        arguments: Its arguments.
        coarse: Whether it restores coarse pixels, which bicubic interpolation then enlarges.
        facts: Whose facts it is given; None for none.
        steps: Steps of its training.
        trained_on: Whether it is trained as what ships: from the shipped restorer, on all kinds of
            crops.
    """

    label: str
    network: str = NAFNET
    arguments: Mapping[str, Any] = field(default_factory=dict)
    coarse: bool = False
    facts: FactsOf | None = None
    steps: int = STEPS
    trained_on: bool = False


def semantic(label: str, *parts: str, facts: FactsOf | None = None) -> Row:
    """A row of NAFNet x2 with some of the semantic parts."""
    toggles = {part: part in parts for part in ("transfer", "dynamic", "attention")}
    return Row(label, SEMANTIC, SIZE | toggles, facts=facts)


ALL = ("transfer", "dynamic", "attention")
ROWS = {
    "ceiling": Row("coarse scan without noise, bicubic", "", coarse=True),
    "shipped": Row("shipped restorer, bicubic", "", coarse=True),
    "x2": Row("NAFNet x2 that ships, trained on from the shipped restorer", ""),
    "on": Row("coarse NAFNet, trained on alike, bicubic", coarse=True, steps=600, trained_on=True),
    "coarse": Row("coarse NAFNet, bicubic", arguments=SIZE, coarse=True),
    "nafnet": Row("NAFNet x2", arguments=SIZE | {"scale": 2}),
    "all": semantic("NAFNet x2, all three parts", *ALL, facts="own"),
    "transfer": semantic("NAFNet x2, transfer", "transfer"),
    "placebo": semantic("NAFNet x2, all three, facts of other children", *ALL, facts="others"),
    "dynamic": semantic("NAFNet x2, dynamic convolution", "dynamic", facts="own"),
    "attention": semantic("NAFNet x2, attention", "attention"),
    "swinir": Row(
        "SwinIR x2",
        SWINIR,
        {"width": 24, "depths": [2, 2], "heads": [4, 4], "scale": 2},
        steps=SWINIR_STEPS,
    ),
}


class Scans(RBSDataModule):
    """Training scans that were read once for all trainings; none to validate on."""

    def cases(self, split: str) -> list[Case]:
        """See `RBSDataModule.cases`; the first of them."""
        return super().cases(split)[:TRAINED_ON]

    def _read(self, split: str) -> list[LoadedCase]:
        if split != "train":
            return []
        kept = Path(os.environ[KEPT])
        if not kept.exists():
            scans = super()._read(split)
            with whole_file(kept) as path:
                path.write_bytes(pickle.dumps(scans))
        read: list[LoadedCase] = pickle.loads(kept.read_bytes())
        return read


class CoarseScans(Scans):
    """Rapid and standard scans on coarse pixels, for the restorer that does not enlarge."""

    def _read(self, split: str) -> list[LoadedCase]:
        return [binned(scan, 2) for scan in super()._read(split)]


def main() -> None:
    """Train and score what is missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path, help="manifest of the training children")
    parser.add_argument("test", type=Path, help="manifest of the test children")
    parser.add_argument("output", type=Path)
    parser.add_argument("--semantic", type=Path, help="weights of a trained semantic network")
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--table", type=Path, help="write the table, train nothing")
    args = parser.parse_args()
    if args.table:
        with whole_file(args.table, overwrite=True) as path:
            table(args.output, args.seeds).to_csv(path, index=False)
        return
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    os.environ[KEPT] = str(args.output / "scans.pickle")
    children: list[Child] = []
    for seed in args.seeds:
        for name in args.rows:
            kept = args.output / f"{name}-{seed}.csv"
            reads = {"transfer", "dynamic"} & {n for n, on in ROWS[name].arguments.items() if on is True}
            if reads and args.semantic is None:
                print(f"{name} is left out: name a --semantic network")
                continue
            if kept.exists() or (not ROWS[name].network and seed != args.seeds[0]):
                continue
            loaded = None if name == "ceiling" else restorer(name, seed, args, reads=bool(reads))
            children = children or test_children(args.test)
            scores = pd.DataFrame([scored(ROWS[name], loaded, children, n) for n in range(len(children))])
            with whole_file(kept) as path:
                scores.to_csv(path, index=False)
            print(f"{name} {seed}: {decibels(scores['nmse_truth']):.2f} dB", flush=True)


# --- trainings


def restorer(name: str, seed: int, args: argparse.Namespace, *, reads: bool) -> LoadedRestorer:
    """The restorer of a row, trained if it is not yet; `reads` a semantic network or not."""
    row, run = ROWS[name], args.output / "runs" / f"{name}-{seed}"
    if not row.network:
        return load_restorer() if row.coarse else load_restorer(ENLARGING, scale=2)
    weights = run / "restorer.safetensors"
    if not weights.exists():
        began = time.process_time()
        network = {**row.arguments, **({"semantic": str(args.semantic.resolve())} if reads else {})}
        fit(experiment(row, network, seed, args.train), name=run.name, wandb="disabled", trainer=on(run, row))
        took = {"core_minutes": (time.process_time() - began) / 60}
        (run / "time.json").write_text(json.dumps(took))
    return load_restorer(weights, scale=None)


def experiment(row: Row, network: dict[str, Any], seed: int, manifest: Path) -> dict[str, Any]:
    """The experiment of a row: that of the shipped weights, short and without scenes."""
    config: dict[str, Any] = yaml.safe_load(experiment_file("enlarge/nafnet").read_text())
    config["data"]["class_path"] = "enlarge.CoarseScans" if row.coarse else "enlarge.Scans"
    config["data"]["init_args"] |= {"manifest": str(manifest), "crop": [96, 96], "seed": seed}
    if row.coarse:
        config["data"]["init_args"] |= {"scale": 1, "crop": [48, 48]}
    config["model"]["init_args"]["f1"] = {"class_path": row.network, "init_args": network}
    config |= {"checkpoint": {"save_last": False, "save_top_k": 0}, "seed_everything": seed}
    if row.trained_on:
        return config
    config["model"]["init_args"] |= {"init_from": None, "lr": 2.0e-3}
    config["data"]["init_args"] |= {
        "exposures": [0.25, 0.75],
        "samples_per_epoch": 4 * row.steps,
        "foci": 0.0,
        "scenes": 0.0,
        "textures": 0.0,
        "facts": row.facts,
    }
    config["ema"] = {"decay": 0.99}
    return config


def on(run: Path, row: Row) -> dict[str, Any]:
    """Settings of the trainer."""
    return {
        "max_steps": row.steps,
        "default_root_dir": run.parent,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "accelerator": "cpu",
        "devices": 1,
    }


# --- scores


@dataclass(frozen=True)
class Child:
    """A test child.

    Attributes:
        patient: Identifier.
        scan: Its scans on fine pixels.
        rapid: Counts of the rapid scan on coarse pixels (V, H, W).
        target: Reference on fine pixels.
    """

    patient: str
    scan: LoadedCase
    rapid: Array
    target: Target


def test_children(manifest: Path) -> list[Child]:
    """The first children of all splits."""
    listed = Manifest.read(manifest)
    cases = [case for split in ("train", "val", "test") for case in listed.split(split)]
    cases = sorted(cases, key=lambda case: case.patient)[:CHILDREN]
    found = []
    for case in tqdm(cases, desc="reading", unit="child", leave=False):
        scan = load_case(case)
        assert scan.rapid is not None  # phantoms have one
        known = scan.expectation, scan.labels, read_anatomy(case.truth)
        target = Target(scan.standard, 1.0, scan.spacing_mm, *known)
        found.append(Child(case.patient, scan, block_sums(scan.rapid, 2, 2), target))
    return found


def scored(row: Row, loaded: LoadedRestorer | None, children: list[Child], number: int) -> dict[str, Any]:
    """Scores of the restoration of a child; without a restorer of its coarse expectation."""
    child, p = children[number], children[number].scan.exposure
    assert p is not None
    if loaded and loaded.restorer.reads_facts:
        facts = children[facts_row(row.facts or "own", children, number)].scan.facts
        loaded = loaded.of_child(facts)
    began = time.process_time()
    assert child.target.expectation is not None
    restored = loaded.restore(child.rapid, p) if loaded else block_sums(child.target.expectation, 2, 2)
    if row.coarse:
        restored = bicubic(restored)
    seconds = time.process_time() - began
    return {
        "patient": child.patient,
        "seconds": seconds,
        "parameters": sum(w.numel() for w in loaded.restorer.parameters()) if loaded else 0,
        **{name: metric.compute(restored, child.target) for name, metric in SCORED.items()},
        **sums(restored, child, p),
    }


def bicubic(counts: Array) -> Array:
    """Counts (V, H, W) interpolated to twice as many rows and columns, each a quarter."""
    image = torch.as_tensor(counts, dtype=torch.float32)[None]
    larger = F.interpolate(image, scale_factor=2, mode="bicubic", align_corners=False) / 4
    return larger[0].clamp(min=0).numpy()


def sums(restored: Array, child: Child, p: float) -> dict[str, float]:
    """Bias and error of the sums over four fine pixels, of the body.

    The error is in units of the Poisson noise that the sums have in the rapid scan.
    """
    truth = child.target.expectation
    assert truth is not None
    found, known = (on_pixels_of(image, child.rapid) for image in (restored, truth))
    body = block_sums(child.target.mask, 2, 2) == 4
    error = found[body] - known[body]
    noise = known[body] / p
    return {
        "sums_bias_percent": 100 * error.sum() / known[body].sum(),
        "sums_error_in_noise": float(np.sqrt((error**2).mean() / noise.mean())),
    }


# --- table


def table(folder: Path, seeds: Sequence[int]) -> pd.DataFrame:
    """A row a method: means over children and seeds; 95 % intervals resample children."""
    scores = {name: scores_of(folder, name, seeds) for name in ROWS}
    found = {name: frame for name, frame in scores.items() if frame is not None}
    rows = []
    for name, frame in found.items():
        mean, trained = frame.mean(numeric_only=True), sorted(set(frame["seed"]))
        row: dict[str, Any] = {
            "method": ROWS[name].label,
            "children": frame["patient"].nunique(),
            "seeds": len(trained) if ROWS[name].network else "",
            "parameters": f"{mean['parameters'] / 1e6:.2f}",
            "steps": ROWS[name].steps if ROWS[name].network else "",
            "core_minutes": minutes(folder, name, seeds),
            "psnr_truth_db": f"{decibels(frame['nmse_truth']):.2f}",
            "psnr_of_seeds_db": of_seeds(decibels(own["nmse_truth"]) for _, own in frame.groupby("seed")),
            "nc_psnr_db": f"{decibels(frame['nc_nmse']):.2f}",
        }
        for column, peer in (("over_bicubic", "coarse"), ("over_nafnet", "nafnet")):
            row |= over(column, frame, found.get(peer))
        rows.append(
            row
            | {
                "growth_plate_width": f"{mean['physis_fwhm']:.2f}",
                "growth_plate_peak": f"{mean['physis_peak']:.2f}",
                "lesion_contrast": f"{mean['lesion_recovery']:.2f}",
                "sums_bias_percent": f"{mean['sums_bias_percent']:.2f}",
                "sums_error_in_noise": f"{mean['sums_error_in_noise']:.2f}",
                "core_s_a_scan": f"{frame['seconds'].median():.2f}",
            }
        )
    return pd.DataFrame(rows)


def scores_of(folder: Path, name: str, seeds: Sequence[int]) -> pd.DataFrame | None:
    """Scores of a row, a line a child and seed; seed 0 where nothing was trained."""
    files = {seed: file for seed in seeds if (file := folder / f"{name}-{seed}.csv").exists()}
    trained = bool(ROWS[name].network)
    read = [pd.read_csv(file).assign(seed=seed if trained else 0) for seed, file in files.items()]
    return pd.concat(read) if read else None


def minutes(folder: Path, name: str, seeds: Sequence[int]) -> str:
    """Core minutes of a training, mean over seeds; empty where there was none."""
    files = [folder / "runs" / f"{name}-{seed}" / "time.json" for seed in seeds]
    took = [json.loads(file.read_text())["core_minutes"] for file in files if file.exists()]
    return f"{np.mean(took):.1f}" if took else ""


def over(name: str, ours: pd.DataFrame, theirs: pd.DataFrame | None) -> dict[str, str]:
    """Differences of PSNR to the truth, pooled over children, dB: of common seeds, and of each."""
    columns = [f"{name}_db{end}" for end in ("", "_low", "_high")] + [f"{name}_of_seeds_db"]
    if theirs is None or theirs is ours:
        return dict.fromkeys(columns, "")
    common = sorted(set(theirs["seed"]) & set(ours["seed"])) or sorted(set(theirs["seed"]))

    def errors(scores: pd.DataFrame, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
        kept = scores[scores["seed"].isin([0, *seeds])]
        return kept.groupby("patient")["nmse_truth"].mean().to_numpy()

    pair = errors(ours, common), errors(theirs, common)
    values = (float(minus(*pair)), *interval(pair, minus))
    single = of_seeds(float(minus(errors(ours, [seed]), errors(theirs, [seed]))) for seed in common)
    return dict(zip(columns, (*(f"{value:.2f}" for value in values), single), strict=True))


def of_seeds(values: Iterable[float]) -> str:
    """Values of the seeds, in a cell; empty with one."""
    listed = [f"{value:.2f}" for value in values]
    return "; ".join(listed) if len(listed) > 1 else ""


def minus(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], axis: int = -1) -> Any:
    """Difference of the PSNR of mean errors, dB."""
    return -10 * np.log10(a.mean(axis=axis) / b.mean(axis=axis))


def decibels(errors: pd.Series) -> float:
    """PSNR of the mean error, dB."""
    return float(-10 * np.log10(errors.mean()))


if __name__ == "__main__":
    main()
