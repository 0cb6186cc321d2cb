"""Rounds of a federation as the server sees them: who takes part, what is refused, what is kept."""

from __future__ import annotations

import csv
import hmac
import logging
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flwr.common import (
    EvaluateIns,
    FitIns,
    FitRes,
    GetPropertiesIns,
    Parameters,
    ReconnectIns,
    ndarrays_to_parameters,
)
from flwr.server import ClientManager, History, Server
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg

from rbs.errors import CheckpointError, RbsError, printable
from rbs.federated import NAME
from rbs.federated.layers import arrays_of, layout, put, shared_names
from rbs.federated.networks import Network, kind_of
from rbs.federated.plan import Plan
from rbs.federated.privacy import epsilon
from rbs.federated.updates import Update, averaged, outliers, read_update
from rbs.utils.checkpoint import read_safetensors
from rbs.utils.files import write_csv

log = logging.getLogger("rbs.federated")

ROUNDS = "rounds.csv"
INTRODUCTION_S = 5.0
"""Seconds in which a new connection has to say its name."""
FAILED_ROUNDS = 3
"""Rounds in a row with too few usable updates after which the server gives up."""
COLUMNS = (
    *("round", "site", "patients", "steps", "loss", "update_norm"),
    *("mb_down", "mb_up", "seconds", "refused"),
)


