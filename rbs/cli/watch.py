"""`rbs watch`: restore the rapid scans that are put into a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_reading_options, add_standard_velocity, reading_options
from rbs.inference.strengths import DEFAULT, Strength

HELP = "restore the rapid scans (DICOM) that are put into a folder, until it is stopped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="where scans are put, in it or in folders below it"
    )
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="folder that gets the restored scans under the same names, and the refused ones in `refused`",
    )
    parser.add_argument(
        "--once", action="store_true", help="end when all that lies in FOLDER now is done, as for cron"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long a scan of one view waits for the other view of its acquisition (default: %(default)g)",
    )
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="DIR",
        help="folder of the queue, which remembers what was done (default: OUT/.rbs-spool)",
    )
    parser.add_argument(
        "--checkpoint",
        default="shipped",
        metavar="FILE",
        help=".safetensors, .ckpt or .onnx (default: shipped, the weights that come with rbs)",
    )
    parser.add_argument(
        "--strength",
        choices=tuple(Strength),
        default=DEFAULT,
        help="gentle keeps faint foci easiest to tell and most noise, strong is the quietest"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="beside every restored file its standard deviation, NAME_sd",
    )
    add_reading_options(parser)
    add_standard_velocity(parser)


def run(args: argparse.Namespace) -> None:
    """Watch until SIGTERM or Ctrl-C, or with --once until all is done.

    Raises:
        RbsError: A folder or the weights cannot be used; with --once also if a scan was refused.
    """
    import logging

    import watchfiles  # noqa: F401  where it is missing this names the extra `node`

    from rbs.cli.node import stopped_by_signals
    from rbs.cli.options import refusals_error
    from rbs.errors import RbsError
    from rbs.node.settings import Reading, Settings
    from rbs.node.watch import Watch

    if args.wait < 0:
        raise RbsError("--wait is a time in seconds", remedy="give 0 or more")
    settings = Settings(
        spool=args.spool or args.target / ".rbs-spool",
        refused=args.target / "refused",
        wait_s=0 if args.once else args.wait,
        checkpoint=args.checkpoint,
        strength=args.strength,
        uncertainty=args.uncertainty,
        standard_velocity=args.standard_velocity,
        reading=Reading(**reading_options(args)),
    )
    logging.basicConfig(format="%(asctime)s %(message)s")
    stop = stopped_by_signals()
    watch = Watch(args.folder, args.target, settings, lambda line: print(line, flush=True))
    print(f"watching {args.folder}", flush=True) if not args.once else None
    if (refused := watch.run(stop, once=args.once)) and args.once:
        raise refusals_error(refused, refused)
