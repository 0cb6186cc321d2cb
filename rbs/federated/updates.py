"""Updates of sites: read with suspicion, and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from flwr.common import FitRes, parameters_to_ndarrays
from flwr.server.strategy.aggregate import aggregate

from rbs.errors import RbsError
from rbs.federated.layers import Arrays, clipped, norm
from rbs.federated.plan import Plan

OUTLIER = 10
"""Norm of an update, relative to the median of its round, above which it is refused."""

COMPARED = 3
"""Updates of a round from which on they are compared with each other."""
MOST_PATIENTS = 100_000


@dataclass(frozen=True)
class Update:
    """A usable answer of a site.

    Attributes:
        change: What the site changed in the weights.
        patients: Its training patients.
        steps: Its steps.
        loss: Its mean training loss.
        norm: Norm of the change.
    """

    change: Arrays
    patients: int
    steps: int
    loss: float
    norm: float


def read_update(answer: FitRes, before: Arrays, layout: str) -> Update:
    """The update in an answer.

    Args:
        answer: Of a site, which may hold anything.
        before: Weights that the site was sent.
        layout: Digest of their names and shapes.

    Raises:
        RbsError: It cannot be used.
    """
    metrics = answer.metrics
    if metrics.get("layout") != layout:
        raise RbsError("its weights have other names or shapes")
    if not 1 <= answer.num_examples <= MOST_PATIENTS:
        raise RbsError(f"{answer.num_examples} patients cannot be")
    try:
        arrays = parameters_to_ndarrays(answer.parameters)
        steps, loss = int(metrics["steps"]), float(metrics["loss"])
    except Exception as error:  # bytes of a stranger
        raise RbsError(f"it cannot be read ({type(error).__name__})") from None
    if [a.shape for a in arrays] != [b.shape for b in before] or any(a.dtype.kind != "f" for a in arrays):
        raise RbsError("its weights have other shapes or types")
    change = [a.astype(np.float32) - b for a, b in zip(arrays, before, strict=True)]
    length = norm(change)
    if not np.isfinite([length, loss]).all():
        raise RbsError("it is not finite")
    return Update(change, answer.num_examples, steps, loss, length)


def outliers(updates: dict[str, Update]) -> dict[str, str]:
    """Sites whose updates are far longer than usual in the round, and the reason against each.

    Of two updates nobody can say which is the unusual one.
    """
    usual = median([one.norm for one in updates.values()]) if len(updates) >= COMPARED else 0.0
    return {
        site: f"its norm is {one.norm / usual:.0f} times the median of the round"
        for site, one in updates.items()
        if usual and one.norm > OUTLIER * usual
    }


def averaged(before: Arrays, updates: Sequence[Update], plan: Plan) -> Arrays:
    """Weights after a round: the mean by patients, or the noisy one of differential privacy.

    With noise all sites count alike, and the sum of updates is divided by the number of sites that
    are expected: one site more or less then changes the sum by no more than `clip`, however many
    patients it has.
    """
    changes = [clipped(one.change, plan.clip) for one in updates]
    if not plan.noise:
        mean = aggregate([(c, one.patients) for c, one in zip(changes, updates, strict=True)])
    else:
        assert plan.clip is not None
        rng = np.random.default_rng()  # seeded by the system, not by the experiment
        spread = plan.noise * plan.clip
        sums = [np.sum(layer, axis=0) for layer in zip(*changes, strict=True)]
        mean = [(total + rng.normal(0, spread, total.shape)) / plan.clients for total in sums]
    return [(b + m).astype(np.float32) for b, m in zip(before, mean, strict=True)]
