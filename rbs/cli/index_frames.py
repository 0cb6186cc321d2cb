"""`rbs index-frames`: from a folder of endoscopic frames to the manifest that training reads."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.options import add_split_options, whole_positive

if TYPE_CHECKING:
    from rbs.data.indexing.endoscopy import FrameIndex

HELP = "find the frames and masks in a folder of endoscopy, split them by video, write a manifest"

SHOWN = 12
"""Lines of a kind that are shown on the terminal."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of pictures, at any depth")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="manifest to write, a .csv")
    parser.add_argument(
        "--group",
        metavar="REGEX",
        help="regular expression whose first group, found in a picture's path below FOLDER, names its video "
        "or patient; without it the layout tells, where it can",
    )
    add_split_options(parser, "groups", " where no folder names splits")
    parser.add_argument(
        "--workers", type=whole_positive, default=2, help="threads that read (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing manifest")


def run(args: argparse.Namespace) -> None:
    """Index a folder and say what became of it.

    Raises:
        RbsError: The folder holds nothing that can be used, or an output is in the way.
    """
    from rbs.data.indexing.endoscopy import index_frames
    from rbs.errors import FrameError

    found = index_frames(
        args.folder,
        args.manifest,
        group=args.group,
        seed=args.seed,
        shares=args.shares,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    print("\n".join(_summary(found)))
    if not found.rows:
        remedy = f"read the reasons and remedies in {found.refused}"
        raise FrameError("no picture in it can be used", file=args.folder, remedy=remedy)


def _summary(found: FrameIndex) -> Iterator[str]:
    from rbs.data.manifest import SPLITS

    rows = found.rows
    for source, number in sorted(Counter(row.source for row in rows).items()):
        masks = sum(row.source == source and row.mask is not None for row in rows)
        yield f"{source}: {number:,} frames, {masks:,} with a mask"
    if found.refusals:
        yield f"refused: {len(found.refusals):,} files, each with its reason and remedy in {found.refused}"
    for place, number in list(found.passed_over.items())[:SHOWN]:
        yield f"passed over, as no frames of the layout: {number:,} pictures in {place}"
    alike, sets = found.alike
    yield f"near-duplicates: {alike:,} frames in {sets:,} sets, each kept in one split" + (
        f"; listed in {found.duplicates}" if sets else ""
    )
    if not rows:
        return
    pairs = sum(row.low is not None for row in rows)
    yield f"{found.manifest}: {len(rows):,} frames" + (
        f", {pairs:,} with a picture of low quality" if pairs else ""
    )
    for name in SPLITS:
        inside = [row for row in rows if row.split == name]
        groups = len({row.group or row.frame for row in inside})
        yield f"  {name:<6} {len(inside):,} frames of {groups:,} videos, patients or single frames"
    yield from (f"  look at: {doubt}" for doubt in found.doubts[:SHOWN])
    if len(found.doubts) > SHOWN:
        yield f"  and {len(found.doubts) - SHOWN} more such moves, which {found.duplicates} shows"
