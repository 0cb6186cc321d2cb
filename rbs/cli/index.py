"""`rbs index`: from a folder of exported files to a manifest for training and evaluation."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.cli.options import (
    add_json,
    add_split_options,
    option_group,
    print_result,
    refuse_options,
    whole_positive,
    within,
)
from rbs.scans.ranges import VELOCITY

if TYPE_CHECKING:
    from rbs.data.indexing.endoscopy import FrameIndex
    from rbs.data.indexing.scans import ScanIndex

HELP = "find the whole-body scans, or endoscopic frames, in a folder, split them by patient, write a manifest"

SHOWN = 12
"""Lines of a kind that are shown on the terminal; the rest are in the lists beside the manifest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the files, at any depth")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="manifest to write, a .csv"
    )
    parser.add_argument(
        "--kind",
        choices=("scans", "endoscopy"),
        help="what to look for; default: endoscopy where the folder holds pictures and no DICOM file",
    )
    add_split_options(parser)
    parser.add_argument(
        "--workers", type=whole_positive, default=2, help="files read at a time (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing manifest")
    add_json(parser)
    scans = option_group(parser, "scans")
    for kind in ("rapid", "standard"):
        fallback = " (20 if not given)" if kind == "standard" else ""
        scans.add_argument(
            f"--{kind}-velocity",
            type=within(VELOCITY),
            metavar="CM_PER_MIN",
            help=f"bed velocity of your {kind} scans{fallback}, also of those whose files do not say",
        )
    for view in ("anterior", "posterior"):
        scans.add_argument(
            f"--{view}",
            action="append",
            default=[],
            metavar="PATTERN",
            help=f"files of one view whose header does not name it are {view} if their path below DIR "
            "matches (in quotes; * and ? as in a shell)",
        )
    scans.add_argument(
        "--splits", type=Path, metavar="FILE", help="CSV of patient,split to follow; an older manifest is one"
    )
    option_group(parser, "endoscopy").add_argument(
        "--group",
        metavar="REGEX",
        help="regular expression whose first group, found in a picture's path below DIR, names its video "
        "or patient; without it the layout tells, where it can",
    )


def run(args: argparse.Namespace) -> None:
    """Index a folder and print a summary.

    Raises:
        RbsError: The folder holds no usable file, or an output exists.
    """
    kind = args.kind or _kind_of(args.folder)
    refuse_options(args, "endoscopy" if kind == "scans" else "scans")
    (_index_scans if kind == "scans" else _index_frames)(args)


def _kind_of(folder: Path) -> str:
    """Kind of the files in a folder: scans if any is DICOM, or if there is no picture either."""
    from rbs.endoscopy.media_type import kind_of
    from rbs.scans.dicom.files import may_be_a_scan
    from rbs.utils.files import regular_files

    pictures = False
    for path in regular_files(folder)[0]:
        if may_be_a_scan(path):
            return "scans"
        pictures = pictures or kind_of(path) == "picture"
    return "endoscopy" if pictures else "scans"


def _index_scans(args: argparse.Namespace) -> None:
    from rbs.data.indexing.scans import Split, Statements, index_scans, read_splits
    from rbs.errors import ManifestError

    found = index_scans(
        args.folder,
        args.output,
        statements=Statements(
            args.rapid_velocity, args.standard_velocity, tuple(args.anterior), tuple(args.posterior)
        ),
        split=Split(args.seed, args.shares, read_splits(args.splits) if args.splits else None),
        workers=args.workers,
        overwrite=args.overwrite,
    )
    splits = _scan_splits(found)
    document = _document("scans", found) | {"files": found.found, "read": found.read, "splits": splits}
    print_result(args, document, "\n".join(_scan_summary(found, splits)))
    if not found.cases:
        remedy = f"read the reasons and remedies in {found.refused}"
        raise ManifestError("no scan in it can be used", file=args.folder, remedy=remedy)


