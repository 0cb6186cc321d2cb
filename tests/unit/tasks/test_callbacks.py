"""Callbacks of the trainings."""

from types import SimpleNamespace

import pytest

from rbs.tasks.callbacks import TrainingBar


@pytest.mark.parametrize(
    ("settings", "description"),
    [
        ({"max_epochs": 3, "max_steps": -1}, "Epoch 1/2"),
        ({"max_epochs": -1, "max_steps": 25}, "Epoch 1/2"),
        ({"max_epochs": -1, "max_steps": 25, "accumulate_grad_batches": 2}, "Epoch 1/4"),
        ({"max_epochs": -1, "max_steps": -1}, "Epoch 1"),
    ],
)
def test_the_bar_tells_the_last_epoch(settings, description):
    bar = TrainingBar()
    bar._trainer = SimpleNamespace(**{"num_training_batches": 10, "accumulate_grad_batches": 1} | settings)
    assert bar._get_train_description(1).strip() == description
