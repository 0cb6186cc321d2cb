"""Choice of runs: grids in order, distributions as SciPy has them, Bayesian search that learns."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from rbs.multirun.sweep.definition import read_sweep
from rbs.multirun.sweep.distributions import Parameter
from rbs.multirun.sweep.search import Trial, propose

QUANTILES = (0.01, 0.2, 0.5, 0.77, 0.999)
SCIPY = {
    "uniform": ({"min": 2.0, "max": 5.0}, stats.uniform(2, 3)),
    "log_uniform_values": ({"min": 1e-5, "max": 1e-1}, stats.loguniform(1e-5, 1e-1)),
    "log_uniform": ({"min": -3.0, "max": 1.0}, stats.loguniform(np.exp(-3), np.exp(1))),
    "normal": ({"mu": 1.0, "sigma": 2.0}, stats.norm(1, 2)),
    "log_normal": ({"mu": 1.0, "sigma": 0.5}, stats.lognorm(0.5, scale=np.exp(1))),
    "beta": ({"a": 2.0, "b": 3.0}, stats.beta(2, 3)),
    "int_uniform": ({"min": 3, "max": 9}, stats.randint(3, 10)),
}


def parameter(**settings):
    return Parameter(path=("x",), **settings)


@pytest.mark.parametrize("name", SCIPY)
def test_distributions_are_those_of_scipy(name):
    settings, reference = SCIPY[name]
    found = [parameter(distribution=name, **settings).at(u) for u in QUANTILES]
    np.testing.assert_allclose(found, reference.ppf(QUANTILES), rtol=1e-9)


def test_the_inverse_of_inv_log_uniform_is_log_uniform():
    x = parameter(distribution="inv_log_uniform_values", min=0.1, max=10.0)
    inverse = stats.loguniform(0.1, 10)
    np.testing.assert_allclose([1 / x.at(u) for u in QUANTILES], inverse.ppf(QUANTILES), rtol=1e-9)


def test_steps_are_multiples_without_rounding_dust():
    x = parameter(distribution="q_uniform", min=0.0, max=1.0, q=0.1)
    assert {x.at(u) for u in np.linspace(0, 0.999, 200)} == {round(k / 10, 1) for k in range(11)}
    whole = parameter(distribution="q_log_uniform_values", min=10, max=1000, q=10).at(0.5)
    assert whole == 100
    assert isinstance(whole, int)


def test_probabilities_are_kept():
    x = parameter(values=["a", "b", "c"], probabilities=[0.2, 0.0, 0.8])
    drawn = [x.at(u) for u in (np.arange(1000) + 0.5) / 1000]
    assert {name: drawn.count(name) for name in "abc"} == {"a": 200, "b": 0, "c": 800}


def everything(sweep):
    trials = []
    while (found := propose(sweep, trials, len(trials))) is not None:
        point, values = found
        yield values
        trials.append(Trial(point))


def test_a_grid_is_every_combination_once(write_sweep):
    parameters = {
        "a": {"values": ["x", "y"]},
        "b": {"min": 1, "max": 3},
        "c": {"value": 7},
        "d": {"distribution": "q_uniform", "min": 0.0, "max": 0.4, "q": 0.2},
    }
    found = list(everything(read_sweep(write_sweep(parameters=parameters))))
    assert [tuple(values.values()) for values in found] == list(
        product(["x", "y"], [1, 2, 3], [7], [0.0, 0.2, 0.4])
    )


def test_random_search_is_the_same_again_and_spreads(write_sweep):
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
        "n": {"min": 0, "max": 9},
    }
    sweep = read_sweep(write_sweep(method="random", run_cap=200, parameters=parameters))
    found = list(everything(sweep))
    assert found == list(everything(sweep))
    logs = np.log([values["lr"] for values in found])
    assert stats.kstest(logs, stats.uniform(np.log(1e-5), np.log(1e4)).cdf).pvalue > 0.01
    assert {values["n"] for values in found} == set(range(10))


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_bayesian_search_finds_what_random_search_does_not(write_sweep, goal):
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1.0e-6, "max": 1.0},
        "kind": {"values": ["a", "b", "c", "d"]},
    }
    sign = 1 if goal == "minimize" else -1

    def cost(values):  # least at lr = 1e-3 and kind = c
        return abs(np.log10(values["lr"]) + 3) + 2 * (values["kind"] != "c")

    best = {}
    for method in ("random", "bayes"):
        path = write_sweep(
            method=method, run_cap=40, metric={"name": "m", "goal": goal}, parameters=parameters
        )
        sweep, trials, costs = read_sweep(path), [], []
        while (found := propose(sweep, trials, len(trials))) is not None:
            point, values = found
            costs.append(cost(values))
            trials.append(Trial(point, sign * costs[-1]))
        best[method] = np.mean(costs[20:])
    assert best["bayes"] < 0.5 * best["random"]


def test_bayesian_search_keeps_away_from_runs_that_go_on(write_sweep):
    path = write_sweep(method="bayes", run_cap=60, parameters={"x": {"min": 0.0, "max": 1.0}})
    sweep = read_sweep(path)
    rng = np.random.default_rng(0)
    known = [Trial({"x": u}, -((u - 0.5) ** 2)) for u in rng.random(30)]
    failed = [Trial({"x": 0.9})]
    asked = []
    for _ in range(8):
        trials = known + failed + asked
        point, _ = propose(sweep, trials, len(trials))
        asked.append(Trial(point, running=True))
    places = sorted(run.point["x"] for run in asked)
    assert min(np.diff(places)) > 0
