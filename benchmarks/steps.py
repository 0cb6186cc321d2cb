"""A training that stands still between its steps, so that each can be timed."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from rbs.tasks.profiler import StepProfiler


class Parts(StepProfiler):
    """Of a training that is no run: nothing is printed or written."""

    def describe(self) -> None:
        """Keep it for whoever asks."""


class Training(Callback):
    """Lightning's own loop with all that `rbs fit` does at a step, in a waiting thread.

    Args:
        task: The trained task.
        data: On what.
        precision: Lightning's name of it.

    Attributes:
        losses: Total loss of every step.
        parts: Mean core seconds of each part of a step, once the training is over.
    """

    def __init__(self, task: LightningModule, data: LightningDataModule, precision: Any = "32-true") -> None:
        self.task, self.data = task, data
        self.losses: list[float] = []
        self.parts: dict[str, float] = {}
        self._profiler = Parts()
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._failure: BaseException | None = None
        self._over = False
        self._trainer = Trainer(
            max_steps=-1,
            max_epochs=-1,
            precision=precision,
            gradient_clip_val=1.0,
            callbacks=[EMAWeightAveraging(decay=0.99), self],
            profiler=self._profiler,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        # The schedule wants an end, which is never reached.
        task._steps = lambda: 10_000  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over = True
        self._go.release()
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure
        result = self._profiler.result()
        self.parts = {name: round(s, 3) for name, s in result.get("parts_core_s", {}).items()}

    def step(self) -> None:
        """One training step, from fetching its batch to the averaged weights."""
        self._go.release()
        self._wait()

    def _wait(self) -> None:
        self._done.acquire()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._trainer.fit(self.task, datamodule=self.data)
        except BaseException as error:
            self._failure = error
        self._done.release()

    # --- what Lightning calls

    def on_train_start(self, *_: object) -> None:
        """Everything is read: stand still."""
        self._stand_still()

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, outputs: Any, *_: object) -> None:
        """A step is over: stand still."""
        self.losses.append(float(outputs["loss"]))
        self._stand_still()

    def _stand_still(self) -> None:
        self._done.release()
        self._go.acquire()
        if self._over:
            self._trainer.should_stop = True
            self._trainer.fit_loop.max_epochs = 0
