"""What the rows of an ablation are scored on: the scans or frames of a split, and the metrics they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbs.data.frames_manifest import FramesManifest
from rbs.data.manifest import Manifest
from rbs.errors import ManifestError
from rbs.evaluation.run import FRAMES, SCANS, Kind
from rbs.evaluation.scans.metrics import METRICS, Metric
from rbs.multirun.ablation.plan import FULL, Plan, newest_config
from rbs.multirun.runs import Run


@dataclass(frozen=True)
class Cases:
    """The cases of a split.

    Attributes:
        kind: Scans or frames, in words.
        manifest: The file that names them.
        split: "test" or "val".
        count: How many there are.
        pair: From a number below that to the pair: what a restorer is given, and what it is judged
            by.
        metrics: What rows are scored by.
    """

    kind: Kind
    manifest: Path
    split: str
    count: int
    pair: Callable[[int], Any]
    metrics: tuple[Metric, ...]


def cases_of(
    plan: Plan, runs: Mapping[tuple[str, int], Run], manifest: Manifest | FramesManifest, split: str
) -> Cases:
    """The cases of a manifest: the plan's own, or another.

    Args:
        plan: The ablation.
        runs: Its runs, trained: frames are degraded as the full method's training degraded them.
        manifest: Scans or frames, as the plan's.
        split: "test" or "val".

    Raises:
        ManifestError: The split is empty.
        RbsError: The teacher cannot be read.
    """
    if isinstance(manifest, Manifest):
        return _scans(manifest, split)
    data = newest_config(runs[FULL, plan.seeds[0]].folder)["data"]["init_args"]
    return _frames(plan, manifest, data, split)


def _scans(manifest: Manifest, split: str) -> Cases:
    from rbs.evaluation.scans.pairs import load_pair

    cases = manifest.split(split)
    if not cases:
        fault = f"the split '{split}' is empty"
        raise ManifestError(fault, file=manifest.path, remedy="add patients to it")
    return Cases(SCANS, manifest.path, split, len(cases), lambda index: load_pair(cases[index]), METRICS)


def _frames(plan: Plan, manifest: FramesManifest, data: Mapping[str, Any], split: str) -> Cases:
    from rbs.evaluation.endoscopy.metrics import METRICS as FRAME_METRICS
    from rbs.evaluation.endoscopy.metrics import dice_metric, load_segmenter
    from rbs.evaluation.endoscopy.pairs import Source

    rows = manifest.rows(split)
    source = Source(data["preset"], data["longest_side"])
    metrics = FRAME_METRICS
    if plan.teacher is not None and all(row.mask for row in rows):
        # What the priors are about: whether lesions are found in what is restored.
        metrics = (*metrics, dice_metric(*load_segmenter(plan.teacher)))
    return Cases(
        FRAMES, manifest.path, split, len(rows), lambda index: source.pair(rows[index], index), metrics
    )
