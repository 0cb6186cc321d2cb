"""Running a sweep in a folder: OUTPUT/sweep.json says which, OUTPUT/0001, 0002, ... are its runs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rbs.errors import OutputError, RbsError
from rbs.files import versions, whole_file
from rbs.processes import Run, alone_in, work_through
from rbs.sweep.definition import Sweep
from rbs.sweep.hyperband import to_stop
from rbs.sweep.search import Tried, planned, propose

_NOTES = "sweep.json"


def run_sweep(sweep: Sweep, output: Path, *, arguments: Sequence[str] = (), workers: int = 1) -> list[Run]:
    """Run what is missing of a sweep.

    Runs that finished or were stopped early are never repeated; interrupted and failed ones go on from their
    last checkpoint.

    Args:
        sweep: The sweep.
        output: Its folder.
        arguments: More arguments of every run, see `Sweep.command_line`.
        workers: How many run at a time.

    Returns:
        All runs, in the order they were begun.

    Raises:
        OutputError: The folder holds another sweep, or is in use.
        RbsError: The first runs all failed.
    """
    with alone_in(output):
        _belongs(sweep, output, arguments)
        runs = read_runs(output)
        again = [run for run in runs if run.state in ("unfinished", "failed")]
        bar = tqdm(total=planned(sweep), desc=sweep.name, unit="run")
        bar.update(len(runs) - len(again))

        def next_run() -> Run | None:
            if again:
                return again.pop(0)
            tried = [_tried(sweep, run) for run in runs]
            if sweep.metric and any(t.result is not None and sweep.metric.reaches(t.result) for t in tried):
                return None
            found = propose(sweep, tried)
            if found is None:
                return None
            folder = output / f"{len(runs) + 1:04d}"
            command = sweep.command_line(found.values, arguments)
            # `rbs fit` puts a run into <root>/<name>, and goes on with what it finds there.
            command += [f"--trainer.default_root_dir={output}", f"--name={folder.name}", "--ckpt_path=last"]
            runs.append(Run(folder, command, {"point": found.point, "values": found.values}))
            return runs[-1]

        def doomed(running: Collection[Run]) -> Collection[Run]:
            if sweep.hyperband is None or sweep.metric is None:
                return ()
            histories = {place: history(run.folder, sweep.metric.name) for place, run in enumerate(runs)}
            alive = {place: run for place, run in enumerate(runs) if run in running}
            stopped = to_stop(sweep.hyperband, histories, alive, maximise=sweep.metric.maximise)
            return [alive[place] for place in stopped]

        with bar:
            work_through(
                next_run, workers=workers, to_stop=doomed, ended=lambda run: bar.update(), group=output.name
            )
    return runs


def read_runs(output: Path) -> list[Run]:
    """The runs in the folder of a sweep, in the order they were begun.

    Raises:
        RbsError: The notes of one are damaged.
    """
    return [Run.read(folder) for folder in sorted(output.glob("[0-9]" * 4)) if Run.noted(folder)]


def history(folder: Path, metric: str) -> list[float]:
    """Finite values of a metric in the order logged, from the metrics.csv of all versions of a run.

    Each resumption writes a version of its own, which goes on from a checkpoint: it replaces what earlier
    ones logged at its first step and later.
    """
    found: list[tuple[int, float]] = []
    for file in versions(folder, "metrics.csv"):
        # A line that is being written has no end yet.
        whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
        rows = list(csv.DictReader(whole.splitlines()))
        steps = [int(row["step"]) for row in rows if row.get("step")]
        if not steps:
            continue
        found = [pair for pair in found if pair[0] < min(steps)]
        found += [(int(r["step"]), float(r[metric])) for r in rows if r.get("step") and r.get(metric)]
    return [value for _, value in found if math.isfinite(value)]


def result(sweep: Sweep, run: Run) -> float | None:
    """The last value of the metric, which is that of the weights a run ends with; None without any."""
    values = history(run.folder, sweep.metric.name) if sweep.metric else []
    return values[-1] if values else None


def _tried(sweep: Sweep, run: Run) -> Tried:
    ended = run.state in ("finished", "stopped")
    return Tried(run.about["point"], result(sweep, run) if ended else None, running=run.running)


def _belongs(sweep: Sweep, output: Path, arguments: Sequence[str]) -> None:
    """Note what the folder holds; refuse one that holds something else."""
    now = json.loads(json.dumps(_described(sweep, arguments)))
    file = output / _NOTES
    if not file.exists():
        with whole_file(file) as path:
            path.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RbsError("it is damaged", file=file, remedy="choose another --output") from error
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise OutputError(
            f"it holds another sweep, of which {' and '.join(changed)} differ",
            file=output,
            remedy="choose another --output, or give what it was begun with",
        )


def _described(sweep: Sweep, arguments: Sequence[str]) -> dict[str, Any]:
    """All that runs depend on: not how many there are to be, nor when they are stopped."""
    return {
        "program": sweep.program,
        "command": list(sweep.command),
        "method": sweep.method,
        "metric": None if sweep.metric is None else [sweep.metric.name, sweep.metric.maximise],
        "parameters": [[p.name, p.distribution, p.settings] for p in sweep.parameters],
        "arguments": list(arguments),
    }
