"""Where a step's time goes, by a clock that only stands still or does what the parts of a step tell it."""

import json
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset

import rbs.tasks.profiler
from rbs.tasks.profiler import PARTS, WARM_UP, StepProfiler

SPENT = {
    "data": 3.0,
    "teacher": 20.0,
    "forward and losses": 5.0,
    "backward": 7.0,
    "optimiser": 2.0,
    "the rest": 1.0,
}
ELSEWHERE = 1000.0
"""Spent where there is no step: between epochs and in validation."""


class Clock:
    """A core that works half of the time."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(
            rbs.tasks.profiler,
            "time",
            SimpleNamespace(perf_counter=lambda: self.now, process_time=lambda: self.now / 2),
        )

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Samples(Dataset):
    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.clock.spend(self.seconds)
        return torch.ones(1)


class Sgd(torch.optim.SGD):
    def step(self, closure=None):
        loss = super().step(closure)
        self.clock.spend(SPENT["optimiser"])
        return loss


class Task(pl.LightningModule):
    def __init__(self, clock):
        super().__init__()
        self.clock, self.weight = clock, torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, index):
        self.clock.spend(2.0)
        with self.trainer.profiler.profile("teacher"):
            self.clock.spend(SPENT["teacher"])
        self.clock.spend(SPENT["forward and losses"] - 2)
        loss = (self.weight * batch).sum()
        loss.register_hook(lambda grad: self.clock.spend(SPENT["backward"]))
        return loss

    def validation_step(self, batch, index):
        with self.trainer.profiler.profile("teacher"):
            self.clock.spend(ELSEWHERE)

    def on_train_epoch_end(self):
        self.clock.spend(ELSEWHERE)

    def configure_optimizers(self):
        optimizer = Sgd(self.parameters(), 0.1)
        optimizer.clock = self.clock
        return optimizer


class Afterwards(Callback):
    def on_train_batch_end(self, trainer, task, *_):
        task.clock.spend(SPENT["the rest"])


def fit(clock, tmp_path, steps):
    profiler = StepProfiler()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=CSVLogger(tmp_path, name="run"),
        callbacks=[Afterwards()],
        profiler=profiler,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = (DataLoader(Samples(clock, SPENT["data"])), DataLoader(Samples(clock, ELSEWHERE)))
    trainer.fit(Task(clock), *loaders)
    return profiler


def test_every_part_gets_its_time_and_they_add_up_to_the_whole(clock, tmp_path, capsys):
    fit(clock, tmp_path, steps=WARM_UP + 7)
    result = json.loads((tmp_path / "run" / "version_0" / "profile.json").read_text())
    assert result["steps"] == 7
    assert result["parts_s"] == pytest.approx(SPENT)
    assert list(result["parts_s"]) == list(PARTS)
    assert result["step_s"] == pytest.approx(sum(SPENT.values()))
    assert result["step_core_s"] == pytest.approx(sum(SPENT.values()) / 2)
    table = capsys.readouterr().out
    assert "| teacher | 20000.0 | 53 | 10000.0 |" in table
    assert "| a step | 38000.0 | 100 | 19000.0 |" in table


def test_a_training_too_short_says_so(clock, tmp_path, capsys):
    assert fit(clock, tmp_path, steps=WARM_UP).result() == {}
    assert "no more than 3 training steps" in capsys.readouterr().out
