"""De-identifying folders: the secret key, names of files, the last check of each, the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import tag_for_keyword
from pydicom.tag import Tag

from rbs.clinic.outcomes import Refusal
from rbs.errors import OutputError, RbsError, ScanError
from rbs.scans.dicom.deidentify import Pseudonyms, deidentify
from rbs.scans.dicom.deidentify_check import survivors
from rbs.scans.dicom.reader import blaming
from rbs.scans.dicom.writer import encoded
from rbs.utils.files import whole_file, write_csv, write_text
from rbs.utils.guard import attempt
from rbs.utils.secret_key import make_key, read_key

REPORT = "report.csv"
MARK = ".rbs-deidentify"
"""File in OUT that tells with which key it was begun, by the key's fingerprint."""


@dataclass(frozen=True)
class DeidentifiedFile:
    """One file de-identified.

    Attributes:
        output: Its name below OUT: the patient's pseudonym and the new SOP Instance UID.
        patient: The patient's pseudonym.
        actions: What was done to which attribute, see `rbs.scans.dicom.deidentify.Deidentified`.
        notes: What a user should know.
        already: Whether an earlier run had written it.
    """

    output: Path
    patient: str
    actions: Mapping[str, str]
    notes: Sequence[str]
    already: bool


def begin(source: Path, target: Path, key: Path | None = None) -> Pseudonyms:
    """Make OUT ready, or go on with one that the same key has begun.

    Args:
        source: IN, a file or a folder.
        target: OUT, a folder that does not exist, is empty, or was begun with this key.
        key: The key file; OUT.key beside OUT where None, made if it does not exist.

    Raises:
        ScanError: There is no IN.
        OutputError: OUT is of something else or lies where it must not, or the key cannot be used.
    """
    if not source.exists():
        raise ScanError("there is no such file or folder", file=source, remedy="check the path")
    here, there = source.resolve(), target.resolve()
    if there.is_relative_to(here) or here.is_relative_to(there):
        fault = "IN and OUT lie within each other, so that the names in one would be handed on with the other"
        raise OutputError(fault, file=target, remedy="name a folder elsewhere")
    key_file = target.with_name(f"{target.name}.key") if key is None else key
    if key_file.resolve().is_relative_to(there):
        raise OutputError(
            "the key lies in OUT, which is handed on", file=key_file, remedy="move it elsewhere"
        )
    mark = target / MARK
    begun = mark.read_text().strip() if mark.is_file() else None
    if begun is None and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError("it exists already", file=target, remedy="name a new folder")
    if key is None and begun is None and not key_file.exists():
        make_key(key_file)
    pseudonyms = Pseudonyms(read_key(key_file, "name the one that rbs made with --key FILE"))
    if begun is None:
        write_text(mark, f"{pseudonyms.fingerprint}\n", overwrite=False)
    elif begun != pseudonyms.fingerprint:
        fault = f"it was begun with another key than {key_file}"
        raise OutputError(fault, file=target, remedy="name that key with --key, or a new folder")
    return pseudonyms


def deidentify_files(
    files: Iterable[Path], target: Path, pseudonyms: Pseudonyms
) -> Iterator[DeidentifiedFile | Refusal]:
    """De-identify files into OUT/<pseudonym>/<SOP Instance UID>.dcm; refusals do not stop the rest.

    A file is written to a temporary place, read again and searched for all that was removed, and
    only then given its name. What an earlier run has written is made again and compared.

    Yields:
        What became of each file.

    Raises:
        DiskFullError: There is no room for an output.
    """
    for path in files:
        made = attempt(path, _deidentify_file, path, target, pseudonyms)
        yield Refusal(path, made) if isinstance(made, RbsError) else made


def write_report(target: Path, outcomes: Sequence[DeidentifiedFile | Refusal]) -> None:
    """Write OUT/report.csv: for each file and attribute what was done to it, never a value.

    Refused files are listed with the reason, but not by name: names of files often are names of
    patients.

    Raises:
        OutputError: It cannot be written.
    """
    rows = []
    for outcome in outcomes:
        if isinstance(outcome, Refusal):
            rows.append(("", "", "", f"refused: {outcome.error.fault}"))
            continue
        name = outcome.output.as_posix()
        rows += [(name, _tag(path), path, action) for path, action in sorted(outcome.actions.items())]
        rows += [(name, "", "", f"note: {note}") for note in outcome.notes]
    write_csv(target / REPORT, ("file", "tag", "attribute", "action"), rows)


def _deidentify_file(path: Path, target: Path, pseudonyms: Pseudonyms) -> DeidentifiedFile:
    made = deidentify(path, pseudonyms)
    with blaming(path):
        content = encoded(made.dataset)
    patient = str(made.dataset.PatientID)
    output = Path(patient, f"{made.dataset.SOPInstanceUID}.dcm")
    file = target / output
    done = DeidentifiedFile(output, patient, made.actions, made.notes, already=file.exists())
    if done.already:
        if file.read_bytes() != content:
            raise OutputError(
                f"its output {file} is there already, with other content: two files of IN have one SOP"
                " Instance UID, or another version of rbs made it",
                file=path,
                remedy="keep one of the two files, or name a new folder",
            )
        return done
    with whole_file(file) as temporary:
        temporary.write_bytes(content)
        if left := survivors(temporary.read_bytes(), made):
            fault = f"its output still held what was removed ({', '.join(left)}), so it was deleted"
            remedy = "do not hand on this file, and report these attributes to the authors of rbs"
            raise ScanError(fault, file=path, remedy=remedy)
    return done


def _tag(path: str) -> str:
    keyword = path.rpartition(" > ")[2]
    tag = tag_for_keyword(keyword)
    return keyword if tag is None else str(Tag(tag))
