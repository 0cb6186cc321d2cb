"""Students by task-specific distillation, against other ways to train them with few labels.

    python benchmarks/segmenter_distillation.py --work runs/distillation
    python benchmarks/segmenter_distillation.py --work runs/distillation --table TABLE.csv

Each cell of the grid, a method at a number of labelled children and a seed, trains the student of
`rbs segment` for equally many steps on scans of a quarter of the rows and columns (pixels of
9 mm), and is scored on the rapid scans of the test children. Cells that are done, and teachers and
pretrained weights that exist, are not made again: an interrupted grid goes on. `--minutes` ends it
before the next cell.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from core_seconds import train
from lightning import LightningModule, seed_everything
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from rbs.data.datasets import Sample
from rbs.data.labelled_scans import LabelledScans, LabelledScansDataModule, binned
from rbs.data.loading import LoadedCase
from rbs.data.manifest import Case
from rbs.data.stream import draw_child
from rbs.data.transfer_scans import TransferScansDataModule
from rbs.segmentation.adapters import load_teacher, save_teacher, start, trainable_teacher
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.sam import build_sam, find_checkpoint
from rbs.segmentation.segmenter import Segmenter
from rbs.segmentation.teacher import Teacher
from rbs.synthetic.scan_diffusion import ScanDiffusion
from rbs.tasks.adapt_teacher import AdaptTeacher
from rbs.tasks.distil_segmenter import DistilSegmenter
from rbs.tasks.draw_scans import DrawScans
from rbs.tasks.pretrain_segmenter import MaskedAutoencoder
from rbs.tasks.segmentation import SegmentationTask

LARGE = (32, 48, 64, 96, 128, 128)
"""Filters of the large DynUNet, a teacher that is good at the task."""

CHILDREN_OF_STREAM = 80
SCANS_DRAWN = 80
BINNING = 4
SETTINGS: dict[str, Any] = {"binning": BINNING, "num_workers": 0, "samples_per_epoch": 100}

LORA_STEPS, DECODER_STEPS = 60, 100


class Grid:
    """The grid and what its cells share.

    Args:
        manifest: Of the labelled children.
        work: Folder of weights and scores.
        steps: Steps of a student, and of what prepares it, of two scans each.
    """

    def __init__(self, manifest: Path, work: Path, steps: int) -> None:
        self.manifest, self.work, self.steps = manifest, work, steps
        self._scans: dict[str, list[LoadedCase]] = {}
        self.made: dict[str, float] = {}
        self._stream: list[LoadedCase] = []
        work.mkdir(parents=True, exist_ok=True)
        if (work / "core_s.json").exists():
            self.made = json.loads((work / "core_s.json").read_text())

    # --- what cells share

    def train(self, task: LightningModule, data: Any, steps: int, seed: int, decay: float = 0.98) -> float:
        """Train; returns core seconds."""
        seed_everything(seed, verbose=False)
        return train(task, data, steps, decay)

    def data(self, children: int, transfer: str, seed: int, share: float = 0.5) -> Any:
        """Labelled scans, beside a transfer set unless that is the labelled children alone."""
        options: dict[str, Any] = {**SETTINGS, "children": children, "seed": seed}
        data: Any
        if transfer == "labelled":
            data = LabelledScansDataModule(str(self.manifest), **options)
        elif transfer == "phantoms":
            data = _Phantoms(str(self.manifest), transfer_share=share, **options)
            data.children_of_stream = self.stream()
        else:
            manifest = self.once(f"drawn_{children}", self._draw, children) / "drawn" / "manifest.csv"
            data = TransferScansDataModule(
                str(self.manifest), transfer=manifest, transfer_share=share, **options
            )
        data._kept = self.kept(children)
        return data

    def kept(self, children: int) -> dict[str, list[Any]]:
        """Scans of the labelled and of the test children, read once for all cells."""
        file = self.work / "scans.pkl"
        if not file.exists():
            data = LabelledScansDataModule(str(self.manifest), **SETTINGS)
            read = {split: data._read(split) for split in ("train", "test")}
            file.write_bytes(pickle.dumps(read))
        if not self._scans:
            self._scans = pickle.loads(file.read_bytes())
        return {"train": self._scans["train"][:children], "val": [], "test": self._scans["test"]}

    def stream(self) -> list[LoadedCase]:
        """Children of the phantom stream, drawn once: a child takes longer than a step."""
        file = self.work / "stream.npz"
        if not file.exists():
            drawn = [binned(draw_child(77, n)[1], BINNING) for n in range(CHILDREN_OF_STREAM)]
            kept: dict[str, Any] = {f"{n} expectation": child.expectation for n, child in enumerate(drawn)}
            kept |= {f"{n} labels": child.labels for n, child in enumerate(drawn)}
            np.savez(file, **kept)
        if not self._stream:
            like = binned(draw_child(77, 0)[1], BINNING)
            with np.load(file) as arrays:
                for n in range(CHILDREN_OF_STREAM):
                    expectation, labels = arrays[f"{n} expectation"], arrays[f"{n} labels"]
                    self._stream.append(
                        LoadedCase(
                            rapid=None,
                            standard=expectation,
                            exposure=None,
                            labels=labels,
                            expectation=expectation,
                            views=like.views,
                            spacing_mm=like.spacing_mm,
                        )
                    )
        return self._stream

    def once(self, name: str, make: Callable[..., float], *arguments: Any) -> Path:
        """Folder of what several cells need; made now unless it was."""
        folder = self.work / name
        if name not in self.made:
            print(f"making {name}", flush=True)
            self.made[name] = make(folder, *arguments)
            (self.work / "core_s.json").write_text(json.dumps(self.made, indent=1))
        return folder

    def _draw(self, folder: Path, children: int) -> float:
        task = DrawScans(ScanDiffusion(channels=(32, 48, 64), patch=2), scans=SCANS_DRAWN, output=folder)
        return self.train(task, self.data(children, "labelled", 11), 400, 1, decay=0.99)

    def _large(self, folder: Path, children: int) -> float:
        task = SegmentationTask(DynUNet(LARGE), output=folder)
        return self.train(task, self.data(children, "labelled", 12), self.steps, 1)

    def _sam(self, folder: Path, children: int) -> float:
        """SAM adapted to the labelled children by LoRA."""
        task = AdaptTeacher(decoder_steps=DECODER_STEPS)
        data = _ForSAM(str(self.manifest), children=children, seed=14, **SETTINGS)
        data._kept = self.kept(children)
        core_s = self.train(task, data, LORA_STEPS, 1, decay=0.97)
        base = find_checkpoint("vit_t", None)
        save_teacher(folder, task.teacher, mode="lora", rank=8, base=base)
        return core_s

    def _untouched(self, folder: Path) -> float:
        """SAM as it is."""
        sam = trainable_teacher("vit_t", "decoder", 8)
        start(sam, build_sam("vit_t", None))
        save_teacher(folder, sam, mode="decoder", rank=8, base=find_checkpoint("vit_t", None))
        return 0.0

    def _agnostic(self, folder: Path) -> float:
        """A student of SAM's own features, without labels."""
        sam = self.once("untouched", self._untouched)
        task = _TaughtBySAM(DynUNet(), sam, output_weight=0.0, feature_weight=1.0, output=folder)
        return self.train(task, self.data(8, "phantoms", 13, share=1.0), self.steps, 1)

    def _masked(self, folder: Path) -> float:
        task = MaskedAutoencoder(DynUNet(), output=folder)
        return self.train(task, self.data(8, "phantoms", 13, share=1.0), self.steps, 1)

    # --- cells

    def run(self, children: int, seed: int, method: str) -> None:
        """Train and score one cell."""
        begun = time.process_time()
        before = sum(self.made.values())
        name = f"{method}_{children}_{seed}".replace(" ", "_")
        folder = self.work / "cells" / name
        taught_by, _, transfer = method.partition(" ")
        prepared = ""
        if taught_by == "scratch":
            task = SegmentationTask(DynUNet(), output=folder)
        elif taught_by in ("mae", "agnostic"):
            prepared = taught_by
            pretrain = self._masked if taught_by == "mae" else self._agnostic
            pretrained = self.once(taught_by, pretrain) / "segmenter.safetensors"
            task = SegmentationTask(DynUNet(), init_from=pretrained, output=folder)
        else:
            prepared = f"{taught_by}_{children}"
            adapt = self._sam if taught_by == "sam" else self._large
            teacher = self.once(prepared, adapt, children)
            self._score_teacher(teacher, children, taught_by)
            if taught_by == "sam":
                task = _TaughtBySAM(DynUNet(), teacher=teacher, output=folder)
            else:
                weights = teacher / "segmenter.safetensors"
                task = DistilSegmenter(DynUNet(), weights, embedding_dim=LARGE[3], output=folder)
        data = self.data(children, transfer or "labelled", seed)
        core_s = self.train(task, data, self.steps, seed)
        about = {
            "children": children,
            "seed": seed,
            "method": method,
            "core_s": round(core_s, 1),
            "teacher_core_s": round(self.made.get(prepared, 0.0), 1),
            "transfer_core_s": round(
                self.made.get(f"drawn_{children}", 0.0) if transfer == "drawn" else 0, 1
            ),
        }
        self._score(task.segmenter, about)
        spent = time.process_time() - begun
        shared = sum(self.made.values()) - before
        print(f"{name}: {core_s:.0f} core s of {spent:.0f}, shared {shared:.0f}", flush=True)

    def _score_teacher(self, folder: Path, children: int, name: str) -> None:
        """Score a teacher itself, once."""
        if (children, 1, f"teacher {name}") in self.done():
            return
        teacher: Segmenter
        if name == "sam":
            teacher = Magnified(load_teacher(folder))
        else:
            teacher = load_segmenter(folder / "segmenter.safetensors").segmenter
        cost = round(self.made[f"{name}_{children}"], 1)
        about = {"children": children, "seed": 1, "method": f"teacher {name}", "core_s": cost}
        self._score(teacher, about | {"teacher_core_s": 0.0, "transfer_core_s": 0.0})

    def _score(self, segmenter: Segmenter, about: dict[str, Any]) -> None:
        """Append Dice and surface distance of every patient and region."""
        data = LabelledScansDataModule(str(self.manifest), **SETTINGS)
        data._kept = self.kept(0)
        rows = []
        segmenter.eval()
        for batch in data.test_dataloader():
            x = batch["rapid"] / batch["exposure"][:, None, None, None]
            with torch.inference_mode():
                found = segmenter.logits(x, batch["exposure"], batch["spacing_mm"])[0].argmax(dim=1)
            scores = region_scores(
                found.numpy(), batch["labels"][0].numpy(), segmenter, batch["spacing_mm"][0]
            )
            rows += [about | {"patient": batch["patient"][0]} | row for row in scores]
        file = self.work / "scores.csv"
        pd.DataFrame(rows).to_csv(file, mode="a", header=not file.exists(), index=False)

    def done(self) -> set[tuple[int, int, str]]:
        """Cells with scores."""
        file = self.work / "scores.csv"
        if not file.exists():
            return set()
        table = pd.read_csv(file)
        return set(zip(table["children"], table["seed"], table["method"], strict=True))


