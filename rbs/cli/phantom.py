"""`rbs phantom`: a cohort of phantom children to try everything on without patient data."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import positive

HELP = "write a cohort of phantom children: rapid and standard DICOM scans, truth and a manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write; an interrupted cohort in it is finished"
    )
    parser.add_argument(
        "--patients", type=int, default=137, help="number of children, at least 3 (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="decides everything random (default: %(default)s)"
    )
    parser.add_argument(
        "--rapid-velocity", type=positive, default=40.0, metavar="CM_PER_MIN", help="(default: %(default)g)"
    )
    parser.add_argument(
        "--standard-velocity",
        type=positive,
        default=20.0,
        metavar="CM_PER_MIN",
        help="(default: %(default)g)",
    )
    parser.add_argument(
        "--moving",
        action="store_true",
        help="let children move by up to 6 mm and their bladders fill between the two scans",
    )
    parser.add_argument(
        "--dose",
        type=positive,
        default=1.0,
        metavar="FACTOR",
        help="administered activity against the usual (default: %(default)g)",
    )
    parser.add_argument(
        "--farther",
        type=float,
        default=0.0,
        metavar="MM",
        help="collimators that much farther from the child, for more blur (default: %(default)g)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes to use (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Write the cohort.

    Raises:
        RbsError: The settings make no cohort, or the folder cannot take it.
    """
    from rbs.synthetic.cohort import Acquisition, write_cohort

    acquisition = Acquisition(
        args.rapid_velocity, args.standard_velocity, args.moving, args.dose, args.farther
    )
    manifest = write_cohort(args.out, args.patients, args.seed, acquisition=acquisition, workers=args.workers)
    print(f"{args.patients} phantom children: {manifest}")
