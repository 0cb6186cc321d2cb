"""Running a sweep in a folder: OUTPUT/sweep.json says which, OUTPUT/0001, 0002, ... are its runs."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rbs.errors import OutputError, RbsError
from rbs.multirun.runs import Run, in_turn, work_through
from rbs.multirun.sweep.definition import Sweep
from rbs.multirun.sweep.hyperband import to_stop
from rbs.multirun.sweep.search import Tried, planned, propose
from rbs.utils.files import FINISHED, versions, whole_file

_NOTES = "sweep.json"


def run_sweep(sweep: Sweep, output: Path, *, arguments: Sequence[str] = (), workers: int = 1) -> list[Run]:
    """Run what is missing of a sweep; other processes, of other machines too, may do so in the same folder.

    Runs that finished or were stopped early are never repeated; interrupted and failed ones go on
    from their last checkpoint, at most once in this process. Each run is claimed by who works on
    it, and free again when that process ends, however it does.

    Args:
        sweep: The sweep.
        output: Its folder.
        arguments: More arguments of every run, see `Sweep.command_line`.
        workers: How many run at a time.

    Returns:
        All runs, in the order they were begun, those of other processes too.

    Raises:
        OutputError: The folder holds another sweep, or cannot be written or locked.
        RbsError: The first runs all failed.
    """
    with in_turn(output):
        _belongs(sweep, output, arguments)
        failed = {run.folder for run in read_runs(output) if run.state == "failed"}
    taken: dict[Path, Run] = {}
    bar = tqdm(total=planned(sweep), desc=sweep.name, unit="run")

    def command(folder: Path, values: dict[str, Any]) -> list[str]:
        # `rbs fit` puts a run into <root>/<name>, and goes on with what it finds there.
        place = [f"--trainer.default_root_dir={output}", f"--name={folder.name}", "--ckpt_path=last"]
        return sweep.command_line(values, arguments) + place

    def next_run() -> Run | None:
        with in_turn(output):
            runs = read_runs(output)
            for run in runs:
                if (run.state == "unfinished" or run.folder in failed) and run.folder not in taken:
                    if not run.claim():
                        continue
                    if not _left_behind(run):
                        run.command = command(run.folder, run.about["values"])
                        return taken.setdefault(run.folder, run)
            _show(bar, runs)
            tried = [_tried(sweep, run, taken) for run in runs]
            if sweep.metric and any(t.result is not None and sweep.metric.reaches(t.result) for t in tried):
                return None
            # Who deleted the folder of a run gets that one again.
            numbers = {int(run.folder.name) for run in runs}
            number = next(n for n in itertools.count(1) if n not in numbers)
            found = propose(sweep, tried, number - 1)
            if found is None:
                return None
            folder = output / f"{number:04d}"
            about = {"point": found.point, "values": found.values}
            run = taken[folder] = Run(folder, command(folder, found.values), about)
            run.claim()
            run.note()  # before another process makes up its mind
            return run

    def doomed(running: Collection[Run]) -> Collection[Run]:
        if sweep.hyperband is None or sweep.metric is None:
            return ()
        places = {run.folder: place for place, run in enumerate(read_runs(output))}
        histories = {place: history(folder, sweep.metric.name) for folder, place in places.items()}
        alive = {places[run.folder]: run for run in running}
        stopped = to_stop(sweep.hyperband, histories, alive, maximise=sweep.metric.maximise)
        return [alive[place] for place in stopped]

    with bar:
        work_through(next_run, workers=workers, to_stop=doomed, group=output.name)
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


def _left_behind(run: Run) -> bool:
    """Note that a training had finished after the process that started it was killed; then it is done."""
    made = versions(run.folder)
    if not made or not (made[-1] / FINISHED).exists():
        return False
    run.state = "finished"
    run.note()
    run.release()
    return True


def _show(bar: tqdm[Any], runs: Sequence[Run]) -> None:
    bar.n = sum(run.state != "unfinished" for run in runs)
    bar.refresh()


def _tried(sweep: Sweep, run: Run, taken: Mapping[Path, Run]) -> Tried:
    """What is known of a run; one that has not ended goes on here, or is claimed by another process."""
    ended = run.state in ("finished", "stopped")
    running = run.state == "unfinished" and (run.folder not in taken or taken[run.folder].running)
    return Tried(run.about["point"], result(sweep, run) if ended else None, running=running)


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
