"""Data: crops a second by worker processes, to be set against the step rate of `bench_train.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rbs.data.bone_scans import RBSDataModule
from rbs.data.endoscopy import EndoscopyDataModule


@pytest.mark.benchmark(group="data: crops by worker processes")
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", ["scans", "scans, dealt", "frames"])
def test_crops(measure: Any, sizes: Any, cohort: Path, frames: Path, kind: str, workers: int) -> None:
    """An epoch of training crops in batches of eight, as the two stages draw them."""
    if not sizes.whole and (workers == 2 or "dealt" in kind):
        pytest.skip("the small run has one way to draw scans, and one worker beside none")
    settings: dict[str, Any] = {
        "crop": (sizes.crop, sizes.crop),
        "samples_per_epoch": sizes.samples,
        "num_workers": workers,
        "realisations": 4 if "dealt" in kind else None,
    }
    data: Any = (
        EndoscopyDataModule(frames, **settings) if kind == "frames" else RBSDataModule(cohort, **settings)
    )
    data.setup("fit")
    loader = data.train_dataloader()
    measure(lambda: sum(len(batch["rapid"]) for batch in loader), rounds=3, of=sizes.samples)
