"""Sweep files: read as W&B reads them, refused in one sentence that names file, key and remedy."""

import sys

import pytest
import wandb.wandb_agent
from wandb.wandb_agent import Agent

from rbs.cli.main import main
from rbs.errors import SweepError
from rbs.multirun.sweep.definition import read_sweep

MACROS = ["${args}", "${args_no_hyphens}", "${args_no_equals}", "${args_no_boolean_flags}"]
VALUES = {"model.lr": 1e-05, "spi": False, "skd": True, "loss": "l1", "none": None, "blocks": [1, 2]}


def command_of_the_agent(sweep, args, monkeypatch):
    """What `wandb agent` would run, by its own code, with the process alone replaced."""
    started = []

    class Process:
        def __init__(self, command=None, **_):
            started.append(command)

    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", Process)
    agent = Agent(api=None, queue=None)
    agent._sweep_command = list(sweep.command)
    args = {name: {"value": value} for name, value in args.items()}
    agent._command_run({"run_id": "r1", "program": sweep.program, "args": args})
    return started[0]


@pytest.fixture(autouse=True)
def _no_traces_of_an_agent(monkeypatch, tmp_path):
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # the agent sets them; monkeypatch puts them back
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))


@pytest.mark.parametrize("macro", MACROS)
def test_the_command_is_that_of_wandb_agent(write_sweep, monkeypatch, macro):
    monkeypatch.setenv("PLACE", "ward 7")
    command = ["${env}", "${interpreter}", "-m", "${program}", "--at=${envvar:PLACE}", "fit", macro]
    parameters = {name: {"value": value} for name, value in VALUES.items()}
    sweep = read_sweep(write_sweep(command=command, parameters=parameters))
    wanted = command_of_the_agent(sweep, VALUES, monkeypatch)
    # The agent says "python" and leaves it to the path; here it is the one that runs.
    assert [sys.executable if word == "python" else word for word in wanted] == sweep.command_line(VALUES)


def test_nested_parameters_are_handed_over_as_wandb_agent_does(write_sweep, monkeypatch):
    nested = {
        "model": {"parameters": {"lr": {"values": [0.1]}, "f1": {"parameters": {"width": {"value": 8}}}}}
    }
    sweep = read_sweep(write_sweep(parameters=nested))
    assert [p.name for p in sweep.parameters] == ["model.lr", "model.f1.width"]
    wanted = command_of_the_agent(sweep, {"model": {"lr": 0.1, "f1": {"width": 8}}}, monkeypatch)
    found = sweep.command_line({"model.lr": 0.1, "model.f1.width": 8})
    assert found[-1] == wanted[-1] == "--model={'lr': 0.1, 'f1': {'width': 8}}"


def test_arguments_of_the_caller_come_before_those_that_are_searched(write_sweep):
    sweep = read_sweep(write_sweep(command=["${program}", "fit", "${args}"]))
    assert sweep.command_line({"x": 2.0}, ["--x=1"])[1:] == ["fit", "--x=1", "--x=2.0"]


def test_metric_and_defaults_are_those_of_wandb(write_sweep):
    sweep = read_sweep(
        write_sweep(metric={"name": "loss"}, early_terminate={"type": "hyperband", "min_iter": 3})
    )
    assert not sweep.metric.maximise
    assert (sweep.early_terminate.eta, sweep.early_terminate.strict) == (3, True)
    assert sweep.command == tuple(Agent.DEFAULT_SWEEP_COMMAND)


BAD = {
    "unknown key": ({"methode": "grid"}, "methode is no key that rbs sweep knows; did you mean method"),
    "no method": ({"method": None}, "it has no method; add method:"),
    "method": ({"method": "hill"}, "method: 'hill' is not 'grid', 'random' or 'bayes'"),
    "endless": ({"method": "random"}, "method: random never ends by itself; add run_cap: 20"),
    "bayes without metric": ({"method": "bayes", "metric": None, "run_cap": 3}, "bayes needs a metric"),
    "goal": ({"metric": {"name": "a", "goal": "max"}}, "metric.goal: 'max' is not 'minimize' or 'maximize'"),
    "text number": (
        {"parameters": {"lr": {"min": "1e-5", "max": 0.1}}, "method": "random", "run_cap": 2},
        "parameters.lr.min: 1e-5 is text to YAML, not a number; write it with a point and a sign: 1.0e-4",
    ),
    "swapped": (
        {"parameters": {"lr": {"min": 1.0, "max": 0.1}}, "method": "random", "run_cap": 2},
        "parameters.lr: min 1.0 is not below max 0.1",
    ),
    "log of zero": (
        {"parameters": {"lr": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
        "parameters.lr: the logarithm of min 0 does not exist",
    ),
    "distribution": (
        {"parameters": {"lr": {"distribution": "log_uniform_value", "min": 0.1, "max": 1}}},
        "'log_uniform_value' is no distribution; did you mean log_uniform_values",
    ),
    "nothing said": (
        {"parameters": {"lr": {"min": 1}}},
        "parameters.lr: it has neither value, values nor min",
    ),
    "misspelt": (
        {"parameters": {"lr": {"valeus": [1], "value": 2}}},
        "parameters.lr.valeus is no key .*did you mean value",
    ),
    "grid of reals": (
        {"parameters": {"a": {"parameters": {"lr": {"min": 0.1, "max": 1.0}}}}},
        r"a grid cannot go through a uniform \(parameters.a.lr\); list values:",
    ),
    "probabilities": (
        {"parameters": {"a": {"values": [1, 2], "probabilities": [0.5, 0.6]}}},
        "sum up to 1.1",
    ),
    "macro": ({"command": ["${program}", "${arguments}"]}, r"\$\{arguments\} is no macro"),
    "no args": ({"command": ["${program}"]}, r"command: it does not pass on the parameters; add \$\{args\}"),
    "no brackets": (
        {"early_terminate": {"type": "hyperband", "max_iter": 9}},
        "early_terminate: it has no brackets",
    ),
    "eta": (
        {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1}},
        "early_terminate.eta: 1 cannot be used: input should be greater than 1",
    ),
    "stopping without metric": (
        {"early_terminate": {"type": "hyperband", "min_iter": 1}, "metric": None},
        "early_terminate needs a metric",
    ),
    "job": ({"job": "x"}, "job is no key that rbs sweep knows"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_by_file_key_and_remedy(write_sweep, changes, message):
    path = write_sweep(**changes)
    with pytest.raises(SweepError, match=message) as refused:
        read_sweep(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert refused.value.remedy


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("method: [grid\nprogram: x")
    with pytest.raises(SweepError, match="it is not valid YAML at line"):
        read_sweep(path)
    with pytest.raises(SweepError, match="it cannot be read"):
        read_sweep(tmp_path / "none.yaml")


def test_the_command_refuses_before_it_writes(write_sweep, tmp_path, capsys):
    path = write_sweep(method="hill")
    assert main(["sweep", str(path), "--output", str(tmp_path / "out")]) == 1
    said = "method: 'hill' is not 'grid', 'random' or 'bayes'; correct it."
    assert capsys.readouterr().err == f"rbs: {path}: {said}\n"
    assert not (tmp_path / "out").exists()
