"""A sweep file in W&B's grammar (https://docs.wandb.ai/models/sweeps/sweep-config-keys), checked.

A key that W&B takes and this reader does not is refused by name: ignored in silence, it would make
the same file mean two things.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from rbs.errors import SweepError
from rbs.multirun.runs import read_yaml
from rbs.multirun.sweep.distributions import Number, Parameter, Strict, near

_MACRO = re.compile(r"\$\{([^}]*)\}")
_ENVVAR = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")

_Model = TypeVar("_Model", bound=Strict)


class Metric(Strict):
    """The metric that is optimised, as logged ("val/nc_psnr"), and a value that is good enough."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: Number | None = None

    @property
    def maximise(self) -> bool:
        """True where larger is better."""
        return self.goal == "maximize"

    def reaches(self, value: float) -> bool:
        """True where a value is as good as the target."""
        return self.target is not None and (value >= self.target if self.maximise else value <= self.target)


class Hyperband(Strict):
    """Early stopping, see `rbs.multirun.sweep.hyperband`; an iteration is a value of the metric.

    Attributes:
        min_iter: First bracket; None where `max_iter` and `s` are given.
        max_iter: Iterations of a whole run.
        s: Number of brackets below `max_iter`.
        eta: Each bracket lets the better 1/eta pass.
        strict: Compare a run's value at the bracket; if false, its best one so far.
    """

    type: Literal["hyperband"] = "hyperband"
    min_iter: PositiveInt | None = None
    max_iter: PositiveInt | None = None
    s: PositiveInt | None = None
    eta: Annotated[Number, Field(gt=1)] = 3
    strict: bool = True

    @model_validator(mode="after")
    def _has_brackets(self) -> Hyperband:
        if self.min_iter is None and (self.max_iter is None or self.s is None):
            raise ValueError("it has no brackets", "add min_iter:, or max_iter: and s:")
        if self.max_iter is not None and self.max_iter < self.eta:
            fault = f"max_iter {self.max_iter} leaves no bracket below it with eta {self.eta}"
            raise ValueError(fault, "raise max_iter, or use min_iter")
        return self


