"""Degradation of frames learned without pairs: docs/results/degraders_frames.csv.

    RBS_TEST_DATA=... RBS_WEIGHTS=... python benchmarks/degraders_frames.py OUT --preset deblur
    RBS_TEST_DATA=... RBS_WEIGHTS=... python benchmarks/degraders_frames.py OUT --preset low-light
    python benchmarks/degraders_frames.py OUT --table docs/results

Of 160 frames half are clean and half are degraded by a preset that is named to nobody; degraders
are trained on these. Small restorers are trained equally with the pairs that each makes of the
clean frames, and restore 40 frames of the other folder, degraded by the same preset. Every training
and every arm's scores have a file of their own, so the command may be interrupted. A preset needs
20 minutes of one core. Nothing of these frames goes into weights that ship.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from degraders import closed, columns, minutes, run_settings, train_once
from tqdm import tqdm

from rbs.data.endoscopy import DegraderOfField, EndoscopyDataModule
from rbs.data.frames_manifest import FrameRow, write_frames_manifest
from rbs.degradation.frames import load_frame_degrader
from rbs.degradation.optical import PRESETS, Optical, Preset
from rbs.endoscopy.colour import Frame, Mask
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.files import read_frame, reduced, write_frame
from rbs.evaluation.endoscopy.metrics import FrameTarget, lpips_of_frames, psnr, ssim
from rbs.restorers.checkpoint import load_restorer
from rbs.tasks.fit import fit
from rbs.utils.files import whole_file, write_csv

UNTOUCHED, KNOWN = "untouched", "the preset"
MOMENTS, ANY = "colours matched", "any preset"
MUNIT, BRIDGE = "MUNIT-LQ", "DDPM-LQ"
LEARNED = {MUNIT: "munit", BRIDGE: "diffusion"}
ARMS = (UNTOUCHED, MOMENTS, ANY, MUNIT, BRIDGE, KNOWN)
LONGEST = 320
CLEAN = 80
"""Clean frames, and as many poor ones."""
TWINS = 31, 156
"""Numbers of two frames that show one scene, so that both are clean ones."""
STEPS = 200
"""Optimiser steps of each restorer, of 4 crops of 96 x 96 pixels."""
REALISATIONS = 2
"""Degradations of each clean frame."""
RESAMPLES = 2000
SCORES = ("psnr", "ssim", "lpips")


@dataclass(frozen=True)
class AnyPreset:
    """One of all presets, drawn anew for each frame; among them is the one that is looked for."""

    field_of_view: Mask

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """Degrade a clean frame."""
        return Optical(PRESETS[rng.integers(len(PRESETS))], self.field_of_view)(frame, rng)


@dataclass(frozen=True)
class Moments:
    """Mean and spread of each colour, made those of a poor frame that is drawn.

    Attributes:
        moments: Of the poor frames, (N, 2, 3).
        field_of_view: Pixels that are degraded.
    """

    moments: npt.NDArray[np.float32]
    field_of_view: Mask

    def __call__(self, frame: Frame, rng: np.random.Generator) -> Frame:
        """Degrade a clean frame."""
        mean, spread = self.moments[rng.integers(len(self.moments))][..., None, None]
        own = frame[:, self.field_of_view]
        flat = (frame - own.mean(1)[:, None, None]) / own.std(1)[:, None, None]
        made = np.where(self.field_of_view, flat * spread + mean, frame)
        return np.round(np.clip(made, 0, 1) * 255).astype(np.float32) / np.float32(255)


def moments(frames: list[Frame]) -> npt.NDArray[np.float32]:
    """Mean and spread of the colours of frames, (N, 2, 3)."""
    seen = [frame[:, field_of_view(frame)] for frame in frames]
    return np.stack([[pixels.mean(1), pixels.std(1)] for pixels in seen]).astype(np.float32)


def degradation(folder: Path, preset: Preset, arm: str) -> DegraderOfField:
    """What an arm makes of clean frames."""
    if arm == MOMENTS:
        poor = sorted((folder / preset / "poor").glob("*.png"))
        return partial(Moments, moments([read_frame(file) for file in poor]))
    if arm in LEARNED:
        return load_frame_degrader(degrader_file(folder, preset, arm)).within
    return AnyPreset if arm == ANY else partial(Optical, preset)


class ArmData(EndoscopyDataModule):
    """Training pairs of one arm.

    Args:
        folder: Where frames and degraders lie.
        unknown: The preset that is looked for.
        arm: Name of the arm.
        options: Of `EndoscopyDataModule`.
    """

    def __init__(self, folder: Path, unknown: Preset, arm: str, **options: Any) -> None:
        super().__init__(Path(folder) / "good" / "manifest.csv", **options)
        self.folder, self.unknown, self.arm = Path(folder), unknown, arm

    def setup(self, stage: str) -> None:
        """Read the training frames; nothing is validated."""
        self._kept["val"] = []
        super().setup(stage)

    @property
    def _within(self) -> DegraderOfField:
        return degradation(self.folder, self.unknown, self.arm)


def main() -> None:
    """Write frames, train and score what is missing, or write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--table", type=Path, metavar="FOLDER", help="write the tables")
    parser.add_argument("--figure", type=Path, metavar="JPG", help="show drawn frames by --preset")
    args = parser.parse_args()
    if args.figure:
        figure(args.output, args.preset, args.figure)
    elif args.preset:
        write_frames(args.output, args.preset)
        for arm in args.arms:
            if arm in LEARNED:
                train_once(degrader_file(args.output, args.preset, arm), train_degrader)
        for arm in args.arms:
            if arm != UNTOUCHED:
                score_degrader(args.output, args.preset, arm)
                file = restorer_file(args.output, args.preset, arm)
                train_once(file, train_restorer, args.output, args.preset, arm)
            score_restorer(args.output, args.preset, arm)
    if args.table:
        restored, made = (pd.concat(list(read(args.output, kind))) for kind in ("scores", "made"))
        for name, table in {
            "degraders_frames": restored_table(restored, args.output),
            "degraders_frames_made": made_table(made),
        }.items():
            with whole_file(args.table / f"{name}.csv", overwrite=True) as path:
                table.to_csv(path, index=False)
            print(table.to_string(index=False))


