"""Degradation learned without pairs, on cameras that nobody knows: docs/results/degraders.csv.

    python benchmarks/degraders.py OUT --children A B
    python benchmarks/degraders.py OUT --camera A
    python benchmarks/degraders.py OUT --camera B
    python benchmarks/degraders.py OUT --table docs/results

Cameras and children: `hidden_cameras.py`. Of each camera, degraders are trained on 40 good scans of
ours and 40 poor scans of other children; the shipped restorer is trained on equally with the pairs
that each makes, and restores 12 further children. A seed is that of a degrader's training, of the
pairs it makes, and of the restorer's training on them; scans are the same. Every training and every
restorer's scores have a file of their own, so the command may be interrupted. A camera and seed
need 25 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from hidden_cameras import CAMERAS, EXPOSURE, TEST, read_anatomy, write_children
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from rbs.data.bone_scans import RBSDataModule
from rbs.data.loading import LoadedCase
from rbs.degradation.learned import LearnedDegrader, load_degrader
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.evaluation.observers.lesion_detection import compare_foci
from rbs.evaluation.observers.lesions import score_foci
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.scans.metrics import METRICS, Target
from rbs.evaluation.statistics.summary import interval
from rbs.report.figures import overview_figure, png
from rbs.restorers.checkpoint import load_restorer
from rbs.scans.fidelity import relative_error
from rbs.scans.scan import Array, Spacing
from rbs.tasks.fit import fit
from rbs.utils.files import whole_file, write_csv
from rbs.weights.shipped import weights_path

SHIPPED, GOOD, RANDOM = "shipped", "good scans only", "random blur and scatter"
MUNIT, BRIDGE, PAIRS = "MUNIT-LQ", "DDPM-LQ", "true pairs"
LEARNED = {MUNIT: "munit", BRIDGE: "diffusion"}
ARMS = (SHIPPED, GOOD, RANDOM, MUNIT, BRIDGE, PAIRS)
STEPS = 200
"""Optimiser steps of each restorer, of 4 crops of 64 x 64 pixels."""
SCORED = [
    metric
    for metric in (*METRICS, *TASK_METRICS)
    if metric.name in ("nmse_truth", "nc_nmse", "lesion_recovery", "hallucinated", "lost", "count_bias")
]
DARKEST = 99.0
"""Percentile of the expected counts that is black in the figure."""
PIXELS, WIDTH = 1700, 10.0
"""Width of the figure, pixels and inches."""
REMOVED = 0.5
"""A lesion that keeps less than this part of the contrast that the camera would show is removed."""
RESAMPLES = 2000
SEEDS = (1, 2)


@dataclass(frozen=True)
class Unlearned:
    """A degrader that knows the pixels of a camera, and no more than the filter in its noise.

    Attributes:
        spacing_mm: Row and column spacing, mm.
        noise: That filter, as it was measured.
        random: Whether it blurs and scatters at random; otherwise it changes nothing.
    """

    spacing_mm: Spacing
    noise: NoiseFilter
    random: bool

    on_grid = LearnedDegrader.on_grid

    def __call__(self, image: Array, rng: np.random.Generator) -> Array:
        """Blur of 0 to 8 mm, and 0 to half of the counts scattered with 20 to 50 mm (sigma)."""
        if not self.random:
            return image
        blur, wide, scatter = rng.uniform(0, 8), rng.uniform(20, 50), rng.uniform(0, 0.5)
        sharp, broad = (
            gaussian_filter(image, (0, *(sigma / side for side in self.spacing_mm)), mode="reflect")
            for sigma in (blur, wide)
        )
        return ((1 - scatter) * sharp + scatter * broad).astype(np.float32)


class ArmData(RBSDataModule):
    """Training pairs of one arm.

    Args:
        folder: Where cameras and degraders lie.
        camera: Name of the camera.
        arm: Name of the arm.
        trained: Seed of the degraders.
        options: Of `RBSDataModule`.
    """

    def __init__(self, folder: Path, camera: str, arm: str, trained: int, **options: Any) -> None:
        super().__init__(Path(folder) / "good" / "manifest.csv", pairs="expectation", **options)
        self.folder, self.camera, self.arm, self.trained = Path(folder), camera, arm, trained

    @cached_property
    def _degrading(self) -> Any:
        spacing = (CAMERAS[self.camera].spacing_mm,) * 2
        if self.arm in LEARNED:
            return load_degrader(degrader_file(self.folder, self.camera, self.arm, self.trained))
        if self.arm == PAIRS:
            return Unlearned(spacing, CAMERAS[self.camera].noise, random=False)
        measured = load_degrader(degrader_file(self.folder, self.camera, MUNIT, self.trained)).noise
        return Unlearned(spacing, measured if self.arm == RANDOM else WHITE, random=self.arm == RANDOM)

    def _read(self, split: str) -> list[LoadedCase]:
        return super()._read(split) if split == "train" else []  # nothing is validated

    def _degraded(self, scans: Sequence[LoadedCase], degrader: Any) -> list[LoadedCase]:
        found = super()._degraded(scans, degrader)
        if self.arm != PAIRS:
            return found
        files = [self.folder / self.camera / f"pair{number:02d}.npz" for number in range(len(found))]
        seen = [np.load(file)["expectation"] for file in files]
        return [replace(scan, expectation_rapid=own) for scan, own in zip(found, seen, strict=True)]


def main() -> None:
    """Write children, train and score what is missing, or write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--children", nargs="+", choices=CAMERAS, metavar="CAMERA", default=[])
    parser.add_argument("--camera", choices=CAMERAS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="write the tables")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="show a test child of --camera")
    args = parser.parse_args()
    for name in args.children:
        write_children(args.output, name)
    if args.figure:
        figure(args.output, args.camera, args.figure)
    elif args.camera:
        for seed in args.seeds:
            run_arms(args.output, args.camera, args.arms, seed)
    if args.table:
        restored, made = (pd.concat(list(read(args.output, kind))) for kind in ("scores", "made"))
        for name, table in {
            "degraders": restored_table(restored, args.output),
            "degraders_disease": made_table(made),
        }.items():
            with whole_file(args.table / f"{name}.csv", overwrite=True) as path:
                table.to_csv(path, index=False)
            print(table.to_string(index=False))


