"""`rbs check`: look for faults of scans that can be read all the same."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.options import (
    add_json,
    add_reading_options,
    each_file,
    print_result,
    reading_options,
    refusals_error,
)

if TYPE_CHECKING:
    from rbs.report.quality import CheckedScan

HELP = "look for motion, extravasation, wrong labels, filters and other faults of scans (research use only)"

FOUND = 3
"""Exit status where something was found; 1 is for files that cannot be read, 2 for options."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.epilog = (
        f"Exit status: 0 where nothing was found, {FOUND} where something was, 1 where a file was refused."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="PATH", help="DICOM file, or folder of them")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="also write one HTML page, with every place marked"
    )
    add_reading_options(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings of each file.

    Returns:
        The exit status.

    Raises:
        ScanError: Some files could not be read; each is named on standard error first.
        OutputError: The page cannot be written.
    """
    from rbs.errors import RbsError, printable
    from rbs.utils.words import counted

    checked, refusals = [], 0
    for file, scan in each_file(args.files, partial(_checked, args=args)):
        if isinstance(scan, RbsError):
            refusals += 1
            continue
        checked.append(scan)
        if not args.json:
            number = counted(len(scan.findings), "finding") if scan.findings else "nothing found"
            print(f"{printable(file)}: {number}")
            for finding in scan.findings:
                print(f"  {printable(finding)}")
    if args.output:
        from rbs.report.quality import write_quality_page

        write_quality_page(checked, args.output)
        if not args.json:
            print(f"written to {printable(args.output)}")
    if args.json:
        print_result(args, [scan.as_dict() for scan in checked], "")
    if refusals:
        raise refusals_error(refusals, refusals + len(checked))
    return FOUND if any(scan.findings for scan in checked) else 0


def _checked(file: Path, args: argparse.Namespace) -> CheckedScan:
    """Read and check a file; noise that is not Poisson's is a finding here, no reason to refuse."""
    from rbs.report.quality import CheckedScan
    from rbs.scans.dicom.reader import read_nm
    from rbs.scans.quality.check import check_quality

    scan = read_nm(file, **reading_options(args), require_raw=False)
    return CheckedScan.of(file, scan, check_quality(scan), picture=args.output is not None)
