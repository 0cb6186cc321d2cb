"""`rbs inspect`: content of scans as rbs reads it, and their fitness for restoring and training."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.options import (
    add_json,
    add_reading_options,
    add_standard_velocity,
    each_file,
    print_result,
    reading_options,
    refusals_error,
)

if TYPE_CHECKING:
    from rbs.clinic.checks import AcceptanceReport

HELP = "show how rbs reads DICOM files and whether they are fit for restoring and training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="DICOM file, or folder of them")
    add_reading_options(parser)
    add_standard_velocity(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Print a report a file.

    Raises:
        ScanError: Some files could not be read; each is named on standard error first.
    """
    from rbs.errors import RbsError

    reports, refusals = [], 0
    for _, report in each_file(args.files, partial(_report, args=args)):
        if isinstance(report, RbsError):
            refusals += 1
            continue
        reports.append(report)
        if not args.json:  # at once: a folder takes minutes
            print(report)
    if args.json:
        print_result(args, [report.as_dict() for report in reports], "")
    if refusals:
        raise refusals_error(refusals, refusals + len(reports))


def _report(file: Path, args: argparse.Namespace) -> AcceptanceReport:
    """Read and check a file; other noise than Poisson, and unnamed views, are reported."""
    from rbs.clinic.checks import check
    from rbs.scans.dicom.reader import read_nm

    scan = read_nm(file, **reading_options(args), require_raw=False, require_views=False)
    return check(scan, standard_velocity=args.standard_velocity)
