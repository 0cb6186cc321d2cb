"""How fast children are drawn for training, and whether memory stays flat.

    python benchmarks/phantoms.py data/phantoms/manifest.csv

Prints children a second (each with both views of both scans), lying still and moving, and the
resident memory of a data worker early and late.
"""

import argparse
import time

import psutil

from rbs.data.stream import PhantomStreamDataModule


def memory_mb() -> float:
    """Resident memory of the worker processes, MB."""
    return sum(worker.memory_info().rss for worker in psutil.Process().children()) / 1e6


def main() -> None:
    """Time the stream."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest")
    parser.add_argument("--children", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    for moving in (False, True):
        data = PhantomStreamDataModule(
            args.manifest,
            moving=moving,
            pairs="measured",
            crop=(128, 128),
            samples_per_epoch=4 * args.children,
            num_workers=args.workers,
        )
        batches = iter(data.train_dataloader())
        for _ in range(4):  # start-up: imports, first draws
            next(batches)
        began, early, done = time.perf_counter(), memory_mb(), 0
        for _ in batches:
            done += 2
        rate, late = done / (time.perf_counter() - began), memory_mb()
        kind = "moving between the scans" if moving else "lying still"
        print(
            f"{kind}: {rate:.1f} children/s, {args.workers} workers, {early:.0f} MB early, {late:.0f} MB late"
        )


if __name__ == "__main__":
    main()
