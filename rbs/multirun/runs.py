"""Trainings in processes of their own: several at a time, none twice, interrupted ones resumed.

A run has a folder. Its `run.json` states its command and its progress; its `output.txt` holds what
it printed. Several processes, also of several machines, may work through one folder: locks on files
keep them apart, and the system releases a lock when the process that held it dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import yaml
from tqdm import tqdm

from rbs.errors import CheckpointError, OutputError, RbsError
from rbs.utils.files import FINISHED, versions, write_json
from rbs.utils.threads import thread_count

State = Literal["unfinished", "finished", "stopped", "failed"]

OUTPUT = "output.txt"
_NOTES = "run.json"
_LOCK = ".lock"
_POLL_S = 0.5
_PATIENCE_S = 60.0
"""Time a run has to end after SIGTERM; then it is killed."""

_INTERRUPTED = {130, 143, -signal.SIGINT, -signal.SIGTERM}
_MOST_FAILURES = 3
"""A series is given up where its first runs, this many, all fail: the fault is a common one."""


@dataclass(eq=False)
class Run:
    """One training.

    Attributes:
        folder: Its own folder.
        command: Its command line; it resumes by itself from what an interrupted call of it left.
        about: Further entries of `run.json`, values JSON can hold.
        state: How it ended, or "unfinished".
        seconds: Time it took in all its processes.
    """

    folder: Path
    command: list[str]
    about: dict[str, Any] = field(default_factory=dict)
    state: State = "unfinished"
    seconds: float = 0.0
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _told_to_stop: float | None = None
    _claim: IO[str] | None = None

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read the run noted in `folder`.

        Raises:
            RbsError: The notes are damaged.
        """
        try:
            notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
            return cls(folder, notes["command"], notes["about"], notes["state"], float(notes["seconds"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            fault = f"its notes are missing or damaged ({error})"
            raise RbsError(fault, file=folder / _NOTES, remedy="delete its folder to run it again") from error

    @staticmethod
    def noted(folder: Path) -> bool:
        """True where a run was begun in `folder`."""
        return (folder / _NOTES).exists()

    def note(self) -> None:
        """Write `run.json`."""
        names = ("state", "seconds", "about", "command")
        notes = {name: getattr(self, name) for name in names} | {"seconds": round(self.seconds, 1)}
        write_json(self.folder / _NOTES, notes)

    def claim(self) -> bool:
        """Keep other processes off it until it ends here; False where another has claimed it.

        Raises:
            OutputError: The disk has no locks.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / _LOCK).open("a")
        if not _locked(lock):
            lock.close()
            return False
        self._claim = lock
        if self.noted(self.folder):
            now = Run.read(self.folder)  # another process may have ended it a moment ago
            self.state, self.seconds = now.state, now.seconds
        made = versions(self.folder)
        if self.state == "unfinished" and made and (made[-1] / FINISHED).exists():
            # It went on to its end after the process that started it was killed.
            self.state = "finished"
            self.note()
        return True

    def release(self) -> None:
        """Leave it to the next process that claims it."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def claimed_elsewhere(self) -> bool:
        """True where another process works on it."""
        free = self.claim()
        self.release()
        return not free

    def start(self, environment: dict[str, str]) -> None:
        """Start its process, which resumes what an earlier one left."""
        self.state = "unfinished"
        self.note()
        self._started, self._told_to_stop = time.monotonic(), None
        with (self.folder / OUTPUT).open("ab") as output:
            # A process group of its own: Ctrl-C reaches this process alone, which then stops it.
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
                # The training keeps the lock if this process is killed and leaves it behind.
                pass_fds=() if self._claim is None else (self._claim.fileno(),),
            )

    def stop(self) -> None:
        """Tell it to end as "stopped"; called again after `_PATIENCE_S`, kill it."""
        if self._told_to_stop is None:
            self._told_to_stop = time.monotonic()
            self._signal(signal.SIGTERM)
        elif time.monotonic() - self._told_to_stop > _PATIENCE_S:
            self._signal(signal.SIGKILL)

    def interrupt(self) -> None:
        """End its process; the run stays unfinished."""
        assert self._process is not None
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._end("finished" if self._process.returncode == 0 else "unfinished")

    def poll(self) -> bool:
        """True once it has ended; its state is then noted."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return False
        if code == 0:
            self._end("finished")
        elif self._told_to_stop is not None:
            self._end("stopped")
        else:
            self._end("unfinished" if code in _INTERRUPTED else "failed")
        return True

    def last_line(self) -> str:
        """Last line it printed."""
        try:
            lines = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _end(self, state: State) -> None:
        self.state = state
        self.seconds += time.monotonic() - self._started
        self._process = None
        self.note()
        self.release()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)  # data workers too


def fit_command(*arguments: str) -> list[str]:
    """Command line of `rbs fit`."""
    return [sys.executable, "-m", "rbs.cli", "fit", *arguments]


def placed(folder: Path, output: Path) -> list[str]:
    """Arguments of `rbs fit` to write into `folder` below `output` and resume what is there."""
    name = folder.relative_to(output)
    return [f"--trainer.default_root_dir={output}", f"--name={name}", "--ckpt_path=last"]


def train_all(
    output: Path,
    begun: Callable[[], list[Run]],
    new: Callable[[list[Run]], Run | None],
    *,
    workers: int,
    total: int,
    to_stop: Callable[[Collection[Run]], Collection[Run]] = lambda running: (),
) -> None:
    """Run until nothing is left; other processes may do so in the same folder at the same time.

    Runs that finished or were stopped early are never repeated; interrupted and failed ones resume
    from their last checkpoint, a failed one once per call. Each run is claimed by the process that
    works on it. However this ends, no training outlives it.

    Args:
        output: Folder that holds all of them; trackers group them by its name.
        begun: Reads the runs begun so far, in any process.
        new: Given those, the next run; None where there is none, at least until one more has ended.
        workers: Number of trainings at a time.
        total: Number of runs there will be, for the progress bar.
        to_stop: Given those running here, the ones to stop early; asked again and again.

    Raises:
        OutputError: The folder cannot be written or locked.
        RbsError: The first runs all failed, or the notes of one are damaged.
    """
    environment = {"OMP_NUM_THREADS": str(max(1, thread_count() // workers))} if workers > 1 else {}
    environment = {"WANDB_RUN_GROUP": output.name, **environment, **os.environ}
    with in_turn(output):
        to_repeat = {run.folder for run in begun() if run.state == "failed"}
    taken: set[Path] = set()
    running: list[Run] = []
    failed, others = 0, 0

    def next_run() -> Run | None:
        with in_turn(output):
            runs = begun()
            bar.n = sum(run.state != "unfinished" for run in runs)
            bar.refresh()
            for run in runs:
                left = run.state == "unfinished" or (run.state == "failed" and run.folder in to_repeat)
                if left and run.folder not in taken and run.claim():
                    if run.state in ("unfinished", "failed"):
                        return run
                    run.release()
            following = new(runs)
            if following is not None:
                following.claim()
                following.note()  # before another process decides
            return following

    # SIGTERM becomes an exception, so that `finally` is reached; the command line says
    # "terminated".
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tqdm(total=total, desc=output.name, unit="run") as bar:
        try:
            while True:
                while len(running) < workers and (run := next_run()) is not None:
                    taken.add(run.folder)
                    run.start(environment)
                    running.append(run)
                if not running:
                    return
                time.sleep(_POLL_S)
                for run in [run for run in running if run.poll()]:
                    running.remove(run)
                    failed, others = failed + (run.state == "failed"), others + (run.state != "failed")
                    if failed == _MOST_FAILURES and not others:
                        raise RbsError(
                            f"the first {failed} runs failed; the last line of this one: {run.last_line()}",
                            file=run.folder / OUTPUT,
                            remedy="correct what they have in common and give the command again",
                        )
                for run in to_stop(running):
                    run.stop()
        finally:
            for run in running:
                run.interrupt()
            signal.signal(signal.SIGTERM, before)


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait until no other process is in the same block for the same folder.

    Raises:
        OutputError: The folder cannot be written or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        _locked(lock, wait=True)
        yield


def _locked(file: IO[str], *, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False where another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        fault = f"its disk cannot lock files ({error.strerror}), which keeps two processes off one run"
        remedy = "name a folder on another disk, or have this one mounted with locks"
        raise OutputError(fault, file=file.name, remedy=remedy) from error
    return True


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        folder: Folder that `rbs fit` wrote.
        weights: Its restorer.safetensors.
        config: The configuration it was made with, complete.
    """

    folder: Path
    weights: Path
    config: Path

    @classmethod
    def read(cls, folder: Path) -> Training:
        """Find what a finished training left.

        Raises:
            CheckpointError: It left no weights, or no configuration.
        """
        weights = folder / "restorer.safetensors"
        if not weights.is_file():
            remedy = "train it with `make benchmark`, which resumes an interrupted training"
            fault = f"it holds no {weights.name} of a finished training"
            raise CheckpointError(fault, file=folder, remedy=remedy)
        configs = versions(folder, "config.yaml")
        if not configs:
            fault = "it holds no version_*/config.yaml, which says how its weights were made"
            raise CheckpointError(fault, file=folder, remedy="name the folder that `rbs fit` wrote")
        return cls(folder, weights, configs[-1])

    @property
    def data(self) -> dict[str, Any]:
        """Arguments of its datamodule."""
        settings: dict[str, Any] = read_yaml(self.config)["data"]["init_args"]
        return settings


def read_yaml(
    file: Path, remedy: str = "name a file of experiments/", kind: type[RbsError] = RbsError
) -> dict[str, Any]:
    """Read the settings in a YAML file.

    Args:
        file: The file.
        remedy: What to do about a file that is none.
        kind: Class of the error.

    Raises:
        RbsError: It cannot be read or holds no settings.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise kind(f"it cannot be read ({error.strerror})", file=file, remedy=remedy) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" at line {line + 1}"
        raise kind(f"it is not valid YAML{where}", file=file, remedy="correct it") from error
    if not isinstance(content, dict):
        raise kind("it holds no settings", file=file, remedy=remedy)
    return content
