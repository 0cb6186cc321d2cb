"""`rbs recover-counts`: count scans from pictures that are scaled counts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbs.cli.options import add_json, print_result, within
from rbs.scans.ranges import SPACING, VELOCITY

if TYPE_CHECKING:
    from regex import Pattern

    from rbs.segmentation.coco import CocoFile

HELP = "turn 8-bit pictures that are scaled counts back into count scans (DICOM), with a receipt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "source", type=Path, metavar="IN", help="PNG or JPEG, or folder (with those below it)"
    )
    parser.add_argument(
        "target", type=Path, metavar="OUT", help="folder to write; an interrupted run in it is finished"
    )
    names = parser.add_mutually_exclusive_group(required=True)
    names.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        help="columns picture (path below IN), patient, view and, with several visits, study",
    )
    names.add_argument(
        "--pattern",
        type=_pattern,
        metavar="REGEX",
        help="finds patient, view and maybe study in the path below IN: '(?P<patient>[0-9]+)_(?P<view>[AP])'",
    )
    parser.add_argument(
        "--spacing-mm",
        type=within(SPACING),
        required=True,
        metavar="MM",
        help="side of a pixel, in no picture",
    )
    parser.add_argument(
        "--velocity", type=within(VELOCITY), metavar="CM_PER_MIN", help="bed velocity, where it is known"
    )
    parser.add_argument("--inverted", action="store_true", help="the pictures are black on white")
    parser.add_argument(
        "--coco",
        type=Path,
        metavar="JSON",
        help="COCO file of bones outlined in the pictures (BS80K_Anatomy and its kind): writes the regions "
        "beside each recovered scan, where `rbs index` finds them",
    )
    parser.add_argument(
        "--coco-regions",
        type=Path,
        metavar="CSV",
        help="columns category,region: regions of categories whose names do not tell",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes to use (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Recover the pictures.

    Raises:
        ScanError: IN holds no picture that is asked for, or some were refused.
        ManifestError: The table or the annotations are faulty, or two pictures are one view.
        OutputError: OUT holds something else or cannot be written.
    """
    # Each process has a picture of its own; threads within it would only get in the way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rbs.errors import RbsError, ScanError
    from rbs.scans.pictures.counts import SUFFIXES
    from rbs.scans.pictures.recovery import RECEIPT, Settings, listed, named, output_of, recover_pictures
    from rbs.utils.files import regular_files, require_regular

    source = args.source
    if args.workers < 1:
        raise RbsError(f"{args.workers} workers do nothing", remedy="ask for at least one with --workers")
    if not source.exists():
        raise ScanError("there is no such file or folder", file=source, remedy="check the path")
    if not source.is_dir():
        require_regular(source, ScanError)
    folder = source if source.is_dir() else source.parent
    files = [source]
    if source.is_dir():
        files = [path for path in regular_files(source)[0] if path.suffix.lower() in SUFFIXES]
    files = [path.relative_to(folder) for path in files]
    pictures = named(files, args.pattern) if args.pattern else listed(args.table)
    if args.table and not source.is_dir():
        pictures = [picture for picture in pictures if picture.file in files]
    if not pictures:
        what = f"none of its {len(files)} pictures matches" if files else "it holds no PNG or JPEG"
        raise ScanError(what, file=source, remedy="check the path, and the --pattern or the --table")
    coco, values = _annotations(args)
    settings = Settings(args.spacing_mm, args.velocity, args.inverted)
    rows = recover_pictures(folder, pictures, args.target, settings, workers=args.workers)
    refused = [row for row in rows if row["verdict"] == "refused"]
    receipt = args.target / RECEIPT
    lines = [f"{len(rows) - len(refused)} of {len(rows)} pictures recovered: {receipt}"]
    unnamed = len(set(files) - {picture.file for picture in pictures})
    if unnamed:
        lines.append(f"{unnamed} other pictures were left out: the pattern or the table does not name them")
    document: dict[str, Any] = {"receipt": receipt, "unnamed": unnamed, "pictures": rows}
    if coco:
        from rbs.data.labels import label_pictures

        used = [p for p, row in zip(pictures, rows, strict=True) if row["verdict"] == "recovered"]
        scans = [output_of(picture, args.target) for picture in used]
        bare = label_pictures(coco, values, folder, [picture.file for picture in used], scans)
        document |= {"labelled": len(used) - len(bare), "without_labels": bare}
        lines.append(f"{len(used) - len(bare)} scans labelled, {len(bare)} are not in {coco.path}")
    print_result(args, document, "\n".join(lines))
    if len(rows) == len(refused) == 1:
        reason = refused[0]["reason"]
        raise ScanError(reason, file=source, remedy="give one whose greys are counts times one factor")
    if refused:
        fault = f"{len(refused)} of {len(rows)} pictures were refused"
        raise ScanError(fault, remedy=f"the reasons stand in {receipt}")


def _annotations(args: argparse.Namespace) -> tuple[CocoFile | None, dict[str, int]]:
    """The annotations asked for, and the label of each of their categories."""
    from rbs.errors import RbsError

    if args.coco is None:
        if args.coco_regions is not None:
            raise RbsError("--coco-regions is for --coco only", remedy="leave it out, or name a COCO file")
        return None, {}
    from rbs.data.labels import read_regions
    from rbs.segmentation.anatomy import labels_of
    from rbs.segmentation.coco import read_coco

    coco = read_coco(args.coco)
    given = read_regions(args.coco_regions) if args.coco_regions else {}
    return coco, labels_of(coco.categories, given, coco.path)


def _pattern(text: str) -> Pattern[str]:
    from rbs.utils.patterns import compiled

    try:
        pattern = compiled(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if missing := {"patient", "view"} - set(pattern.groupindex):
        raise argparse.ArgumentTypeError(f"it has no group {' and '.join(sorted(missing))}")
    return pattern