def run_arms(folder: Path, camera: str, arms: Sequence[str], seed: int) -> None:
    """Train and score what is missing of a camera and seed."""
    for arm in arms:
        if arm in LEARNED:
            train_once(degrader_file(folder, camera, arm, seed), train_degrader, folder, camera, seed)
    for arm in arms:
        if arm != SHIPPED:
            train_once(restorer_file(folder, camera, arm, seed), train_restorer, folder, camera, arm, seed)
        score_restorer(folder, camera, arm, seed)
        if arm not in (SHIPPED, PAIRS):
            score_degrader(folder, camera, arm, seed)


def place(folder: Path, camera: str, arm: str, seed: int) -> Path:
    """Folder of what was made with a seed; the shipped restorer has none."""
    return folder / camera if arm == SHIPPED else folder / camera / f"seed {seed}"


def degrader_file(folder: Path, camera: str, arm: str, seed: int) -> Path:
    """File of a trained degrader."""
    return place(folder, camera, arm, seed) / LEARNED[arm] / "degrader.safetensors"


def restorer_file(folder: Path, camera: str, arm: str, seed: int) -> Path:
    """File of a trained restorer."""
    return place(folder, camera, arm, seed) / f"restorer {arm}" / "restorer.safetensors"


def train_once(product: Path, train: Callable[..., None], *args: Any) -> None:
    """Train what does not exist, and keep the core seconds it took."""
    if product.exists():
        return
    began = time.process_time()
    train(product.parent, *args)
    took = round(time.process_time() - began)
    (product.parent / "core_seconds.json").write_text(json.dumps(took))
    print(product, took, "core seconds", flush=True)


def run_settings(run: Path, **options: Any) -> dict[str, Any]:
    """Settings of a training that writes its product into `run`, and no checkpoints."""
    return {
        "name": run.name,
        "wandb": "disabled",
        "model.init_args.output": run,
        "checkpoint.save_last": False,
        "checkpoint.save_top_k": 0,
        "trainer": {
            "default_root_dir": run.parent,
            "accelerator": "cpu",
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
        },
        **options,
    }


