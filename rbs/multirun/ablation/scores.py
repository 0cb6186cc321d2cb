"""Scores of every run's first restorer, the one that ships, case by case."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.evaluation.methods import Method, trained_methods
from rbs.evaluation.parts import Part, Parts
from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.scans.pairs import ScanPair
from rbs.multirun.ablation.cases import Cases
from rbs.multirun.ablation.plan import STAGE1, Plan, newest_config
from rbs.multirun.runs import Run

Array = npt.NDArray[Any]

_UNFINISHED = "unfinished_scores"


def score(plan: Plan, runs: Mapping[tuple[str, int], Run], cases: Cases, folder: Path) -> pd.DataFrame:
    """Score the finished runs on every case of a split; an interrupted call goes on where it stopped.

    Args:
        plan: The ablation.
        runs: Its runs; those that did not finish are left out.
        cases: What they are scored on.
        folder: Where what an interrupted call has scored is kept.

    Returns:
        A row a case and run: row, seed, patient, case, and every metric of the cases. The weights
        of stage 1 are the row `STAGE1`, under every seed.

    Raises:
        RbsError: A scan, a frame or the weights of a run cannot be read.
    """
    from tqdm import tqdm

    methods = {key: _restorer(run) for key, run in runs.items() if run.state == "finished"}
    if plan.second_stage:
        assert plan.start is not None  # stage 2 does not train without
        first = trained_methods([plan.start])[0]
        methods |= {(STAGE1, seed): (first, first.restore) for seed in plan.seeds}
    inputs = {
        "manifest": hashlib.sha256(cases.manifest.read_bytes()).hexdigest(),
        "split": cases.split,
        "metrics": [metric.name for metric in cases.metrics],
        "weights": {
            f"{row} {seed}": method.settings["sha256"] for (row, seed), (method, _) in methods.items()
        },
    }
    parts = Parts(folder / _UNFINISHED, inputs)
    rows: list[dict[str, Any]] = []
    for index in tqdm(range(cases.count), desc="scoring", unit=cases.kind.case):
        part = parts.load(index)
        if part is None:
            pair = cases.pair(index)
            scores = [
                {"row": row, "seed": seed, "patient": pair.patient, "case": index}
                | _scored(pair, restore, cases.metrics)
                for (row, seed), (_, restore) in methods.items()
            ]
            part = Part(scores, [], None, {})
            parts.save(index, part)
        rows += part.scores
    parts.remove()
    return pd.DataFrame(rows)


def _scored(pair: Any, restore: Callable[[Any], Array], metrics: Sequence[Metric]) -> dict[str, float]:
    estimate = pair.to_target(restore(pair))
    return {metric.name: float(metric.compute(estimate, pair.target)) for metric in metrics}


def _restorer(run: Run) -> tuple[Method, Callable[[Any], Array]]:
    """The first restorer of a run, and how it is used."""
    method = trained_methods([weights_of(run)])[0]
    data = newest_config(run.folder)["data"]["init_args"]
    if data.get("single_view_probability") != 1.0:
        return method, method.restore

    def view_by_view(pair: ScanPair) -> Array:
        # It was never shown two views, so it is not given two.
        views = range(len(pair.rapid))
        alone = (ScanPair(pair.patient, pair.rapid[v : v + 1], pair.exposure, pair.target) for v in views)
        return np.concatenate([method.restore(one) for one in alone])

    return method, view_by_view


def weights_of(run: Run) -> Path:
    """The first restorer a run has written."""
    return run.folder / "restorer.safetensors"