def _index_frames(args: argparse.Namespace) -> None:
    from rbs.data.indexing.endoscopy import index_frames
    from rbs.errors import FrameError

    found = index_frames(
        args.folder,
        args.output,
        group=args.group,
        seed=args.seed,
        shares=args.shares,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    splits, (alike, sets) = _frame_splits(found), found.alike
    document = _document("endoscopy", found) | {
        "splits": splits,
        "near_duplicates": {"frames": alike, "sets": sets, "list": found.duplicates},
        "no_frames_of_the_layout": found.passed_over,
    }
    print_result(args, document, "\n".join(_frame_summary(found, splits)))
    if not found.rows:
        remedy = f"read the reasons and remedies in {found.refused}"
        raise FrameError("no picture in it can be used", file=args.folder, remedy=remedy)


def _document(kind: str, found: ScanIndex | FrameIndex) -> dict[str, Any]:
    refusals = [{"file": r.file, "reason": r.reason, "remedy": r.remedy} for r in found.refusals]
    return {"kind": kind, "manifest": found.manifest, "refusals": refusals, "warnings": found.warnings}


def _scan_splits(found: ScanIndex) -> dict[str, dict[str, int]]:
    """Numbers of patients, pairs and standard scans alone of each split."""
    from rbs.data.manifest import SPLITS

    splits = {}
    for name in SPLITS:
        cases = [case for case in found.cases if case.split == name]
        pairs = sum(bool(case.rapid) for case in cases)
        patients = len({case.patient for case in cases})
        splits[name] = {"patients": patients, "pairs": pairs, "alone": len(cases) - pairs}
    return splits


def _frame_splits(found: FrameIndex) -> dict[str, dict[str, int]]:
    """Numbers of frames and groups of each split."""
    from rbs.data.manifest import SPLITS

    splits = {}
    for name in SPLITS:
        rows = [row for row in found.rows if row.split == name]
        splits[name] = {"frames": len(rows), "groups": len({row.group or row.frame for row in rows})}
    return splits


def _scan_summary(found: ScanIndex, splits: dict[str, dict[str, int]]) -> Iterator[str]:
    refused = len(found.refusals)
    yield (
        f"{found.found:,} DICOM files: {found.found - refused:,} used, {refused:,} refused "
        f"({found.read:,} read, {found.found - found.read:,} known from an earlier run)"
    )
    kinds = Counter(_kind_of_reason(refusal.reason) for refusal in found.refusals)
    for kind, number in kinds.most_common(SHOWN):
        yield f"  {number:7,}  {kind}"
    if refused:
        yield f"  each with its reason and remedy: {found.refused}"
    if not found.cases:
        return
    pairs, alone = (sum(split[key] for split in splits.values()) for key in ("pairs", "alone"))
    yield f"{found.manifest}: {pairs:,} pairs, {alone:,} standard scans alone"
    for name, split in splits.items():
        yield (
            f"  {name:<6} {split['patients']:,} patients: {split['pairs']:,} pairs, {split['alone']:,} alone"
        )
    yield from (f"  look at: {warning}" for warning in found.warnings)


def _frame_summary(found: FrameIndex, splits: dict[str, dict[str, int]]) -> Iterator[str]:
    rows = found.rows
    for source, number in sorted(Counter(row.source for row in rows).items()):
        masks = sum(row.source == source and row.mask is not None for row in rows)
        yield f"{source}: {number:,} frames, {masks:,} with a mask"
    if found.refusals:
        yield f"refused: {len(found.refusals):,} files, each with its reason and remedy in {found.refused}"
    for place, number in list(found.passed_over.items())[:SHOWN]:
        yield f"left out, as no frames of the layout: {number:,} pictures in {place}"
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
    for name, split in splits.items():
        groups = f"{split['groups']:,} videos, patients or single frames"
        yield f"  {name:<6} {split['frames']:,} frames of {groups}"
    yield from (f"  look at: {warning}" for warning in found.warnings[:SHOWN])
    if len(found.warnings) > SHOWN:
        yield f"  and {len(found.warnings) - SHOWN} more such moves, which {found.duplicates} shows"


def _kind_of_reason(reason: str) -> str:
    """A reason without what differs from file to file: it ends before the first path or number."""
    kind = re.split(r"[/\\\d]", reason, maxsplit=1)[0].rstrip(" :(,")
    return kind if kind == reason else f"{kind} ..."
