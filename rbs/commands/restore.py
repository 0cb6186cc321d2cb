"""`rbs restore`: rapid scans to standard quality, DICOM in, DICOM out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbs.commands.options import add_reading_options, add_standard_velocity, reading_options, refusals_error

HELP = "restore rapid scans to the counts of a standard scan, DICOM in, DICOM out (research use only)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", type=Path, metavar="IN", help="DICOM file, or folder (with those below it)")
    parser.add_argument(
        "target", metavar="OUT", help="file to write, or folder (ending in /) that gets the names found in IN"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help=".safetensors or .ckpt (default: the weights of rbs)"
    )
    add_reading_options(parser)
    add_standard_velocity(parser)


def run(args: argparse.Namespace) -> None:
    """Restore a file or a folder, a line each.

    Raises:
        ScanError: IN was refused, or some file in it; each is named on standard error first.
        CheckpointError: The weights do not fit.
        OutputError: The output exists or cannot be written.
    """
    from tqdm import tqdm

    from rbs.clinic.outcomes import Refused
    from rbs.clinic.restore import restore_files
    from rbs.errors import OutputError, ScanError
    from rbs.scans.find import dicom_files, is_restored
    from rbs.weights import load_restorer

    source, target = args.source, Path(args.target)
    skipped: list[Path] = []
    if source.is_dir():
        if target.is_file():
            raise OutputError("it is a file, but IN is a folder", file=target, remedy="name a folder")
        files = dicom_files(source)
        skipped = [path for path in files if is_restored(path)]
        outputs = {path: target / path.relative_to(source) for path in files if path not in skipped}
        if not outputs:
            raise ScanError("it holds only restored scans", file=source, remedy="name the rapid ones")
    elif source.exists():
        outputs = {source: target / source.name if target.is_dir() or args.target.endswith("/") else target}
    else:
        raise ScanError("there is no such file or folder", file=source, remedy="check the path")
    loaded = load_restorer(args.checkpoint)
    refused: list[Refused] = []
    outcomes = restore_files(
        outputs,
        loaded,
        reading=reading_options(args),
        standard_velocity=args.standard_velocity,
    )
    with tqdm(total=len(outputs), unit="scan", disable=None if source.is_dir() else True) as bar:
        for outcome in outcomes:
            bar.update()
            if isinstance(outcome, Refused):
                refused.append(outcome)
            else:
                tqdm.write(str(outcome))
    for path in skipped:
        print(f"skipped: {path} was restored by rbs already", file=sys.stderr)
    if refused and not source.is_dir():
        raise refused[0].error
    for outcome in refused:
        print(f"refused: {outcome.error}", file=sys.stderr)
    if refused:
        raise refusals_error(len(refused), len(outputs))
