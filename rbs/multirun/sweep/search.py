"""Choice of the next run: a grid in order, random points, or Bayesian search.

Nothing is kept between calls but the runs themselves, so an interrupted sweep goes on as if it had
not been interrupted. An Optuna storage would be a second record beside them, and a poorer one:
its JournalStorage has no heartbeat, so the run of a machine that died stays "running" for ever, and
it does not reopen a failed run, which here resumes from its checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rbs.errors import SweepError
from rbs.multirun.sweep.definition import Sweep
from rbs.multirun.sweep.distributions import Parameter

Point = dict[str, float]
"""Place of a run in the search space: the quantile of each parameter that is searched."""


@dataclass(frozen=True)
class Trial:
    """A run as search sees it.

    Attributes:
        point: Its place; empty in a grid.
        result: The metric it ended with; None while it runs and where it failed.
        running: True while it runs.
    """

    point: Point = field(default_factory=dict)
    result: float | None = None
    running: bool = False


def propose(sweep: Sweep, trials: Sequence[Trial], number: int) -> tuple[Point, dict[str, Any]] | None:
    """Point and values of all parameters of the run with this number, from 0; None after the last.

    Bayesian search is Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)
    over quantiles, ten random points first; W&B's own is a Gaussian process, so the two try
    different points.

    Args:
        sweep: The sweep.
        trials: All other runs.
        number: Which run.

    Raises:
        SweepError: `method: bayes`, and Optuna is not installed.
    """
    if number >= sweep.planned:
        return None
    if sweep.method == "grid":
        return {}, _grid_values(sweep.parameters, number)
    searched = [parameter for parameter in sweep.parameters if parameter.distribution != "constant"]
    if sweep.method == "random":
        rng = np.random.default_rng((0, number))
        point = {parameter.name: float(rng.random()) for parameter in searched}
    else:
        point = _bayes(sweep, searched, trials)
    return point, {p.name: p.at(point.get(p.name, 0.0)) for p in sweep.parameters}


def _grid_values(parameters: Sequence[Parameter], number: int) -> dict[str, Any]:
    """The values at a place of the grid; the last parameter changes fastest."""
    choices = [parameter.choices() or [] for parameter in parameters]
    places = np.unravel_index(number, [len(every) for every in choices])
    return {p.name: every[place] for p, every, place in zip(parameters, choices, places, strict=True)}


def _bayes(sweep: Sweep, searched: Sequence[Parameter], trials: Sequence[Trial]) -> Point:
    try:
        import optuna
    except ImportError as error:
        remedy = "install the extra `sweep` (`make setup` does), or use method: random"
        raise SweepError("method: bayes needs Optuna", file=sweep.file, remedy=remedy) from error
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    assert sweep.metric is not None  # checked when the file was read
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, Any] = {
        p.name: CategoricalDistribution(range(len(p.values))) if p.categorical else FloatDistribution(0, 1)
        for p in searched
    }
    with warnings.catch_warnings():
        # `constant_liar`, which keeps search away from runs that go on, is called experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Its random numbers depend on how many runs there were, not on the process that asks.
        sampler = optuna.samplers.TPESampler(seed=len(trials), constant_liar=True)
    study = optuna.create_study(sampler=sampler, direction=sweep.metric.goal)
    for trial in trials:
        ended = TrialState.FAIL if trial.result is None else TrialState.COMPLETE
        study.add_trial(
            create_trial(
                params={
                    p.name: p.category(trial.point[p.name]) if p.categorical else trial.point[p.name]
                    for p in searched
                },
                distributions=space,
                value=trial.result,
                state=TrialState.RUNNING if trial.running else ended,
            )
        )
    params = study.ask(space).params
    return {p.name: p.middle(params[p.name]) if p.categorical else float(params[p.name]) for p in searched}
