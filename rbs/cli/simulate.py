"""`rbs simulate`: drawn scans or endoscopic videos to try everything on without patient data."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import option_group, positive, refuse_options, whole_positive, within
from rbs.scans.ranges import VELOCITY

HELP = (
    "write drawn data without patients: phantom children (DICOM, truth) or endoscopic videos, and a manifest"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write; an interrupted run in it is finished"
    )
    parser.add_argument(
        "--kind",
        choices=("scans", "endoscopy"),
        default="scans",
        help="rapid and standard scans of phantom children, or videos with polyps (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="decides everything random (default: %(default)s)"
    )
    scans = option_group(parser, "scans")
    scans.add_argument(
        "--patients", type=int, default=137, help="number of children, at least 3 (default: %(default)s)"
    )
    for name, velocity in (("rapid", 40.0), ("standard", 20.0)):
        scans.add_argument(
            f"--{name}-velocity",
            type=within(VELOCITY),
            default=velocity,
            metavar="CM_PER_MIN",
            help="(default: %(default)g)",
        )
    scans.add_argument(
        "--moving",
        action="store_true",
        help="let children move by up to 6 mm and their bladders fill between the two scans",
    )
    scans.add_argument(
        "--dose",
        type=positive,
        default=1.0,
        metavar="FACTOR",
        help="administered activity relative to the usual (default: %(default)g)",
    )
    scans.add_argument(
        "--farther",
        type=float,
        default=0.0,
        metavar="MM",
        help="collimators that much farther from the child, for more blur (default: %(default)g)",
    )
    scans.add_argument("--workers", type=int, default=2, help="processes to use (default: %(default)s)")
    endoscopy = option_group(parser, "endoscopy")
    endoscopy.add_argument(
        "--videos",
        type=whole_positive,
        default=12,
        help="videos, at least 3 (default: %(default)s)",
    )
    endoscopy.add_argument(
        "--frames", type=whole_positive, default=6, help="frames of each video (default: %(default)s)"
    )
    endoscopy.add_argument(
        "--size",
        type=whole_positive,
        default=256,
        metavar="PIXELS",
        help="height and width of a frame (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the cohort or the collection.

    Raises:
        RbsError: The settings are out of range, or the folder cannot be used.
    """
    from rbs.errors import printable

    refuse_options(args, "endoscopy" if args.kind == "scans" else "scans")
    if args.kind == "endoscopy":
        from rbs.data.mucosa import write_mucosa

        manifest = write_mucosa(args.out, args.videos, args.frames, args.size, args.seed)
        print(printable(f"{args.videos} videos of {args.frames} frames: {manifest}"))
        return
    from rbs.synthetic.cohort import Acquisition, write_cohort

    acquisition = Acquisition(
        args.rapid_velocity, args.standard_velocity, args.moving, args.dose, args.farther
    )
    manifest = write_cohort(args.out, args.patients, args.seed, acquisition=acquisition, workers=args.workers)
    print(printable(f"{args.patients} phantom children: {manifest}"))
