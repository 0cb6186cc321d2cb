"""Polyps in real frames by several segmenters, side by side. docs/results/polyps.csv.

    python benchmarks/polyps.py split FOLDER frames.csv
    python benchmarks/polyps.py score frames.csv \
        --segmenter DynUNet runs/segment/segmenter.safetensors \
        --segmenter "SAM, LoRA" runs/adapt_sam/teacher

`split` lists FOLDER/*/images and masks. Who a patient was is not known, but an examination has one
recorder, and recorders write frames of their own size: frames of like size are one group, and
groups stay whole. `TEST` and `VAL` are the sizes held out. Near-duplicates (`rbs index`) that
lie in two splits are told.

`score` gives Dice of each test frame, as degraded by the preset and as acquired, and its mean with
a 95 % bootstrap interval over frames; and the processor time of a frame.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rbs.data.endoscopy import EndoscopyDataModule
from rbs.data.frames_manifest import FrameRow, FramesManifest, write_frames_manifest
from rbs.endoscopy.duplicates import near_duplicates
from rbs.endoscopy.field_of_view import field_of_view
from rbs.endoscopy.files import read_frame, reduced, size_of
from rbs.endoscopy.perceptual_hash import perceptual_hash
from rbs.evaluation.statistics.summary import interval
from rbs.segmentation.checkpoint import load_segmenter
from rbs.segmentation.segmenter import Segmenter
from rbs.utils.files import write_csv

TEST, VAL = (472, 544), (512,)
"""Rows, in steps of 4, of held-out frames of 640 columns."""


def main() -> None:
    """List or score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("split")
    listing.add_argument("folder", type=Path)
    listing.add_argument("manifest", type=Path)
    scoring = commands.add_parser("score")
    scoring.add_argument("manifest", type=Path)
    scoring.add_argument("--segmenter", nargs=2, action="append", metavar=("NAME", "FILE"), required=True)
    scoring.add_argument("--output", type=Path, default=Path("docs/results/polyps.csv"))
    scoring.add_argument("--longest-side", type=int, default=320)
    args = parser.parse_args()
    if args.command == "split":
        split(args.folder, args.manifest)
    else:
        score(args.manifest, dict(args.segmenter), args.longest_side, args.output)


def split(folder: Path, manifest: Path) -> None:
    """Write the manifest, and tell how many frames each split has."""
    rows = []
    for frame in sorted(folder.glob("*/images/*")):
        height = size_of(frame)[0] // 4 * 4
        part = "test" if height in TEST else "val" if height in VAL else "train"
        mask = next((frame.parents[1] / "masks").glob(f"{frame.stem}.*"))
        rows.append(FrameRow(frame, part, mask=mask, group=f"{height} rows", source=folder.name))
    write_frames_manifest(manifest, rows, overwrite=True)
    for name in ("train", "val", "test"):
        listed = FramesManifest.read(manifest).rows(name)
        print(f"{name}: {len(listed)} frames of {len({row.group for row in listed})} recorders")
    frames = [reduced(read_frame(row.frame), 320) for row in rows]
    hashes = [perceptual_hash(frame, field_of_view(frame)) for frame in frames]
    pairs = near_duplicates(hashes, [row.split for row in rows])
    print(f"near-duplicates in two splits: {len(pairs)}")
    for pair in pairs:
        print(f"  {rows[pair.first].frame} {rows[pair.second].frame} {pair.likeness:.2f}")


def score(manifest: Path, files: dict[str, str], longest_side: int, output: Path) -> None:
    """Score all of them on the same frames."""
    data = EndoscopyDataModule(manifest, num_workers=0, longest_side=longest_side)
    data.setup("test")
    frames = list(data.test_dataloader())
    rows = []
    for name, file in files.items():
        segmenter = load_segmenter(file).segmenter
        parameters = sum(weight.numel() for weight in segmenter.parameters())
        row = [name, f"{parameters / 1e6:.2f}", str(len(frames))]
        seconds: list[float] = []
        for quality in ("rapid", "target"):
            scores = np.array([dice(segmenter, batch, quality, seconds) for batch in frames])
            scores = scores[np.isfinite(scores)]
            row += [f"{value:.3f}" for value in (scores.mean(), *interval([scores], np.mean))]
        rows.append([*row, f"{1000 * statistics.median(seconds):.0f}"])
    head = ["method", "parameters_m", "frames"]
    head += [f"dice_{quality}{end}" for quality in ("degraded", "clean") for end in ("", "_low", "_high")]
    write_csv(output, [*head, "ms"], rows)
    print(output.read_text())


def dice(segmenter: Segmenter, batch: dict[str, Tensor], quality: str, seconds: list[float]) -> float:
    """Dice of a frame within its valid area; NaN without a polyp there."""
    x = batch[quality]
    start = time.process_time()
    with torch.inference_mode():
        found = segmenter.logits(x, x.new_ones(1), x.new_ones(1, 2))[0, 0].argmax(dim=0) > 0
    seconds.append(time.process_time() - start)
    valid = batch["valid"][0, 0]
    found, marked = found & valid, (batch["labels"][0, 0] > 0) & valid
    if not marked.any():
        return float("nan")
    return float(2 * (found & marked).sum() / (found.sum() + marked.sum()))


if __name__ == "__main__":
    main()
