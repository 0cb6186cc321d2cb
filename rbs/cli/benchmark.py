"""`rbs benchmark`: all trained peers beside the classical ones, in one table with costs and origins."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_allow_option, add_frame_options

HELP = "compare finished trainings and the classical peers in one table, with costs and origins"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV of the cases")
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder of a finished training, as `rbs fit` wrote it",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/benchmark"), metavar="DIR", help="default: %(default)s"
    )
    add_frame_options(parser)
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default="test", help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results in the output folder")
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate all under one protocol, measure what they cost, and write the table.

    Raises:
        RbsError: A run, the manifest or a scan cannot be used, or the output cannot be written.
    """
    import shlex
    import sys

    from rbs.errors import RbsError
    from rbs.evaluation.manifests import evaluate_manifest
    from rbs.multirun.benchmark import FILE, measure_costs, method_of, table, write
    from rbs.multirun.runs import Training
    from rbs.report.tables import read_evaluation

    trainings = [Training.read(folder) for folder in args.runs]
    names = [training.folder.name for training in trainings]
    if len(set(names)) < len(names):
        raise RbsError("two runs have one name", remedy="name folders whose last part differs")
    evaluate_manifest(
        args.manifest,
        args.output,
        trained=[method_of(training) for training in trainings],
        preset=args.preset,
        split=args.split,
        command=shlex.join(["rbs", *sys.argv[1:]]),
        overwrite=args.overwrite,
    )
    evaluation = read_evaluation(args.output)
    write(args.output, table(evaluation, trainings, measure_costs(evaluation, trainings)), evaluation)
    print((args.output / f"{FILE}.md").read_text(encoding="utf-8"))
    print(f"written to {args.output} as {FILE}.md, .tex and .csv")
