"""`rbs node`: a DICOM node that receives rapid scans, restores them and sends them on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.cli.options import add_json, print_result

if TYPE_CHECKING:
    from rbs.node.queue import Queue
    from rbs.node.settings import Settings

HELP = "serve as a DICOM node: receive rapid scans, restore them, send them on (research use only)"

ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    _add_settings(parser, "node.toml")
    actions = parser.add_subparsers(metavar="ACTION", dest="action", title="actions, without one it serves")
    for name, text in (
        ("status", "print what the node holds"),
        ("retry", "begin anew with refused scans, and send what could not be sent"),
        ("drop", "take scans out and delete their files"),
        ("check", "try all that the node needs"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        _add_settings(action, argparse.SUPPRESS)
        if name == "status":
            action.add_argument("--scans", action="store_true", help="a line for each scan, too")
            add_json(action)
        if name in ("retry", "drop"):
            told = "number of a scan in `rbs node status --scans`, or `all`: each that was refused"
            more = " or could not be sent" if name == "retry" else ""
            action.add_argument("ids", nargs="+", type=_id, metavar="ID", help=told + more)


def _add_settings(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--settings",
        type=Path,
        default=default,
        metavar="FILE",
        help="the settings, as in deploy/node.toml (default: node.toml)",
    )


def _id(text: str) -> int | None:
    return None if text == ALL else int(text)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, or do what was asked for.

    Returns:
        The exit status: 1 if a check failed or a scan to retry or drop is unknown.

    Raises:
        RbsError: The settings, the spool or a port cannot be used.
    """
    import pynetdicom  # noqa: F401  where it is missing this names the extra `node`

    from rbs.node.queue import Queue
    from rbs.node.settings import read_settings

    settings = read_settings(args.settings)
    if args.action is None:
        return _serve(settings)
    if args.action == "check":
        return _check(settings)
    if args.action == "status":
        _status(args, Queue(settings.spool))
        return 0
    return _retry_or_drop(args, settings)


def stopped_by_signals() -> Any:
    """An event that SIGTERM and Ctrl-C set."""
    import signal
    import threading

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _serve(settings: Settings) -> int:
    import logging

    from rbs.node.service import serve

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("rbs").setLevel(logging.INFO)
    serve(settings, stopped_by_signals(), lambda told: print(told, flush=True))
    return 0


def _check(settings: Settings) -> int:
    from rbs.node.service import checks

    failed = False
    for need, error in checks(settings):
        print(f"failed: {need}: {error}" if error else f"ok: {need}", flush=True)
        failed |= error is not None
    return int(failed)


def _status(args: argparse.Namespace, queue: Queue) -> None:
    from rbs.node.status import Status, age

    status = Status.of(queue)
    lines = [f"{number:6d}  {state}" for state, number in status.counts.items()]
    if status.open:
        lines.append(f"oldest on its way: {age(status.waited_s)}, number {status.open[0].id}")
    ways: list[dict[str, object]] = []
    for (name, state), number in status.destinations().items():
        own = (one for one in status.deliveries if (one.destination, one.state) == (name, state))
        error = "" if state == "sent" else next((one.error for one in own if one.error), "")
        ways.append({"destination": name, "state": state, "files": number, "error": error})
        lines.append(f"to {name}: {number} {state}" + (f", {error}" if error else ""))
    scans = []
    for one in queue.entries() if args.scans else []:
        scans.append({"id": one.id, "state": one.state, "origin": one.origin, "name": one.name})
        scans[-1] |= {"received": one.received, "reason": one.reason}
        told = [f"{one.id:6d}", one.state, one.origin, age(status.now - one.received), one.name, one.reason]
        lines.append("  ".join(filter(None, told)))
    document = {"counts": status.counts, "oldest_s": status.waited_s, "deliveries": ways, "scans": scans}
    print_result(args, document, "\n".join(lines))


def _retry_or_drop(args: argparse.Namespace, settings: Settings) -> int:
    from rbs.node.audit import Audit
    from rbs.node.queue import Queue, State
    from rbs.node.spool import Spool

    queue, audit, unknown = Queue(settings.spool), Audit(settings.audit), 0
    spool = Spool(settings, queue)
    ids: list[int] = [id for id in args.ids if id is not None]
    if None in args.ids:
        refused = queue.entries(State.REFUSED)
        if args.action == "drop":
            ids += [entry.id for entry in refused]
        else:
            ids += [entry.id for entry in refused if entry.path.is_file()]
            ids += [delivery.entry for delivery in queue.deliveries("failed")]
    for id in dict.fromkeys(ids):
        entry = queue.get(id)
        if entry and (spool.drop(id) if args.action == "drop" else spool.retry(entry)):
            audit.record("dropped" if args.action == "drop" else "retried", entry=id, uid=entry.uid)
            print(f"{id}: {'dropped' if args.action == 'drop' else 'is tried again'}")
        else:
            again = entry and args.action == "retry"
            fault = "there is nothing to try again" if again else "there is no such scan"
            print(f"{id}: {fault}", file=sys.stderr)
            unknown += 1
    return int(unknown > 0)
