"""Scores of both restorers of every run, on each image of several sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from rbs.data.datasets import laid_on
from rbs.data.frames_manifest import FramesManifest
from rbs.data.manifest import Manifest
from rbs.errors import ManifestError
from rbs.evaluation.methods import CASCADE_FILE
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.real.scans import RealScan, Speed
from rbs.evaluation.run import FRAMES, SCANS, Kind
from rbs.evaluation.scans.metrics import METRICS, Metric
from rbs.evaluation.scans.region_metrics import REGION_METRICS
from rbs.evaluation.second_restorer import labels_of
from rbs.multirun.ablation.definition import STAGE1, Ablation, Key, Runs
from rbs.multirun.ablation.networks import Restore, first_of, networks_of
from rbs.multirun.runs import Training
from rbs.scans.scan import Array
from rbs.utils.files import write_json
from rbs.utils.version import VERSION
from rbs.weights.shipped import file_sha256

SHOWN = ("psnr_truth", "nc_psnr", "count_bias")
"""Metrics of the evaluation that a row is told by; each costs a restoration's time again."""

REAL = "real"
"""Name of the set of slow real scans."""

REAL_SPEED, REAL_DRAWS = Speed(40.0), 3
"""Real scans are thinned to this speed, cm/min, so many times."""


@dataclass(frozen=True)
class Images:
    """A set of images that runs are scored on.

    Attributes:
        name: The split's, that of --elsewhere, or `REAL`.
        label: As printed.
        kind: Scans or frames, in words.
        file: The manifest; None of real scans.
        digest: SHA-256 of what names them.
        count: Number of images.
        pair: From a number below that to the pair: input of a restorer, and its target.
        metrics: Metrics of these images.
    """

    name: str
    label: str
    kind: Kind
    file: Path | None
    digest: str
    count: int
    pair: Callable[[int], Any]
    metrics: tuple[Metric, ...]


def images_of(
    ablation: Ablation, runs: Runs, name: str, manifest: Manifest | FramesManifest, split: str
) -> Images:
    """The images in a split of a manifest.

    Args:
        ablation: The ablation.
        runs: Its runs, trained: frames are degraded as the first training degraded them.
        name: Name of the set.
        manifest: Scans or frames.
        split: "test" or "val".

    Raises:
        ManifestError: The split is empty.
        RbsError: The teacher cannot be read.
    """
    digest = f"{split} {hashlib.sha256(manifest.path.read_bytes()).hexdigest()}"
    label = f"{split} split of {manifest.path.name}"
    if isinstance(manifest, Manifest):
        from rbs.evaluation.scans.pairs import load_pair

        cases = manifest.split(split)
        if not cases:
            fault = f"the split '{split}' is empty"
            raise ManifestError(fault, file=manifest.path, remedy="add patients to it")
        pair = lru_cache(maxsize=None)(lambda place: load_pair(cases[place]))
        return Images(name, label, SCANS, manifest.path, digest, len(cases), pair, scan_metrics())

    from rbs.evaluation.endoscopy.metrics import METRICS as FRAME_METRICS
    from rbs.evaluation.endoscopy.metrics import dice_metric, load_lesion_finder
    from rbs.evaluation.endoscopy.pairs import Source

    rows = manifest.rows(split)
    data = Training.read(next(run.folder for run in runs.values() if run.state == "finished")).data
    source = Source(data["preset"], data["longest_side"])
    metrics = tuple(metric for metric in FRAME_METRICS if metric.printed or metric.name == "psnr")
    if ablation.teacher is not None and all(row.mask for row in rows):
        # Priors are to keep lesions: does a segmenter find them in the restored frame?
        metrics = (*metrics, dice_metric(*load_lesion_finder(ablation.teacher)))
    frame = lru_cache(maxsize=None)(lambda place: source.pair(rows[place], place))
    return Images(name, label, FRAMES, manifest.path, f"{digest} {source}", len(rows), frame, metrics)