class _Phantoms(TransferScansDataModule):
    """A transfer set of the same children of the phantom stream for all cells."""

    children_of_stream: list[LoadedCase]

    def setup(self, stage: str) -> None:
        self._kept["transfer"] = self.children_of_stream
        super().setup(stage)

    def cases(self, split: str) -> list[Case]:
        if split != "transfer":
            return super().cases(split)
        return [Case(f"stream-{n}", "train", (), ()) for n in range(len(self.children_of_stream))]


class Magnified(Segmenter):
    """A SAM that is shown binned scans with each pixel divided into 2 x 2: its cells are coarse.

    Args:
        sam: The adapted SAM.
    """

    def __init__(self, sam: Teacher) -> None:
        super().__init__()
        self.sam = sam
        self.embedding_dim, self.embedding_stride = sam.embedding_dim, sam.embedding_stride // 2
        self.mask_stride = max(1, sam.mask_stride // 2)

    def logits_with_features(
        self, x: Tensor, exposure: Tensor, spacing_mm: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Segmenter.logits_with_features`."""
        logits, features = self.sam.logits_with_features(magnified(x) / 4, exposure, spacing_mm / 2)
        return F.avg_pool2d(logits.flatten(0, 1), 2).unflatten(0, logits.shape[:2]), features

    def embedding(self, features: list[Tensor]) -> Tensor:
        """See `Segmenter.embedding`."""
        return self.sam.embedding(features)


def magnified(pixels: Tensor) -> Tensor:
    """Every pixel as 2 x 2 of its value."""
    return pixels.repeat_interleave(2, -1).repeat_interleave(2, -2)


class _TaughtBySAM(DistilSegmenter):
    def setup(self, stage: str) -> None:
        super().setup(stage)
        sam = self._outside["teacher"]
        assert isinstance(sam, Teacher)
        self._outside["teacher"] = Magnified(sam).eval()


class _ForSAM(LabelledScansDataModule):
    """Labelled scans as `AdaptTeacher` takes them."""

    def train_dataloader(self) -> Any:
        return self._training_loader(_Shown(self._scans("train", seed=self.seed)), self.batch_size)


class _Shown(Dataset[Sample]):
    def __init__(self, scans: LabelledScans) -> None:
        self.scans = scans

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> Sample:
        sample = self.scans[index]
        for name in ("rapid", "expectation"):
            sample[name] = magnified(sample[name]) / 4
        sample["labels"] = magnified(sample["labels"])
        alike = {"target": sample["rapid"], "target_exposure": sample["exposure"]}
        return sample | alike | {"flip": torch.tensor([False, False])}


def region_scores(
    found: Any, truth: Any, segmenter: Segmenter, spacing_mm: list[float]
) -> Iterator[dict[str, Any]]:
    """Dice over both views, and the mean over views of the 95 % surface distance, mm, by region."""
    for k, region in enumerate(segmenter.labels.names):
        a, b = found == k + 1, truth == k + 1
        if not b.any():
            continue
        distances = [surface_distance(a[v], b[v], spacing_mm) for v in range(len(b)) if b[v].any()]
        yield {
            "region": region,
            "dice": round(2 * float((a & b).sum()) / float(a.sum() + b.sum()), 4),
            "hd95_mm": round(float(np.nanmean(distances)), 2) if np.isfinite(distances).any() else "",
        }


def surface_distance(a: Any, b: Any, spacing_mm: list[float]) -> float:
    """The larger 95th percentile of the distances from one outline to the other, mm.

    NaN where nothing is found.
    """
    if not a.any():
        return float("nan")
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    away = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
    return max(float(np.percentile(away[1 - n][edges[n]], 95)) for n in (0, 1))


def cells(children: list[int], seeds: list[int]) -> Iterator[tuple[int, int, str]]:
    """Children, seed and method, in an order that gives the whole picture early."""
    methods = ["scratch", "large phantoms", "sam phantoms", "mae", "agnostic"]
    methods += ["large labelled", "large drawn", "sam labelled", "sam drawn"]
    for seed in seeds:
        for number in children:
            yield from ((number, seed, method) for method in methods)


NAMES = {
    "scratch": "from scratch",
    "agnostic": "task-agnostic: features of SAM, then labels",
    "mae": "masked autoencoder, then labels",
    "teacher sam": "SAM by LoRA: the teacher itself",
    "teacher large": "large DynUNet: the teacher itself",
    **{
        f"{short} {transfer}": f"taught by {teacher}, {shown}"
        for short, teacher in (("sam", "SAM"), ("large", "the large DynUNet"))
        for transfer, shown in (
            ("labelled", "labelled children"),
            ("phantoms", "phantom stream"),
            ("drawn", "drawn scans"),
        )
    },
}
"""Methods as the table names them, in its order."""

SMALL = ("growth plates", "urinary tract", "hot spots")
"""Regions that a student may not find at all: no surface distance is told of them."""


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a method and number of children, with bootstrap intervals over patients."""
    rows = []
    for children, of_children in scores.groupby("children"):
        dice = {m: _by_patient(s, "dice") for m, s in of_children.groupby("method")}
        for method in NAMES:
            if method not in dice:
                continue
            cells_of = of_children[of_children["method"] == method]
            far = _by_patient(cells_of[~cells_of["region"].isin(SMALL)], "hd95_mm")
            once = cells_of.drop_duplicates("seed")
            row = {"row": f"{children} children, {NAMES[method]}", "seeds": len(once)}
            row |= _interval("dice", dice[method])
            if method != "scratch" and "scratch" in dice:
                row |= _interval("minus_scratch", dice[method] - dice["scratch"])
            row |= {f"dice_{_key(name)}": f"{mean:.3f}" for name, mean in dice[method].mean().items()}
            row |= _interval("hd95_mm", far, digits=1)
            row |= {f"hd95_{_key(name)}_mm": f"{mean:.1f}" for name, mean in far.mean().items()}
            names = ("core_s", "teacher_core_s", "transfer_core_s")
            row |= {name: f"{once[name].mean():.0f}" for name in names}
            rows.append(row)
    first = ["row", "seeds", "dice", "dice_low", "dice_high"]
    first += ["minus_scratch", "minus_scratch_low", "minus_scratch_high"]
    whole = pd.DataFrame(rows)
    return whole[first + [name for name in whole if name not in first]]


def _key(region: Any) -> str:
    return str(region).replace(" ", "_")


def _by_patient(scores: pd.DataFrame, value: str) -> pd.DataFrame:
    """Patients by regions, mean over seeds; NaN where a patient lacks a region."""
    return scores.pivot_table(value, "patient", "region", sort=False)


def _interval(name: str, values: pd.DataFrame, digits: int = 3) -> dict[str, str]:
    """Mean over regions of the means over patients, and its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    means = [float(np.nanmean(np.nanmean(values.to_numpy()[index], axis=0))) for index in drawn]
    low, high = np.percentile(means, [2.5, 97.5])
    shown = {name: float(np.nanmean(values.mean())), f"{name}_low": low, f"{name}_high": high}
    return {key: f"{value:.{digits}f}" for key, value in shown.items()}


def main() -> None:
    """Run what is left of the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("data/phantoms/manifest.csv"))
    parser.add_argument("--work", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--steps", type=int, default=300, help="steps of a student (default: %(default)s)")
    parser.add_argument("--children", type=int, nargs="*", default=[8, 80, 16, 32], metavar="N")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2], metavar="SEED")
    parser.add_argument("--only", nargs="*", default=[], metavar="METHOD", help="these methods alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after these")
    parser.add_argument("--table", type=Path, metavar="CSV", help="write the table of what is done")
    args = parser.parse_args()
    if args.table:
        table(pd.read_csv(args.work / "scores.csv")).to_csv(args.table, index=False)
        return
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    grid = Grid(args.manifest, args.work, args.steps)
    begun = time.monotonic()
    for cell in cells(args.children, args.seeds):
        if cell in grid.done() or (args.only and cell[2] not in args.only):
            continue
        if time.monotonic() - begun > 60 * args.minutes:
            raise SystemExit(3)
        grid.run(*cell)


if __name__ == "__main__":
    main()
