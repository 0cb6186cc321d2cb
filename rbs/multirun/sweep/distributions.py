"""W&B's distributions, each as its quantile function.

One number in [0, 1) then stands for a value of any of them, so random search draws, and Bayesian
search models, the same thing.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator

Number = int | float
Positive = Annotated[Number, Field(gt=0)]

_RANGE = {
    "uniform": {"min", "max"},
    "log_uniform": {"min", "max"},  # its bounds are exponents of e, those of ..._values are values
    "log_uniform_values": {"min", "max"},
}
_BELL = {"normal": {"mu", "sigma"}, "log_normal": {"mu", "sigma"}, "beta": {"a", "b"}}
DISTRIBUTIONS = {
    "constant": {"value"},
    "categorical": {"values", "probabilities"},
    "categorical_w_probabilities": {"values", "probabilities"},
    "int_uniform": {"min", "max"},
    "inv_log_uniform_values": {"min", "max"},
    **_RANGE,
    **_BELL,
    # With steps: multiples of q.
    **{f"q_{name}": keys | {"q"} for name, keys in (_RANGE | _BELL).items()},
}
"""Keys of each distribution."""

_NEEDED = {"value", "values", "min", "max"}
"""Keys without a default."""


class Strict(BaseModel):
    """Part of a sweep file: an unknown key, a number written as text and NaN are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Parameter(Strict):
    """A parameter that is searched, with the keys of its distribution.

    Attributes:
        path: Its keys from the outermost; one where it is not nested. A key may hold dots
            ("model.lr").
    """

    path: tuple[str, ...]
    distribution: str
    value: Any = None
    values: list[Any] = Field([], min_length=1)
    probabilities: list[NonNegativeFloat] | None = None
    min: Number = 0
    max: Number = 0
    mu: Number = 0
    sigma: Positive = 1
    a: Positive = 1
    b: Positive = 1
    q: Positive = 1

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, settings: Any) -> Any:
        """The distribution W&B takes where none is named."""
        if not isinstance(settings, dict) or settings.get("distribution") is not None:
            return settings
        ends = [settings[end] for end in ("min", "max") if end in settings]
        if "value" in settings:
            name = "constant"
        elif "values" in settings:
            name = "categorical"
        elif len(ends) == 2:
            name = "int_uniform" if all(isinstance(end, int) for end in ends) else "uniform"
        else:
            raise ValueError("it has neither value, values nor min and max", "add one of them")
        return settings | {"distribution": name}

    @model_validator(mode="after")
    def _checked(self) -> Parameter:
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"{self.distribution!r} is no distribution", near(self.distribution, DISTRIBUTIONS)
            )
        keys, given = DISTRIBUTIONS[self.distribution], self.model_fields_set - {"path", "distribution"}
        for name in sorted(given - keys):
            raise ValueError(f"{self.distribution} has no '{name}'", f"use {', '.join(sorted(keys))}")
        for name in sorted((keys & _NEEDED) - given):
            raise ValueError(f"{self.distribution} needs {name}", f"add {name}:")
        if "min" in keys and not self.min < self.max:
            raise ValueError(f"min {self.min} is not below max {self.max}", "swap them")
        if self.distribution == "int_uniform" and not isinstance(self.min + self.max, int):
            raise ValueError("min and max are not whole numbers", "use distribution: uniform")
        if self.distribution.endswith("log_uniform_values") and self.min <= 0:
            raise ValueError(f"the logarithm of min {self.min} does not exist", "use more than 0")
        if self.probabilities is not None and len(self.probabilities) != len(self.values):
            raise ValueError("its probabilities are not as many as values", "give one a value")
        if self.probabilities is not None and abs(sum(self.probabilities) - 1) > 1e-6:
            raise ValueError(f"its probabilities sum up to {sum(self.probabilities):g}", "make them 1")
        return self

    @property
    def name(self) -> str:
        """Its path with dots."""
        return ".".join(self.path)

    @property
    def categorical(self) -> bool:
        """True where its values are listed."""
        return bool(self.values)

    @property
    def logarithmic(self) -> bool:
        """True where its natural axis is logarithmic."""
        return "log" in self.distribution

    def at(self, quantile: float) -> Any:
        """The value at a quantile in [0, 1)."""
        if self.distribution == "constant":
            return self.value
        if self.categorical:
            return self.values[self.category(quantile)]
        if self.distribution == "int_uniform":
            return math.floor(self.min + quantile * (self.max + 1 - self.min))
        # Normal distributions are unbounded: their ends are no values.
        value = self._exact(self.distribution.removeprefix("q_"), min(max(quantile, 1e-9), 1 - 1e-9))
        return self._multiple(round(value / self.q)) if "q" in DISTRIBUTIONS[self.distribution] else value

    def category(self, quantile: float) -> int:
        """Index in `values` of the value at a quantile."""
        return next((i for i, end in enumerate(self._ends()) if quantile < end), len(self.values) - 1)

    def middle(self, category: int) -> float:
        """The quantile in the middle of a category."""
        ends = [0.0, *self._ends()]
        return (ends[category] + ends[category + 1]) / 2

    def choices(self) -> list[Any] | None:
        """All its values in order; None where they are not countable."""
        if self.distribution == "constant":
            return [self.value]
        if self.categorical:
            return self.values
        if self.distribution == "int_uniform":
            return list(range(int(self.min), int(self.max) + 1))
        if self.distribution == "q_uniform":
            return [self._multiple(k) for k in range(round(self.min / self.q), round(self.max / self.q) + 1)]
        return None

    def _ends(self) -> list[float]:
        return list(accumulate(self.probabilities or [1 / len(self.values)] * len(self.values)))

    def _exact(self, kind: str, quantile: float) -> float:
        from scipy import stats

        if kind == "beta":
            return float(stats.beta.ppf(quantile, self.a, self.b))
        if kind in ("normal", "log_normal"):
            value = float(stats.norm.ppf(quantile, self.mu, self.sigma))
        else:
            ends = (self.min, self.max)
            low, high = map(math.log, ends) if kind.endswith("_values") else ends
            # Inverse: uniform is the logarithm of 1 / value.
            value = low + (1 - quantile if kind.startswith("inv_") else quantile) * (high - low)
        return math.exp(value) if self.logarithmic else value

    def _multiple(self, k: int) -> Number:
        # Ten digits: 3 * 0.1 is to be 0.3.
        return k * self.q if isinstance(self.q, int) else float(f"{k * self.q:.10g}")


def near(name: str, known: Iterable[str]) -> str:
    """Remedy for an unknown name: the known one that is most like it, else all."""
    like = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {like[0]}" if like else f"use one of {', '.join(sorted(known))}"
