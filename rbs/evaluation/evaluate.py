"""One split of a manifest, every method, every metric: the CSV files and pictures the report is made of."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import rbs
from rbs.data.manifest import Case, Manifest, load_case
from rbs.errors import ManifestError, OutputError
from rbs.evaluation.classical import Pair
from rbs.evaluation.methods import RAPID, Method, classical_methods
from rbs.evaluation.metrics import (
    MASK_DEFINITION,
    METRICS,
    PEAK_DEFINITION,
    Metric,
    Target,
    ceilings,
    region_biases,
)
from rbs.evaluation.summary import by_patient, summarise
from rbs.files import whole_file
from rbs.scans.counts import split as split_counts

Array = npt.NDArray[Any]

log = logging.getLogger(__name__)

CEILING = "ceiling"
"""Name of the row of what a perfect restoration would score."""

PICTURED = 3
SIMULATED_FRACTION = 0.5
"""Exposure of the rapid scan dealt out of the standard scan where none was acquired."""


def load_pair(case: Case) -> Pair:
    """Read a case as a rapid scan and an independent target.

    Without an acquired rapid scan, the counts of the standard scan are dealt, always the same way, to a rapid
    scan and the disjoint remainder that is its target.

    Raises:
        RbsError: A file of the case cannot be used.
    """
    loaded = load_case(case)
    counts, exposure = loaded.standard, 1.0
    rapid, fraction = loaded.rapid, loaded.fraction
    if rapid is None or fraction is None:
        fraction, exposure = SIMULATED_FRACTION, 1 - SIMULATED_FRACTION
        rng = np.random.default_rng(zlib.crc32(case.patient.encode()))
        rapid, counts = split_counts(counts, (fraction, exposure), rng)
    target = Target(counts, exposure, loaded.spacing_mm, loaded.expectation, loaded.labels)
    return Pair(case.patient, rapid, fraction, target, tuple(str(view) for view in loaded.views))


def evaluate(
    manifest: Manifest,
    output: Path,
    *,
    trained: Sequence[Method] = (),
    extra_metrics: Sequence[Metric] = (),
    split: str = "test",
    command: str = "",
    overwrite: bool = False,
) -> pd.DataFrame:
    """Score every method on every case of a split; one case is held in memory at a time.

    Writes per_scan.csv, per_patient.csv, regions.csv, summary.csv, pictures.npz and, last, settings.json.

    Args:
        manifest: The cases. The classical methods are tuned on its validation split, whatever `split` is.
        output: Folder.
        trained: Methods beside the rapid scan and the classical ones.
        extra_metrics: Metrics beside `METRICS`.
        split: "test" (or "val", "train").
        command: The command line, for the settings.
        overwrite: Whether results already in `output` may be replaced.

    Returns:
        The summary, as `summarise` makes it.

    Raises:
        ManifestError: The split is empty.
        OutputError: `output` holds results already, or cannot be written.
        RbsError: A case cannot be read.
    """
    from tqdm import tqdm

    cases = manifest.split(split)
    if not cases:
        raise ManifestError(f"the split '{split}' is empty", file=manifest.path, remedy="add patients to it")
    if (output / "settings.json").exists() and not overwrite:
        raise OutputError(
            "it holds an evaluation already", file=output, remedy="choose another or use --overwrite"
        )
    metrics = (*METRICS, *extra_metrics)
    methods = [RAPID, *_tuned(manifest), *trained]
    pictured = representative(cases)
    scores: list[dict[str, Any]] = []
    regions: list[dict[str, Any]] = []
    pictures: dict[str, Array] = {}
    shown: list[dict[str, Any]] = []
    for index, case in enumerate(tqdm(cases, desc="evaluating", unit="scan")):
        pair = load_pair(case)
        target = pair.target
        known = {
            "patient": case.patient,
            "case": index,
            "fraction": pair.fraction,
            "peak": target.peak,
            "mean_count": target.mean_count,
        }
        scores.append({**known, "method": CEILING, **ceiling_scores(target, extra_metrics)})
        if index in pictured:
            pictures |= _references(index, target)
            shown.append({"case": index, "patient": case.patient, "age_y": case.age_y, "views": pair.views})
        for method in methods:
            estimate = method.restore(pair)
            scores.append(
                {**known, "method": method.name, **{m.name: m.compute(estimate, target) for m in metrics}}
            )
            regions += [
                {
                    "patient": case.patient,
                    "case": index,
                    "method": method.name,
                    "region": name,
                    "bias_percent": bias,
                }
                for name, bias in region_biases(estimate, target).items()
            ]
            if index in pictured:
                pictures[f"{index}/{method.name}"] = estimate.astype(np.float16)
    per_scan = pd.DataFrame(scores)
    per_patient = by_patient(per_scan, metrics)
    summary = summarise(per_patient, metrics)
    settings = {
        "rbs": rbs.__version__,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "manifest": str(manifest.path),
        "manifest_sha256": hashlib.sha256(manifest.path.read_bytes()).hexdigest(),
        "split": split,
        "patients": int(per_patient["patient"].nunique()),
        "scans": len(cases),
        "fractions": sorted({round(row["fraction"], 4) for row in scores}),
        "peak": PEAK_DEFINITION,
        "mask": MASK_DEFINITION,
        "aggregation": "mean over a patient's scans, then over patients; 95 % bootstrap over patients",
        "tuned_on": "val",
        "methods": [{"name": m.name, "label": m.label, "settings": m.settings} for m in methods],
        "metrics": [m.describe() for m in metrics],
        "pictures": sorted(shown, key=lambda picture: pictured.index(picture["case"])),
    }
    _write_tables(
        output,
        {
            "per_scan": per_scan,
            "per_patient": per_patient,
            "regions": pd.DataFrame(regions),
            "summary": summary,
        },
    )
    with whole_file(output / "pictures.npz", overwrite=True) as path:
        np.savez_compressed(path, allow_pickle=False, **pictures)
    with whole_file(output / "settings.json", overwrite=True) as path:
        path.write_text(json.dumps(settings, indent=2, default=str), encoding="utf-8")
    return summary


def representative(cases: Sequence[Case]) -> list[int]:
    """Rows of up to three cases to show: the youngest, the middle one and the oldest.

    Chosen before anything is restored: pictures picked by their score would flatter or damn.
    """
    order = sorted(range(len(cases)), key=lambda i: (cases[i].age_y or 0.0, i))
    places = np.linspace(0, len(order) - 1, min(PICTURED, len(order))).round().astype(int)
    return [order[place] for place in places]


def ceiling_scores(target: Target, extra_metrics: Sequence[Metric] = ()) -> dict[str, float]:
    """What a perfect restoration scores against the noisy standard scan, where its noise limits a metric."""
    found = ceilings(target)
    if target.expectation is not None:
        found |= {m.name: m.compute(target.expectation, target) for m in extra_metrics}
    return found


def _tuned(manifest: Manifest) -> list[Method]:
    validation = manifest.split("val")
    if not validation:
        log.warning("Gaussian and non-local means are left out: there is no validation split to tune them on")
        return []
    return classical_methods(lambda: _pairs(validation))


def _pairs(cases: Iterable[Case]) -> Iterator[Pair]:
    return (load_pair(case) for case in cases)


def _references(index: int, target: Target) -> dict[str, Array]:
    arrays = {"standard": target.standard.astype(np.float16)}
    arrays |= {"peak": np.array(target.peak), "spacing_mm": np.array(target.spacing_mm)}
    if target.expectation is not None:
        arrays["truth"] = target.expectation.astype(np.float16)
    if target.labels is not None:
        arrays["labels"] = target.labels.astype(np.uint8)
    return {f"{index}/{name}": array for name, array in arrays.items()}


def _write_tables(output: Path, tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        with whole_file(output / f"{name}.csv", overwrite=True) as path:
            table.to_csv(path, index=False, float_format="%.7g")
