"""Degradation learned without pairs, on cameras that nobody knows: docs/results/degraders.csv.

    python benchmarks/degraders.py OUT --children A B
    python benchmarks/degraders.py OUT --camera A
    python benchmarks/degraders.py OUT --camera B
    python benchmarks/degraders.py OUT --table docs/results

Cameras and children: `hidden_cameras.py`. Of each camera, degraders are trained on 40 good scans of
ours and 40 poor scans of other children; the shipped restorer is trained on equally with the pairs
that each makes, and restores 12 further children. Every training and every restorer's scores have a
file of their own, so the command may be interrupted. A camera needs 25 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
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
from rbs.data.manifest import LoadedCase
from rbs.degradation.learned import LearnedDegrader, load_degrader
from rbs.degradation.noise_filter import WHITE, NoiseFilter
from rbs.evaluation.observers.lesion_detection import compare_foci
from rbs.evaluation.observers.lesions import score_foci
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.scans.metrics import METRICS, Target
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
        options: Of `RBSDataModule`.
    """

    def __init__(self, folder: Path, camera: str, arm: str, **options: Any) -> None:
        super().__init__(Path(folder) / "good" / "manifest.csv", pairs="expectation", **options)
        self.folder, self.camera, self.arm = Path(folder), camera, arm

    @cached_property
    def _degrading(self) -> Any:
        spacing = (CAMERAS[self.camera].spacing_mm,) * 2
        if self.arm in LEARNED:
            return load_degrader(degrader_file(self.folder, self.camera, self.arm))
        if self.arm == PAIRS:
            return Unlearned(spacing, CAMERAS[self.camera].noise, random=False)
        measured = load_degrader(degrader_file(self.folder, self.camera, MUNIT)).noise
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
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="write the tables")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="show a test child of --camera")
    args = parser.parse_args()
    for name in args.children:
        write_children(args.output, name)
    if args.figure:
        figure(args.output, args.camera, args.figure)
    elif args.camera:
        for arm in args.arms:
            if arm in LEARNED:
                once(degrader_file(args.output, args.camera, arm), train_degrader, args.camera)
        for arm in args.arms:
            file = restorer_file(args.output, args.camera, arm)
            if arm != SHIPPED:
                once(file, train_restorer, args.output, args.camera, arm)
            score_restorer(args.output, args.camera, arm)
            if arm not in (SHIPPED, PAIRS):
                score_degrader(args.output, args.camera, arm)
    if args.table:
        restored, made = (pd.concat(list(read(args.output, kind))) for kind in ("scores", "made"))
        for name, table in {
            "degraders": restored_table(restored, args.output),
            "degraders_disease": made_table(made),
        }.items():
            with whole_file(args.table / f"{name}.csv", overwrite=True) as path:
                table.to_csv(path, index=False)
            print(table.to_string(index=False))


def degrader_file(folder: Path, camera: str, arm: str) -> Path:
    """File of a trained degrader."""
    return folder / camera / LEARNED[arm] / "degrader.safetensors"


def restorer_file(folder: Path, camera: str, arm: str) -> Path:
    """File of a trained restorer."""
    return folder / camera / f"restorer {arm}" / "restorer.safetensors"


def once(product: Path, train: Callable[..., None], *args: Any) -> None:
    """Train what does not exist, and keep the seconds it took."""
    if product.exists():
        return
    began = time.monotonic()
    train(product.parent, *args)
    (product.parent / "seconds.json").write_text(json.dumps(round(time.monotonic() - began)))
    print(product, (product.parent / "seconds.json").read_text(), "s", flush=True)


def quiet(run: Path, **options: Any) -> dict[str, Any]:
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


def train_degrader(run: Path, camera: str) -> None:
    """Train a degrader as its experiment says."""
    sides = {
        side: run.parent.parent / name / "manifest.csv" for side, name in (("good", "good"), ("poor", camera))
    }
    fit(f"degradation/{run.name}", **quiet(run, **{f"data.init_args.{k}": v for k, v in sides.items()}))


