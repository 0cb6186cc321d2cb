"""`rbs sweep`: run a W&B sweep file without a server, on one or several machines."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_fit_options, add_json, print_result
from rbs.utils.experiments import sweep_file

HELP = "search hyper-parameters by a W&B sweep file, without a server"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "file", type=sweep_file, metavar="FILE", help="sweep file, or the name of one of rbs such as stage1"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the runs, which several machines may work through (default: runs/sweeps/NAME)",
    )
    add_json(parser)
    add_fit_options(parser)


def run(args: argparse.Namespace) -> None:
    """Run what is missing, and write tables and figure of all runs.

    Raises:
        RbsError: The file cannot be used, the folder holds another sweep, or all runs failed.
    """
    from rbs.multirun.sweep.definition import read_sweep
    from rbs.multirun.sweep.results import write_results
    from rbs.multirun.sweep.runner import run_sweep

    sweep = read_sweep(args.file)
    output = args.output or Path("runs/sweeps") / args.file.stem
    runs = run_sweep(sweep, output, arguments=args.fit, workers=args.workers)
    table = write_results(sweep, runs, output)
    lines = [table.to_string(index=False, na_rep="")]
    undone = [run for run in runs if run.state in ("failed", "unfinished")]
    for one in undone:
        if one.claimed_elsewhere():
            lines.append(f"{one.folder.name}: another process is at work on it")
        else:
            lines.append(f"{one.folder.name} {one.state}: {one.last_line()} ({one.folder / 'output.txt'})")
    if undone:
        lines.append("give the same command again to go on with these")
    print_result(args, table, "\n".join([*lines, f"written to {output}"]))
