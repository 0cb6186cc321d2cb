"""What is tried next: a grid in order, random points, or Bayesian search.

Nothing is remembered between calls but the runs themselves, so a sweep that was interrupted goes on
as if it had not been.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rbs.errors import SweepError
from rbs.multirun.sweep.definition import Sweep
from rbs.multirun.sweep.distributions import CATEGORICAL, Parameter, choices

Point = dict[str, float]
"""Where a run lies in the search space: the quantile of each parameter that is searched."""


@dataclass(frozen=True)
class Proposal:
    """A run to try: its point (empty in a grid), and the value of every parameter."""

    point: Point
    values: dict[str, Any]


@dataclass(frozen=True)
class Tried:
    """An earlier run: its point, and the metric it ended with; None where it goes on or failed."""

    point: Point = field(default_factory=dict)
    result: float | None = None
    running: bool = False


def propose(sweep: Sweep, tried: Sequence[Tried], number: int | None = None) -> Proposal | None:
    """The run with this number, from 0; None where the sweep is over.

    Bayesian search is Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)
    over quantiles, ten random points first; W&B's own is a Gaussian process, so the two try
    different points.

    Args:
        sweep: The sweep.
        tried: All other runs.
        number: None for the one after them.

    Raises:
        SweepError: `method: bayes`, and Optuna is not installed.
    """
    number = len(tried) if number is None else number
    if number >= planned(sweep):
        return None
    if sweep.method == "grid":
        return Proposal({}, _grid_point(sweep.parameters, number))
    searched = [parameter for parameter in sweep.parameters if parameter.distribution != "constant"]
    if sweep.method == "random":
        rng = np.random.default_rng((0, number))
        point = {parameter.name: float(rng.random()) for parameter in searched}
    else:
        point = _bayes(sweep, searched, tried)
    return Proposal(point, {p.name: p.value(point.get(p.name, 0.0)) for p in sweep.parameters})


def planned(sweep: Sweep) -> int:
    """How many runs there are to be."""
    most = math.prod(len(choices(p) or []) for p in sweep.parameters) if sweep.method == "grid" else math.inf
    return int(most if sweep.run_cap is None else min(most, sweep.run_cap))


def _grid_point(parameters: Sequence[Parameter], number: int) -> dict[str, Any]:
    """The values at a place of the grid; the last parameter changes fastest."""
    values = {}
    for parameter in reversed(parameters):
        every = choices(parameter) or []
        number, place = divmod(number, len(every))
        values[parameter.name] = every[place]
    return {parameter.name: values[parameter.name] for parameter in parameters}


def _bayes(sweep: Sweep, searched: Sequence[Parameter], tried: Sequence[Tried]) -> Point:
    try:
        import optuna
    except ImportError as error:
        remedy = "install it with `pip install 'rbs[sweep]'`, or use method: random"
        raise SweepError("method: bayes needs Optuna", file=sweep.file, remedy=remedy) from error
    assert sweep.metric is not None  # checked when the file was read
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, Any] = {
        p.name: optuna.distributions.CategoricalDistribution(range(len(p.settings["values"])))
        if p.distribution in CATEGORICAL
        else optuna.distributions.FloatDistribution(0.0, 1.0)
        for p in searched
    }
    with warnings.catch_warnings():
        # `constant_liar`, which keeps runs that go on from being tried twice, is called
        # experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Its random numbers depend on how many runs there were, not on the process that asks.
        sampler = optuna.samplers.TPESampler(seed=len(tried), constant_liar=True)
    goal = "maximize" if sweep.metric.maximise else "minimize"
    study = optuna.create_study(sampler=sampler, direction=goal)
    for run in tried:
        study.add_trial(_as_trial(run, searched, space))
    asked = study.ask(space)
    return {p.name: _quantile(p, asked.params[p.name]) for p in searched}


def _as_trial(run: Tried, searched: Sequence[Parameter], space: dict[str, Any]) -> Any:
    from optuna.trial import TrialState, create_trial

    known = run.result is not None
    state = TrialState.RUNNING if run.running else TrialState.COMPLETE if known else TrialState.FAIL
    params = {
        p.name: p.category(run.point[p.name]) if p.distribution in CATEGORICAL else run.point[p.name]
        for p in searched
    }
    value = run.result if state == TrialState.COMPLETE else None
    return create_trial(params=params, distributions=space, value=value, state=state)


def _quantile(parameter: Parameter, asked: float) -> float:
    """The quantile of what Optuna answers: the middle of a category's share, else the answer itself."""
    if parameter.distribution not in CATEGORICAL:
        return float(asked)
    count = len(parameter.settings["values"])
    shares = parameter.settings.get("probabilities") or [1 / count] * count
    place = int(asked)
    return float(sum(shares[:place]) + shares[place] / 2)
