"""`rbs report`: results as one self-contained HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make one self-contained HTML page of evaluations and training runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder of an evaluation or a training run"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="write every figure of the page there, as SVG and as PDF"
    )


def run(args: argparse.Namespace) -> None:
    """Write the page; an older one is replaced.

    Raises:
        RbsError: A folder holds nothing to report, or the page cannot be written.
    """
    from rbs.errors import printable
    from rbs.report.page import write_report

    write_report(args.runs, args.output, figure_folder=args.figures)
    figures = f", figures to {args.figures}" if args.figures else ""
    print(printable(f"written to {args.output}{figures}"))
