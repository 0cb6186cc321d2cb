"""Losses that noise of their target would bias."""

from types import SimpleNamespace

import pytest

from rbs.errors import RbsError
from rbs.losses import PoissonDeviance
from rbs.losses.observer import ObserverLoss
from rbs.losses.regional import LocalMaxima, LocalMeans
from rbs.restorers.dncnn import DnCNN
from rbs.tasks.restoration import RestorationTask


def begin(losses, data, monkeypatch):
    monkeypatch.setattr(RestorationTask, "datamodule", data)
    task = RestorationTask(DnCNN(2, 4), losses=losses)
    task.trainer = SimpleNamespace(strategy=SimpleNamespace(barrier=lambda: None))
    task.on_fit_start()


@pytest.mark.parametrize("loss", [LocalMaxima(), ObserverLoss()], ids=lambda loss: loss.name)
def test_they_are_refused_when_training_begins(loss, monkeypatch):
    name = type(loss).__name__
    with pytest.raises(
        RbsError, match=rf"pairs: split has noisy targets, by which {name} would.*expectation"
    ):
        begin([PoissonDeviance(), loss], SimpleNamespace(pairs="split"), monkeypatch)
    begin([loss], SimpleNamespace(pairs="expectation"), monkeypatch)
    begin([PoissonDeviance(), LocalMeans()], SimpleNamespace(pairs="split"), monkeypatch)
    begin([loss], SimpleNamespace(), monkeypatch)  # frames are clean
