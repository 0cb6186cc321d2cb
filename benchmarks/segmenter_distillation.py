"""Students by task-specific distillation, against other ways to train them with few labels.

    python benchmarks/segmenter_distillation.py --manifest data/phantoms/manifest.csv --work runs/distillation
    python benchmarks/segmenter_distillation.py --work runs/distillation --table docs/results/segmenter_distillation.csv

Each cell of the grid, a method at a number of labelled children and a seed, trains the student of
`rbs segment` for equally many steps on scans of half the rows and columns, and is scored on the
rapid scans of the test children. Cells that are done, and teachers and pretrained weights that
exist, are not made again: an interrupted grid goes on. `--minutes` ends it before the next cell.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

from rbs.data.labelled_scans import LabelledScansDataModule, binned
from rbs.data.manifest import Case, LoadedCase
from rbs.data.stream import draw_child
from rbs.data.transfer_scans import TransferScansDataModule
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.dynunet import DynUNet
from rbs.segmentation.segmenter import Segmenter
from rbs.synthetic.scan_diffusion import ScanDiffusion
from rbs.tasks.distil_segmenter import DistilSegmenter
from rbs.tasks.draw_scans import DrawScans
from rbs.tasks.pretrain_segmenter import MaskedAutoencoder
from rbs.tasks.segmentation import SegmentationTask

STEPS = 300
"""Steps of a student, of two scans each."""

LARGE = (32, 48, 64, 96, 128, 128)
"""Filters of the large DynUNet, a teacher that is good at the task."""

CHILDREN_OF_STREAM = 200
SCANS_DRAWN = 100
SETTINGS: dict[str, Any] = {"crop": (512, 128), "binning": 2, "num_workers": 0, "samples_per_epoch": 100}


class Grid:
    """The grid and what its cells share.

    Args:
        manifest: Of the labelled children.
        work: Folder of weights and scores.
        oracle: Weight file of a segmenter that saw many labelled children, or None.
    """

    def __init__(self, manifest: Path, work: Path, oracle: Path | None) -> None:
        self.manifest, self.work, self.oracle = manifest, work, oracle
        self._read: dict[str, dict[str, list[Any]]] = {}
        self.made: dict[str, float] = {}
        self._stream: list[LoadedCase] = []
        work.mkdir(parents=True, exist_ok=True)
        if (work / "core_s.json").exists():
            self.made = json.loads((work / "core_s.json").read_text())

    # --- what cells share

    def train(self, task: LightningModule, data: Any, steps: int, seed: int, decay: float = 0.98) -> float:
        """Train; returns core seconds."""
        seed_everything(seed, verbose=False)
        begun = time.process_time()
        Trainer(
            max_steps=steps,
            precision="bf16-mixed",
            accelerator="cpu",
            gradient_clip_val=1.0,
            callbacks=[EMAWeightAveraging(decay=decay)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        ).fit(task, datamodule=data)
        return time.process_time() - begun

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
        data._kept = self._read.setdefault(f"{children} {transfer}", {})  # files are read once
        return data

    def stream(self) -> list[LoadedCase]:
        """Children of the phantom stream, drawn once: a child takes longer than a step."""
        file = self.work / "stream.npz"
        if not file.exists():
            drawn = [binned(draw_child(77, n)[1], 2) for n in range(CHILDREN_OF_STREAM)]
            arrays = {f"{n} expectation": child.expectation for n, child in enumerate(drawn)}
            labels = {f"{n} labels": child.labels for n, child in enumerate(drawn)}
            np.savez(file, **arrays, **labels)
        if not self._stream:
            like = binned(draw_child(77, 0)[1], 2)
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
        task = DrawScans(ScanDiffusion(), scans=SCANS_DRAWN, output=folder)
        return self.train(task, self.data(children, "labelled", 11), 500, 1, decay=0.99)

    def _large(self, folder: Path, children: int) -> float:
        task = SegmentationTask(DynUNet(LARGE), output=folder)
        return self.train(task, self.data(children, "labelled", 12), STEPS * 3 // 2, 1)

    def _masked(self, folder: Path) -> float:
        task = MaskedAutoencoder(DynUNet(), output=folder)
        return self.train(task, self.data(8, "phantoms", 13, share=1.0), STEPS, 1)

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
        elif taught_by == "mae":
            prepared = "mae"
            start = self.once("mae", self._masked) / "segmenter.safetensors"
            task = SegmentationTask(DynUNet(), init_from=start, output=folder)
        else:
            prepared, teacher, width = self._teacher(taught_by, children)
            task = DistilSegmenter(DynUNet(), teacher=teacher, embedding_dim=width, output=folder)
        data = self.data(children, transfer or "labelled", seed)
        core_s = self.train(task, data, STEPS, seed)
        about = {
            "children": children,
            "seed": seed,
            "method": method,
            "core_s": round(core_s, 1),
            "teacher_core_s": round(self.made.get(prepared, 0.0), 1),
            "transfer_core_s": round(self.made.get(f"drawn_{children}", 0.0) if transfer == "drawn" else 0, 1),
        }
        self._score(task.segmenter, about)
        spent = time.process_time() - begun
        shared = sum(self.made.values()) - before
        print(f"{name}: {core_s:.0f} core s of {spent:.0f}, shared {shared:.0f}", flush=True)

    def _teacher(self, name: str, children: int) -> tuple[str, Path, int]:
        """Name under which a teacher's cost is kept, its file, and channels of its embedding."""
        if name == "oracle":
            assert self.oracle is not None
            return "", self.oracle, load_segmenter(self.oracle).segmenter.embedding_dim
        made = f"large_{children}"
        file = self.once(made, self._large, children) / "segmenter.safetensors"
        self.score_teacher(file, children, name)
        return made, file, LARGE[3]

    def score_teacher(self, file: Path, children: int, name: str) -> None:
        """Score a teacher itself, once."""
        if (children, 1, f"teacher {name}") not in self.done():
            about = {"children": children, "seed": 1, "method": f"teacher {name}", "core_s": 0.0}
            about["teacher_core_s"] = round(self.made.get(f"{name}_{children}", 0.0), 1)
            self._score(load_segmenter(file).segmenter, about | {"transfer_core_s": 0.0})

    def _score(self, segmenter: Segmenter, about: dict[str, Any]) -> None:
        """Append Dice and surface distance of every patient and region."""
        data = LabelledScansDataModule(str(self.manifest), **SETTINGS)
        data._kept = self._read.setdefault("test", {})
        data.setup("test")
        rows = []
        segmenter.eval()
        for batch in data.test_dataloader():
            x = batch["rapid"] / batch["exposure"][:, None, None, None]
            with torch.inference_mode():
                found = segmenter.logits(x, batch["exposure"], batch["spacing_mm"])[0].argmax(dim=1)
            scores = region_scores(found.numpy(), batch["labels"][0].numpy(), segmenter, batch["spacing_mm"][0])
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


