"""`rbs benchmark`: trained and classical peers in one table with costs and origins."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_allow_option, add_evaluation_options, add_json, command_line, print_result

HELP = "compare finished trainings and the classical peers in one table, with costs and origins"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="CSV of the cases")
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="finished training: the folder that `rbs fit` wrote",
    )
    add_evaluation_options(parser, "runs/benchmark")
    add_json(parser)
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate all under one protocol, measure what they cost, and write the table.

    Raises:
        RbsError: A run, the manifest or a scan cannot be used, or the output cannot be written.
    """
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
        command=command_line(),
        overwrite=args.overwrite,
    )
    evaluation = read_evaluation(args.output)
    rows = table(evaluation, trainings, measure_costs(evaluation, trainings))
    write(args.output, rows, evaluation)
    text = (args.output / f"{FILE}.md").read_text(encoding="utf-8")
    print_result(args, rows, f"{text}\nwritten to {args.output} as {FILE}.md, .tex and .csv")
