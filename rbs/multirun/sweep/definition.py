"""A sweep file in W&B's grammar (https://docs.wandb.ai/models/sweeps/sweep-config-keys), read and checked.

What W&B takes and this reader does not is refused by name: a key that is quietly ignored would make
the same file mean two things.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rbs.errors import SweepError
from rbs.multirun.sweep.distributions import CATEGORICAL, DISTRIBUTIONS, Parameter, choices

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")

_KEYS = {
    "program",
    "command",
    "method",
    "metric",
    "parameters",
    "early_terminate",
    "run_cap",
    "name",
    "description",
    "project",
    "entity",
}
_METHODS = ("grid", "random", "bayes")
_MACRO = re.compile(r"\$\{([^}]*)\}")
_ENVVAR = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


@dataclass(frozen=True)
class Metric:
    """What is optimised: a name as logged ("val/nc_psnr"), its direction, the value that is good enough."""

    name: str
    maximise: bool
    target: float | None = None

    def reaches(self, value: float) -> bool:
        """Whether a value is as good as the target."""
        return self.target is not None and (value >= self.target if self.maximise else value <= self.target)


@dataclass(frozen=True)
class Hyperband:
    """Early stopping (`rbs.multirun.sweep.hyperband`). Iterations are numbers of values of the metric logged.

    Attributes:
        min_iter: First bracket; None where `max_iter` and `s` are given.
        max_iter: Iterations of a whole run.
        s: Number of brackets below `max_iter`.
        eta: Each bracket lets the better 1/eta pass.
        strict: Whether a run is judged by its value at the bracket, not by its best one so far.
    """

    min_iter: int | None = None
    max_iter: int | None = None
    s: int | None = None
    eta: float = 3
    strict: bool = True


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        file: The YAML file.
        name: Its `name`, else the file's.
        program: What runs.
        command: Words and macros of the command line.
        method: "grid", "random" or "bayes".
        metric: What is optimised; None where nothing is (a grid alone).
        parameters: What is searched, nested ones flattened.
        hyperband: Early stopping; None for none.
        run_cap: Largest number of runs; None for a whole grid.
    """

    file: Path
    name: str
    program: str
    command: tuple[str, ...]
    method: str
    metric: Metric | None
    parameters: tuple[Parameter, ...]
    hyperband: Hyperband | None
    run_cap: int | None

    def command_line(self, values: Mapping[str, Any], arguments: Sequence[str] = ()) -> list[str]:
        """The command of one run, as `wandb agent` makes it.

        Args:
            values: Value of each parameter by its dotted path.
            arguments: More arguments, put before those that are searched, which thus have the last
                word.
        """
        args = nested(self.parameters, values)
        words: list[str] = []
        added = False
        for word in self.command:
            word = _ENVVAR.sub(lambda match: os.environ.get(match[1], match[1]), word)
            macro = _MACRO.fullmatch(word)
            if macro is None:
                words.append(word)
                continue
            if macro[1].startswith("args") and not added:
                words += arguments
                added = True
            words += self._expanded(macro[1], args)
        return words

    def _expanded(self, macro: str, args: Mapping[str, Any]) -> list[str]:
        fixed = {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [self.program]}
        return fixed[macro] if macro in fixed else _ARGS[macro](args)


def _no_equals(args: Mapping[str, Any]) -> list[str]:
    return [word for name, value in args.items() for word in (f"--{name}", str(value))]


def _no_boolean_flags(args: Mapping[str, Any]) -> list[str]:
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in args.items()
        if value is not False
    ]


_ARGS = {
    "args": lambda args: [f"--{name}={value}" for name, value in args.items()],
    "args_no_hyphens": lambda args: [f"{name}={value}" for name, value in args.items()],
    "args_no_equals": _no_equals,
    "args_no_boolean_flags": _no_boolean_flags,
}