def region_scores(found: Any, truth: Any, segmenter: Segmenter, spacing_mm: Any) -> Iterator[dict[str, Any]]:
    """Dice over both views, and the mean over views of the 95 % surface distance, mm, by region."""
    spacing = [float(side) for side in spacing_mm]
    for k, region in enumerate(segmenter.labels.names):
        a, b = found == k + 1, truth == k + 1
        if not b.any():
            continue
        distances = [surface_distance(a[v], b[v], spacing) for v in range(len(b)) if b[v].any()]
        yield {
            "region": region,
            "dice": round(2 * float((a & b).sum()) / float(a.sum() + b.sum()), 4),
            "hd95_mm": round(float(np.mean(distances)), 2),
        }


def surface_distance(a: Any, b: Any, spacing: list[float]) -> float:
    """95th percentile of the distances between the outlines of two masks, mm; of none, the diagonal."""
    if not a.any():
        return float(np.hypot(*(side * size for side, size in zip(spacing, b.shape, strict=True))))
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    away = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return float(np.percentile(np.concatenate([away[1][edges[0]], away[0][edges[1]]]), 95))


def cells(teachers: list[str]) -> Iterator[tuple[int, int, str]]:
    """Children, seed and method: few labels and many first, then the second seed, then between."""
    others = ["scratch", "agnostic", "mae"]
    taught = [f"{teacher} {transfer}" for teacher in teachers for transfer in ("labelled", "phantoms", "drawn")]
    for seed in (1, 2):
        for children in (8, 80):
            yield from ((children, seed, method) for method in [*others, *taught])
    for seed in (1, 2):
        for children in (16, 32):
            yield from ((children, seed, method) for method in [*others, *taught])


def main() -> None:
    """Run what is left of the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("data/phantoms/manifest.csv"))
    parser.add_argument("--work", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--oracle", type=Path, help="weights of a segmenter that saw many labelled children")
    parser.add_argument("--only", nargs="*", default=[], metavar="METHOD", help="these methods alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after these")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    grid = Grid(args.manifest, args.work, args.oracle)
    begun = time.monotonic()
    for cell in cells(["sam", "large"]):
        if cell in grid.done() or (args.only and cell[2] not in args.only):
            continue
        if time.monotonic() - begun > 60 * args.minutes:
            raise SystemExit(3)
        grid.run(*cell)


if __name__ == "__main__":
    main()