class Rounds(FedAvg):
    """FedAvg that checks every update, averages by patients or with noise, and keeps each round.

    Args:
        plan: The plan.
        network: The network that the first round starts from.
        folder: Folder of the weights and of `rounds.csv`; a federation in it is gone on with.

    Raises:
        CheckpointError: The folder holds another federation.
    """

    def __init__(self, plan: Plan, network: Network, folder: Path) -> None:
        super().__init__()
        self.plan, self.network, self.folder, self.kind = plan, network, folder, kind_of(network)
        # With local layers no site has all of its weights, so it is no network to be used.
        self.file = folder / ("shared.safetensors" if plan.local else self.kind.file)
        self.names = shared_names(network, plan.local)
        self.layout = layout(network, self.names)
        self.done = 0
        self._rows: list[dict[str, Any]] = []
        self._sites: dict[str, str | None] = {}
        self._asked: dict[str, ClientProxy] = {}
        self._began = self._sent_mb = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self.file.exists():
            self._resume()

    def _resume(self) -> None:
        told = read_safetensors(self.file)[1].provenance.get("federated", {})
        loaded = self.kind.read(self.file)
        if told.get("strategy") != self.plan.strategy() or loaded.spec() != self.network.spec():
            fault = "it is of a federation with other settings or another network"
            raise CheckpointError(fault, file=self.file, remedy="repeat its settings, or name a new folder")
        self.network, self.done = loaded, int(told["round"])
        table = self.folder / ROUNDS
        if not table.exists():
            raise CheckpointError("the table of its rounds is gone", file=table, remedy="name a new folder")
        with table.open(newline="") as file:
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
            told = proxy.get_properties(
                GetPropertiesIns({}), timeout=INTRODUCTION_S, group_id=None
            ).properties
            name, key = str(told.get("site", "")), str(told.get("key", ""))
            named = re.fullmatch(NAME, name)
            if named and hmac.compare_digest(key.encode(), self.plan.key.encode()):
                log.warning("site %s is here", name)
                return name
            log.warning("a connection was turned away: its key or its name is not valid")
            proxy.reconnect(ReconnectIns(seconds=None), timeout=10, group_id=None)
        except Exception as error:  # whatever a stranger may provoke concerns that connection alone
            log.warning("a connection was given up before it said its name (%s)", type(error).__name__)
        return None

    def _gather(self, manager: ClientManager, least: int) -> dict[str, ClientProxy]:
        """Wait for all sites, after `wait_s` for so many."""
        patience = time.monotonic() + self.plan.wait_s
        while True:
            admitted = self._admitted(manager)
            late = time.monotonic() > patience
            if len(admitted) >= (least if late else self.plan.clients):
                return admitted
            time.sleep(0.2)

    # --- a round

    def initialize_parameters(self, client_manager: ClientManager | None) -> Parameters:
        """The weights that the next round starts from."""
        return ndarrays_to_parameters(arrays_of(self.network, self.names))

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Order a round of all sites that are here."""
        self._asked = self._gather(client_manager, self.plan.minimum)
        self._began = time.monotonic()
        self._sent_mb = round(_size(parameters) / 1e6, 3)
        return [(proxy, FitIns(parameters, self._order())) for proxy in self._asked.values()]

    def _order(self) -> dict[str, Any]:
        return asdict(self.plan.order(min(self.done + 1, self.plan.rounds), self.layout))

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """Average the usable updates, and keep the weights; None where there are too few."""
        before = arrays_of(self.network, self.names)
        names = {proxy.cid: name for name, proxy in self._asked.items()}
        reasons = dict.fromkeys(self._asked, "it vanished or was too late")
        for failure in failures:
            if isinstance(failure, tuple):
                reasons[names[failure[0].cid]] = "it could not train"
        updates: dict[str, Update] = {}
        sizes: dict[str, int] = {}
        for proxy, answer in results:
            name = names[proxy.cid]
            sizes[name] = _size(answer.parameters)
            try:
                updates[name] = read_update(answer, before, self.layout)
                del reasons[name]
            except RbsError as error:
                reasons[name] = error.fault
        # With noise each update is clipped, and counts or not whatever the others are: who is
        # refused must not depend on another site, or its presence would show.
        reasons |= {} if self.plan.noise else outliers(updates)
        seconds = round(time.monotonic() - self._began, 1)
        for name in sorted(self._asked):
            row = {"round": server_round, "site": name, "seconds": seconds, "mb_down": self._sent_mb}
            row["mb_up"] = round(sizes.get(name, 0) / 1e6, 3)
            if one := updates.get(name):
                row |= {"patients": one.patients, "steps": one.steps}
                row |= {"loss": round(one.loss, 5), "update_norm": round(one.norm, 4)}
            if reason := reasons.get(name):
                row["refused"] = reason
                log.warning("round %d: the update of %s is not used: %s", server_round, name, reason)
            self._rows.append(row)
        usable = [one for name, one in updates.items() if name not in reasons]
        if len(usable) < self.plan.minimum:
            told = server_round, len(usable), self.plan.minimum
            log.warning("round %d failed: %d of at least %d usable updates", *told)
            self._write_rows()
            return None, {}
        put(self.network, self.names, averaged(before, usable, self.plan))
        self.done = server_round
        self._keep()
        return self.initialize_parameters(client_manager=None), {}

    # --- what is kept

    def _keep(self) -> None:
        """Write the table, then the weights, which say how much of the table counts."""
        self._write_rows()
        used = [row for row in self._rows[-len(self._asked) :] if not row.get("refused")]
        told: dict[str, Any] = {
            "round": self.done,
            "rounds": self.plan.rounds,
            "strategy": self.plan.strategy(),
        }
        if self.plan.noise:
            told["epsilon"] = epsilon(self.plan.noise, self.done, self.plan.delta)
        self.kind.save(self.file, self.network, {"steps": self.done * self.plan.steps, "federated": told})
        losses = ", ".join(f"{row['site']} {row['loss']:.4g}" for row in used)
        log.warning("round %d of %d: loss %s", self.done, self.plan.rounds, losses)

    def _write_rows(self) -> None:
        lines = ([row.get(column, "") for column in COLUMNS] for row in self._rows)
        write_csv(self.folder / ROUNDS, COLUMNS, lines)

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Hand the weights of the last round to all sites that are here."""
        sites = self._gather(client_manager, least=0).values()
        return [(proxy, EvaluateIns(parameters, self._order())) for proxy in sites]

    def aggregate_evaluate(self, *_: Any) -> tuple[None, dict[str, Any]]:
        """Nothing: the sites keep what they find."""
        return None, {}


def rounds_of(file: Path) -> int:
    """Rounds that the weights of a federation have behind them."""
    return int(read_safetensors(file)[1].provenance["federated"]["round"])


def _size(parameters: Parameters) -> int:
    return sum(map(len, parameters.tensors))


class FederationServer(Server):
    """Flower's server with rounds that are repeated until they succeed, and that can be resumed."""

    strategy: Rounds
    begun = False

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run the rounds that are missing, then hand the result to the sites.

        Raises:
            RbsError: Several rounds in a row had too few usable updates.
        """
        began, failed, self.begun = time.monotonic(), 0, True
        self.set_max_workers(self.max_workers or self.strategy.plan.clients)  # all sites train at once
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
        except BaseException:
            self.disconnect_all_clients(timeout)
            raise
        return History(), time.monotonic() - began

    def disconnect_all_clients(self, timeout: float | None) -> None:
        """Say good-bye; who does not answer at once is left."""
        super().disconnect_all_clients(10)
