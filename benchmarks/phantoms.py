"""Speed of drawing children for training, and the memory it takes over time.

    python benchmarks/phantoms.py

Prints children a second, each with both views of both scans: lying still, with four training crops,
and moving between the scans. Also the resident memory of the processes that draw them, early and
late.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import psutil
from torch.utils.data import DataLoader, Dataset

from rbs.data.stream import PhantomStreamDataModule
from rbs.synthetic.cohort import Acquisition, draw_patient


class Moving(Dataset[float]):
    """Children that move, drawn and let go.

    Args:
        length: How many.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> float:
        patient = draw_patient(np.random.SeedSequence([0, number]), Acquisition(moving=True))
        return float(patient.rapid.sum() + patient.standard.sum())


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--children", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    stream = PhantomStreamDataModule(
        crop=(128, 128), samples_per_epoch=4 * args.children, num_workers=args.workers
    )
    time_batches("lying still", stream.train_dataloader())
    moving = Moving(args.children)
    time_batches("moving", DataLoader(moving, batch_size=2, num_workers=args.workers))


def time_batches(kind: str, loader: DataLoader) -> None:
    """Draw all batches of two children."""
    batches: Iterator[object] = iter(loader)
    for _ in range(4):  # start-up: imports, first draws
        next(batches)
    began, early, done = time.perf_counter(), memory_mb(), 0
    late = early
    for _ in batches:
        done, late = done + 2, memory_mb()
    rate = done / (time.perf_counter() - began)
    print(f"{kind}: {rate:.1f} children/s with {loader.num_workers} workers, {early:.0f} to {late:.0f} MB")


def memory_mb() -> float:
    """Resident memory of the worker processes, MB."""
    return sum(worker.memory_info().rss for worker in psutil.Process().children()) / 1e6


if __name__ == "__main__":
    main()
