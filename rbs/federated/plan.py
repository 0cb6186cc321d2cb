"""The plan of a federation, and the order of a round that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rbs.errors import RbsError
from rbs.federated.layers import require_kinds


@dataclass(frozen=True)
class Order:
    """The order of a round, as the server sends it beside the weights.

    Attributes:
        layout: Digest of the network that the server means.
        round: Number of the round, from 1.
        rounds: Rounds in all.
        steps: Optimiser steps of the round.
        mu: Weight of FedProx' pull to the weights of the server; 0 for FedAvg.
        clip: Norm to which the update is clipped; 0 for not at all.
    """

    layout: str
    round: int
    rounds: int
    steps: int
    mu: float = 0.0
    clip: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The plan of a federation: what is trained how, and who may take part.

    Attributes:
        clients: Sites that are expected.
        rounds: Rounds in all.
        steps: Optimiser steps of each site and round.
        minimum: Usable updates that a round needs.
        mu: FedProx' weight of the pull to the common weights; 0 for FedAvg.
        local: Kinds of layers that stay at the sites.
        clip: Norm to which updates are clipped; None for not at all.
        noise: Standard deviation of the noise in the sum of the updates, relative to `clip`.
        delta: Probability that the stated epsilon does not hold.
        wait_s: Time to wait for missing sites before a round, s.
        round_s: Time limit of a round, s; later answers are not used.
        key: What every site must know to take part; empty for anybody.
    """

    clients: int
    rounds: int
    steps: int
    minimum: int
    mu: float = 0.0
    local: tuple[str, ...] = ()
    clip: float | None = None
    noise: float = 0.0
    delta: float = 1e-5
    wait_s: float = 60.0
    round_s: float = 3600.0
    key: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.clients:
            fault = f"rounds of at least {self.minimum} of {self.clients} sites cannot be"
            raise RbsError(fault, remedy="let --minimum be 1 to --clients")
        require_kinds(self.local)
        if not (0 <= self.mu < math.inf and 0 <= self.noise < math.inf and 0 < self.delta < 1):
            raise RbsError("mu and noise are finite and 0 or more, and delta is between 0 and 1")
        if self.noise and self.clip is None:
            raise RbsError("noise without a norm to clip to protects nobody", remedy="give --clip too")

    def strategy(self) -> dict[str, Any]:
        """What a federation that is gone on with must not change."""
        names = ("steps", "mu", "local", "clip", "noise", "delta")
        return {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in names}

    def order(self, number: int, layout: str) -> Order:
        """The order of a round."""
        return Order(layout, number, self.rounds, self.steps, self.mu, self.clip or 0.0)
