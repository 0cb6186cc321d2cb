"""`rbs federate`: train one network at several hospitals; scans stay where they are."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from rbs.cli.options import positive, whole_positive
from rbs.federated import NAME

HELP = "train a network across hospitals: weights travel, scans stay (server, client, or all simulated)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    roles = parser.add_subparsers(dest="role", required=True, metavar="ROLE")
    server = roles.add_parser("server", help="average the weights of the sites, round by round")
    client = roles.add_parser("client", help="train on the scans of a site")
    simulated = roles.add_parser("simulate", help="server and sites in one process, one after the other")
    for role, folder in ((server, "server"), (client, "site"), (simulated, "simulated")):
        role.add_argument(
            "--config",
            default="federated",
            metavar="FILE",
            help="experiment of stage 1 or of a segmenter, or its name in rbs; the same everywhere"
            " (default: %(default)s)",
        )
        role.add_argument(
            "--output",
            type=Path,
            default=Path("runs/federated") / folder,
            metavar="DIR",
            help="what is in it is gone on with (default: %(default)s)",
        )
    for role in (server, simulated):
        _add_plan(role)
    server.add_argument("--clients", type=whole_positive, required=True, metavar="N", help="sites expected")
    server.add_argument(
        "--address",
        type=_address,
        default="127.0.0.1:9092",
        metavar="HOST:PORT",
        help="where to listen; without certificates this machine only (default: %(default)s)",
    )
    server.add_argument(
        "--certificates",
        type=Path,
        nargs=3,
        metavar=("AUTHORITY", "CERTIFICATE", "KEY"),
        help="PEM files for connections that others cannot read",
    )
    server.add_argument(
        "--wait", type=positive, default=60.0, metavar="S", help="for missing sites (default: %(default)g s)"
    )
    server.add_argument(
        "--limit", type=positive, default=3600.0, metavar="S", help="of a round (default: %(default)g s)"
    )
    client.add_argument(
        "--server", type=_address, required=True, metavar="HOST:PORT", help="address of the server"
    )
    client.add_argument("--manifest", type=Path, required=True, help="manifest of the site")
    client.add_argument(
        "--name",
        type=_name,
        required=True,
        help="name of the site, up to 40 letters, digits, hyphens and underscores; the server sees it",
    )
    _add_local(client)
    client.add_argument(
        "--clip",
        type=positive,
        metavar="NORM",
        help="the longest update that leaves this site, whatever the server orders",
    )
    client.add_argument(
        "--authority", type=Path, metavar="FILE", help="PEM file of who signed the server's certificate"
    )
    client.add_argument(
        "--wait",
        type=positive,
        default=600.0,
        metavar="S",
        help="for a server that cannot be reached (default: %(default)g s)",
    )
    for role in (server, client):
        role.add_argument(
            "--key",
            type=Path,
            metavar="FILE",
            help="secret that server and sites share; nobody else takes part",
        )
    simulated.add_argument(
        "--manifests", type=Path, nargs="+", required=True, metavar="FILE", help="one a site"
    )


def _add_plan(parser: argparse.ArgumentParser) -> None:
    plan = parser.add_argument_group("plan")
    plan.add_argument("--rounds", type=whole_positive, default=20, help="default: %(default)s")
    plan.add_argument(
        "--steps", type=whole_positive, default=50, help="of each site in a round (default: %(default)s)"
    )
    plan.add_argument(
        "--minimum",
        type=whole_positive,
        metavar="N",
        help="updates a round needs (default: of more than half of the sites)",
    )
    plan.add_argument(
        "--mu", type=float, default=0.0, help="FedProx' pull to the common weights (default: 0, FedAvg)"
    )
    _add_local(plan)
    plan.add_argument("--clip", type=positive, metavar="NORM", help="longest update; longer ones are scaled")
    plan.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="FACTOR",
        help="differential privacy of sites: noise in the sum of updates, relative to --clip",
    )
    plan.add_argument(
        "--delta", type=positive, default=1e-5, help="of differential privacy (default: %(default)g)"
    )
    plan.add_argument(
        "--init-from", type=Path, metavar="FILE", help="weights that the first round starts from"
    )


def _add_local(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--local",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="norms,first",
        help="layers that stay at the sites: normalisations, the convolution of the input, or both",
    )


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError("up to 40 letters, digits, hyphens and underscores")
    return text


def run(args: argparse.Namespace) -> None:
    """Serve, take part, or simulate.

    Raises:
        RbsError: An option, a manifest or the connection cannot be used.
    """
    from rbs.errors import printable
    from rbs.federated.network import SiteClient, Tls, join, serve, simulate, tell
    from rbs.federated.site import Site, read_experiment

    tell()
    experiment = read_experiment(args.config)
    if args.role == "client":
        site = Site(experiment, args.manifest, args.output, local=args.local, clip=args.clip)
        join(SiteClient(site, args.name, _key(args.key)), args.server, args.authority, args.wait)
        print(printable(f"weights of this site: {site.file}"))
        return
    if args.role == "simulate":
        names = [f"site{number}" for number in range(1, len(args.manifests) + 1)]
        plan = _plan(args, len(names), key="")
        sites = {
            name: Site(experiment, manifest, args.output / name, local=args.local)
            for name, manifest in zip(names, args.manifests, strict=True)
        }
        file = simulate(plan, _first(experiment, args.init_from), sites, args.output)
    else:
        tls = Tls(*args.certificates) if args.certificates else None
        plan = _plan(args, args.clients, key=_key(args.key), wait_s=args.wait, round_s=args.limit)
        file = serve(plan, _first(experiment, args.init_from), args.output, args.address, tls)
    print(printable(f"weights: {file}; rounds: {args.output / 'rounds.csv'}"))
    if plan.noise:
        from rbs.federated.privacy import epsilon
        from rbs.federated.rounds import rounds_of

        spent = epsilon(plan.noise, rounds_of(file), plan.delta)
        print(f"differential privacy of sites: epsilon {spent:.3g} at delta {plan.delta:g}")


def _plan(args: argparse.Namespace, clients: int, **others: Any) -> Any:
    from rbs.federated.plan import Plan

    names = ("rounds", "steps", "mu", "local", "clip", "noise", "delta")
    own = {name: getattr(args, name) for name in names}
    return Plan(clients=clients, minimum=args.minimum or clients // 2 + 1, **own, **others)


def _first(experiment: Any, init_from: Path | None) -> Any:
    """The network that the first round starts from."""
    from rbs.errors import CheckpointError
    from rbs.federated.networks import kind_of
    from rbs.federated.site import untrained

    network = untrained(experiment)
    if init_from is None:
        return network
    given = kind_of(network).read(init_from)
    if given.spec() != network.spec():
        fault = f"it holds {given.spec()}, but the experiment trains {network.spec()}"
        raise CheckpointError(fault, file=init_from, remedy="name an experiment with the same network")
    return given


def _key(file: Path | None) -> str:
    from rbs.utils.secret_key import read_key

    remedy = "make one by `umask 077; openssl rand -hex 32 > FILE`, the same for server and sites"
    return "" if file is None else read_key(file, remedy).hex()
