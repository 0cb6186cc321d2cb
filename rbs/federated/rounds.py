"""Rounds of a federation as the server sees them: who takes part, what is refused, what is kept."""

from __future__ import annotations

import csv
import hmac
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
from flwr.common import (
    EvaluateIns,
    FitIns,
    FitRes,
    GetPropertiesIns,
    Parameters,
    ReconnectIns,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import ClientManager, History, Server
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.strategy.aggregate import aggregate

from rbs.errors import CheckpointError, RbsError, printable
from rbs.federated.layers import LOCAL, Arrays, arrays_of, clipped, layout, norm, put, shared_names
from rbs.federated.privacy import epsilon
from rbs.federated.site import RESTORER, Order
from rbs.restorers.base import Restorer
from rbs.restorers.checkpoint import load_restorer, save_restorer
from rbs.utils.files import write_csv

log = logging.getLogger("rbs")

ROUNDS = "rounds.csv"
OUTLIER = 10
"""Norm of an update, relative to the median of its round, above which it is refused."""
MOST_PATIENTS = 100_000
FAILED_ROUNDS = 3
"""Rounds in a row with too few usable updates after which the server gives up."""
COLUMNS = (
    *("round", "site", "patients", "steps", "loss", "update_norm"),
    *("mb_down", "mb_up", "seconds", "refused"),
)


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
        if unknown := set(self.local) - set(LOCAL):
            fault = f"layers of the kind {', '.join(sorted(unknown))} are not known"
            raise RbsError(fault, remedy=f"name {' or '.join(LOCAL)} as --local")
        if self.mu < 0 or self.noise < 0 or not 0 < self.delta < 1:
            raise RbsError("mu and noise are 0 or more, and delta is between 0 and 1")
        if self.noise and self.clip is None:
            raise RbsError("noise without a norm to clip to protects nobody", remedy="give --clip too")

    def strategy(self) -> dict[str, Any]:
        """What a federation that is gone on with must not change."""
        names = ("steps", "mu", "local", "clip", "noise", "delta")
        return {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in names}


@dataclass(frozen=True)
class Update:
    """A usable answer of a site."""

    site: str
    arrays: Arrays
    change: Arrays
    patients: int
    row: dict[str, Any]


class Rounds(FedAvg):
    """FedAvg that checks every update, weights by patients or adds noise, and keeps each round.

    With noise, all sites count alike and the sum of updates is divided by the number of sites that
    are expected: one site more or less then changes the sum by no more than `clip`, however many
    patients it has.

    Args:
        plan: The plan.
        restorer: The restorer that the first round starts from.
        folder: Folder of the weights and of `rounds.csv`; a federation in it is gone on with.

    Raises:
        CheckpointError: The folder holds another federation.
    """

    def __init__(self, plan: Plan, restorer: Restorer, folder: Path) -> None:
        super().__init__()
        self.plan, self.restorer, self.folder = plan, restorer, folder
        # With local layers no site has all of its weights, so it is no restorer to be used.
        self.file = folder / ("shared.safetensors" if plan.local else RESTORER)
        self.names = shared_names(restorer, plan.local)
        self.layout = layout(restorer, self.names)
        self.done = 0
        self._rows: list[dict[str, Any]] = []
        self._sites: dict[str, str | None] = {}
        self._asked: dict[str, ClientProxy] = {}
        self._began = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            self._resume()

    def _resume(self) -> None:
        loaded = load_restorer(self.file)
        told = loaded.provenance.get("federated", {})
        if told.get("strategy") != self.plan.strategy() or loaded.restorer.spec() != self.restorer.spec():
            fault = "it is of a federation with other settings or another network"
            raise CheckpointError(fault, file=self.file, remedy="repeat its settings, or name a new folder")
        self.restorer, self.done = loaded.restorer, int(told["round"])
        with (self.folder / ROUNDS).open(newline="") as file:
            self._rows = [row for row in csv.DictReader(file) if int(row["round"]) <= self.done]
        log.warning("going on after round %d of %s", self.done, printable(self.file))

    # --- who takes part

    def _admitted(self, manager: ClientManager) -> dict[str, ClientProxy]:
        """Sites that are connected and known, by name; of two connections the newer one."""
        connected = dict(manager.all())
        for cid, proxy in connected.items():
            if cid not in self._sites:
                self._sites[cid] = self._introduced(proxy)
        return {name: proxy for cid, proxy in connected.items() if (name := self._sites[cid])}

    def _introduced(self, proxy: ClientProxy) -> str | None:
        """The name of a new connection, which must know the key; None where it is turned away."""
        try:
            told = proxy.get_properties(GetPropertiesIns({}), timeout=30, group_id=None).properties
            name, key = str(told.get("site", "")), str(told.get("key", ""))
            named = re.fullmatch(r"[A-Za-z0-9_-]{1,40}", name)
            if named and hmac.compare_digest(key.encode(), self.plan.key.encode()):
                log.warning("site %s is here", name)
                return name
            log.warning("a connection was turned away: its key or its name is not valid")
            proxy.reconnect(ReconnectIns(seconds=None), timeout=10, group_id=None)
        except Exception as error:  # whatever a stranger may provoke concerns that connection alone
            log.warning("a connection was given up before it said its name (%s)", type(error).__name__)
        return None

    def _gather(self, manager: ClientManager) -> dict[str, ClientProxy]:
        """Wait for all sites, after `wait_s` for the minimum."""
        patience = time.monotonic() + self.plan.wait_s
        while True:
            admitted = self._admitted(manager)
            late = time.monotonic() > patience
            if len(admitted) >= (self.plan.minimum if late else self.plan.clients):
                return admitted
            time.sleep(0.2)

    # --- a round

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters:
        """The weights that the next round starts from."""
        return ndarrays_to_parameters(arrays_of(self.restorer, self.names))

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Order a round of all sites that are here."""
        self._asked = self._gather(client_manager)
        self._began = time.monotonic()
        return [(proxy, FitIns(parameters, self._order())) for proxy in self._asked.values()]

    def _order(self) -> dict[str, Any]:
        plan = self.plan
        number = min(self.done + 1, plan.rounds)
        local = ",".join(plan.local)
        return asdict(Order(self.layout, number, plan.rounds, plan.steps, plan.mu, plan.clip or 0.0, local))

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """Average the usable updates, and keep the weights; None where there are too few."""
        before = arrays_of(self.restorer, self.names)
        names = {proxy.cid: name for name, proxy in self._asked.items()}
        rows = {name: self._row(name, before) for name in self._asked}
        reasons = dict.fromkeys(self._asked, "it vanished or was too late")
        for failure in failures:
            if isinstance(failure, tuple):
                reasons[names[failure[0].cid]] = "it could not train"
        usable = []
        for proxy, answer in results:
            name = names[proxy.cid]
            try:
                usable.append(self._update(name, answer, before, rows[name]))
                del reasons[name]
            except RbsError as error:
                reasons[name] = error.fault
        usable, outliers = _without_outliers(usable)
        for name, reason in (reasons | outliers).items():
            log.warning("round %d: the update of %s is not used: %s", server_round, name, reason)
            rows[name]["refused"] = reason
        self._rows += [rows[name] for name in sorted(rows)]
        if len(usable) < self.plan.minimum:
            log.warning(
                "round %d is repeated: %d of at least %d usable updates",
                *(server_round, len(usable), self.plan.minimum),
            )
            self._write_rows()
            return None, {}
        put(self.restorer, self.names, self._averaged(before, usable))
        self.done = server_round
        self._keep()
        return self.initialize_parameters(None), {}  # type: ignore[arg-type]

    def _row(self, name: str, sent: Arrays) -> dict[str, Any]:
        down = round(sum(array.nbytes for array in sent) / 1e6, 3)
        seconds = round(time.monotonic() - self._began, 1)
        return {"round": self.done + 1, "site": name, "mb_down": down, "mb_up": 0, "seconds": seconds}

    def _update(self, name: str, answer: FitRes, before: Arrays, row: dict[str, Any]) -> Update:
        """The update in an answer.

        Raises:
            RbsError: It cannot be used.
        """
        row["mb_up"] = round(sum(map(len, answer.parameters.tensors)) / 1e6, 3)
        patients, metrics = answer.num_examples, answer.metrics
        if metrics.get("layout") != self.layout:
            raise RbsError("its weights have other names or shapes")
        if not 1 <= patients <= MOST_PATIENTS:
            raise RbsError(f"{patients} patients cannot be")
        try:
            arrays = parameters_to_ndarrays(answer.parameters)
            row |= {"patients": patients, "steps": int(metrics["steps"]), "loss": float(metrics["loss"])}
        except Exception as error:  # bytes of a stranger
            raise RbsError(f"it cannot be read ({type(error).__name__})") from None
        if [a.shape for a in arrays] != [b.shape for b in before] or any(a.dtype.kind != "f" for a in arrays):
            raise RbsError("its weights have other shapes or types")
        change = [a.astype(np.float32) - b for a, b in zip(arrays, before, strict=True)]
        length = norm(change)
        if not np.isfinite([length, row["loss"]]).all():
            raise RbsError("it is not finite")
        row["update_norm"] = round(length, 4)
        row["loss"] = round(row["loss"], 5)
        return Update(name, arrays, change, patients, row)

    def _averaged(self, before: Arrays, updates: Sequence[Update]) -> Arrays:
        plan = self.plan
        if not plan.noise:
            weighted = []
            for one in updates:
                change = clipped(one.change, plan.clip)
                weighted.append(([b + c for b, c in zip(before, change, strict=True)], one.patients))
            return [array.astype(np.float32) for array in aggregate(weighted)]
        assert plan.clip is not None
        rng = np.random.default_rng()  # from the system: who knew the seed could take the noise off
        changes = [clipped(one.change, plan.clip) for one in updates]
        sums = [np.sum(arrays, axis=0) for arrays in zip(*changes, strict=True)]
        spread = plan.noise * plan.clip
        noisy = [total + rng.normal(0, spread, total.shape) for total in sums]
        return [(b + total / plan.clients).astype(np.float32) for b, total in zip(before, noisy, strict=True)]

    # --- what is kept

    def _keep(self) -> None:
        """Write the table, then the weights, which say how much of the table counts."""
        self._write_rows()
        used = [row for row in self._rows if int(row["round"]) == self.done and not row.get("refused")]
        told: dict[str, Any] = {
            "round": self.done,
            "rounds": self.plan.rounds,
            "strategy": self.plan.strategy(),
            "patients": {row["site"]: row["patients"] for row in used},
        }
        if self.plan.noise:
            told["epsilon"] = epsilon(self.plan.noise, self.done, self.plan.delta)
        provenance = {"stage": 1, "steps": self.done * self.plan.steps, "federated": told}
        save_restorer(self.file, self.restorer, provenance)
        losses = ", ".join(f"{row['site']} {row['loss']:.4g}" for row in used)
        log.warning("round %d of %d: loss %s", self.done, self.plan.rounds, losses)

    def _write_rows(self) -> None:
        lines = ([row.get(column, "") for column in COLUMNS] for row in self._rows)
        write_csv(self.folder / ROUNDS, COLUMNS, lines)

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Hand the weights of the last round to all sites that are here."""
        sites = self._admitted(client_manager).values()
        return [(proxy, EvaluateIns(parameters, self._order())) for proxy in sites]

    def aggregate_evaluate(self, *_: Any) -> tuple[None, dict[str, Any]]:
        """Nothing: the sites keep what they find."""
        return None, {}


def _without_outliers(updates: list[Update]) -> tuple[list[Update], dict[str, str]]:
    """Updates of usual length, and the reasons against the others by site."""
    if not updates:
        return [], {}
    usual = median_low([norm(one.change) for one in updates])
    longest = OUTLIER * usual if usual else float("inf")
    kept = [one for one in updates if norm(one.change) <= longest]
    reasons = {
        one.site: f"its norm is {norm(one.change) / usual:.0f} times the median of the round"
        for one in updates
        if norm(one.change) > longest
    }
    return kept, reasons


class FederationServer(Server):
    """Flower's server with rounds that are repeated until they succeed, and that can be resumed."""

    strategy: Rounds

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run the rounds that are missing, then hand the result to the sites.

        Raises:
            RbsError: Several rounds in a row had too few usable updates.
        """
        began, failed = time.monotonic(), 0
        self.parameters = self.strategy.initialize_parameters(self.client_manager())
        try:
            while self.strategy.done < num_rounds:
                found = self.fit_round(self.strategy.done + 1, timeout)
                if found and found[0]:
                    self.parameters, failed = found[0], 0
                    continue
                failed += 1
                if failed == FAILED_ROUNDS:
                    fault = f"{failed} rounds in a row had too few usable updates"
                    raise RbsError(fault, remedy=f"see {ROUNDS} and the log for the reasons")
            self.evaluate_round(num_rounds, timeout)
        except RbsError:
            self.disconnect_all_clients(timeout)
            raise
        return History(), time.monotonic() - began

    def disconnect_all_clients(self, timeout: float | None) -> None:
        """Say good-bye; who does not answer at once is left."""
        super().disconnect_all_clients(10)
