"""Exclusions from a manifest: unidentified patients, mistaken identities and further copies.

A patient under two identifiers would be trained on and tested on; two patients under one would be
paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rbs.data.fingerprints import same_counts
from rbs.data.indexing.records import FileRecord, Refusal
from rbs.data.manifest import relative_path
from rbs.data.matching import patient_key
from rbs.errors import ManifestError

_Faults = dict[Path, tuple[str, str]]
"""Reason and remedy of each file."""


def exclude(records: Sequence[FileRecord], folder: Path) -> tuple[list[FileRecord], list[Refusal]]:
    """Exclude files without Patient ID, unwritable paths, mistaken identities and further copies.

    Args:
        records: What the files hold.
        folder: Where the manifest will stand.

    Returns:
        Records of patients told apart, each acquisition once; and the refusals of the others.
    """
    refusals: list[Refusal] = []
    for faults in (_nameless, lambda kept: _unwritable(kept, folder), _mistaken, _repeated):
        found = faults(records)
        refusals += [Refusal(file, *fault) for file, fault in found.items()]
        records = [record for record in records if record.file not in found]
    return list(records), refusals


def _nameless(records: Sequence[FileRecord]) -> _Faults:
    reason = "it has no Patient ID, so nothing tells which split it belongs to"
    remedy = "export it with the patient's (pseudonymous) ID, or write its line into the manifest yourself"
    return {record.file: (reason, remedy) for record in records if not record.patient_id}


def _unwritable(records: Sequence[FileRecord], folder: Path) -> _Faults:
    faults: _Faults = {}
    for record in records:
        try:
            relative_path(record.file, folder)
        except ManifestError as error:
            faults[record.file] = error.fault, error.remedy or ""
    return faults


def _mistaken(records: Sequence[FileRecord]) -> _Faults:
    """Files of patients with two IDs, who would be in two splits, and of IDs of two patients."""
    faults: dict[str, tuple[str, str]] = {}
    keys = [patient_key(record.patient_id) for record in records]

    def two_names(first: int, second: int, what: str) -> None:
        if keys[first] != keys[second]:
            reason = (
                f"its patient has two Patient IDs: {records[first].file} and {records[second].file} {what}"
            )
            remedy = "correct one ID, or leave one of the two out of the folder"
            faults[keys[first]] = faults[keys[second]] = reason, remedy

    studies: dict[str, int] = {}
    for place, record in enumerate(records):
        if record.study:
            two_names(studies.setdefault(record.study, place), place, "are of one study")
    for first, second in same_counts([record.sketches for record in records]):
        two_names(first, second, "hold the same counts")
    traits: dict[tuple[str, int], FileRecord] = {}
    for patient, record in zip(keys, records, strict=True):
        for place, trait in enumerate(record.person):
            other = traits.setdefault((patient, place), record) if trait else record
            if other.person[place] != trait:
                files, what = f"{other.file} and {record.file}", ("sex", "birth date")[place]
                reason = f"two patients share its Patient ID: {files} differ in {what}"
                faults[patient] = reason, "give each patient an ID of its own, or correct the header"
    return {record.file: faults[key] for key, record in zip(keys, records, strict=True) if key in faults}


def _repeated(records: Sequence[FileRecord]) -> _Faults:
    """Further copies of an acquisition, and different ones under one SOP Instance UID."""
    faults: _Faults = {}
    holder: dict[str, FileRecord] = {}
    named: dict[str, FileRecord] = {}
    # A file of both views stands for its one-view exports.
    for record in sorted(records, key=lambda record: (-len(record.views), record.file)):
        digests = [sketch.digest for sketch in record.sketches]
        if copy := next((holder[digest] for digest in digests if digest in holder), None):
            reason = f"it holds the counts of {copy.file} again"
            faults[record.file] = reason, "nothing: the other file serves"
            continue
        holder |= dict.fromkeys(filter(None, digests), record)
        other = named.setdefault(record.instance, record) if record.instance else record
        if other is not record:
            for one, two in ((record, other), (other, record)):
                reason = f"its SOP Instance UID is that of {two.file} too, which holds other counts"
                faults[one.file] = reason, "leave the right one of the two in the folder"
    return faults