def nested(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a run is given them: a nested parameter is one dictionary, as in W&B."""
    tree: dict[str, Any] = {}
    for parameter in parameters:
        branch = tree
        for key in parameter.path[:-1]:
            branch = branch.setdefault(key, {})
        branch[parameter.path[-1]] = values[parameter.name]
    return tree


def read_sweep(file: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        SweepError: It cannot be used; the message names the key and the remedy.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        fault = f"it cannot be read ({error.strerror})"
        raise SweepError(fault, file=file, remedy="name one of sweeps/*.yaml, or your own") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" at line {line + 1}"
        raise SweepError(f"it is not valid YAML{where}", file=file, remedy="correct it") from error
    return _Reader(file).sweep(content)


class _Reader:
    """Checks the parts of one file; every refusal names the file and the key."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def refuse(self, fault: str, remedy: str) -> SweepError:
        return SweepError(fault, file=self.file, remedy=remedy)

    def mapping(self, value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
            raise self.refuse(f"{key} is no mapping of names", f"indent what belongs below {key}")
        return value

    def known(self, value: Mapping[str, Any], key: str, names: set[str]) -> None:
        for name in value:
            if name not in names:
                near = difflib.get_close_matches(name, sorted(names), 1)
                remedy = f"did you mean '{near[0]}'?" if near else f"use {', '.join(sorted(names))}"
                raise self.refuse(f"{key}'{name}' is no key that rbs sweep knows", remedy.rstrip("?"))

    def number(self, value: Any, key: str, *, whole: bool = False, least: float = -math.inf) -> Any:
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
            raise self.refuse(
                f"{key}: {value} is text to YAML, not a number", "write it with a point and a sign: 1.0e-4"
            )
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            wanted = "a whole number" if whole else "a number"
            raise self.refuse(f"{key}: {value!r} is not {wanted}", "correct it")
        if value < least:
            raise self.refuse(f"{key}: {value} is less than {least:g}", "correct it")
        return value

    def sweep(self, content: Any) -> Sweep:
        top = self.mapping(content, "the file")
        self.known(top, "", _KEYS)
        for key in ("program", "method", "parameters"):
            if key not in top:
                raise self.refuse(f"it has no '{key}'", f"add {key}:")
        method = top["method"]
        if method not in _METHODS:
            raise self.refuse(f"method: {method!r} is none", f"use {', '.join(_METHODS)}")
        metric = self.metric(top.get("metric"))
        hyperband = self.hyperband(top["early_terminate"]) if "early_terminate" in top else None
        if metric is None and (method == "bayes" or hyperband is not None):
            needs = "method: bayes" if method == "bayes" else "early_terminate"
            raise self.refuse(f"{needs} needs a metric", "add metric: {name: val/nc_psnr, goal: maximize}")
        parameters = self.parameters(top["parameters"], ())
        if method == "grid":
            for parameter in parameters:
                if choices(parameter) is None:
                    fault = (
                        f"parameters.{parameter.name}: a grid cannot go through a {parameter.distribution}"
                    )
                    raise self.refuse(fault, "list values:, or use method: random")
        run_cap = top.get("run_cap")
        if run_cap is not None:
            self.number(run_cap, "run_cap", whole=True, least=1)
        elif method != "grid":
            raise self.refuse(f"method: {method} never ends by itself", "add run_cap: 20")
        return Sweep(
            self.file,
            str(top.get("name", self.file.stem)),
            str(top["program"]),
            self.command(top.get("command", list(DEFAULT_COMMAND))),
            method,
            metric,
            parameters,
            hyperband,
            run_cap,
        )

    def metric(self, value: Any) -> Metric | None:
        if value is None:
            return None
        metric = self.mapping(value, "metric")
        self.known(metric, "metric: ", {"name", "goal", "target"})
        if not isinstance(metric.get("name"), str):
            raise self.refuse("metric has no name", "add name: val/nc_psnr")
        goal = metric.get("goal", "minimize")
        if goal not in ("minimize", "maximize"):
            raise self.refuse(f"metric.goal: {goal!r} is none", "use minimize or maximize")
        target = metric.get("target")
        if target is not None:
            self.number(target, "metric.target")
        return Metric(metric["name"], goal == "maximize", target)

    def hyperband(self, value: Any) -> Hyperband:
        settings = self.mapping(value, "early_terminate")
        self.known(settings, "early_terminate: ", {"type", "min_iter", "max_iter", "s", "eta", "strict"})
        if settings.get("type") != "hyperband":
            raise self.refuse(f"early_terminate.type: {settings.get('type')!r} is none", "use hyperband")
        for key in ("min_iter", "max_iter", "s"):
            if key in settings:
                self.number(settings[key], f"early_terminate.{key}", whole=True, least=1)
        if "min_iter" not in settings and not {"max_iter", "s"} <= settings.keys():
            raise self.refuse("early_terminate has no brackets", "add min_iter:, or max_iter: and s:")
        eta = self.number(settings.get("eta", 3), "early_terminate.eta")
        if eta <= 1:
            raise self.refuse(f"early_terminate.eta: {eta} stops nothing", "use more than 1, such as 3")
        found = Hyperband(**{name: setting for name, setting in settings.items() if name != "type"})
        if found.max_iter is not None and found.max_iter < eta:
            fault = f"early_terminate.max_iter: {found.max_iter} leaves no bracket below it with eta {eta}"
            raise self.refuse(fault, "raise max_iter, or use min_iter")
        return found

    def command(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise self.refuse("command is no list", "write one word a line, each after a dash")
        words = tuple(str(word) for word in value)
        for word in words:
            macro = _MACRO.fullmatch(word)
            if (
                macro
                and macro[1] not in {"env", "interpreter", "program", *_ARGS}
                and not _ENVVAR.search(word)
            ):
                known = ", ".join(f"${{{name}}}" for name in ("env", "interpreter", "program", *_ARGS))
                raise self.refuse(f"command: {word} is no macro that rbs sweep knows", f"use {known}")
        if not any(word == f"${{{name}}}" for word in words for name in _ARGS):
            raise self.refuse("command hands the parameters to nobody", "add ${args} to it")
        return words

    def parameters(self, value: Any, path: tuple[str, ...]) -> tuple[Parameter, ...]:
        found: list[Parameter] = []
        for name, settings in self.mapping(value, ".".join(("parameters", *path))).items():
            here = (*path, name)
            key = f"parameters.{'.'.join(here)}"
            settings = self.mapping(settings, key)
            if "parameters" in settings:
                self.known(settings, f"{key}: ", {"parameters"})
                found += self.parameters(settings["parameters"], here)
            else:
                found.append(self.parameter(here, key, settings))
        return tuple(found)

    def parameter(self, path: tuple[str, ...], key: str, settings: dict[str, Any]) -> Parameter:
        distribution = settings.get("distribution") or _implied(settings)
        if distribution is None:
            raise self.refuse(f"{key} says neither value, values nor min and max", "add one of them")
        if distribution not in DISTRIBUTIONS:
            near = difflib.get_close_matches(str(distribution), list(DISTRIBUTIONS), 1)
            remedy = f"did you mean {near[0]}" if near else f"use one of {', '.join(DISTRIBUTIONS)}"
            raise self.refuse(f"{key}: {distribution!r} is no distribution", remedy)
        form = DISTRIBUTIONS[distribution]
        self.known(settings, f"{key}: ", {"distribution", *form.needed, *form.defaults})
        for name in form.needed:
            if name not in settings:
                raise self.refuse(f"{key}: {distribution} needs {name}", f"add {name}:")
        full = {**form.defaults, **{n: v for n, v in settings.items() if n != "distribution"}}
        if distribution in CATEGORICAL:
            self.categories(key, full)
        elif distribution != "constant":
            self.range(key, distribution, full)
        return Parameter(path, distribution, full)

    def categories(self, key: str, full: dict[str, Any]) -> None:
        if not isinstance(full["values"], list) or not full["values"]:
            raise self.refuse(f"{key}.values is no list", "write values: [1, 2, 3]")
        shares = full.get("probabilities")
        if shares is None:
            return
        if not isinstance(shares, list) or len(shares) != len(full["values"]):
            raise self.refuse(f"{key}.probabilities are not as many as values", "give one a value")
        for share in shares:
            self.number(share, f"{key}.probabilities", least=0)
        if abs(sum(shares) - 1) > 1e-6:
            raise self.refuse(f"{key}.probabilities sum up to {sum(shares):g}", "make them 1")

    def range(self, key: str, distribution: str, full: dict[str, Any]) -> None:
        for name, setting in full.items():
            self.number(setting, f"{key}.{name}", whole=distribution == "int_uniform")
        if "min" in full and not full["min"] < full["max"]:
            raise self.refuse(f"{key}: min {full['min']} is not below max {full['max']}", "swap them")
        if distribution.endswith("log_uniform_values") and full["min"] <= 0:
            raise self.refuse(f"{key}.min: the logarithm of {full['min']} does not exist", "use more than 0")
        for name in ("q", "sigma", "a", "b"):
            if name in full and full[name] <= 0:
                raise self.refuse(f"{key}.{name}: {full[name]} is not positive", "use more than 0")


def _implied(settings: Mapping[str, Any]) -> str | None:
    """The distribution W&B takes where none is named."""
    if "value" in settings:
        return "constant"
    if "values" in settings:
        return "categorical_w_probabilities" if "probabilities" in settings else "categorical"
    if "min" in settings and "max" in settings:
        whole = all(isinstance(settings[name], int) for name in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    return None
