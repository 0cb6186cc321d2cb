"""`rbs mucosa`: drawn endoscopy frames to try everything on without anybody's pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import whole_positive

HELP = "write drawn endoscopy videos: frames, masks of their polyps and a manifest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write; an interrupted collection in it is finished"
    )
    parser.add_argument(
        "--videos",
        type=whole_positive,
        default=12,
        help="number of videos, at least 3 (default: %(default)s)",
    )
    parser.add_argument(
        "--frames", type=whole_positive, default=6, help="frames of each video (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=whole_positive,
        default=256,
        metavar="PIXELS",
        help="height and width of a frame (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="decides everything random (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the collection.

    Raises:
        RbsError: The settings make no collection, or the folder cannot take it.
    """
    from rbs.data.mucosa import write_mucosa

    manifest = write_mucosa(args.out, args.videos, args.frames, args.size, args.seed)
    print(f"{args.videos} videos of {args.frames} frames: {manifest}")
