"""`rbs index`: from a folder of exported files to the manifest that training and evaluation read."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rbs.cli.options import add_split_options, positive

if TYPE_CHECKING:
    from rbs.data.indexing.scans import Index

HELP = "find the whole-body scans in a folder, pair rapid with standard, split by patient, write a manifest"

SHOWN = 12
"""Kinds of refusals told apart on the terminal; the rest are in the list beside the manifest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of DICOM files, at any depth")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="manifest to write, a .csv"
    )
    for kind in ("rapid", "standard"):
        fallback = " (20 if not given)" if kind == "standard" else ""
        parser.add_argument(
            f"--{kind}-velocity",
            type=positive,
            metavar="CM_PER_MIN",
            help=f"bed velocity of your {kind} scans{fallback}, also of those whose files do not say",
        )
    for view in ("anterior", "posterior"):
        parser.add_argument(
            f"--{view}",
            action="append",
            default=[],
            metavar="PATTERN",
            help=f"files of one view whose header does not name it are {view} if their path below DIR "
            "matches (in quotes; * and ? as in a shell)",
        )
    parser.add_argument(
        "--splits",
        type=Path,
        metavar="FILE",
        help="CSV of patient,split to follow; an older manifest is one",
    )
    add_split_options(parser, "patients")
    parser.add_argument("--workers", type=int, default=2, help="processes to use (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing manifest")


def run(args: argparse.Namespace) -> None:
    """Index a folder and say what became of it.

    Raises:
        RbsError: The folder holds nothing that can be used, or an output is in the way.
    """
    from rbs.data.indexing.scans import Split, Stated, index, read_splits
    from rbs.errors import ManifestError

    found = index(
        args.folder,
        args.output,
        stated=Stated(
            args.rapid_velocity, args.standard_velocity, tuple(args.anterior), tuple(args.posterior)
        ),
        split=Split(args.seed, args.shares, read_splits(args.splits) if args.splits else None),
        workers=args.workers,
        overwrite=args.overwrite,
    )
    print("\n".join(_summary(found)))
    if not found.cases:
        remedy = f"read the reasons and remedies in {found.refused}"
        raise ManifestError("no scan in it can be used", file=args.folder, remedy=remedy)


def _summary(found: Index) -> Iterator[str]:
    from rbs.data.manifest import SPLITS

    refused = len(found.refusals)
    yield (
        f"{found.found:,} DICOM files: {found.found - refused:,} used, {refused:,} refused "
        f"({found.read:,} read, {found.found - found.read:,} known from an earlier run)"
    )
    kinds = Counter(_kind(refusal.reason) for refusal in found.refusals)
    for kind, number in kinds.most_common(SHOWN):
        yield f"  {number:7,}  {kind}"
    if refused:
        yield f"  each with its reason and remedy: {found.refused}"
    if not found.cases:
        return
    rapid = sum(bool(case.rapid) for case in found.cases)
    yield f"{found.manifest}: {rapid:,} pairs, {len(found.cases) - rapid:,} standard scans alone"
    for name in SPLITS:
        cases = [case for case in found.cases if case.split == name]
        patients = len({case.patient for case in cases})
        pairs = sum(bool(case.rapid) for case in cases)
        yield f"  {name:<6} {patients:,} patients: {pairs:,} pairs, {len(cases) - pairs:,} alone"
    yield from (f"  look at: {doubt}" for doubt in found.doubts)


def _kind(reason: str) -> str:
    """A reason without what differs from file to file: it ends before the first path or number."""
    kind = re.split(r"[/\\\d]", reason, maxsplit=1)[0].rstrip(" :(,")
    return kind if kind == reason else f"{kind} ..."
