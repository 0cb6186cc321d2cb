"""Evaluation of a manifest of scans or frames, by every metric whose weights are installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rbs.errors import CheckpointError, RbsError
from rbs.evaluation.methods import Method
from rbs.evaluation.run import ImageSet, evaluate
from rbs.evaluation.set_metrics.fid_kid import load_inception

if TYPE_CHECKING:
    from rbs.data.frames_manifest import FramesManifest
    from rbs.degradation.optical import Preset
    from rbs.evaluation.endoscopy.pairs import Source
    from rbs.evaluation.scans.metrics import Metric

LONGEST_SIDE = 320
"""Frames are reduced to this where the weights do not say what they were trained on, pixels."""


def evaluate_manifest(
    path: Path,
    output: Path,
    *,
    trained: Sequence[Method],
    preset: Preset | None = None,
    segmenter: Path | None = None,
    base_checkpoint: Path | None = None,
    against: str | None = None,
    split: str = "test",
    command: str = "",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Evaluate a split of a manifest of scans or of frames.

    Args:
        path: The manifest, of scans or of frames.
        output: Folder.
        trained: Methods beside the classical ones.
        preset: What clean frames are degraded by; None for what the weights were trained on.
        segmenter: Segmenter of frames, file or folder of an adapted SAM, which looks for lesions in
            restored ones.
        base_checkpoint: SAM's base weights that it was adapted from; None for the shipped or
            downloaded ones.
        against: Method that all others are compared with; None for the best peer of each metric.
        split: "test" (or "val", "train").
        command: The command line, for the settings.
        overwrite: Whether results already in `output` may be replaced.

    Returns:
        The summary.

    Raises:
        RbsError: The manifest, one of its files or the weights cannot be used, or the output not be
            written.
    """
    from rbs.data.frames_manifest import is_frames_manifest

    frames = is_frames_manifest(path)
    _must_restore(trained, "frames" if frames else "scans")
    if (preset or segmenter) and not frames:
        raise RbsError("--preset and --segmenter are for frames", file=path, remedy="leave them out")
    images, metrics = (
        _frames(path, split, trained, preset, segmenter, base_checkpoint) if frames else _scans(path, split)
    )
    return evaluate(
        images,
        output,
        trained=trained,
        extra_metrics=[metric for metric in metrics if metric is not None],
        inception=load_inception(),
        against=against,
        command=command,
        overwrite=overwrite,
    )


def _scans(path: Path, split: str) -> tuple[ImageSet, list[Metric | None]]:
    from rbs.data.manifest import Manifest
    from rbs.evaluation.scans.images import ScanSet
    from rbs.evaluation.set_metrics.lpips import lpips_of_scans

    return ScanSet(Manifest.read(path), split), [lpips_of_scans()]


def _frames(
    path: Path,
    split: str,
    trained: Sequence[Method],
    preset: Preset | None,
    segmenter: Path | None,
    base_checkpoint: Path | None,
) -> tuple[ImageSet, list[Metric | None]]:
    from tqdm import tqdm

    from rbs.data.frames_manifest import FramesManifest
    from rbs.evaluation.endoscopy.images import FrameSet
    from rbs.evaluation.endoscopy.metrics import dice_metric, load_lesion_finder, lpips_of_frames, niqe_metric

    manifest = FramesManifest.read(path)
    source = _source(manifest, split, trained, preset)
    rows = [row for row in manifest.frames if row.split == "train"]
    training = tqdm(rows, desc="fitting NIQE", unit="frame", disable=not rows)
    metrics = [lpips_of_frames(), niqe_metric(source.target(row) for row in training)]
    if segmenter is not None:
        metrics.append(dice_metric(*load_lesion_finder(segmenter, base_checkpoint)))
    return FrameSet(manifest, split, source), metrics


def _must_restore(trained: Sequence[Method], shows: str) -> None:
    """Refuse weights of the other kind before any time is spent."""
    for method in trained:
        if method.settings.get("shows", shows) != shows:
            fault = f"{method.label} restores {method.settings['shows']}, but the manifest lists {shows}"
            raise CheckpointError(fault, remedy=f"name weights that were trained on {shows}")


def _source(manifest: FramesManifest, split: str, trained: Sequence[Method], preset: Preset | None) -> Source:
    """Degradation of the frames: as in the training of the weights, unless a preset is given."""
    from rbs.evaluation.endoscopy.pairs import Source

    known = [method.settings for method in trained]
    sides = {settings["longest_side"] for settings in known if "longest_side" in settings}
    if len(sides) > 1:
        raise CheckpointError(
            f"the weights were trained on frames of other sizes (longest side {', '.join(map(str, sides))})",
            remedy="evaluate them apart",
        )
    side = sides.pop() if sides else LONGEST_SIDE
    if all(row.low for row in manifest.frames if row.split in (split, "val")):
        return Source(None, side)
    presets = {settings["preset"] for settings in known if settings.get("preset")}
    if preset is None and len(presets) != 1:
        found = f"the weights name {', '.join(sorted(presets))}" if presets else "the weights name no preset"
        fault = f"it has frames without a low-quality picture, and {found}"
        raise RbsError(fault, file=manifest.path, remedy="say with --preset how they are to be degraded")
    return Source(preset or presets.pop(), side)
