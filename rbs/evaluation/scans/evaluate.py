"""One split of a manifest, every method, every metric: the CSV files and pictures the report is made of."""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import rbs
from rbs.data.anatomy import read_anatomy
from rbs.data.manifest import Case, Manifest, load_case
from rbs.degradation.thinning import split as split_counts
from rbs.errors import ManifestError
from rbs.evaluation.methods import RAPID, Method, classical_methods
from rbs.evaluation.observers.task_metrics import TASK_METRICS
from rbs.evaluation.parts import Part
from rbs.evaluation.run import PICTURED, SCANS, begin, check_against, finish, scored, stamps
from rbs.evaluation.scans.classical import Pair
from rbs.evaluation.scans.metrics import METRICS, PEAK_DEFINITION, Metric, Target, region_biases
from rbs.evaluation.scans.references import REFERENCES, reference_images, reference_scores
from rbs.evaluation.set_metrics.fid_kid import STANDARD, TILES_DEFINITION, Inception
from rbs.scans.body import MASK_DEFINITION
from rbs.scans.registration import residual_misalignment

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

SIMULATED_EXPOSURE = 0.5
"""Exposure of the rapid scan dealt out of the standard scan where none was acquired."""


def load_pair(case: Case) -> Pair:
    """Read a case as a rapid scan and an independent target, and find how the patient moved between them.

    Without an acquired rapid scan, the counts of the standard scan are dealt, always the same way,
    to a rapid scan and the disjoint remainder that is its target.

    Raises:
        RbsError: A file of the case cannot be used.
    """
    loaded = load_case(case, register=True)
    counts, target_exposure = loaded.standard, 1.0
    rapid, exposure = loaded.rapid, loaded.exposure
    if rapid is None or exposure is None:
        exposure, target_exposure = SIMULATED_EXPOSURE, 1 - SIMULATED_EXPOSURE
        rng = np.random.default_rng(zlib.crc32(case.patient.encode()))
        rapid, counts = split_counts(counts, (exposure, target_exposure), rng)
    anatomy = read_anatomy(case.truth)
    target = Target(counts, target_exposure, loaded.spacing_mm, loaded.expectation, loaded.labels, anatomy)
    views = tuple(str(view) for view in loaded.views)
    return Pair(case.patient, rapid, exposure, target, views, loaded.motion)