def write_frames(folder: Path, preset: Preset) -> None:
    """Write the clean frames, and the poor ones of a preset, with their manifests."""
    frames = sorted((Path(os.environ["RBS_TEST_DATA"]) / "endoscopy" / "train" / "images").glob("*.jpg"))
    frames.insert(TWINS[0] + 1, frames.pop(TWINS[1]))
    sides = {folder / "good": frames[:CLEAN], folder / preset / "poor": frames[CLEAN : 2 * CLEAN]}
    for side, files in sides.items():
        side.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(files):
            picture = side / f"{side.name}{number:02d}.png"
            if picture.exists():
                continue
            frame = reduced(read_frame(file), LONGEST)
            if side.name == "poor":
                rng = np.random.default_rng((9, PRESETS.index(preset), number))
                frame = Optical(preset, field_of_view(frame))(frame, rng)
            write_frame(picture, frame)
        pictures = sorted(side.glob("*.png"))
        rows = [FrameRow(file, "train", group=file.name, source="PolypGen") for file in pictures]
        write_frames_manifest(side / "manifest.csv", rows, overwrite=True)


def degrader_file(folder: Path, preset: str, arm: str) -> Path:
    """File of a trained degrader."""
    return folder / preset / LEARNED[arm] / "degrader.safetensors"


def restorer_file(folder: Path, preset: str, arm: str) -> Path:
    """File of a trained restorer."""
    return folder / preset / f"restorer {arm}" / "restorer.safetensors"


def train_degrader(run: Path) -> None:
    """Train a degrader as its experiment says."""
    sides = {"good": run.parent.parent / "good", "poor": run.parent / "poor"}
    options = {f"data.init_args.{side}": folder / "manifest.csv" for side, folder in sides.items()}
    fit(f"endoscopy/degradation/{run.name}", **run_settings(run, **options))


