"""Hyperband as W&B's engine has it: every expectation here was computed by wandb/sweeps 0.3.0."""

import pytest

from rbs.multirun.sweep.definition import Hyperband
from rbs.multirun.sweep.hyperband import brackets, to_stop

# The example in the engine's own documentation.
RUNS = {"a": [10, 9], "b": [10, 10], "c": [10, 8, 8], "d": [10, 7, 7], "e": [10, 6, 6]}


def stopped(settings, runs, running, **options):
    names = list(runs)
    histories = {names.index(name): values for name, values in runs.items()}
    found = to_stop(settings, histories, {names.index(name) for name in running}, **options)
    return {names[place] for place in found}


def test_brackets_are_powers_of_eta():
    assert brackets(Hyperband(min_iter=3, eta=3), 100) == [3, 9, 27, 81]
    assert brackets(Hyperband(max_iter=27, s=2, eta=3), 100) == [3, 9]
    assert brackets(Hyperband(max_iter=5, s=2, eta=2), 100) == [1, 2]
    assert brackets(Hyperband(max_iter=5, s=9, eta=2), 100) == [1, 2]
    assert brackets(Hyperband(min_iter=3, eta=3), 8) == [3]


def test_the_engines_own_example():
    settings = Hyperband(max_iter=5, s=2, eta=2)
    assert stopped(settings, RUNS, "bcd", maximise=False) == {"b"}
    assert stopped(settings, RUNS, "abcde", maximise=False) == {"a", "b"}


def test_larger_is_better_where_it_is_maximised():
    settings = Hyperband(min_iter=2, eta=2)
    runs = {name: [-v for v in values] for name, values in RUNS.items()}
    assert stopped(settings, runs, "abcde", maximise=True) == stopped(settings, RUNS, "abcde", maximise=False)


def test_a_lone_run_goes_on_and_none_is_stopped_before_the_first_bracket():
    settings = Hyperband(min_iter=2, eta=3)
    assert stopped(settings, {"a": [5, 5, 5]}, "a", maximise=False) == set()
    assert stopped(settings, {"a": [5], "b": [1, 1]}, "a", maximise=False) == set()


@pytest.mark.parametrize(("strict", "wanted"), [(True, {"a"}), (False, set())])
def test_strict_judges_the_value_at_the_bracket_and_not_the_best_so_far(strict, wanted):
    settings = Hyperband(min_iter=2, eta=2, strict=strict)
    runs = {"a": [1, 9], "b": [5, 5], "c": [5, 4]}
    assert stopped(settings, runs, "a", maximise=False) == wanted


def test_one_of_eta_passes():
    runs = {f"{k:02d}": [k] for k in range(30)}
    assert len(stopped(Hyperband(min_iter=1, eta=3), runs, runs, maximise=False)) == 19
