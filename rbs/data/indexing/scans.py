"""From a folder of a hospital's exports to the manifest that training and evaluation read.

Every file is accepted into the manifest or refused by name with a reason and a remedy; what is
accepted has passed the very checks that training applies. Splits follow from the patient's
identifier and a seed alone, so that patients who come later never move an earlier one from one
split to another.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from pathlib import Path

from rbs.data.indexing.exclusions import exclude
from rbs.data.indexing.pairing import Acquisition, Pair, join_views, pair, state_velocities
from rbs.data.indexing.records import FileRecord, Refusal, read_notes
from rbs.data.labels import labels_file
from rbs.data.manifest import SPLITS, Case, read_rows, write_manifest
from rbs.data.matching import patient_key
from rbs.errors import ManifestError, OutputError, RbsError, ScanError
from rbs.scans.acceptance import SAME_VELOCITY
from rbs.scans.dicom.files import dicom_files
from rbs.scans.dicom.views import ANGLE
from rbs.scans.scan import STANDARD_VELOCITY, View
from rbs.utils.files import write_csv

SHARES = (70.0, 15.0, 15.0)
"""Per cent of patients for training, tuning and testing."""


@dataclass(frozen=True)
class Statements:
    """Statements of the user about files that do not say it themselves.

    Attributes:
        rapid_velocity: Bed velocity of rapid scans, cm/min.
        standard_velocity: Bed velocity of standard scans, cm/min.
        anterior: Patterns of the paths, below the folder, of anterior files of one view.
        posterior: Likewise of posterior ones.
    """

    rapid_velocity: float | None = None
    standard_velocity: float | None = None
    anterior: tuple[str, ...] = ()
    posterior: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Rule by which patients are split.

    Attributes:
        seed: Decides, with the patient's identifier, where a patient goes.
        shares: Shares of "train", "val" and "test"; any sum.
        given: The split of each patient (by `patient_key`), for a split made elsewhere; no other
            patient is taken.
    """

    seed: int = 0
    shares: Sequence[float] = SHARES
    given: Mapping[str, str] | None = None

    def of(self, patient: str) -> str | None:
        """The split of a patient; None where splits are given and this patient's is not."""
        if self.given is not None:
            return self.given.get(patient_key(patient))
        number = hashlib.sha256(f"{self.seed} {patient_key(patient)}".encode()).digest()[:8]
        place = int.from_bytes(number, "big") / 2**64 * sum(self.shares)
        for name, share in zip(SPLITS, self.shares, strict=True):
            place -= share
            if place < 0:
                return name
        return next(name for name, share in zip(SPLITS, self.shares, strict=True) if share > 0)


@dataclass(frozen=True)
class ScanIndex:
    """Result of indexing a folder.

    Attributes:
        manifest: The manifest that was written; none is where no file can be used.
        refused: The list of refused files beside it.
        cases: Lines of the manifest.
        refusals: Refused files.
        found: Number of DICOM files.
        read: How many of them were read now; the others were known from an earlier run.
        warnings: What to look at before training.
    """

    manifest: Path
    refused: Path
    cases: tuple[Case, ...]
    refusals: tuple[Refusal, ...]
    found: int
    read: int
    warnings: tuple[str, ...]


def read_splits(path: Path) -> dict[str, str]:
    """The split of each patient, from a CSV with the columns patient and split, such as a manifest.

    Raises:
        ManifestError: The file is missing or no such CSV, or puts a patient into two splits or no
            known one.
    """
    if not path.is_file():
        raise ManifestError("there is no such file", file=path, remedy="name a CSV of patients and splits")
    splits: dict[str, str] = {}
    for line, row in read_rows(path, ("patient", "split")):
        patient, split = patient_key(row["patient"]), row["split"]
        if not patient or split not in SPLITS:
            fault = f"line {line}: '{split}' is no split, or the patient is empty"
            raise ManifestError(fault, file=path, remedy=f"name a patient and one of {', '.join(SPLITS)}")
        if splits.setdefault(patient, split) != split:
            fault = f"line {line}: patient {row['patient']} is in split {split} and in {splits[patient]}"
            raise ManifestError(fault, file=path, remedy="keep a patient in one split")
    return splits