def train_restorer(run: Path, folder: Path, preset: str, arm: str) -> None:
    """Train a restorer with the pairs of an arm."""
    nafnet = {"width": 12, "enc_blocks": [1, 1, 1], "middle_blocks": 1, "dec_blocks": [1, 1, 1]}
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "rbs.tasks.restoration.RestorationTask",
            "init_args": {
                "f1": {
                    "class_path": "rbs.restorers.nafnet.NAFNet",
                    "init_args": {**nafnet, "domain": "colours"},
                },
                "lr": 2e-3,
                "warmup_steps": 20,
            },
        },
        "data": {
            "class_path": "degraders_frames.ArmData",
            "init_args": {
                "folder": str(folder),
                "unknown": preset,
                "arm": arm,
                "realisations": REALISATIONS,
                "longest_side": LONGEST,
                "crop": [96, 96],
                "batch_size": 4,
                "samples_per_epoch": 4 * STEPS,
                "num_workers": 0,
            },
        },
    }
    fit(config, **run_settings(run, **{"ema.decay": 0.98, "trainer.max_steps": STEPS}))


@cache
def test_frames(preset: Preset) -> list[tuple[FrameTarget, Frame]]:
    """Frames of the other folder, and what the preset makes of them."""
    found = []
    folder = Path(os.environ["RBS_TEST_DATA"]) / "endoscopy" / "val" / "images"
    for number, file in enumerate(sorted(folder.glob("*.jpg"))):
        frame = reduced(read_frame(file), LONGEST)
        target = FrameTarget(frame, field_of_view(frame))
        poor = Optical(preset, target.valid)(frame, np.random.default_rng((8, number)))
        found.append((target, poor))
    return found


def scores(made: Frame, target: FrameTarget) -> list[float]:
    """PSNR, SSIM and LPIPS."""
    lpips = lpips_of_frames()
    assert lpips is not None, "set RBS_WEIGHTS"
    made = np.where(target.valid, made, target.clean)
    return [psnr(made, target), ssim(made, target), lpips.compute(made, target)]


def score_restorer(folder: Path, preset: Preset, arm: str) -> None:
    """Score a restorer on the test frames, if it was not."""
    file = folder / preset / f"scores {arm}.csv"
    if file.exists():
        return
    loaded = None if arm == UNTOUCHED else load_restorer(restorer_file(folder, preset, arm))
    rows = []
    for number, (target, poor) in enumerate(tqdm(test_frames(preset), desc=f"{preset} {arm}", total=40)):
        restored = poor if loaded is None else loaded.restore_frame(poor)
        rows.append([preset, arm, number, *scores(restored, target)])
    write_csv(file, ("preset", "arm", "frame", *SCORES), rows)


def score_degrader(folder: Path, preset: Preset, arm: str) -> None:
    """Compare what an arm makes of test frames with what the preset makes of them."""
    file = folder / preset / f"made {arm}.csv"
    if file.exists():
        return
    within, rows = degradation(folder, preset, arm), []
    for number, (target, poor) in enumerate(test_frames(preset)):
        made = within(target.valid)(target.clean, np.random.default_rng((1, number)))
        near = scores(made, FrameTarget(poor, target.valid))
        own, true = (image_statistics(frame, target.valid) for frame in (made, poor))
        rows.append([preset, arm, number, *near, *own, *true])
    names = [f"{what}{of}" for of in ("", "_true") for what in ("brightness", "detail", "speckle")]
    write_csv(file, ("preset", "arm", "frame", *SCORES, *names), rows)


def image_statistics(frame: Frame, valid: Mask) -> list[float]:
    """Mean, spread of grey details, and spread of the colour of details, all times 255."""
    from scipy.ndimage import gaussian_filter

    detail = 255 * (frame - gaussian_filter(frame, (0, 1.5, 1.5), mode="nearest"))
    colour = detail - detail.mean(0)
    return [
        255 * float(frame[:, valid].mean()),
        *(float(x[..., valid].std()) for x in (detail.mean(0), colour)),
    ]


def read(folder: Path, kind: str) -> Iterator[pd.DataFrame]:
    """Scores of the presets of the table."""
    for preset in ("deblur", "low-light"):
        for file in sorted((folder / preset).glob(f"{kind}*.csv")):
            yield pd.read_csv(file)


def interval(name: str, value: Any, drawn: Any, digits: int) -> dict[str, str]:
    """Columns of a value and of its 95 % interval."""
    return columns(name, (value, *np.percentile(drawn, [2.5, 97.5])), digits)


