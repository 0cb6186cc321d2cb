"""A sweep in a folder: OUTPUT/sweep.json states which one, OUTPUT/0001, 0002, ... are its runs."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rbs.errors import OutputError, RbsError
from rbs.multirun.runs import Run, in_turn, placed, train_all
from rbs.multirun.sweep.definition import Sweep
from rbs.multirun.sweep.hyperband import to_stop
from rbs.multirun.sweep.search import Trial, propose
from rbs.utils.files import versions, write_json

_NOTES = "sweep.json"


def run_sweep(sweep: Sweep, output: Path, *, arguments: Sequence[str] = (), workers: int = 1) -> list[Run]:
    """Run what is missing of a sweep; see `train_all`.

    Args:
        sweep: The sweep.
        output: Its folder.
        arguments: More arguments of every run, see `Sweep.command_line`.
        workers: Number of runs at a time.

    Returns:
        All runs, in the order they were begun, those of other processes too.

    Raises:
        OutputError: The folder holds another sweep, or cannot be written or locked.
        RbsError: The first runs all failed.
    """
    metric = sweep.metric
    with in_turn(output):
        _check_folder(sweep, output, arguments)

    def command(folder: Path, values: dict[str, Any]) -> list[str]:
        return sweep.command_line(values, arguments) + placed(folder, output)

    def begun() -> list[Run]:
        runs = read_runs(output)
        for run in runs:
            run.command = command(run.folder, run.about["values"])
        return runs

    def new(runs: list[Run]) -> Run | None:
        ended = [result(sweep, run) if run.state in ("finished", "stopped") else None for run in runs]
        if metric and any(value is not None and metric.reaches(value) for value in ended):
            return None
        trials = [
            Trial(run.about["point"], value, running=run.state == "unfinished")
            for run, value in zip(runs, ended, strict=True)
        ]
        # A run whose folder was deleted is run again.
        folders = (output / f"{number:04d}" for number in itertools.count(1))
        number, folder = next((n, f) for n, f in enumerate(folders) if not Run.noted(f))
        found = propose(sweep, trials, number)
        if found is None:
            return None
        point, values = found
        return Run(folder, command(folder, values), {"point": point, "values": values})

    def poor(running: Collection[Run]) -> Collection[Run]:
        if sweep.early_terminate is None or metric is None:
            return ()
        histories = {run.folder: history(run.folder, metric.name) for run in read_runs(output)}
        here = {run.folder: run for run in running}
        stopped = to_stop(sweep.early_terminate, histories, here, maximise=metric.maximise)
        return [here[folder] for folder in stopped]

    train_all(output, begun, new, workers=workers, total=sweep.planned, to_stop=poor)
    return read_runs(output)


def read_runs(output: Path) -> list[Run]:
    """The runs in the folder of a sweep, in the order they were begun.

    Raises:
        RbsError: The notes of one are damaged.
    """
    return [Run.read(folder) for folder in sorted(output.glob("[0-9]" * 4)) if Run.noted(folder)]


def history(folder: Path, metric: str) -> list[float]:
    """Finite values of a metric in the order logged, from the metrics.csv of all versions of a run.

    Each resumption writes a version of its own, which goes on from a checkpoint: it replaces what
    earlier ones logged at its first step and later.
    """
    logged: list[tuple[int, float]] = []
    for file in versions(folder, "metrics.csv"):
        # A line that is being written has no end yet.
        whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
        rows = [row for row in csv.DictReader(whole.splitlines()) if row.get("step")]
        first = min((int(row["step"]) for row in rows), default=math.inf)
        logged = [pair for pair in logged if pair[0] < first]
        logged += [(int(row["step"]), float(row[metric])) for row in rows if row.get(metric)]
    return [value for _, value in logged if math.isfinite(value)]


def result(sweep: Sweep, run: Run) -> float | None:
    """Last value of the metric, that of the weights a run ends with; None without any."""
    values = history(run.folder, sweep.metric.name) if sweep.metric else []
    return values[-1] if values else None


def _check_folder(sweep: Sweep, output: Path, arguments: Sequence[str]) -> None:
    """Note the sweep of a folder; refuse a folder that holds another one."""
    # All that runs depend on: not how many there are to be, nor when they are stopped.
    kept = {"program", "command", "method", "metric", "parameters"}
    now = sweep.model_dump(mode="json", include=kept, exclude={"metric": {"target"}}, exclude_unset=True)
    now["arguments"] = list(arguments)
    file = output / _NOTES
    if not file.exists():
        write_json(file, now)
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RbsError("it is damaged", file=file, remedy="choose another --output") from error
    changed = sorted(name for name in now | before if before.get(name) != now.get(name))
    if changed:
        fault = f"it holds another sweep, of which {' and '.join(changed)} differ"
        remedy = "choose another --output, or repeat the command that began it"
        raise OutputError(fault, file=output, remedy=remedy)