def index_scans(
    folder: Path,
    manifest: Path,
    *,
    statements: Statements = Statements(),
    split: Split = Split(),
    workers: int = 2,
    overwrite: bool = False,
    progress: bool = True,
) -> ScanIndex:
    """Write the manifest of all whole-body scans in a folder, and beside it the refusals.

    A scan whose files all have a label file (`rbs.data.labels`) beside them is listed with its
    labels. What each file holds is noted beside the manifest as well: a repeated or interrupted run
    reads only files that are new or have changed.

    Args:
        folder: Where the files are, at any depth.
        manifest: The CSV to write. NAME.refused.csv and NAME.notes.jsonl come to stand beside it.
        statements: What the files may leave unsaid.
        split: Rule by which patients are split.
        workers: Processes.
        overwrite: Whether an existing manifest may be replaced.
        progress: Whether to show a progress bar.

    Raises:
        ScanError: There is no such folder, or no DICOM file in it.
        OutputError: The manifest exists, or a file cannot be written.
        RbsError: A setting is out of range.
    """
    if not (0 < sum(split.shares) < inf) or min(split.shares) < 0 or workers < 1:
        raise RbsError("the shares or the workers are out of range", remedy="try 70 15 15 and 2")
    standard = statements.standard_velocity or STANDARD_VELOCITY
    if statements.rapid_velocity is not None and statements.rapid_velocity <= SAME_VELOCITY * standard:
        fault = f"rapid scans of {statements.rapid_velocity:g} cm/min are no faster than standard ones"
        raise RbsError(
            f"{fault} of {standard:g} cm/min", remedy="state --rapid-velocity or --standard-velocity"
        )
    refuse_unwritable(manifest, overwrite=overwrite)
    if not folder.is_dir():
        raise ScanError("there is no such folder", file=folder, remedy="name the folder of your scans")
    # One way to name a file, here and in the notes of earlier runs, wherever the command was typed.
    folder = folder.resolve()
    files = dicom_files(folder)
    views = _stated_views(folder, files, statements)
    cache = manifest.with_suffix(".notes.jsonl")
    notes, read = read_notes(files, views, cache, workers=workers, progress=progress)
    records, unfit = exclude([note for note in notes if isinstance(note, FileRecord)], manifest.parent)
    scans, ambiguous = join_views(records)
    refusals = [note for note in notes if isinstance(note, Refusal)] + unfit + ambiguous
    patients: dict[str, list[Acquisition]] = defaultdict(list)
    for scan in scans:
        patients[scan.patient].append(scan)
    cases: list[Case] = []
    untimed = 0
    for own in (patients[key] for key in sorted(patients)):
        name = min(record.patient_id for scan in own for record in scan.records)
        where = split.of(name)
        if where is None:
            remedy = "add a line for it, or leave the patient out"
            for scan in own:
                refusals += scan.refused("its Patient ID is not in the splits given", remedy)
            continue
        known, silent = state_velocities(own, statements.rapid_velocity, statements.standard_velocity)
        pairs, alone = pair(known, statements.rapid_velocity, statements.standard_velocity)
        refusals += silent + alone
        cases += [_case(name, where, two) for two in sorted(pairs, key=lambda two: two.standard.files)]
        untimed += sum(two.by_study_alone for two in pairs)
    refused = manifest.with_suffix(".refused.csv")
    write_refused(refused, refusals)
    if cases:
        write_manifest(manifest, cases, overwrite=overwrite)
    return ScanIndex(
        manifest=manifest,
        refused=refused,
        cases=tuple(cases),
        refusals=tuple(refusals),
        found=len(files),
        read=read,
        warnings=tuple(_warnings(cases, records, split, untimed)),
    )


def _stated_views(folder: Path, files: Iterable[Path], statements: Statements) -> dict[Path, View]:
    """The views of files whose path matches the patterns of one view and none of the other."""
    patterns = {View.ANTERIOR: statements.anterior, View.POSTERIOR: statements.posterior}
    views = {}
    for file in files:
        name = file.relative_to(folder).as_posix().casefold()
        named = [v for v, globs in patterns.items() if any(fnmatchcase(name, g.casefold()) for g in globs)]
        if len(named) == 1:
            views[file] = named[0]
    return views


def _case(patient: str, split: str, two: Pair) -> Case:
    rapid = two.rapid.records if two.rapid else ()
    known = two.standard.records[0]
    labels = tuple(labels_file(file) for file in two.standard.files)
    return Case(
        patient=patient,
        split=split,
        rapid=tuple(record.file for record in rapid),
        standard=two.standard.files,
        labels=labels if all(file.is_file() for file in labels) else (),
        age_y=known.age_y,
        sex=known.sex,
        height_cm=known.height_cm,
        weight_kg=known.weight_kg,
        rapid_velocity=two.rapid.stated if two.rapid else None,
        standard_velocity=two.standard.stated,
        stated_views={
            record.file: record.views[0] for record in (*rapid, *two.standard.records) if record.view_stated
        },
    )


def refuse_unwritable(manifest: Path, *, overwrite: bool) -> None:
    """See before any work that the manifest of an index may be written.

    Raises:
        OutputError: It is not named .csv, or exists and must not be replaced.
    """
    if manifest.suffix != ".csv":
        raise OutputError("the manifest is a CSV file", file=manifest, remedy="name it .csv")
    if manifest.exists() and not overwrite:
        remedy = "choose another name, or replace it with --overwrite"
        raise OutputError("the manifest exists already", file=manifest, remedy=remedy)


def write_refused(path: Path, refusals: Iterable[Refusal]) -> None:
    """Write the list of refused files, sorted."""
    rows = sorted((str(r.file), r.reason, r.remedy) for r in refusals)
    write_csv(path, ("file", "reason", "remedy"), rows)


def _warnings(
    cases: Sequence[Case], records: Iterable[FileRecord], split: Split, untimed: int
) -> Iterator[str]:
    for name, share in zip(SPLITS, split.shares, strict=True):
        if (split.given is not None or share > 0) and not any(case.split == name for case in cases):
            yield f"no patient is in split {name}: add patients, choose another --seed, or give --splits"
    if untimed:
        yield f"pairs whose files do not say when they were acquired, the only ones of their study: {untimed}"
    used = {file for case in cases for file in (*case.rapid, *case.standard)}
    doubtful = [record.file for record in records if record.view_rule == ANGLE and record.file in used]
    if doubtful:
        yield (
            f"files whose views are told by the start angle alone, which some cameras count from the front: "
            f"{len(doubtful)}, such as {doubtful[0]}; --anterior and --posterior correct it"
        )
