"""`rbs quantify`: hot spots by region and an open bone scan index."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from rbs.cli.options import (
    add_allow_option,
    add_json,
    add_reading_options,
    add_standard_velocity,
    print_result,
    reading_options,
    refusals_error,
)

HELP = "measure hot spots by region, their share of the skeleton, and regional counts (research use only)"

TABLES = ("index.csv", "hot_spots.csv", "regions.csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", type=Path, metavar="IN", help="DICOM file of raw counts, or folder of them")
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="folder of the tables: index.csv, hot_spots.csv and regions.csv",
    )
    parser.add_argument(
        "--segmenter",
        default="shipped",
        metavar="FILE",
        help="weights of a segmenter (default: shipped, those that come with rbs)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace tables in OUT")
    add_reading_options(parser)
    add_standard_velocity(parser)
    add_allow_option(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Quantify a file or a folder, and write the tables.

    Raises:
        ScanError: IN was refused, or some file in it; each is named on standard error first.
        CheckpointError: The weights do not fit.
        OutputError: A table exists already or cannot be written.
    """
    from rbs.clinic.outcomes import Refusal
    from rbs.clinic.quantify_scans import quantify_files
    from rbs.clinic.sources import source_of, sources_in
    from rbs.errors import OutputError, printable
    from rbs.inference.segmentation import load_segmenter_for

    for name in TABLES:
        if (table := args.target / name).exists() and not args.overwrite:
            raise OutputError("the table exists already", file=table, remedy="add --overwrite")
    sources = sources_in(args.source).sources if args.source.is_dir() else [source_of(args.source)]
    segmenter = load_segmenter_for(args.segmenter)
    quantified, refusals = [], 0
    for outcome in quantify_files(sources, segmenter, reading_options(args), args.standard_velocity):
        if isinstance(outcome, Refusal):
            refusals += 1
            print(f"refused: {outcome.error}", file=sys.stderr)
            continue
        quantified.append(outcome)
        if not args.json:
            print(outcome)
    rows = (
        [one.index_row() for one in quantified],
        [row for one in quantified for row in one.spot_rows()],
        [row for one in quantified for row in one.region_rows()],
    )
    if quantified:
        for name, of in zip(TABLES, rows, strict=True):
            _write(args.target / name, of)
        if not args.json:
            print(printable(f"written to {args.target}"))
    if args.json:
        print_result(args, dict(zip(("index", "hot_spots", "regions"), rows, strict=True)), "")
    if refusals:
        raise refusals_error(refusals, refusals + len(quantified))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table; a number that is not defined is an empty cell."""
    from rbs.utils.files import write_csv

    head = list(rows[0]) if rows else ["file"]
    write_csv(path, head, ([_cell(value) for value in row.values()] for row in rows))


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
