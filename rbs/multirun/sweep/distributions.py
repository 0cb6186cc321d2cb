"""W&B's distributions, each as its quantile function.

One number in [0, 1) then stands for a value of any of them, so random search draws, and Bayesian
search models, the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

CATEGORICAL = ("categorical", "categorical_w_probabilities")


@dataclass(frozen=True)
class Parameter:
    """What is searched.

    Attributes:
        path: Its keys from the outermost; one where it is not nested. A key may hold dots
            ("model.lr").
        distribution: One of `DISTRIBUTIONS`.
        settings: "values", or "min" and "max", ..., complete.
    """

    path: tuple[str, ...]
    distribution: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Its path with dots."""
        return ".".join(self.path)

    @property
    def logarithmic(self) -> bool:
        """Whether it is best drawn on a logarithmic axis."""
        return "log" in self.distribution

    def value(self, quantile: float) -> Any:
        """The value at a quantile in [0, 1)."""
        if self.distribution == "constant":
            return self.settings["value"]
        if self.distribution in CATEGORICAL:
            return self.settings["values"][self.category(quantile)]
        form = DISTRIBUTIONS[self.distribution]
        # Normal distributions are unbounded: their ends are no values.
        found = form.quantile(self.settings, min(max(quantile, 1e-9), 1 - 1e-9))
        if self.distribution == "int_uniform":
            return int(found)
        if "q" not in self.settings:
            return float(found)
        return _multiple(round(found / self.settings["q"]), self.settings["q"])

    def category(self, quantile: float) -> int:
        """The place in "values" that a quantile stands for."""
        count = len(self.settings["values"])
        shares = self.settings.get("probabilities") or [1 / count] * count
        return next((i for i, sum_ in enumerate(accumulate(shares)) if quantile < sum_), count - 1)


@dataclass(frozen=True)
class _Form:
    """Settings a distribution needs, those it has defaults for, and its quantile function."""

    needed: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    quantile: Callable[[Mapping[str, Any], float], float] = lambda settings, u: u


def _between(settings: Mapping[str, Any], u: float) -> float:
    return float(settings["min"] + u * (settings["max"] - settings["min"]))


def _log_between(settings: Mapping[str, Any], u: float) -> float:
    low, high = math.log(settings["min"]), math.log(settings["max"])
    return math.exp(low + u * (high - low))


def _inverse_log_between(settings: Mapping[str, Any], u: float) -> float:
    # Uniform is the logarithm of 1 / value.
    return _log_between(settings, 1 - u)


def _normal(settings: Mapping[str, Any], u: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(u, settings["mu"], settings["sigma"]))


def _beta(settings: Mapping[str, Any], u: float) -> float:
    from scipy.stats import beta

    return float(beta.ppf(u, settings["a"], settings["b"]))


def _whole(settings: Mapping[str, Any], u: float) -> float:
    return float(math.floor(settings["min"] + u * (settings["max"] + 1 - settings["min"])))


_RANGE, _BELL, _AB = ("min", "max"), {"mu": 0.0, "sigma": 1.0}, {"a": 1.0, "b": 1.0}

DISTRIBUTIONS: dict[str, _Form] = {
    "constant": _Form(("value",)),
    "categorical": _Form(("values",)),
    "categorical_w_probabilities": _Form(("values", "probabilities")),
    "int_uniform": _Form(_RANGE, {}, _whole),
    "uniform": _Form(_RANGE, {}, _between),
    "q_uniform": _Form(_RANGE, {"q": 1}, _between),
    # Its bounds are exponents of e, those of ..._values are values.
    "log_uniform": _Form(_RANGE, {}, lambda s, u: math.exp(_between(s, u))),
    "q_log_uniform": _Form(_RANGE, {"q": 1}, lambda s, u: math.exp(_between(s, u))),
    "log_uniform_values": _Form(_RANGE, {}, _log_between),
    "q_log_uniform_values": _Form(_RANGE, {"q": 1}, _log_between),
    "inv_log_uniform_values": _Form(_RANGE, {}, _inverse_log_between),
    "normal": _Form((), _BELL, _normal),
    "q_normal": _Form((), {**_BELL, "q": 1}, _normal),
    "log_normal": _Form((), _BELL, lambda s, u: math.exp(_normal(s, u))),
    "q_log_normal": _Form((), {**_BELL, "q": 1}, lambda s, u: math.exp(_normal(s, u))),
    "beta": _Form((), _AB, _beta),
    "q_beta": _Form((), {**_AB, "q": 1}, _beta),
}


def choices(parameter: Parameter) -> list[Any] | None:
    """All values of a parameter, in order; None where they cannot be counted."""
    settings = parameter.settings
    if parameter.distribution == "constant":
        return [settings["value"]]
    if parameter.distribution in CATEGORICAL:
        return list(settings["values"])
    if parameter.distribution == "int_uniform":
        return list(range(settings["min"], settings["max"] + 1))
    if parameter.distribution == "q_uniform":
        first, last = (round(settings[end] / settings["q"]) for end in _RANGE)
        return [_multiple(k, settings["q"]) for k in range(first, last + 1)]
    return None


def _multiple(k: int, step: float) -> float:
    # Ten digits: 3 * 0.1 is to be 0.3.
    return k * step if isinstance(step, int) else float(f"{k * step:.10g}")