def seeds_of(seed: int) -> dict[str, int]:
    """Seeds of a training and of its data; seed 1 is that of the experiment files."""
    return {"seed_everything": seed, "data.init_args.seed": seed - 1}


def train_degrader(run: Path, folder: Path, camera: str, seed: int) -> None:
    """Train a degrader as its experiment says."""
    sides = {
        f"data.init_args.{side}": folder / name / "manifest.csv"
        for side, name in (("good", "good"), ("poor", camera))
    }
    fit(f"degradation/{run.name}", **run_settings(run, **sides, **seeds_of(seed)))


def train_restorer(run: Path, folder: Path, camera: str, arm: str, seed: int) -> None:
    """Train the shipped restorer on with the pairs of an arm."""
    loaded = load_restorer()
    config = {
        "model": {
            "class_path": "rbs.tasks.restoration.RestorationTask",
            "init_args": {
                "f1": loaded.restorer.spec(),
                "init_from": str(weights_path("shipped")),
                "lr": 1e-3,
                "warmup_steps": 20,
            },
        },
        "data": pairs_of(folder, camera, arm, seed, STEPS),
    }
    fit(config, **run_settings(run, **seeds_of(seed), **{"ema.decay": 0.98, "trainer.max_steps": STEPS}))


def pairs_of(folder: Path, camera: str, arm: str, seed: int, steps: int) -> dict[str, Any]:
    """Settings of the pairs of an arm, as many as a number of steps takes."""
    return {
        "class_path": "degraders.ArmData",
        "init_args": {
            "folder": str(folder),
            "camera": camera,
            "arm": arm,
            "trained": seed,
            "exposures": [0.35, 0.7],
            "crop": [64, 64],
            "batch_size": 4,
            "samples_per_epoch": 4 * steps,
            "num_workers": 0,
        },
    }


@dataclass(frozen=True)
class Child:
    """A test child.

    Attributes:
        rapid: Rapid scan of the hidden camera, (2, H, W).
        hidden: Its expectation at standard speed.
        target: A standard scan of our camera on its pixels, and its truth.
    """

    rapid: Array
    hidden: Array
    target: Target


def test_children(folder: Path, camera: str) -> Iterator[tuple[int, Child]]:
    """Numbers and test children of a camera."""
    spacing = (CAMERAS[camera].spacing_mm,) * 2
    for number in range(TEST):
        file = folder / camera / f"test{number:02d}.npz"
        content = np.load(file)
        own = content["standard"], 1.0, spacing, content["good"], content["labels"], read_anatomy(file)
        yield number, Child(content["rapid"], content["hidden"], Target(*own))


def score_restorer(folder: Path, camera: str, arm: str, seed: int) -> None:
    """Score a restorer on the test children, if it was not."""
    file = place(folder, camera, arm, seed) / f"scores {arm}.csv"
    if file.exists():
        return
    loaded = load_restorer() if arm == SHIPPED else load_restorer(restorer_file(folder, camera, arm, seed))
    rows = []
    for number, child in tqdm(test_children(folder, camera), desc=f"{camera} {arm}", total=TEST):
        restored = loaded.restore(child.rapid, EXPOSURE)
        rows.append([camera, arm, number, *(metric.compute(restored, child.target) for metric in SCORED)])
    write_csv(file, ("camera", "arm", "child", *(metric.name for metric in SCORED)), rows)


def score_degrader(folder: Path, camera: str, arm: str, seed: int) -> None:
    """Compare what a degrader makes of test children with what the camera sees of them."""
    file = place(folder, camera, arm, seed) / f"made {arm}.csv"
    if file.exists():
        return
    spacing = (CAMERAS[camera].spacing_mm,) * 2
    degrader: Any = Unlearned(spacing, WHITE, random=arm == RANDOM)
    if arm in LEARNED:
        degrader = load_degrader(degrader_file(folder, camera, arm, seed))
    rows = []
    for number, child in test_children(folder, camera):
        target = child.target
        assert target.expectation is not None
        assert target.anatomy is not None
        made = degrader(target.expectation, np.random.default_rng((seed, number)))
        error = relative_error(made, child.hidden, target.mask, target.peak)
        lesions = score_foci(made, child.hidden, target.labels, target.anatomy.foci, spacing)
        added = len(compare_foci(made, child.hidden, spacing).hallucinated) / len(made)
        kept = [lesion.recovery for lesion in lesions]
        removed = sum(share < REMOVED for share in kept)
        rows.append([camera, arm, number, error, len(kept), removed, sum(kept), added])
    write_csv(file, ("camera", "arm", "child", "error", "lesions", "removed", "kept", "added"), rows)


