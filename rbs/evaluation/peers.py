"""Classical peers: one parameter each, tuned on the validation split.

A baseline tuned less carefully than the method it is compared with proves nothing; one tuned on the
test split would be no peer either.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rbs.evaluation.methods import Method
from rbs.evaluation.pairs import Pair
from rbs.scans.scan import Array


@dataclass(frozen=True)
class Classical:
    """A classical peer before it is tuned.

    Attributes:
        name: As in the CSV files.
        label: As printed; the tuned parameter is filled in.
        restore: Pair and parameter to an estimate.
        parameter: Name of the parameter.
        candidates: Values to try.
        on_phantoms: The one that suits phantom children at 40 cm/min best, for scans that nothing
            may be tuned on.
    """

    name: str
    label: str
    restore: Callable[[Any, float], Array]
    parameter: str
    candidates: tuple[float, ...]
    on_phantoms: float = math.nan

    def method(self, value: float, **settings: Any) -> Method:
        """The peer with this value of its parameter, as a row of the table."""
        restore = partial(self.restore, **{self.parameter: value})
        return Method(self.name, self.label.format(value), restore, {self.parameter: value, **settings})


def has_bm3d() -> bool:
    """True if BM3D's package is installed; its licence is for non-commercial use only."""
    return importlib.util.find_spec("bm3d") is not None


def tune(peers: Sequence[Classical], validation: Iterable[Pair]) -> list[dict[float, float]]:
    """Measure the error of every candidate on the validation split, by `Pair.error`.

    Args:
        peers: The peers.
        validation: Pairs of the validation split; consumed once, one at a time.

    Returns:
        For each peer, and each of its candidates, the mean over patients.

    Raises:
        ValueError: There are no pairs.
    """
    errors: dict[str, list[list[list[float]]]] = {}
    for pair in validation:
        scores = [[pair.error(peer.restore(pair, value)) for value in peer.candidates] for peer in peers]
        errors.setdefault(pair.patient, []).append(scores)
    if not errors:
        raise ValueError("no validation pairs to tune on")
    tables = []
    for number, peer in enumerate(peers):
        by_patient = [np.mean([scan[number] for scan in scans], axis=0) for scans in errors.values()]
        means = np.mean(by_patient, axis=0)
        tables.append(dict(zip(peer.candidates, (float(m) for m in means), strict=True)))
    return tables


def best(table: dict[float, float]) -> float:
    """The candidate with the least error."""
    return min(table, key=lambda value: table[value])


def tuned_methods(peers: Sequence[Classical], validation: Iterable[Pair]) -> list[Method]:
    """Classical peers as rows of the table, tuned on the validation split."""
    return [
        peer.method(best(errors), error_on_validation=errors)
        for peer, errors in zip(peers, tune(peers, validation), strict=True)
    ]