def train_restorer(run: Path, folder: Path, camera: str, arm: str) -> None:
    """Train the shipped restorer on with the pairs of an arm."""
    loaded = load_restorer()
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "rbs.tasks.restoration.RestorationTask",
            "init_args": {
                "f1": loaded.restorer.spec(),
                "init_from": str(weights_path("shipped")),
                "lr": 1e-3,
                "warmup_steps": 20,
            },
        },
        "data": {
            "class_path": "degraders.ArmData",
            "init_args": {
                "folder": str(folder),
                "camera": camera,
                "arm": arm,
                "exposures": [0.35, 0.7],
                "crop": [64, 64],
                "batch_size": 4,
                "samples_per_epoch": 4 * STEPS,
                "num_workers": 0,
            },
        },
    }
    fit(config, **quiet(run, **{"ema.decay": 0.98, "trainer.max_steps": STEPS}))


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


def score_restorer(folder: Path, camera: str, arm: str) -> None:
    """Score a restorer on the test children, if it was not."""
    file = folder / camera / f"scores {arm}.csv"
    if file.exists():
        return
    loaded = load_restorer() if arm == SHIPPED else load_restorer(restorer_file(folder, camera, arm))
    rows = []
    for number, child in tqdm(test_children(folder, camera), desc=f"{camera} {arm}", total=TEST):
        restored = loaded.restore(child.rapid, EXPOSURE)
        rows.append([camera, arm, number, *(metric.compute(restored, child.target) for metric in SCORED)])
    write_csv(file, ("camera", "arm", "child", *(metric.name for metric in SCORED)), rows)


def score_degrader(folder: Path, camera: str, arm: str) -> None:
    """Compare what a degrader makes of test children with what the camera sees of them."""
    file = folder / camera / f"made {arm}.csv"
    if file.exists():
        return
    spacing = (CAMERAS[camera].spacing_mm,) * 2
    degrader: Any = Unlearned(spacing, WHITE, random=arm == RANDOM)
    if arm in LEARNED:
        degrader = load_degrader(degrader_file(folder, camera, arm))
    rows = []
    for number, child in test_children(folder, camera):
        target = child.target
        assert target.expectation is not None
        assert target.anatomy is not None
        made = degrader(target.expectation, np.random.default_rng((1, number)))
        error = relative_error(made, child.hidden, target.mask, target.peak)
        lesions = score_foci(made, child.hidden, target.labels, target.anatomy.foci, spacing)
        added = len(compare_foci(made, child.hidden, spacing).hallucinated) / len(made)
        kept = [lesion.recovery for lesion in lesions]
        removed = sum(share < REMOVED for share in kept)
        rows.append([camera, arm, number, error, len(kept), removed, sum(kept), added])
    write_csv(file, ("camera", "arm", "child", "error", "lesions", "removed", "kept", "added"), rows)


def read(folder: Path, kind: str) -> Iterator[pd.DataFrame]:
    """Scores of the cameras of the table."""
    for camera in ("A", "B"):
        for file in sorted((folder / camera).glob(f"{kind}*.csv")):
            yield pd.read_csv(file)


def figure(folder: Path, camera: str, file: Path, number: int = 0) -> None:
    """Draw expected counts of a child, good, by each model and by the camera, and rapid scans."""
    child = dict(test_children(folder, camera))[number]
    good = child.target.expectation
    assert good is not None
    rng = np.random.default_rng(0)
    panels = {"good": good}
    scans = {"good, rapid": rng.poisson(EXPOSURE * good) / EXPOSURE}
    for arm in LEARNED:
        degrader = load_degrader(degrader_file(folder, camera, arm))
        panels[arm] = degrader(good, rng)
        scans[f"{arm}, rapid"] = degrader.expose(EXPOSURE * panels[arm], rng) / EXPOSURE
    panels[f"camera {camera}"] = child.hidden
    scans[f"camera {camera}, rapid"] = child.rapid / EXPOSURE
    shown = {name: image[:1] for name, image in {**panels, **scans}.items()}
    black = float(np.percentile(good, DARKEST))
    note = "A drawn phantom, not a patient: anterior view, expected counts and rapid scans drawn from them."
    drawn = overview_figure(shown, [], black, child.target.spacing_mm, ["anterior"], width=WIDTH, note=note)
    file.write_bytes(png(drawn, dpi=PIXELS / WIDTH))


