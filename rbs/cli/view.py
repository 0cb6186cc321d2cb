"""`rbs view`: a page to look at scans, and blinded pairs for readers."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from rbs.cli.options import (
    add_allow_option,
    add_reading_options,
    add_standard_velocity,
    reading_options,
    refusals_error,
)
from rbs.weights.shipped import NAME

HELP = (
    "look at rapid, restored and standard scans in one page, or have readers score them (research use only)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "sources", type=Path, nargs="*", metavar="SCAN", help="DICOM file of raw counts, or folder of them"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE", help="the HTML file to write")
    parser.add_argument(
        "--standard",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="standard scan of SCAN; two files where each holds a view",
    )
    parser.add_argument(
        "--checkpoint",
        default=NAME,
        metavar="FILE",
        help="weights of the restorer (default: shipped, those that come with rbs)",
    )
    parser.add_argument(
        "--segmenter",
        default=NAME,
        metavar="FILE",
        help="weights of the segmenter whose contours can be shown, or off (default: shipped)",
    )
    parser.add_argument(
        "--names",
        action="store_true",
        help="show names of files in the page, which may tell who the patients are; numbers by default",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace PAGE")
    study = parser.add_argument_group("reader study")
    study.add_argument(
        "--study",
        type=Path,
        metavar="CSV",
        help="pairs that readers score blinded: a table with the columns pair, a, b (DICOM files). PAGE is"
        " written, and beside it the key, PAGE_key.csv",
    )
    study.add_argument(
        "--seed",
        type=int,
        help="decides order and sides of the pairs: only to write a page again, since who knows it is not"
        " blinded (default: a random one)",
    )
    study.add_argument(
        "--scores", type=Path, nargs="+", metavar="CSV", help="scores of the readers, to be summed up"
    )
    study.add_argument("--key", type=Path, nargs="+", metavar="CSV", help="key of their studies")
    add_reading_options(parser)
    add_standard_velocity(parser)
    add_allow_option(parser)


def run(args: argparse.Namespace) -> None:
    """Write a page, or sum the scores of readers up.

    Raises:
        RbsError: The options do not go together, or a file was refused.
        CheckpointError: The weights do not fit.
        OutputError: The page exists already or cannot be written.
    """
    from rbs.errors import OutputError, RbsError

    if (args.scores is None) != (args.key is None):
        raise RbsError("--scores and --key go together", remedy="give the scores and the key")
    if sum((bool(args.sources), args.study is not None, args.scores is not None)) != 1:
        remedy = "name scans, or a --study, or --scores with their --key"
        raise RbsError("it is one of three things that rbs view does", remedy=remedy)
    _refuse_unused(args)
    if args.scores:
        _summarise(args)
        return
    if args.output is None:
        raise RbsError("there is no name for the page", remedy="add -o PAGE.html")
    if args.output.exists() and not args.overwrite:
        raise OutputError("the page exists already", file=args.output, remedy="add --overwrite")
    if args.study:
        _write_study(args)
    else:
        _view(args)


def _refuse_unused(args: argparse.Namespace) -> None:
    from rbs.errors import RbsError

    of_scans = {
        "--standard": args.standard is not None,
        "--checkpoint": args.checkpoint != NAME,
        "--segmenter": args.segmenter != NAME,
        "--names": args.names,
    }
    unused = {} if args.sources else of_scans
    if not args.study:
        unused = {**unused, "--seed": args.seed is not None}
    if args.scores:
        unused = {**unused, "--output": args.output is not None, "--overwrite": args.overwrite}
    given = [option for option, there in unused.items() if there]
    if given:
        kind = "--scores" if args.scores else "--study" if args.study else "scans"
        fault = f"{' and '.join(given)} would do nothing beside {kind}"
        raise RbsError(fault, remedy="leave it out" if len(given) == 1 else "leave them out")


def _summarise(args: argparse.Namespace) -> None:
    from rbs.data.manifest import read_rows
    from rbs.errors import RbsError, printable
    from rbs.report.reader_study import KEY, SCORES, summarise

    for file in (*args.scores, *args.key):
        if not file.exists():
            raise RbsError("there is no such file", file=file, remedy="check the path")
    scores, key = (
        [row for file in files for _, row in read_rows(file, columns, columns)]
        for files, columns in ((args.scores, SCORES), (args.key, KEY))
    )
    for summary in summarise(scores, key):
        print("\n".join(map(printable, str(summary).split("\n"))))


def _write_study(args: argparse.Namespace) -> None:
    from rbs.clinic.view_scans import packed_pairs
    from rbs.errors import printable
    from rbs.report.reader_study import write_study

    reading = reading_options(args)
    seed = secrets.randbits(128) if args.seed is None else args.seed
    pairs = packed_pairs(args.study, reading, args.standard_velocity)
    key = write_study(pairs, args.output, seed=seed, overwrite=args.overwrite)
    print(printable(f"{len(pairs)} pairs: {args.output} for the readers, {key} for you alone"))


def _view(args: argparse.Namespace) -> None:
    from rbs.cli.file_by_file import originals_at
    from rbs.clinic.outcomes import Refusal
    from rbs.clinic.restore_scans import ScanRestorer
    from rbs.clinic.view_scans import ScanViewer, read_standard
    from rbs.errors import printable
    from rbs.inference.load import load_for_scans
    from rbs.inference.segmentation import load_segmenter_for
    from rbs.report.viewer import write_viewer_page

    sources = [source for path in args.sources for source in originals_at(path)[0]]
    loaded = load_for_scans(args.checkpoint)
    restorer = ScanRestorer(loaded, None, reading_options(args), args.standard_velocity)
    segmenter = None if args.segmenter == "off" else load_segmenter_for(args.segmenter)
    standard = read_standard(args.standard, {"views": restorer.reading["views"]}) if args.standard else None
    shown, refused = [], []
    for outcome in ScanViewer(restorer, segmenter, standard, named=args.names).packed(sources):
        if isinstance(outcome, Refusal):
            refused.append(outcome)
            continue
        acquired, packed = outcome
        shown.append(packed)
        print(printable(f"{packed['name']}: {' and '.join(map(str, acquired.paths))}"))
        for warning in packed["warnings"]:
            print(printable(f"  warning: {warning}"))
    if shown:
        about = f"{loaded.name}, sha256 {loaded.sha256}"
        write_viewer_page(shown, args.output, restorer=about, overwrite=args.overwrite)
        print(printable(f"written to {args.output}"))
    if refused and len(sources) == 1:
        raise refused[0].error
    for refusal in refused:
        print(f"refused: {refusal.error}", file=sys.stderr)
    if refused:
        raise refusals_error(len(refused), len(sources))
