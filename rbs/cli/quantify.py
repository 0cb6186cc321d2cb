"""`rbs quantify`: hot spots by region and an open bone scan index."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbs.cli.file_by_file import originals_at
from rbs.cli.options import (
    add_allow_option,
    add_json,
    add_reading_options,
    add_segmenter_option,
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
    add_segmenter_option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace tables in OUT")
    add_reading_options(parser)
    add_standard_velocity(parser)
    add_allow_option(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Quantify a file or a folder, and write the tables.

    Raises:
        RbsError: IN was refused, or some file in it; each is named on standard error first.
        CheckpointError: The weights do not fit.
        OutputError: OUT is a file, or a table exists already or cannot be written.
    """
    from rbs.clinic.outcomes import Refusal
    from rbs.clinic.quantify_scans import SPOT_COLUMNS, quantify_files
    from rbs.errors import OutputError, printable
    from rbs.inference.segmentation import load_segmenter_for
    from rbs.utils.files import write_rows

    if args.target.exists() and not args.target.is_dir():
        raise OutputError("it is a file, not a folder", file=args.target, remedy="name a folder")
    for name in TABLES:
        if (table := args.target / name).exists() and not args.overwrite:
            raise OutputError("the table exists already", file=table, remedy="add --overwrite")
    sources, names = originals_at(args.source)
    segmenter = load_segmenter_for(args.segmenter)
    quantified, refused = [], []
    for outcome in quantify_files(sources, segmenter, reading_options(args), args.standard_velocity, names):
        if isinstance(outcome, Refusal):
            refused.append(outcome)
            if names:
                print(f"refused: {outcome.error}", file=sys.stderr)
            continue
        quantified.append(outcome)
        if not args.json:
            print(outcome)
    index = [one.index_row() for one in quantified]
    spots = [row for one in quantified for row in one.spot_rows()]
    regions = [row for one in quantified for row in one.region_rows()]
    if quantified:
        for name, rows in zip(TABLES, (index, spots, regions), strict=True):
            write_rows(args.target / name, rows, SPOT_COLUMNS)
        if not args.json:
            print(printable(f"written to {args.target}"))
    if args.json:
        told = [vars(refusal) for refusal in refused]
        print_result(args, {"index": index, "hot_spots": spots, "regions": regions, "refused": told}, "")
    if refused and not names:
        raise refused[0].error
    if refused:
        raise refusals_error(len(refused), len(sources))
