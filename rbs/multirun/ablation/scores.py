"""Scores of every run's first restorer, the one that ships, on each case of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rbs.data.frames_manifest import FramesManifest
from rbs.data.manifest import Manifest
from rbs.errors import ManifestError
from rbs.evaluation.methods import Method, trained_methods
from rbs.evaluation.parts import Part, Parts
from rbs.evaluation.run import FRAMES, SCANS, Kind
from rbs.evaluation.scans.metrics import METRICS, Metric
from rbs.evaluation.scans.pairs import ScanPair
from rbs.multirun.ablation.definition import FULL, STAGE1, Ablation, Runs
from rbs.multirun.runs import Run, Training
from rbs.scans.scan import Array

_UNFINISHED = "unfinished_scores"


@dataclass(frozen=True)
class Split:
    """The cases of a split.

    Attributes:
        kind: Scans or frames, in words.
        manifest: The file that names them.
        name: "test" or "val".
        count: Number of cases.
        pair: From a number below that to the pair: input of a restorer, and its target.
        metrics: Metrics of these cases.
    """

    kind: Kind
    manifest: Path
    name: str
    count: int
    pair: Callable[[int], Any]
    metrics: tuple[Metric, ...]


def split_of(ablation: Ablation, runs: Runs, manifest: Manifest | FramesManifest, name: str) -> Split:
    """A split of a manifest: the ablation's own manifest, or another.

    Args:
        ablation: The ablation.
        runs: Its runs, trained: frames are degraded as the first row's training degraded them.
        manifest: Scans or frames, as the ablation's.
        name: "test" or "val".

    Raises:
        ManifestError: The split is empty.
        RbsError: The teacher cannot be read.
    """
    if isinstance(manifest, Manifest):
        from rbs.evaluation.scans.pairs import load_pair

        cases = manifest.split(name)
        if not cases:
            fault = f"the split '{name}' is empty"
            raise ManifestError(fault, file=manifest.path, remedy="add patients to it")
        return Split(SCANS, manifest.path, name, len(cases), lambda i: load_pair(cases[i]), METRICS)

    from rbs.evaluation.endoscopy.metrics import METRICS as FRAME_METRICS
    from rbs.evaluation.endoscopy.metrics import dice_metric, load_lesion_finder
    from rbs.evaluation.endoscopy.pairs import Source

    rows = manifest.rows(name)
    data = Training.read(runs[FULL, ablation.seeds[0]].folder).data
    source = Source(data["preset"], data["longest_side"])
    metrics = FRAME_METRICS
    if ablation.teacher is not None and all(row.mask for row in rows):
        # Priors are to keep lesions: does a segmenter find them in the restored frame?
        metrics = (*metrics, dice_metric(*load_lesion_finder(ablation.teacher)))
    return Split(FRAMES, manifest.path, name, len(rows), lambda i: source.pair(rows[i], i), metrics)


def score(ablation: Ablation, runs: Runs, split: Split, folder: Path) -> pd.DataFrame:
    """Score the finished runs on every case; an interrupted call resumes where it stopped.

    Args:
        ablation: The ablation.
        runs: Its runs; those that did not finish are left out.
        split: The cases.
        folder: Where scores of an interrupted call are kept.

    Returns:
        A row a case and run: row, seed, patient, case, and every metric. The weights of stage 1 are
        the row `STAGE1`, under every seed.

    Raises:
        RbsError: A scan, a frame or the weights of a run cannot be read.
    """
    from tqdm import tqdm

    methods = {key: _restorer(run) for key, run in runs.items() if run.state == "finished"}
    if ablation.second_stage:
        assert ablation.start is not None  # stage 2 does not train without
        first = trained_methods([ablation.start])[0]
        methods |= {(STAGE1, seed): (first, first.restore) for seed in ablation.seeds}
    inputs = {
        "manifest": hashlib.sha256(split.manifest.read_bytes()).hexdigest(),
        "split": split.name,
        "metrics": [metric.name for metric in split.metrics],
        "weights": {f"{row} {seed}": m.settings["sha256"] for (row, seed), (m, _) in methods.items()},
    }
    parts = Parts(folder / _UNFINISHED, inputs)
    scores: list[dict[str, Any]] = []
    for index in tqdm(range(split.count), desc="scoring", unit=split.kind.case):
        part = parts.load(index)
        if part is None:
            pair = split.pair(index)
            rows = []
            for (row, seed), (_, restore) in methods.items():
                estimate = pair.to_target(restore(pair))
                values = {m.name: float(m.compute(estimate, pair.target)) for m in split.metrics}
                rows.append({"row": row, "seed": seed, "patient": pair.patient, "case": index} | values)
            part = Part(rows, [], None, {})
            parts.save(index, part)
        scores += part.scores
    parts.remove()
    return pd.DataFrame(scores)


def _restorer(run: Run) -> tuple[Method, Callable[[Any], Array]]:
    """The first restorer of a run, and the function that restores a pair with it."""
    training = Training.read(run.folder)
    method = trained_methods([training.weights])[0]
    if training.data.get("single_view_probability") != 1.0:
        return method, method.restore

    def view_by_view(pair: ScanPair) -> Array:
        # It was never shown two views, so it is not given two.
        views = range(len(pair.rapid))
        alone = (ScanPair(pair.patient, pair.rapid[v : v + 1], pair.exposure, pair.target) for v in views)
        return np.concatenate([method.restore(one) for one in alone])

    return method, view_by_view
