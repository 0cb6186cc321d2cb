"""`rbs evaluate-real`: restorers and peers on slow real scans, thinned to faster ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbs.cli.options import (
    add_allow_option,
    add_json,
    add_reading_options,
    command_line,
    positive,
    print_result,
    reading_options,
    refusals_error,
    whole_positive,
    within,
)
from rbs.scans.ranges import VELOCITY
from rbs.weights.shipped import NAME, weights_path

HELP = "score restorers and classical peers on slow raw scans of your own, thinned to faster ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "scans", nargs="+", type=Path, metavar="SCAN", help="DICOM file of raw counts, or folder of them"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the table and the pictures, which show the patients; the same command given again "
        "goes on in it, and further scans or weights are added to it",
    )
    add_reading_options(parser, velocity="--from-velocity")
    parser.add_argument(
        "--velocities",
        type=within(VELOCITY),
        nargs="*",
        default=[40.0, 60.0, 80.0],
        metavar="CM_PER_MIN",
        help="bed velocities to simulate; a scan is thinned to those faster than itself (default: 40 60 80)",
    )
    parser.add_argument(
        "--times",
        type=positive,
        nargs="+",
        default=[],
        metavar="N",
        help="also simulate N times the velocity of the scan itself: 2 halves its counts",
    )
    parser.add_argument(
        "--draws",
        type=whole_positive,
        default=3,
        metavar="K",
        help="rapid scans drawn (default: %(default)s)",
    )
    parser.add_argument(
        "--stage1",
        type=weights_path,
        action="append",
        metavar="FILE",
        help="restorer, .safetensors, .ckpt or .onnx; given again: others to compare (default: shipped)",
    )
    parser.add_argument("--adapt", action="store_true", help="a row more each: fitted to the rapid scan")
    parser.add_argument("--strengths", action="store_true", help="a row more each of every strength")
    parser.add_argument(
        "--against", metavar="METHOD", help="compare all others with this one (default: the best peer)"
    )
    add_json(parser)
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate and print the tables.

    Raises:
        ScanError: Some scans could not be used; each is named on standard error first.
        RbsError: No scan can be used, a checkpoint does not fit, or the output cannot be written.
    """
    from rbs.errors import RbsError
    from rbs.evaluation.real.methods import peers, restorers
    from rbs.evaluation.real.run import evaluate_real
    from rbs.evaluation.real.scans import Speed, read_scans
    from rbs.report.real_scans import about, read_real_scans, speed_tables

    relative = (Speed(times, relative=True) for times in args.times)
    speeds = list(dict.fromkeys([*map(Speed, args.velocities), *relative]))
    if not speeds:
        raise RbsError("there is no speed to simulate", remedy="name one with --velocities or --times")
    options = reading_options(args)
    scans, refused = read_scans(args.scans, speeds, **options)
    for error in refused:
        print(f"refused: {error}", file=sys.stderr)
    if scans:
        trained = restorers(args.stage1 or [weights_path(NAME)], adapt=args.adapt, strengths=args.strengths)
        table = evaluate_real(
            *(scans, speeds, args.draws, peers(), trained, args.output),
            against=args.against,
            command=command_line(),
        )
        results = read_real_scans(args.output)
        text = "\n\n".join([*(found.as_text() for found in speed_tables(results)), about(results)])
        link = f"`rbs report {args.output} -o report.html` makes a page of it"
        document = {"output": args.output, "table": table, "refused": [str(error) for error in refused]}
        print_result(args, document, f"{text}\n\nwritten to {args.output}; {link}")
    if refused:
        raise refusals_error(len(refused), len(scans) + len(refused))