def real_images(scans: Sequence[RealScan]) -> Images:
    """Slow real scans, thinned to 40 cm/min several times; the counts left over are the target."""
    draws = [(scan, draw) for scan in scans for draw in range(1, REAL_DRAWS + 1)]
    digest = f"{REAL_SPEED} {REAL_DRAWS} {' '.join(scan.digest for scan in scans)}"
    pair = lru_cache(maxsize=None)(lambda place: draws[place][0].pair(REAL_SPEED, draws[place][1]))
    label = f"real scans thinned to {REAL_SPEED.label}"
    return Images(REAL, label, SCANS, None, digest, len(draws), pair, scan_metrics())


def scan_metrics() -> tuple[Metric, ...]:
    """Fidelity, each region's error, foci and growth plates, and LPIPS where its weights are."""
    from rbs.evaluation.set_metrics.lpips import lpips_of_scans

    named = {metric.name: metric for metric in METRICS}
    shown = [named[name] for name in SHOWN]
    pooled = [named[m.pooled_from] for m in shown if m.pooled_from]
    lpips = lpips_of_scans()
    return (*shown, *pooled, *TASK_METRICS, *REGION_METRICS, *([lpips] if lpips else []))


def score(ablation: Ablation, runs: Runs, sets: Sequence[Images], regime: str) -> pd.DataFrame:
    """Score the finished runs of a regime; what was scored before is read.

    Args:
        ablation: The ablation.
        runs: Its runs; those that did not finish are left out.
        sets: The images.
        regime: Name of the regime.

    Returns:
        A row an image, run and network: images, regime, row, network, seed, patient, case, and
        every metric.

    Raises:
        RbsError: An image or the weights of a run cannot be read.
    """
    from tqdm import tqdm

    folders = {
        key: run.folder for key, run in runs.items() if key.regime == regime and run.state == "finished"
    }
    if isinstance(ablation.stage1, str):
        # Weights that were trained elsewhere.
        for seed in ablation.seeds:
            key = Key(regime, STAGE1, seed)
            folders[key] = ablation.folder(key)
    tables = []
    for images in sets:
        for key, folder in tqdm(folders.items(), desc=f"scoring {regime}, {images.name}", unit="run"):
            weights = None
            if key.row == STAGE1 and isinstance(ablation.stage1, str):
                weights = ablation.start(key._replace(row=ablation.rows[0].name))
            table = score_run(folder, images, weights)
            columns: dict[str, Any] = {
                "images": images.name,
                "regime": regime,
                "row": key.row,
                "seed": key.seed,
            }
            tables.append(pd.DataFrame(table).assign(**columns))
    return pd.concat(tables, ignore_index=True)


def score_run(folder: Path, images: Images, weights: Path | None = None) -> list[dict[str, Any]]:
    """Scores of the restorers in the folder of a training, kept in its `scores/NAME.json`.

    Args:
        folder: The folder.
        images: What is restored.
        weights: A first restorer in place of those of the folder; None for those.

    Returns:
        A row an image and network: network, patient, case, and every metric.

    Raises:
        RbsError: An image or the weights cannot be read.
    """
    files = [weights] if weights else [folder / "restorer.safetensors", folder / CASCADE_FILE]
    inputs = {
        "rbs": VERSION,
        "images": images.digest,
        "metrics": [metric.name for metric in images.metrics],
        "weights": [file_sha256(file) for file in files if file.is_file()],
    }
    kept = folder / "scores" / f"{images.name}.json"
    if (before := _read(kept)) and before.get("inputs") == inputs:
        return list(before["scores"])
    restore = first_of(weights) if weights else networks_of(folder)
    scores = [row for place in range(images.count) for row in _score_pair(restore, images, place)]
    write_json(kept, {"inputs": inputs, "scores": scores}, indent=None)
    return scores


def _score_pair(restore: Restore, images: Images, place: int) -> list[dict[str, Any]]:
    pair = images.pair(place)

    def other() -> Array | None:
        """Labels of the next patient on the grid of this image, as trainings show them."""
        own = labels_of(pair)
        following = (images.pair(k % images.count) for k in range(place + 1, place + images.count))
        given = next((labels_of(p) for p in following if p.patient != pair.patient), None)
        return None if own is None or given is None else laid_on(own.shape, given)

    rows = []
    for network, restored in restore(pair, other).items():
        estimate = pair.to_target(restored)
        values = {metric.name: float(metric.compute(estimate, pair.target)) for metric in images.metrics}
        rows.append({"network": network, "patient": pair.patient, "case": place, **values})
    return rows


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