def restored_table(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A row a preset and arm: means over frames, with 95 % intervals."""
    rows = []
    for preset, own in table.groupby("preset"):
        of = {name: own.pivot_table(index="frame", columns="arm", values=name) for name in SCORES}
        frames = len(of["psnr"])
        picked = np.random.default_rng(0).integers(0, frames, (RESAMPLES, frames))
        drawn = {name: {a: x[a].to_numpy()[picked].mean(1) for a in x} for name, x in of.items()}
        mean = {name: {a: float(x[a].mean()) for a in x} for name, x in of.items()}
        for arm in (arm for arm in ARMS if arm in mean["psnr"]):
            row: dict[str, Any] = {"preset": preset, "training": arm, "frames": frames}
            for name, digits in zip(SCORES, (2, 3, 3), strict=True):
                row |= interval(name, mean[name][arm], drawn[name][arm], digits)
            for name in SCORES if arm not in (UNTOUCHED, KNOWN) else ():
                low, high = np.percentile(drawn[name][KNOWN] - drawn[name][UNTOUCHED], [2.5, 97.5])
                if low <= 0 <= high:
                    continue  # no gap was shown
                share = [closed(x[name][arm], x[name][UNTOUCHED], x[name][KNOWN]) for x in (mean, drawn)]
                row |= interval(f"gap_{name}_percent", *share, 0)
            if arm in LEARNED:
                cheap = max((a for a in (MOMENTS, ANY) if a in mean["psnr"]), key=mean["psnr"].get)
                gain = [x["psnr"][arm] - x["psnr"][cheap] for x in (mean, drawn)]
                row |= interval("over_cheap_db", *gain, 2)
                row["degrader_minutes"] = minutes([degrader_file(folder, str(preset), arm)])
            if arm != UNTOUCHED:
                row["restorer_minutes"] = minutes([restorer_file(folder, str(preset), arm)])
            rows.append(row)
    return pd.DataFrame(rows)


def made_table(made: pd.DataFrame) -> pd.DataFrame:
    """A row a preset and arm: how near frames are to truly poor ones of the same scene."""
    rows = []
    made = made.assign(place=made["arm"].map(ARMS.index)).sort_values(["preset", "place", "frame"])
    for (preset, arm), own in made.groupby(["preset", "arm"], sort=False):
        picked = np.random.default_rng(0).integers(0, len(own), (RESAMPLES, len(own)))
        row: dict[str, Any] = {"preset": preset, "degrader": arm}
        for name, digits in (("psnr", 2), ("lpips", 3)):
            values = own[name].to_numpy()
            row |= interval(name, values.mean(), values[picked].mean(1), digits)
        for name in ("brightness", "detail", "speckle"):
            row[name] = f"{own[name].mean():.1f}"
            row[f"{name}_sd"] = f"{own[name].std():.1f}"
        rows.append(row)
        if arm == KNOWN:
            true = {
                f"{n}{s}": own[f"{n}_true"] for n in ("brightness", "detail", "speckle") for s in ("", "_sd")
            }
            shown = {n: f"{v.std() if n.endswith('_sd') else v.mean():.1f}" for n, v in true.items()}
            rows.append({"preset": preset, "degrader": "truly poor", **shown})
    return pd.DataFrame(rows)


def figure(folder: Path, preset: Preset, file: Path) -> None:
    """Show drawn frames, clean, by each model and by the preset."""
    import matplotlib.pyplot as plt

    from rbs.synthetic.mucosa.video import Video

    fig, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
    for row, number in zip(axes, (3, 8), strict=True):
        frame = Video(5, number, LONGEST).draw(0).frame
        valid = field_of_view(frame)
        panels = {"clean": frame}
        for arm in (MUNIT, BRIDGE, KNOWN):
            made = degradation(folder, preset, arm)(valid)
            panels[arm if arm in LEARNED else preset] = made(frame, np.random.default_rng(number))
        for axis, (name, picture) in zip(row, panels.items(), strict=True):
            axis.imshow(picture.transpose(1, 2, 0))
            axis.set_title(name, fontsize=9)
            axis.axis("off")
    fig.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
