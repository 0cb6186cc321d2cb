"""Profile of a training step: `--trainer.profiler rbs.tasks.profiler.StepProfiler`.

Lightning tells its profiler when each of its actions begins and ends, and tasks name the work of
the teacher. Actions contain other actions; the time of each, without those within it, is counted
to one of a few parts, so that the parts add up to the whole.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.utilities import rank_zero_only

from rbs.utils.files import write_json
from rbs.utils.markdown import markdown

TEACHER = "teacher"
"""The action that a task names when it runs the teacher; reading cached priors is data."""

_FETCHING = r"\.train_dataloader_next$"

PARTS = {
    "data": rf"{_FETCHING}|\.batch_to_device$",
    TEACHER: f"^{TEACHER}$",
    "forward and losses": r"\.training_step$",
    "backward": r"\.backward$",
    "optimiser": r"\.optimizer_step$",
    "the rest": "",
}
"""Parts of a step, and which actions begin them; other actions belong to the part they lie
within."""

_NO_STEP = r"^run_training_epoch$|validation"
"""A step lasts from one fetching of a batch to the next, or to the validation or end of its
epoch."""

WARM_UP = 3
"""First steps, which are not counted: buffers are made there, and kernels chosen."""


class StepProfiler(Profiler):
    """Seconds of a training step by part, printed at the end and written as `profile.json`.

    An accelerator is waited for wherever a part begins or ends, or its work would be counted to
    whichever part waits for it; steps that overlap with others otherwise therefore take somewhat
    longer.

    Attributes:
        steps: Of each step the seconds of each part, by name.
        core_steps: The same in seconds of the cores this process had: a busy machine stretches them
            less. Processes that load data are not in them.
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(dirpath)
        self.steps: list[dict[str, float]] = []
        self.core_steps: list[dict[str, float]] = []
        self._open: list[str] = []
        self._step: tuple[dict[str, float], dict[str, float]] | None = None
        self._since = (0.0, 0.0)

    def start(self, action_name: str) -> None:
        """An action begins."""
        self._count()
        if re.search(_FETCHING, action_name):
            self._end_step()
            self._step = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)
        elif re.search(_NO_STEP, action_name):
            self._end_step()
        part = next(part for part, actions in PARTS.items() if re.search(actions, action_name))
        if part == "the rest" and self._open:
            part = self._open[-1]
        self._open.append(part)

    def stop(self, action_name: str) -> None:
        """The action that began last ends."""
        self._count()
        self._open.pop()
        if re.search(_NO_STEP, action_name):
            self._end_step()

    def _count(self) -> None:
        """Count the time since the last action to the part it belonged to."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        if self._step is not None:
            part = self._open[-1] if self._open else "the rest"
            for seconds, until, since in zip(self._step, now, self._since, strict=True):
                seconds[part] += until - since
        self._since = now

    def _end_step(self) -> None:
        if self._step is not None:
            self.steps.append(self._step[0])
            self.core_steps.append(self._step[1])
            self._step = None

    def result(self) -> dict[str, Any]:
        """Mean seconds of a step and its parts after the first `WARM_UP` steps; {} without any."""
        counted = len(self.steps[WARM_UP:])
        if not counted:
            return {}
        means: list[dict[str, float]] = []
        for steps in (self.steps, self.core_steps):
            means.append({part: sum(step[part] for step in steps[WARM_UP:]) / counted for part in PARTS})
        seconds, core_seconds = means
        memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
        return {
            "steps": counted,
            "step_s": sum(seconds.values()),
            "step_core_s": sum(core_seconds.values()),
            "parts_s": seconds,
            "parts_core_s": core_seconds,
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "accelerator_memory_GB": memory,
        }

    def summary(self) -> str:
        """The result as a table."""
        result = self.result()
        if not result:
            return f"There were no more than {WARM_UP} training steps, which are not counted."
        whole = result["step_s"], result["step_core_s"]
        parts = [(part, result["parts_s"][part], result["parts_core_s"][part]) for part in PARTS]
        rows = [
            [part, f"{1000 * seconds:.1f}", f"{100 * seconds / whole[0]:.0f}", f"{1000 * core:.1f}"]
            for part, seconds, core in [*parts, ("a step", *whole)]
        ]
        head = ["Part", "ms", "% of the time", "ms of a core"]
        return f"{markdown(head, rows)}\nMean of {result['steps']} steps."

    @rank_zero_only
    def describe(self) -> None:
        """Print the table and write the file, where there was a training."""
        if self._stage != "fit":
            return
        print(self.summary())
        if self.dirpath is not None:
            write_json(Path(self.dirpath) / "profile.json", self.result())
