"""How an evaluation goes, whatever is evaluated: case by case, resumable, and written whole."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rbs.errors import OutputError, RbsError
from rbs.evaluation.methods import Method
from rbs.evaluation.parts import Part, Parts
from rbs.evaluation.scans.metrics import Metric
from rbs.evaluation.set_metrics.fid_kid import SET_METRICS, Inception, set_scores
from rbs.evaluation.statistics.differences import differences
from rbs.evaluation.statistics.summary import by_patient, summarise
from rbs.utils.files import whole_file

Array = npt.NDArray[Any]

SETTINGS, UNFINISHED = "settings.json", "unfinished"
PICTURED = 3
"""Cases whose pictures are kept, at most."""


@dataclass(frozen=True)
class Kind:
    """What an evaluation is of, in words.

    Attributes:
        images: "scans" or "frames", as settings.json says.
        case: One of them.
        unit: What statistics go by, one of which may have several cases.
    """

    images: str
    case: str
    unit: str


SCANS, FRAMES = Kind("scans", "scan", "patient"), Kind("frames", "frame", "group")


def begin(output: Path, inputs: Mapping[str, Any], *, overwrite: bool) -> Parts:
    """Open the folder of an evaluation, and what an interrupted one left there.

    Args:
        output: Folder.
        inputs: All that decides the results, as JSON can hold it.
        overwrite: Whether results already in it may be replaced.

    Raises:
        OutputError: It holds results already, or cannot be written.
    """
    if (output / SETTINGS).exists() and not overwrite:
        raise OutputError(
            "it holds an evaluation already", file=output, remedy="choose another or use --overwrite"
        )
    return Parts(output / UNFINISHED, inputs)


def interrupted_after(
    output: Path, next_output: Path, manifest: Path, trained: Sequence[Method], command: str
) -> bool:
    """Whether this very command finished its evaluation and was interrupted before its next results.

    Args:
        output: Folder of the evaluation.
        next_output: Folder of the results that follow it.
        manifest: The manifest.
        trained: The trained methods.
        command: The command line.
    """
    if not (output / SETTINGS).is_file() or (next_output / SETTINGS).exists():
        return False
    settings = json.loads((output / SETTINGS).read_text(encoding="utf-8"))
    described = json.loads(json.dumps([m.describe() for m in trained], default=str))
    return (
        settings.get("command") == command
        and settings.get("manifest_sha256") == hashlib.sha256(manifest.read_bytes()).hexdigest()
        and settings["methods"][len(settings["methods"]) - len(described) :] == described
    )


def check_against(against: str | None, methods: Sequence[Method]) -> None:
    """See to it that what all are compared with is among them.

    Raises:
        RbsError: It is not.
    """
    names = [m.name for m in methods]
    if against is not None and against not in names:
        raise RbsError(f"there is no method '{against}'", remedy=f"compare with one of {', '.join(names)}")


def scored(parts: Parts, cases: int, score: Callable[[int], Part], kind: Kind) -> list[Part]:
    """The part of every case: kept from before, or made and kept now.

    Args:
        parts: Those there are.
        cases: How many there shall be.
        score: Makes the part of a case.
        kind: Names the cases on the bar.
    """
    from tqdm import tqdm

    finished: list[Part] = []
    for index in tqdm(range(cases), desc="evaluating", unit=kind.case):
        part = parts.load(index)
        if part is None:
            part = score(index)
            parts.save(index, part)
        finished.append(part)
    return finished


def finish(
    output: Path,
    parts: Sequence[Part],
    kind: Kind,
    *,
    metrics: Sequence[Metric],
    methods: Sequence[Method],
    peers: Sequence[Method],
    against: str | None,
    inception: Inception | None,
    reference: str,
    pictured: Sequence[int],
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    """Make the tables of all parts and write them.

    Writes per_CASE.csv, per_UNIT.csv, regions.csv, differences.csv, sets.csv, pictures.npz,
    summary.csv and, last, settings.json: without it the results are not whole.

    Args:
        output: Folder.
        parts: One a case.
        kind: What they are.
        metrics: Columns.
        methods: Rows.
        peers: Those of them that need no training.
        against: What all are compared with; None for the best peer of each metric.
        inception: What made the features of the parts; None where there are none.
        reference: Name of the features that all sets are compared with.
        pictured: Cases whose pictures are kept, in the order they are shown in.
        settings: What else settings.json shall say.

    Returns:
        The summary, as `summarise` makes it.

    Raises:
        OutputError: The folder cannot be written.
    """
    per_case = pd.DataFrame([row for part in parts for row in part.scores])
    per_unit = by_patient(per_case, metrics)
    summary = summarise(per_unit, metrics)
    names, named_unit = [m.name for m in methods], {"patient": kind.unit}
    tables = {
        f"per_{kind.case}": per_case.rename(columns=named_unit),
        f"per_{kind.unit}": per_unit.rename(columns=named_unit),
        "regions": pd.DataFrame([row for part in parts for row in part.regions]),
        "differences": differences(per_unit, metrics, names, [m.name for m in peers], against=against),
        "sets": set_scores(_joined([part.features for part in parts]), reference),
        "summary": summary,
    }
    all_settings = {
        "images": kind.images,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "patients": int(per_unit["patient"].nunique()),
        "scans": len(parts),
        "metrics": [m.describe() for m in metrics],
        "methods": [m.describe() for m in methods],
        "peers": [m.name for m in peers],
        "against": against,
        "tuned_on": "val",
        "sets": [m.describe() for m in SET_METRICS] if inception else [],
        "inception_sha256": inception.sha256 if inception else None,
        "pictures": [parts[index].shown for index in pictured],
        **settings,
    }
    pictures = {name: array for part in parts for name, array in part.pictures.items()}
    write(output, tables, all_settings, pictures)
    return summary


def stamps(files: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file: cheaper than its hash, and enough to notice another one."""
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _joined(features: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Features of all cases, a set a name; a reference that some cases lack is left out."""
    names = [name for name in features[0] if all(name in case for case in features)]
    return {name: np.concatenate([case[name] for case in features]) for name in names}


def write(
    output: Path,
    tables: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
    pictures: Mapping[str, Array] | None = None,
) -> None:
    """Write results: tables as <name>.csv, pictures, and last the settings.

    Raises:
        OutputError: A file cannot be written.
    """
    # Whoever finds no settings knows that the rest may be of two runs.
    (output / SETTINGS).unlink(missing_ok=True)
    if pictures is not None:
        with whole_file(output / "pictures.npz", overwrite=True) as path:
            np.savez_compressed(path, allow_pickle=False, **pictures)
    for name, table in tables.items():
        with whole_file(output / f"{name}.csv", overwrite=True) as path:
            table.to_csv(path, index=False, float_format="%.7g")
    with whole_file(output / SETTINGS, overwrite=True) as path:
        path.write_text(json.dumps(settings, indent=2, default=str) + "\n", encoding="utf-8")