def evaluate(
    manifest: Manifest,
    output: Path,
    *,
    trained: Sequence[Method] = (),
    extra_metrics: Sequence[Metric] = (),
    inception: Inception | None = None,
    against: str | None = None,
    split: str = "test",
    command: str = "",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score every method on every case of a split; one case is held in memory at a time.

    Writes per_scan.csv, per_patient.csv, regions.csv, differences.csv, sets.csv, pictures.npz,
    summary.csv and, last, settings.json: without it the results are not whole. Older results stay
    until all cases are finished. Finished cases are kept in `output`/unfinished until then; the
    same call goes on from them.

    Args:
        manifest: The cases. The classical methods are tuned on its validation split, whatever
            `split` is.
        output: Folder.
        trained: Methods beside the rapid scan and the classical ones.
        extra_metrics: Metrics beside `METRICS` and `TASK_METRICS`.
        inception: For FID and KID; None to do without.
        against: Method that all others are compared with; None for the best peer of each metric,
            the peers being all methods but `trained`.
        split: "test" (or "val", "train").
        command: The command line, for the settings.
        overwrite: Whether results already in `output` may be replaced.

    Returns:
        The summary, as `summarise` makes it.

    Raises:
        ManifestError: The split is empty.
        OutputError: `output` holds results already, or cannot be written.
        RbsError: A case cannot be read, or `against` is no method.
    """
    cases = manifest.split(split)
    if not cases:
        raise ManifestError(f"the split '{split}' is empty", file=manifest.path, remedy="add patients to it")
    metrics = (*METRICS, *TASK_METRICS, *extra_metrics)
    made_from = {
        "rbs": rbs.__version__,
        "manifest": str(manifest.path),
        "manifest_sha256": hashlib.sha256(manifest.path.read_bytes()).hexdigest(),
        "split": split,
    }
    inputs = {
        **made_from,
        "metrics": [m.describe() for m in metrics],
        "trained": [m.describe() for m in trained],
        "inception": inception.sha256 if inception else None,
        "scans": file_versions([*cases, *manifest.split("val")]),
    }
    parts = begin(output, inputs, overwrite=overwrite)
    peers = [RAPID, *_tuned(manifest)]
    methods = [*peers, *trained]
    check_against(against, methods)
    pictured = representative(cases)
    finished = scored(
        parts,
        len(cases),
        lambda index: _score(index, cases[index], methods, metrics, inception, pictured=index in pictured),
        SCANS,
    )
    exposures = {round(row["exposure"], 4) for part in finished for row in part.scores}
    summary = finish(
        output,
        finished,
        SCANS,
        metrics=metrics,
        methods=methods,
        peers=peers,
        against=against,
        inception=inception,
        reference=STANDARD,
        pictured=pictured,
        settings={
            **made_from,
            "command": command,
            "exposures": sorted(exposures),
            "peak": PEAK_DEFINITION,
            "mask": MASK_DEFINITION,
            "aggregation": "mean over a patient's scans, then over patients; 95 % bootstrap over patients",
            "references": REFERENCES,
            "tiles": TILES_DEFINITION if inception else None,
        },
    )
    parts.remove()
    return summary


def representative(cases: Sequence[Case]) -> list[int]:
    """Rows of up to three cases to show: the youngest, the middle one and the oldest.

    Chosen before anything is restored: pictures picked by their score would flatter or damn.
    """
    order = sorted(range(len(cases)), key=lambda i: (cases[i].age_y or 0.0, i))
    places = np.linspace(0, len(order) - 1, min(PICTURED, len(order))).round().astype(int)
    return [order[place] for place in places]


def _tuned(manifest: Manifest) -> list[Method]:
    validation = manifest.split("val")
    if not validation:
        log.warning("the classical peers are left out: there is no validation split to tune them on")
        return []
    return classical_methods(lambda: _pairs(validation))


def _pairs(cases: Iterable[Case]) -> Iterator[Pair]:
    from tqdm import tqdm

    return (load_pair(case) for case in tqdm(cases, desc="tuning", unit="scan"))


def _shown_beside(index: int, target: Target) -> dict[str, Array]:
    """The pictures that are no estimate."""
    arrays = {"standard": target.standard.astype(np.float16)}
    arrays |= {"peak": np.array(target.peak), "spacing_mm": np.array(target.spacing_mm)}
    if target.expectation is not None:
        arrays["truth"] = target.expectation.astype(np.float16)
    if target.labels is not None:
        arrays["labels"] = target.labels.astype(np.uint8)
    return {f"{index}/{name}": array for name, array in arrays.items()}


def _score(
    index: int,
    case: Case,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    inception: Inception | None,
    *,
    pictured: bool,
) -> Part:
    """Restore a case by every method."""
    pair = load_pair(case)
    target = pair.target
    known = {
        "patient": case.patient,
        "case": index,
        "exposure": pair.exposure,
        "peak": target.peak,
        "mean_count": target.mean_count,
        **_movement(pair),
    }
    references = reference_scores(pair, metrics)
    scores = [{**known, "method": row, **found} for row, found in references.items()]
    regions: list[dict[str, Any]] = []
    pictures = _shown_beside(index, target) if pictured else {}
    features: dict[str, Array] = {}
    if inception:
        seen = {STANDARD: target.standard, **reference_images(pair)}
        features = {name: inception.features(image, target) for name, image in seen.items()}
    for method in methods:
        estimate = pair.on_target(method.restore(pair), raw=method.raw)
        scores.append(
            {**known, "method": method.name, **{m.name: m.compute(estimate, target) for m in metrics}}
        )
        row = {"patient": case.patient, "case": index, "method": method.name}
        biases = region_biases(estimate, target)
        regions += [{**row, "region": name, "bias_percent": bias} for name, bias in biases.items()]
        if inception:
            features[method.name] = inception.features(estimate, target)
        if pictured:
            pictures[f"{index}/{method.name}"] = estimate.astype(np.float16)
    shown = {"case": index, "patient": case.patient, "age_y": case.age_y, "views": list(pair.views)}
    return Part(scores, regions, shown if pictured else None, pictures, features)


def _movement(pair: Pair) -> dict[str, float]:
    """How far the body of a patient moved between the scans, and what registration left of it, mm."""
    if pair.motion is None:
        return {}
    spacing = pair.target.spacing_mm
    u = pair.motion.field(pair.rapid.shape[1:], spacing)
    left = residual_misalignment(pair.target.counts, pair.rapid, spacing, pair.motion)
    return {
        "moved_mm": float(np.median(np.hypot(*u)[pair.target.mask.any(axis=0)])),
        "left_mm": left.median_mm,
        "left_by_noise_alone_mm": left.floor_median_mm,
    }


def file_versions(cases: Iterable[Case]) -> dict[str, tuple[int, int]]:
    """Stamps of all their files, see `run.stamps`."""
    return stamps(file for case in cases for file in (*case.rapid, *case.standard, case.truth) if file)
