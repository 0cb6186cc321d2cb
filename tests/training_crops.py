"""Batches of training crops, and a test that their counts are Poisson."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from rbs.data.bone_scans import RBSDataModule


def training_batch(manifest: Path, crops: int, **settings: Any) -> dict[str, Any]:
    """The first batch of training crops, of 64 x 64 pixels unless they are told another size."""
    about = {"crop": (64, 64), "batch_size": crops, "samples_per_epoch": crops, "num_workers": 0}
    data = RBSDataModule(manifest, **about | settings)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    return batch


def assert_poisson(counts: Tensor, expected: Tensor) -> None:
    """Counts are as far from their expectations, of one shape, as independent Poisson counts are."""
    seen = expected > 2
    chi = (counts - expected)[seen] / expected[seen].sqrt()
    # As many standard errors as these may be off, of mean and of variance.
    assert abs(float(chi.mean())) < 4 / len(chi) ** 0.5
    assert float(chi.var()) == pytest.approx(1, abs=5 * (2.5 / len(chi)) ** 0.5)
