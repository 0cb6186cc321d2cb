"""Seconds and memory of restoring a two-view 256x1024 scan with the shipped weights.

    python benchmarks/restore.py

Prints the median of the forward pass and the peak memory of the process, as JSON. Run it on a quiet machine.
"""

from __future__ import annotations

import json
import resource
import statistics
import time

import torch

from rbs.weights import load_restorer

REPEATS = 5


def main() -> None:
    """Measure and print."""
    loaded = load_restorer()
    counts = torch.poisson(torch.full((1, 2, 1024, 256), 0.5), generator=torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + REPEATS):
            start = time.perf_counter()
            loaded.restorer(counts / 0.5, torch.tensor([0.5]))
            seconds.append(time.perf_counter() - start)
    result = {
        "weights": loaded.name,
        "threads": torch.get_num_threads(),
        "forward_s": round(statistics.median(seconds[1:]), 3),
        "first_forward_s": round(seconds[0], 3),
        "peak_memory_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),  # kB on Linux
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
