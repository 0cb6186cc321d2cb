"""`rbs deidentify`: whole-body scans that may leave the hospital."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rbs.cli.options import add_json, print_result, refusals_error

HELP = "remove what identifies the patient from whole-body NM files (DICOM PS3.15, basic profile)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", type=Path, metavar="IN", help="DICOM file, or folder (with those below it)")
    parser.add_argument(
        "target", type=Path, metavar="OUT", help="new folder; files are named by pseudonym and new UID"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="secret key of an earlier run, for the same pseudonyms (default: OUT.key, made if missing)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """De-identify a file or a folder.

    Raises:
        ScanError: IN was refused, or some file in it; each is named on standard error first.
        OutputError: OUT or the key cannot be used, or the disk is full.
    """
    from collections import Counter
    from contextlib import nullcontext, suppress

    from tqdm import tqdm

    from rbs.clinic.deidentify import REPORT, DeidentifiedFile, begin, deidentify_files, write_report
    from rbs.clinic.outcomes import Refusal
    from rbs.errors import DiskFullError, printable
    from rbs.scans.dicom.files import dicom_files, dicomdirs

    source, target = args.source, args.target
    is_folder = source.is_dir()
    files = dicom_files(source) if is_folder else [source]
    pseudonyms = begin(source, target, args.key)
    outcomes: list[DeidentifiedFile | Refusal] = []
    full = None
    with tqdm(total=len(files), unit="file", disable=None if is_folder else True) as bar:
        try:
            for outcome in deidentify_files(files, target, pseudonyms):
                bar.update()
                outcomes.append(outcome)
        except DiskFullError as error:  # the files that follow would meet the same
            full = error
    with suppress(DiskFullError) if full else nullcontext():
        write_report(target, outcomes)
    done = [outcome for outcome in outcomes if isinstance(outcome, DeidentifiedFile)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    for path in dicomdirs(source) if is_folder else ():
        print(printable(f"skipped: {path} is an index, which names the patients"), file=sys.stderr)
    already = sum(outcome.already for outcome in done)
    patients = len({outcome.patient for outcome in done})
    actions = Counter(action for outcome in done for action in outcome.actions.values())
    notes = Counter(note for outcome in done for note in outcome.notes)
    key = args.key or target.with_name(f"{target.name}.key")
    report = "" if full else f"report: {target / REPORT}; "
    lines = [
        f"{target}: files {len(done)}, of them there already {already}; patients {patients}",
        *(f"  {action}: {number} attributes" for action, number in sorted(actions.items())),
        *(f"  note: {note} ({number} files)" for note, number in notes.items()),
        f"  {report}key: {key} (secret: whoever has it can tell whose scan is whose)",
    ]
    document = {"target": target, "files": len(done), "already": already, "patients": patients}
    document |= {"actions": actions, "notes": notes, "refused": len(refused)}
    document |= {"report": target / REPORT, "key": key}
    print_result(args, document, "\n".join(lines))
    if refused and not is_folder:
        raise refused[0].error
    for outcome in refused:
        print(f"refused: {outcome.error}", file=sys.stderr)
    if full:
        raise full
    if refused:
        raise refusals_error(len(refused), len(files))
