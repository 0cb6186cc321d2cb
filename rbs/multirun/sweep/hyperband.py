"""Early stopping by Hyperband, as the engine behind W&B sweeps defines it.

Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR
2018;18(185), arXiv 1603.06560; W&B's engine is github.com/wandb/sweeps (MIT), of whose version 0.3
this is a formulation of our own. Iteration n of a run is the n-th value of the metric it logged. At
each bracket

    b = min_iter * eta^k,  k = 0, 1, ...        or        b = max_iter / eta^k,  k = 1, ..., s

the values all runs had there, best first, v_0 <= v_1 <= ..., give a threshold v_j, j = floor(n /
eta): a run that still goes on is stopped where its value at the last bracket it reached is worse.

Optuna's pruners would decide otherwise for the same file: SuccessiveHalvingPruner lets floor(n/eta)
runs pass instead of one more, takes a whole eta alone, and compares a run once, when it arrives at
a bracket; HyperbandPruner assigns each run to one of several schedules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count, takewhile
from typing import TypeVar

from rbs.multirun.sweep.definition import Hyperband

_Key = TypeVar("_Key")


def brackets(settings: Hyperband, longest: int) -> list[int]:
    """Iterations at which runs are compared, ascending, up to `longest`."""
    if settings.max_iter is not None and settings.s is not None:
        ends = (settings.max_iter / settings.eta**k for k in range(1, settings.s + 1))
        return sorted(int(b) for b in ends if b >= 1 and int(b) <= longest)
    assert settings.min_iter is not None  # checked when the file was read
    first = settings.min_iter
    return list(takewhile(lambda b: b <= longest, (int(first * settings.eta**k) for k in count())))


def to_stop(
    settings: Hyperband,
    histories: Mapping[_Key, Sequence[float]],
    running: Collection[_Key],
    *,
    maximise: bool,
) -> set[_Key]:
    """The running runs that are to be stopped now.

    Args:
        settings: Brackets.
        histories: Finite values of the metric of every run so far, in the order logged.
        running: Those that still run.
        maximise: Larger values are better.
    """
    costs = {run: [-v if maximise else v for v in values] for run, values in histories.items()}
    stopped = set()
    for run in running:
        own = costs.get(run, [])
        reached = brackets(settings, len(own))
        if not reached:
            continue
        bracket = reached[-1]
        there = sorted(values[bracket - 1] for values in costs.values() if len(values) >= bracket)
        threshold = there[int(len(there) / settings.eta)]
        if (own[bracket - 1] if settings.strict else min(own)) > threshold:
            stopped.add(run)
    return stopped
