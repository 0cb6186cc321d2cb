"""Patients that two lists of cases have in common, under whatever name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rbs.data.fingerprints import fingerprint, same_counts
from rbs.data.manifest import Case
from rbs.data.matching import patient_key


def common_patients(
    first: Sequence[Case], second: Sequence[Case], *, by_name: bool = True
) -> Iterator[tuple[Case, Case]]:
    """Cases of one patient, one from each list: by name, Patient ID, study or counts.

    Args:
        first: Cases.
        second: Others.
        by_name: Whether equal names in the manifests are one patient; phantoms of every seed have
            the same names.
    """
    known: dict[tuple[str, str], Case] = {}
    owners = [(case, file) for case in (*first, *second) for file in case.scans]
    files = [fingerprint(file) for _, file in owners]
    own = sum(len(case.scans) for case in first)
    for place, ((case, _), file) in enumerate(zip(owners, files, strict=True)):
        keys = [("ID", patient_key(file.patient_id)), ("study", file.study)]
        keys += [("name", patient_key(case.patient))] if by_name else []
        for key in keys:
            if place < own:
                known.setdefault(key, case)
            elif key[1] and key in known:
                yield known[key], case
    for one, two in same_counts([file.sketches for file in files]):
        if min(one, two) < own <= max(one, two):
            yield owners[min(one, two)][0], owners[max(one, two)][0]
