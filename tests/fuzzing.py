"""What the two fuzzers share: blind damage, limits of time and memory, the command line.

Each file follows from the seed and its number alone: `--only NUMBER` makes one again.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

SECONDS, MEMORY = 10, 2 * 2**30


class Wrong(Exception):
    """What must not happen."""


@dataclass(frozen=True)
class Damaged:
    """A damaged file.

    Attributes:
        name: What it is and what was done to it.
        path: Where it is; a file, or a folder whose files belong together.
        judge: Reads it and says what came of it; raises `Wrong` for what must not happen.
    """

    name: str
    path: Path
    judge: Callable[[], str]


def blind(data: bytearray, rng: np.random.Generator) -> str:
    """Damage bytes anywhere; the name of what was done."""
    name = str(rng.choice(["bits", "bytes", "truncation", "zeros", "insertion", "deletion", "exchange"]))
    # Headers are short and what follows long: half of the faults shall meet the header.
    end = len(data) if rng.random() < 0.5 else min(len(data), 2500)
    at, run = int(rng.integers(max(1, end))), int(rng.integers(1, 64))
    if name == "bits":
        for place in rng.integers(max(1, end), size=rng.integers(1, 9)):
            data[place] ^= 1 << int(rng.integers(8))
    elif name == "bytes":
        data[at : at + run] = rng.bytes(run)
    elif name == "truncation":
        del data[at:]
    elif name == "zeros":
        data[at : at + run] = bytes(len(data[at : at + run]))
    elif name == "insertion":
        data[at:at] = rng.bytes(run)
    elif name == "deletion":
        del data[at : at + run]
    else:
        other = int(rng.integers(max(1, end)))
        data[at : at + run], data[other : other + run] = data[other : other + run], data[at : at + run]
    return name if data else "truncation"


def judge_all(
    damage: Callable[[np.random.Generator], Damaged], numbers: range, seed: int, keep: Path | None = None
) -> tuple[Counter[str], list[str]]:
    """Damage and judge files: how many came to what, and what must not have happened."""
    outcomes: Counter[str] = Counter()
    wrong = []
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, _too_long)
    if sys.platform == "linux":  # elsewhere memory is not limited
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, before[1]))
    try:
        for number in tqdm(numbers, unit="file", disable=None):
            damaged = damage(np.random.default_rng((seed, number)))
            signal.alarm(SECONDS)
            try:
                outcomes[damaged.judge()] += 1
            except Exception as error:
                told = "".join(traceback.format_exception(error)[-3:])
                wrong.append(f"{number}: {damaged.name}: {type(error).__name__}: {error}\n{told}")
                outcomes["WRONG"] += 1
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if damaged.path.is_dir() else shutil.copy)(
                        damaged.path, keep / f"{number}{damaged.path.suffix}"
                    )
            finally:
                signal.alarm(0)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)
    return outcomes, wrong


def _too_long(*_: object) -> None:
    raise Wrong(f"it took more than {SECONDS} s")


def main(
    description: str,
    files: int,
    fuzz: Callable[[Path, range, int, Path | None], tuple[Counter[str], list[str]]],
) -> int:
    """Run a fuzzer from the command line; the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--files", type=int, default=files)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one file")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where files that went wrong are kept")
    args = parser.parse_args()
    numbers = range(args.files) if args.only is None else range(args.only, args.only + 1)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        outcomes, wrong = fuzz(Path(folder), numbers, args.seed, args.keep)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    result = {
        "files": len(numbers),
        "seed": args.seed,
        "seconds": round(time.perf_counter() - start),
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in used)),
        "memory_MB": round(grown / 1e3),
    }
    print(json.dumps(result | dict(outcomes.most_common()), indent=2))
    for text in wrong[:20]:
        print(text, file=sys.stderr)
    return 1 if wrong else 0
