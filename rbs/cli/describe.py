"""`rbs describe`: a sentence of a closed grammar on each topic, with its confidence."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbs.cli.file_by_file import originals_at
from rbs.cli.options import (
    add_reading_options,
    add_standard_velocity,
    as_json,
    reading_options,
    refusals_error,
)

HELP = "say in sentences of a closed list what scans show, with confidence (research use only, no report)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", type=Path, metavar="IN", help="DICOM file of raw counts, or folder of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write sentences and facts as JSON")
    parser.add_argument(
        "--confidence",
        type=_share,
        metavar="SHARE",
        help="least confidence of a sentence, 0 to 1; those below are left out and counted (default: 0.7)",
    )
    parser.add_argument(
        "--describer",
        default="shipped",
        metavar="FILE",
        help="weights of a description network (default: shipped, those that come with rbs)",
    )
    add_reading_options(parser)
    add_standard_velocity(parser)


def run(args: argparse.Namespace) -> None:
    """Describe a file or a folder.

    Raises:
        RbsError: IN was refused, or some file in it; each is named on standard error first.
        CheckpointError: The weights do not fit.
        OutputError: FILE exists already or cannot be written.
    """
    from rbs.clinic.describe_scans import NO_REPORT, describe_files
    from rbs.clinic.outcomes import Refusal
    from rbs.description.answers import LEAST_CONFIDENCE
    from rbs.errors import OutputError
    from rbs.inference.description import load_scan_describer
    from rbs.utils.files import whole_file

    if args.json and args.json.exists():
        raise OutputError("it exists already", file=args.json, remedy="name another file with --json")
    sources, names = originals_at(args.source)
    loaded = load_scan_describer(args.describer)
    print(NO_REPORT)
    described, refused = [], []
    for outcome in describe_files(
        sources,
        loaded,
        reading_options(args),
        args.standard_velocity,
        least=LEAST_CONFIDENCE if args.confidence is None else args.confidence,
        names=names,
    ):
        if isinstance(outcome, Refusal):
            refused.append(outcome)
            if names:
                print(f"refused: {outcome.error}", file=sys.stderr)
            continue
        described.append(outcome)
        print(outcome)
    if args.json and described:
        document = {
            "use": NO_REPORT,
            "weights": {
                name: {"name": network.name, "sha256": network.sha256}
                for name, network in (("describer", loaded.network), ("segmenter", loaded.segmenter))
            },
            "scans": [one.as_dict() for one in described],
        }
        with whole_file(args.json) as path:
            path.write_text(as_json(document) + "\n", encoding="utf-8")
    if refused and not names:
        raise refused[0].error
    if refused:
        raise refusals_error(len(refused), len(sources))


def _share(text: str) -> float:
    """A number from 0 to 1; argparse reports anything else."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 to 1")
    return value
