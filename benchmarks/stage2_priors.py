"""Seconds per stage-2 training step with cached priors, with SAM in the loop, and without priors.

    python benchmarks/stage2_priors.py runs/demo/phantoms/manifest.csv runs/demo/stage1/f1.safetensors \
        runs/demo/adapt_sam/teacher

Prints the median over the steps after the first three, and the ratios, as JSON. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from rbs.data.rbs import RBSDataModule
from rbs.restorers.nafnet import NAFNet
from rbs.tasks.restoration import RestorationTask

WARM_UP = 3


class StepTimes(Callback):
    """Wall seconds of every training step, forward to optimiser."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: object) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: object) -> None:
        """Stop the clock."""
        self.seconds.append(time.perf_counter() - self._start)


def seconds_per_step(args: argparse.Namespace, *, prior: str, semantic: bool, crop: tuple[int, int]) -> float:
    """Median seconds of a step in one configuration."""
    with tempfile.TemporaryDirectory() as cache:
        task: LightningModule = RestorationTask(
            NAFNet(),
            stage=2,
            spi=semantic,
            scm=False,  # SCM encodes every crop in all configurations: that is not what a cache saves
            prior=prior,  # type: ignore[arg-type]
            teacher=args.teacher,
            init_from=args.f1,
            prior_cache=Path(cache),
        )
        data = RBSDataModule(
            args.manifest, deals=1, crop=crop, batch_size=4, samples_per_epoch=4 * args.steps, num_workers=0
        )
        times = StepTimes()
        trainer = Trainer(
            max_steps=args.steps,
            callbacks=[times],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        trainer.fit(task, datamodule=data)
    return statistics.median(times.seconds[WARM_UP:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("f1", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    result: dict[str, float] = {}
    for name, prior, semantic in (
        ("no prior", "cached", False),
        ("cached", "cached", True),
        ("online, on the crop", "online", True),
        ("frozen, whole scans", "frozen", True),
    ):
        result[name] = round(seconds_per_step(args, prior=prior, semantic=semantic, crop=(128, 128)), 4)
    result["step ratio, frozen / cached"] = round(result["frozen, whole scans"] / result["cached"], 2)
    result["step ratio, online / cached"] = round(result["online, on the crop"] / result["cached"], 2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
