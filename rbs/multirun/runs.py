"""Trainings in processes of their own: several at a time, never one twice, interrupted ones go on.

A run has a folder. Its `run.json` says what it is and how far it came; its `output.txt` holds what
it printed. Where several processes, or machines, share a folder, locks keep them apart: the system
gives a lock back when whoever holds it has died.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from rbs.errors import OutputError, RbsError
from rbs.utils.files import whole_file

State = Literal["unfinished", "finished", "stopped", "failed"]

OUTPUT = "output.txt"
_NOTES = "run.json"
_LOCK = ".lock"
_POLL_S = 0.5
_PATIENCE_S = 60.0
"""How long a run may take to end when told to; then it is killed."""

_INTERRUPTED = {130, 143, -signal.SIGINT, -signal.SIGTERM}
_HOPELESS = 3
"""A series whose first so many runs all fail is given up: the fault lies in what they have in
common."""


class Run:
    """One training.

    Args:
        folder: Its own.
        command: Its command line; it must go on by itself from what an interrupted call of it left.
        about: What else is to be remembered in `run.json`, values JSON can hold.

    Attributes:
        state: How it ended, or "unfinished".
        seconds: Time it took in all its processes.
    """

    def __init__(self, folder: Path, command: Sequence[str], about: dict[str, Any] | None = None) -> None:
        self.folder, self.command, self.about = folder, list(command), about or {}
        self.state: State = "unfinished"
        self.seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._told_to_stop: float | None = None
        self._claim: IO[str] | None = None

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run whose notes are in `folder`.

        Raises:
            RbsError: They are damaged.
        """
        try:
            notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
            run = cls(folder, notes["command"], notes["about"])
            run.state, run.seconds = notes["state"], float(notes["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            fault = f"its notes are missing or damaged ({error})"
            raise RbsError(fault, file=folder / _NOTES, remedy="delete its folder to run it again") from error
        return run

    @staticmethod
    def noted(folder: Path) -> bool:
        """Whether there are notes of a run in `folder`."""
        return (folder / _NOTES).exists()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None

    def claim(self) -> bool:
        """Take it, so that no other process does before it ends here; False where another has it.

        Raises:
            OutputError: The disk knows no locks.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / _LOCK).open("a")
        if not _locked(lock):
            lock.close()
            return False
        self._claim = lock
        return True

    def release(self) -> None:
        """Leave it to whoever claims it next."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def note(self) -> None:
        """Write `run.json`."""
        notes = {
            "state": self.state,
            "seconds": round(self.seconds, 1),
            "about": self.about,
            "command": self.command,
        }
        with whole_file(self.folder / _NOTES, overwrite=True) as path:
            path.write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")

    def start(self, environment: dict[str, str]) -> None:
        """Start its process, or go on with what it left."""
        self.state = "unfinished"
        self.note()
        self._started, self._told_to_stop = time.monotonic(), None
        with (self.folder / OUTPUT).open("ab") as output:
            # A group of its own: who interrupts this process decides here what becomes of it.
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
                # It keeps the claim, should this process be killed and leave it behind.
                pass_fds=() if self._claim is None else (self._claim.fileno(),),
            )

    def stop(self) -> None:
        """Tell it to end; it then counts as stopped. Told again and again, it is killed in the end."""
        if self._process is None:
            return
        if self._told_to_stop is None:
            self._told_to_stop = time.monotonic()
            self._signal(signal.SIGTERM)
        elif time.monotonic() - self._told_to_stop > _PATIENCE_S:
            self._signal(signal.SIGKILL)

    def interrupt(self) -> None:
        """End its process; it counts as unfinished."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._end("finished" if self._process.returncode == 0 else "unfinished")

    def poll(self) -> bool:
        """Whether it has ended; if so, how is noted."""
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

    def last_words(self) -> str:
        """The last line it printed."""
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


def work_through(
    next_run: Callable[[], Run | None],
    *,
    workers: int,
    to_stop: Callable[[Collection[Run]], Collection[Run]] = lambda running: (),
    ended: Callable[[Run], object] = lambda run: None,
    group: str = "",
) -> None:
    """Run until there is nothing left to run.

    However this ends, no process outlives it; what was interrupted goes on when asked for again.

    Args:
        next_run: The next one; None where there is none (yet: it is asked again when one has
            ended).
        workers: How many run at a time.
        to_stop: Which of those that run are to be stopped, asked all the time.
        ended: Told of every run that has ended.
        group: Name under which trackers gather the runs.

    Raises:
        RbsError: The first runs all failed.
    """
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))} if workers > 1 else {}
    environment = {"WANDB_RUN_GROUP": group, **environment, **os.environ}
    running: list[Run] = []
    failed, others = 0, 0
    with _terminated_like_interrupted():
        try:
            while True:
                while len(running) < workers and (run := next_run()) is not None:
                    run.start(environment)
                    running.append(run)
                if not running:
                    return
                time.sleep(_POLL_S)
                for run in [run for run in running if run.poll()]:
                    running.remove(run)
                    ended(run)
                    failed, others = failed + (run.state == "failed"), others + (run.state != "failed")
                    if failed == _HOPELESS and not others:
                        raise RbsError(
                            f"the first {failed} runs failed; the last words of this one: {run.last_words()}",
                            file=run.folder / OUTPUT,
                            remedy="mend what they have in common and give the command again",
                        )
                for run in to_stop(running):
                    run.stop()
        finally:
            for run in running:
                run.interrupt()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a second process from working in the same folder.

    Raises:
        OutputError: One does already, or the folder cannot be written or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        if not _locked(lock):
            raise OutputError(
                "another process is at work in it", file=folder, remedy="wait for it, or name another folder"
            )
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Wait until no other process is in the same place, for decisions that take a moment.

    Raises:
        OutputError: The folder cannot be written or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        _locked(lock, wait=True)
        yield


def _locked(file: IO[str], *, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(
            f"its disk cannot lock files ({error.strerror}), by which processes keep out of each other's way",
            file=file.name,
            remedy="name a folder on another disk, or have this one mounted with locks",
        ) from error
    return True


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that `finally` is reached."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit  # the command line says "terminated"

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