class Sweep(Strict):
    """A sweep file.

    Attributes:
        file: The YAML file.
        program: What runs.
        method: How the runs are chosen.
        parameters: What is searched, nested ones flattened.
        metric: What is optimised; None where nothing is (a grid or random search alone).
        early_terminate: Early stopping; None for none.
        run_cap: Largest number of runs; None for a whole grid.
        command: Words and macros of the command line.
    """

    file: Path
    program: str
    method: Literal["grid", "random", "bayes"]
    parameters: tuple[Parameter, ...]
    metric: Metric | None = None
    early_terminate: Hyperband | None = None
    run_cap: PositiveInt | None = None
    command: tuple[str, ...] = ("${env}", "${interpreter}", "${program}", "${args}")
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None

    @field_validator("command", mode="before")
    @classmethod
    def _runs(cls, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError("it is no list", "write one word a line, each after a dash")
        words = tuple(map(str, value))
        for word in words:
            macro = _MACRO.fullmatch(word)
            if macro and macro[1] not in {*_FIXED, *_ARGS} and not _ENVVAR.search(word):
                known = ", ".join(f"${{{name}}}" for name in (*_FIXED, *_ARGS))
                raise ValueError(f"{word} is no macro that rbs sweep knows", f"use {known}")
        if not any(word == f"${{{name}}}" for word in words for name in _ARGS):
            raise ValueError("it does not pass on the parameters", "add ${args} to it")
        return words

    @model_validator(mode="after")
    def _ends(self) -> Sweep:
        needs = "method: bayes" if self.method == "bayes" else "early_terminate"
        if self.metric is None and (self.method == "bayes" or self.early_terminate is not None):
            raise ValueError(f"{needs} needs a metric", "add metric: {name: val/nc_psnr, goal: maximize}")
        if self.method != "grid" and self.run_cap is None:
            raise ValueError(f"method: {self.method} never ends by itself", "add run_cap: 20")
        for parameter in self.parameters:
            if self.method == "grid" and parameter.choices() is None:
                fault = f"a grid cannot go through a {parameter.distribution} (parameters.{parameter.name})"
                raise ValueError(fault, "list values:, or use method: random")
        return self

    @property
    def title(self) -> str:
        """Its `name`, else that of the file."""
        return self.name or self.file.stem

    @property
    def planned(self) -> int:
        """Number of runs there are to be."""
        grid = math.prod(len(p.choices() or []) for p in self.parameters) if self.method == "grid" else None
        return min(n for n in (grid, self.run_cap) if n is not None)

    def command_line(self, values: Mapping[str, Any], arguments: Sequence[str] = ()) -> list[str]:
        """The command of one run, as `wandb agent` makes it.

        Args:
            values: Value of each parameter by its dotted path.
            arguments: More arguments, put before those that are searched, which thus have the last
                word.
        """
        args = _nested(self.parameters, values)
        words: list[str] = []
        arguments = list(arguments)
        for word in self.command:
            word = _ENVVAR.sub(lambda match: os.environ.get(match[1], match[1]), word)
            macro = _MACRO.fullmatch(word)
            if macro is None:
                words.append(word)
            elif macro[1] in _FIXED:
                words.append(_FIXED[macro[1]] or self.program)
            else:
                words += [*arguments, *_ARGS[macro[1]](args)]
                arguments = []
        return words


_FIXED = {"env": "/usr/bin/env", "interpreter": sys.executable, "program": None}
_ARGS = {
    "args": lambda args: [f"--{name}={value}" for name, value in args.items()],
    "args_no_hyphens": lambda args: [f"{name}={value}" for name, value in args.items()],
    "args_no_equals": lambda args: [word for n, value in args.items() for word in (f"--{n}", str(value))],
    "args_no_boolean_flags": lambda args: [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in args.items()
        if value is not False
    ],
}


def _nested(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
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
    content = read_yaml(file, "name one of sweeps/*.yaml, or your own", SweepError)
    if "parameters" in content:
        content["parameters"] = tuple(_parameters(file, content["parameters"], ()))
    return _checked(Sweep, content | {"file": file}, file)


def _parameters(file: Path, content: Any, path: tuple[str, ...]) -> Iterator[Parameter]:
    key = ".".join(("parameters", *path))
    if not isinstance(content, dict) or not content:
        raise SweepError(
            f"{key} is no mapping of names", file=file, remedy=f"indent what belongs below {key}"
        )
    for name, settings in content.items():
        inner = (*path, str(name))
        if isinstance(settings, dict) and settings.keys() == {"parameters"}:
            yield from _parameters(file, settings["parameters"], inner)
        else:
            settings = {**settings, "path": inner} if isinstance(settings, dict) else settings
            yield _checked(Parameter, settings, file, f"{key}.{name}")


def _checked(model: type[_Model], content: Any, file: Path, key: str = "") -> _Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        fault, remedy = _explained(error.errors()[0], key)
        raise SweepError(fault, file=file, remedy=remedy) from error


def _explained(error: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Fault and remedy of what pydantic refuses."""
    # A number of either kind is refused as a whole number first, and named so.
    place = [str(part) for part in error["loc"] if part not in ("int", "float", "constrained-int")]
    where = ".".join([key, *place] if key else place)
    given = error["input"]
    if error["type"] == "value_error":
        fault, remedy = error["ctx"]["error"].args
        return (f"{where}: {fault}" if where else fault), remedy
    if error["type"] == "extra_forbidden":
        return f"{where} is no key that rbs sweep knows", near(place[-1], _KEYS)
    if error["type"] == "missing":
        return f"it has no {where}", f"add {place[-1]}:"
    if error["type"] == "literal_error":
        return f"{where}: {given!r} is not {error['ctx']['expected']}", "correct it"
    if isinstance(given, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", given):
        fault = f"{where}: {given} is text to YAML, not a number"
        return fault, "write it with a point and a sign: 1.0e-4"
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}: {given!r} cannot be used: {message}", "correct it"


_KEYS = {name for model in (Sweep, Metric, Hyperband, Parameter) for name in model.model_fields}
