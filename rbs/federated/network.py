"""Server and sites on a network, by Flower's gRPC connections, or all on one machine.

Flower's newer SuperLink sends the program of a training to the sites along with the weights. Here
every site runs the rbs that is installed there, and nothing that comes from the server is executed;
hence the connections of `start_server` and `start_client`, which carry weights alone.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from flwr.client import Client, start_client
from flwr.common import (
    Code,
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    ReconnectIns,
    Scalar,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import ServerConfig, SimpleClientManager, start_server
from flwr.server.client_proxy import ClientProxy
from flwr.supercore import telemetry

from rbs.errors import RbsError, printable
from rbs.federated.networks import Network
from rbs.federated.plan import Order, Plan
from rbs.federated.rounds import FederationServer, Rounds
from rbs.federated.site import Site

log = logging.getLogger("rbs.federated")
logging.getLogger("flwr").setLevel(logging.CRITICAL)  # what matters is told by that
telemetry.FLWR_TELEMETRY_ENABLED = "0"  # also where Flower was imported before `rbs.federated`

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_OK = Status(Code.OK, "")
_FAILED = Status(Code.FIT_NOT_IMPLEMENTED, "the site could not train; its own log says why")
"""Messages of errors name files and patients, so no such message is sent."""
_RETRY_S = 2.0


def tell() -> None:
    """Print what happens, each line with its time."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.propagate = False


class SiteClient(Client):
    """The messages of a site: its name and key, weights, two counts and a loss.

    Args:
        site: The site.
        name: As the server's table names it.
        key: What the server expects of all sites.
    """

    def __init__(self, site: Site, name: str, key: str = "") -> None:
        self.site, self.name, self.key = site, name, key
        self.has_result = False

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        """Name and key."""
        return GetPropertiesRes(_OK, {"site": self.name, "key": self.key})

    def fit(self, ins: FitIns) -> FitRes:
        """A round of training."""
        try:
            order = Order(**ins.config)  # type: ignore[arg-type]
            log.warning("%s: round %d of %d", self.name, order.round, order.rounds)
            answer = self.site.train(parameters_to_ndarrays(ins.parameters), order)
        except Exception as error:  # the site stays for the next round
            log.error("%s could not train: %s", self.name, error, exc_info=not isinstance(error, RbsError))
            return FitRes(_FAILED, Parameters([], ""), 0, {})
        told: dict[str, Scalar] = {"layout": order.layout, "steps": answer.steps, "loss": answer.loss}
        return FitRes(_OK, ndarrays_to_parameters(answer.arrays), answer.patients, told)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Keep the result of the last round."""
        try:
            order = Order(**ins.config)  # type: ignore[arg-type]
            self.site.take(parameters_to_ndarrays(ins.parameters), order)
            self.site.keep(order)
            self.has_result = True
            log.warning("%s: the result is in %s", self.name, printable(self.site.file))
        except Exception as error:
            log.error("%s could not keep the result: %s", self.name, error)
        return EvaluateRes(_OK, 0.0, 0, {})


class _Here(ClientProxy):
    """A site in this process."""

    def __init__(self, client: SiteClient) -> None:
        super().__init__(client.name)
        self.client = client

    def get_properties(self, ins: GetPropertiesIns, timeout: Any, group_id: Any) -> GetPropertiesRes:
        return self.client.get_properties(ins)

    def get_parameters(self, ins: GetParametersIns, timeout: Any, group_id: Any) -> GetParametersRes:
        return self.client.get_parameters(ins)

    def fit(self, ins: FitIns, timeout: Any, group_id: Any) -> FitRes:
        return self.client.fit(ins)

    def evaluate(self, ins: EvaluateIns, timeout: Any, group_id: Any) -> EvaluateRes:
        return self.client.evaluate(ins)

    def reconnect(self, ins: ReconnectIns, timeout: Any, group_id: Any) -> DisconnectRes:
        return DisconnectRes("")


def simulate(plan: Plan, network: Network, sites: Mapping[str, Site], folder: Path) -> Path:
    """Run a federation in this process, one site after the other.

    Returns:
        The file of the weights.

    Raises:
        RbsError: Too few sites can train, or the folder holds another federation.
    """
    rounds = Rounds(plan, network, folder)
    manager = SimpleClientManager()
    for name, site in sites.items():
        manager.register(_Here(SiteClient(site, name, plan.key)))
    server = FederationServer(client_manager=manager, strategy=rounds)
    server.set_max_workers(1)
    server.fit(plan.rounds, None)
    return rounds.file


@dataclass(frozen=True)
class Tls:
    """Certificates of a server: its authority's, its own, and the key of that (PEM files)."""

    authority: Path
    certificate: Path
    key: Path


def serve(plan: Plan, network: Network, folder: Path, address: str, tls: Tls | None = None) -> Path:
    """Run the server of a federation until the last round is over.

    Returns:
        The file of the weights.

    Raises:
        RbsError: The address needs certificates or cannot be used, or too few sites can train.
    """
    if _reached_by_others(address) and (tls is None or not plan.key):
        fault = f"{address} is reached from other machines, but certificates or a key are missing"
        raise RbsError(fault, remedy="give --certificates and --key, or --address 127.0.0.1:PORT")
    certificates = tls and tuple(_read(file) for file in (tls.authority, tls.certificate, tls.key))
    rounds = Rounds(plan, network, folder)
    size = sum(array.nbytes for array in network.state_dict().values())
    server = FederationServer(client_manager=SimpleClientManager(), strategy=rounds)
    try:
        start_server(
            server_address=address,
            server=server,
            config=ServerConfig(num_rounds=plan.rounds, round_timeout=plan.round_s),
            grpc_max_message_length=4 * size + 2**20,
            certificates=certificates,  # type: ignore[arg-type]
        )
    except (RuntimeError, OSError, SystemExit) as error:
        if server.begun or (isinstance(error, SystemExit) and not error.code):
            raise
        fault = f"the server cannot listen on {address}"
        raise RbsError(fault, remedy="choose another --address, and check the certificates") from error
    return rounds.file


def join(client: SiteClient, address: str, authority: Path | None, wait_s: float) -> None:
    """Take part in a federation until the server ends it, over as many connections as it takes.

    Args:
        client: The site.
        address: Host and port of the server.
        authority: Certificate of the authority that the server's is signed by; None for those of
            the system, or for a server on this machine.
        wait_s: Time without a server after which the site gives up, s.

    Raises:
        RbsError: The server needs certificates, cannot be reached, or turned the site away.
    """
    insecure = authority is None and not _reached_by_others(address)
    root = None if authority is None else _read(authority)
    last, told = time.monotonic(), False
    while True:
        began = time.monotonic()
        try:
            start_client(server_address=address, client=client, insecure=insecure, root_certificates=root)
            if not client.has_result:
                fault = f"the server {address} ended the connection without a result"
                raise RbsError(fault, remedy="check --key and --name, or read the server's log")
            return
        except (grpc.RpcError, queue.Full) as error:
            now = time.monotonic()
            last, told = (now, False) if now - began > 2 * _RETRY_S else (last, told)
            if not told:
                log.warning("%s: the server %s cannot be reached; it is tried again", client.name, address)
                told = True
            if now - last > wait_s:
                fault = f"the server {address} cannot be reached"
                raise RbsError(fault, remedy="check that it runs, its address and certificate") from error
            time.sleep(_RETRY_S)


def _reached_by_others(address: str) -> bool:
    return address.rpartition(":")[0] not in LOOPBACK


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        fault = f"it cannot be read ({error.strerror})"
        raise RbsError(fault, file=file, remedy="name PEM files of certificates") from None