def read(folder: Path, kind: str) -> Iterator[pd.DataFrame]:
    """Scores of the cameras of the table, with their seeds; 0 for none."""
    for camera in ("A", "B"):
        own = folder / camera
        for file in (*own.glob(f"{kind} {SHIPPED}.csv"), *sorted(own.glob(f"seed */{kind} *.csv"))):
            _, _, seed = file.parent.name.partition("seed ")
            yield pd.read_csv(file).assign(seed=int(seed or 0))


def figure(folder: Path, camera: str, file: Path, number: int = 0) -> None:
    """Draw expected counts of a child, good, by each model and by the camera, and rapid scans."""
    child = dict(test_children(folder, camera))[number]
    good = child.target.expectation
    assert good is not None
    rng = np.random.default_rng(0)
    panels = {"good": good}
    scans = {"good, rapid": rng.poisson(EXPOSURE * good) / EXPOSURE}
    for arm in LEARNED:
        degrader = load_degrader(degrader_file(folder, camera, arm, SEEDS[0]))
        panels[arm] = degrader(good, rng)
        scans[f"{arm}, rapid"] = degrader.expose(EXPOSURE * panels[arm], rng) / EXPOSURE
    panels[f"camera {camera}"] = child.hidden
    scans[f"camera {camera}, rapid"] = child.rapid / EXPOSURE
    shown = {name: image[:1] for name, image in {**panels, **scans}.items()}
    black = float(np.percentile(good, DARKEST))
    note = "A drawn phantom, not a patient: anterior view, expected counts and rapid scans drawn from them."
    drawn = overview_figure(shown, [], black, child.target.spacing_mm, ["anterior"], width=WIDTH, note=note)
    file.write_bytes(png(drawn, dpi=PIXELS / WIDTH))


def decibels(errors: npt.NDArray[np.float64], axis: int = -1) -> npt.NDArray[np.float64]:
    """PSNR of the mean of relative errors."""
    return -10 * np.log10(errors.mean(axis=axis))


def minutes(products: Sequence[Path]) -> str:
    """Core minutes of a training, with all that it made of its data: the mean of those kept."""
    kept = [file for product in products if (file := product.parent / "core_seconds.json").exists()]
    return f"{np.mean([json.loads(file.read_text()) for file in kept]) / 60:.1f}" if kept else ""