def decibels(errors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """PSNR of the mean of relative errors."""
    return -10 * np.log10(errors.mean(axis=-1))


def minutes(product: Path) -> str:
    """Minutes that a training took, with all that it made of its data."""
    return f"{json.loads((product.parent / 'seconds.json').read_text()) / 60:.1f}"


def restored_table(scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A row a camera and arm: means over children, with 95 % intervals of PSNR and of the gap."""
    rows = []
    for camera, own in scores.groupby("camera"):
        errors = own.pivot_table(index="child", columns="arm", values="nmse_truth")
        picked = np.random.default_rng(0).integers(0, len(errors), (RESAMPLES, len(errors)))
        drawn = {arm: decibels(errors[arm].to_numpy()[picked]) for arm in errors}
        mean = {arm: decibels(errors[arm].to_numpy()) for arm in errors}
        for arm in (arm for arm in ARMS if arm in errors):
            of = own[own["arm"] == arm]
            row: dict[str, Any] = {"camera": camera, "training": arm, "children": len(of)}
            row["psnr_truth_db"] = f"{mean[arm]:.2f}"
            row["nc_psnr_db"] = f"{-10 * np.log10(of['nc_nmse'].mean()):.2f}"
            if arm not in (SHIPPED, PAIRS):
                share = [closed(x[arm], x[SHIPPED], x[PAIRS]) for x in (mean, drawn)]
                low, high = np.percentile(share[1], [2.5, 97.5])
                row |= {"gap_closed_percent": f"{share[0]:.0f}"}
                row |= {"gap_closed_percent_low": f"{low:.0f}", "gap_closed_percent_high": f"{high:.0f}"}
            if arm in LEARNED and RANDOM in errors:
                gain = drawn[arm] - drawn[RANDOM]
                ends = {"": mean[arm] - mean[RANDOM], "_low": np.percentile(gain, 2.5)}
                ends["_high"] = np.percentile(gain, 97.5)
                row |= {f"over_random_db{end}": f"{value:.2f}" for end, value in ends.items()}
            row["lesion_contrast"] = f"{of['lesion_recovery'].mean():.2f}"
            row |= {f"{name}_foci": f"{of[name].mean():.2f}" for name in ("hallucinated", "lost")}
            row["count_bias_percent"] = f"{of['count_bias'].mean():.1f}"
            if arm in LEARNED:
                row["degrader_minutes"] = minutes(degrader_file(folder, str(camera), arm))
            if arm != SHIPPED:
                row["restorer_minutes"] = minutes(restorer_file(folder, str(camera), arm))
            rows.append(row)
    return pd.DataFrame(rows)


def closed(arm: Any, shipped: Any, pairs: Any) -> Any:
    """Part of the gap between shipped and paired training that an arm closes, %."""
    return 100 * (arm - shipped) / (pairs - shipped)


def made_table(made: pd.DataFrame) -> pd.DataFrame:
    """A row a camera and degrader: error against the camera, lesions kept, removed and added."""
    rows = []
    made = made.assign(place=made["arm"].map(ARMS.index)).sort_values(["camera", "place", "child"])
    for (camera, arm), own in made.groupby(["camera", "arm"], sort=False):
        lesions = own["lesions"].sum()
        rows.append(
            {
                "camera": camera,
                "degrader": arm,
                "psnr_db": f"{decibels(own['error'].to_numpy()):.1f}",
                "lesions": lesions,
                "lesion_contrast": f"{own['kept'].sum() / lesions:.2f}",
                "removed_percent": f"{100 * own['removed'].sum() / lesions:.0f}",
                "added_foci": f"{own['added'].mean():.2f}",
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
