"""Which findings may stand in a manifest: of patients told apart, and each acquisition once.

A patient under two identifiers would be trained on and tested on; two patients under one would be
paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rbs.data.indexing.records import Finding, Refusal
from rbs.data.manifest import patient_key, relative_path
from rbs.errors import ManifestError

_Faults = dict[Path, tuple[str, str]]
"""Reason and remedy of each file."""


def sift(findings: Sequence[Finding], folder: Path) -> tuple[list[Finding], list[Refusal]]:
    """Leave out what no manifest can hold, what nobody owns, mistaken identities and further copies.

    Args:
        findings: What the files hold.
        folder: Where the manifest will stand.

    Returns:
        Findings of patients told apart, each acquisition once; and the refusals of the others.
    """
    refusals: list[Refusal] = []
    for faults in (_nameless, lambda kept: _unwritable(kept, folder), _mistaken, _repeated):
        found = faults(findings)
        refusals += [Refusal(file, *fault) for file, fault in found.items()]
        findings = [finding for finding in findings if finding.file not in found]
    return list(findings), refusals


def _nameless(findings: Sequence[Finding]) -> _Faults:
    reason = "it has no Patient ID, so nothing tells which split it belongs to"
    remedy = "export it with the patient's (pseudonymous) ID, or write its line into the manifest yourself"
    return {finding.file: (reason, remedy) for finding in findings if not finding.patient_id}


def _unwritable(findings: Sequence[Finding], folder: Path) -> _Faults:
    faults: _Faults = {}
    for finding in findings:
        try:
            relative_path(finding.file, folder)
        except ManifestError as error:
            faults[finding.file] = error.fault, error.remedy or ""
    return faults


def _mistaken(findings: Sequence[Finding]) -> _Faults:
    """All files of patients with two IDs, who would be in two splits, and of IDs of two patients."""
    faults: dict[str, tuple[str, str]] = {}
    holder: dict[str, Finding] = {}
    traits: dict[tuple[str, int], Finding] = {}
    for finding in findings:
        patient = patient_key(finding.patient_id)
        for digest in finding.digests:
            other = holder.setdefault(digest, finding)
            if patient_key(other.patient_id) != patient:
                reason = (
                    f"its patient has two Patient IDs: {other.file} and {finding.file} hold the same counts"
                )
                remedy = "correct one ID, or leave one of the two out of the folder"
                faults[patient] = faults[patient_key(other.patient_id)] = reason, remedy
        for place, trait in enumerate(finding.person):
            other = traits.setdefault((patient, place), finding) if trait else finding
            if other.person[place] != trait:
                files, what = f"{other.file} and {finding.file}", ("sex", "birth date")[place]
                reason = f"two patients share its Patient ID: {files} differ in {what}"
                faults[patient] = reason, "give each patient an ID of its own, or correct the header"
    keys = {finding.file: patient_key(finding.patient_id) for finding in findings}
    return {file: faults[key] for file, key in keys.items() if key in faults}


def _repeated(findings: Sequence[Finding]) -> _Faults:
    """Further copies of an acquisition, and different ones under one SOP Instance UID."""
    faults: _Faults = {}
    holder: dict[str, Finding] = {}
    named: dict[str, Finding] = {}
    # A file of both views stands for its one-view exports.
    for finding in sorted(findings, key=lambda finding: (-len(finding.views), finding.file)):
        if copy := next((holder[digest] for digest in finding.digests if digest in holder), None):
            faults[finding.file] = (
                f"it holds the counts of {copy.file} again",
                "nothing: the other file serves",
            )
            continue
        holder |= dict.fromkeys(finding.digests, finding)
        other = named.setdefault(finding.instance, finding) if finding.instance else finding
        if other is not finding:
            for one, two in ((finding, other), (other, finding)):
                reason = f"its SOP Instance UID is that of {two.file} too, which holds other counts"
                faults[one.file] = reason, "leave the right one of the two in the folder"
    return faults