def restored_table(scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A row a camera and arm: means over children and seeds; 95 % intervals resample children."""
    rows = []
    for camera, own in scores.groupby("camera"):
        for arm in (arm for arm in ARMS if arm in set(own["arm"])):
            of = own[own["arm"] == arm]
            seeds = sorted(set(of["seed"]))
            row: dict[str, Any] = {"camera": camera, "training": arm, "children": of["child"].nunique()}
            row["seeds"] = "" if arm == SHIPPED else len(seeds)
            row["psnr_truth_db"] = f"{decibels(of['nmse_truth'].to_numpy()):.2f}"
            row["psnr_of_seeds_db"] = per_seed(decibels(errors(own, [arm], [seed])[0]) for seed in seeds)
            row["nc_psnr_db"] = f"{decibels(of['nc_nmse'].to_numpy()):.2f}"
            if arm not in (SHIPPED, PAIRS):
                row |= with_bootstrap("gap_closed_percent", own, (arm, SHIPPED, PAIRS), closed, 0)
            if arm in LEARNED:
                row |= with_bootstrap("over_random_db", own, (arm, RANDOM), np.subtract, 2)
            row["lesion_contrast"] = f"{of['lesion_recovery'].mean():.2f}"
            row |= {f"{name}_foci": f"{of[name].mean():.2f}" for name in ("hallucinated", "lost")}
            row["count_bias_percent"] = f"{of['count_bias'].mean():.1f}"
            for product, file in (("degrader", degrader_file), ("restorer", restorer_file)):
                if arm != SHIPPED and (arm in LEARNED or product == "restorer"):
                    row[f"{product}_minutes"] = minutes([file(folder, str(camera), arm, s) for s in seeds])
            rows.append(row)
    return pd.DataFrame(rows)


def errors(own: pd.DataFrame, arms: Sequence[str], seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    """Squared errors of restorers (arms, children), means over seeds; the shipped one has none."""
    kept = own[own["seed"].isin([0, *seeds])]
    return kept.pivot_table(index="arm", columns="child", values="nmse_truth").loc[list(arms)].to_numpy()


def with_bootstrap(
    name: str, own: pd.DataFrame, arms: Sequence[str], statistic: Callable[..., Any], digits: int
) -> dict[str, str]:
    """Columns of a statistic of PSNR: with its interval over children, and of each seed."""
    of = [set(own.loc[own["arm"] == arm, "seed"]) for arm in arms if arm != SHIPPED]
    seeds = sorted(set.intersection(*of))
    together = errors(own, arms, seeds)
    children = together.shape[1]
    picked = np.random.default_rng(0).integers(0, children, (RESAMPLES, children))
    drawn = statistic(*decibels(together[:, picked]))
    values = (statistic(*decibels(together)), *np.percentile(drawn, [2.5, 97.5]))
    row = columns(name, values, digits)
    single = (statistic(*decibels(errors(own, arms, [seed]))) for seed in seeds)
    stem, _, unit = name.rpartition("_")
    return row | {f"{stem}_of_seeds_{unit}": per_seed(single, digits)}


def per_seed(values: Iterable[Any], digits: int = 2) -> str:
    """Values of the seeds, in a cell; empty with one."""
    listed = [f"{value:.{digits}f}" for value in values]
    return "; ".join(listed) if len(listed) > 1 else ""


def closed(arm: Any, shipped: Any, pairs: Any) -> Any:
    """Part of the gap between shipped and paired training that an arm closes, %."""
    return 100 * (arm - shipped) / (pairs - shipped)


def made_table(made: pd.DataFrame) -> pd.DataFrame:
    """A row a camera and degrader: error against the camera, lesions kept, removed and added."""
    rows = []
    made = made.assign(place=made["arm"].map(ARMS.index)).sort_values(["camera", "place", "child"])
    for (camera, arm), own in made.groupby(["camera", "arm"], sort=False):
        seeds, children = own["seed"].nunique(), own.groupby("child").mean(numeric_only=True)
        found, kept, added = (children[name].to_numpy() for name in ("lesions", "kept", "added"))
        row: dict[str, Any] = {"camera": camera, "degrader": arm, "seeds": seeds}
        row["psnr_db"] = f"{decibels(own['error'].to_numpy()):.1f}"
        row["lesions"] = f"{found.sum():.0f}"
        row |= with_interval("lesion_contrast", (kept, found), ratio)
        row["removed_percent"] = f"{100 * own['removed'].sum() / own['lesions'].sum():.0f}"
        rows.append(row | with_interval("added_foci", (added,), np.mean))
    return pd.DataFrame(rows)


def columns(name: str, values: Iterable[Any], digits: int = 2) -> dict[str, str]:
    """Columns of a value and of its interval."""
    named = zip((name, f"{name}_low", f"{name}_high"), values, strict=True)
    return {column: f"{value:.{digits}f}" for column, value in named}


def ratio(part: Any, whole: Any, axis: int = -1) -> Any:
    """Sum of parts over the sum of wholes."""
    return part.sum(axis=axis) / whole.sum(axis=axis)


def with_interval(
    name: str, samples: Sequence[npt.NDArray[np.float64]], statistic: Callable[..., Any]
) -> dict[str, str]:
    """Columns of a statistic of values a child, with its interval."""
    return columns(name, (statistic(*samples), *interval(samples, statistic)))


if __name__ == "__main__":
    main()
