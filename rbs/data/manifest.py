"""The manifest: a CSV of patients, their scans, their splits and what is known of the truth.

    patient,split,age_y,sex,height_cm,weight_kg,rapid,standard,truth,labels
    P0001,train,6.5,F,118,22,P0001/rapid.dcm,P0001/standard.dcm,P0001/truth.npz,

Paths are relative to the manifest's folder. Two files of one view each are joined with ";"
(`ant.dcm;post.dcm`); where the headers do not name the views, the manifest does
(`anterior=ant.dcm;posterior=post.dcm`). `rapid` is empty where only a standard scan exists, `truth`
for every real patient; `labels` (see `rbs.data.labels`) names a label file for each standard file
of a patient whose regions were outlined. Every column but `patient`, `split` and `standard` may be
left out; `rapid_velocity` and `standard_velocity` (cm/min) are for files that do not state theirs.
A patient may have several rows (visits), all in one split.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rbs.data.fingerprints import Fingerprint, fingerprint, same_counts
from rbs.data.matching import patient_key, refuse_two_patients
from rbs.errors import ManifestError, RbsError
from rbs.scans.ranges import VELOCITY
from rbs.scans.scan import View
from rbs.utils.files import require_regular, write_csv

SPLITS = ("train", "val", "test")
COLUMNS = (
    *("patient", "split", "age_y", "sex", "height_cm", "weight_kg"),
    *("rapid", "standard", "truth", "labels", "rapid_velocity", "standard_velocity"),
)
REQUIRED = ("patient", "split", "standard")
SEXES = ("F", "M", "O")


@dataclass(frozen=True)
class Case:
    """One visit of one patient: a row of the manifest.

    Attributes:
        patient: Identifier of the patient.
        split: "train", "val" or "test".
        rapid: Files of the rapid scan, empty without one; two where each holds one view.
        standard: Files of the standard scan.
        truth: File of the known expectation and labels (phantoms only).
        labels: Label file of each standard file, or none.
        age_y: Age, years.
        sex: "F", "M" or "O".
        height_cm: Height, cm.
        weight_kg: Weight, kg.
        rapid_velocity: Velocity of the rapid scan, cm/min, where its files do not state it.
        standard_velocity: Likewise of the standard scan.
        stated_views: The views of files whose headers do not name them.
    """

    patient: str
    split: str
    rapid: tuple[Path, ...]
    standard: tuple[Path, ...]
    truth: Path | None = None
    labels: tuple[Path, ...] = ()
    age_y: float | None = None
    sex: str | None = None
    height_cm: float | None = None
    weight_kg: float | None = None
    rapid_velocity: float | None = None
    standard_velocity: float | None = None
    stated_views: Mapping[Path, View] = field(default_factory=dict)

    @property
    def scans(self) -> tuple[Path, ...]:
        """Files of both scans."""
        return *self.rapid, *self.standard


@dataclass(frozen=True)
class Manifest:
    """A checked list of cases.

    Attributes:
        path: The CSV file.
        cases: Its rows in their order.
    """

    path: Path
    cases: tuple[Case, ...]

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read and check a manifest: every file must exist, and splits must have nothing in common.

        Raises:
            ManifestError: The file is missing, no CSV or empty; it lacks a column; or one of its
                lines (named) has an unknown split, a missing or repeated file, a bad number, files
                of two patients, or a patient, a study or counts of another split.
        """
        path = Path(path)
        lines = [(line, _case(path, line, row)) for line, row in read_rows(path)]
        if not lines:
            raise ManifestError("it lists no patient", file=path, remedy="add one line a patient")
        _refuse_missing_files(path, lines)
        _refuse_leaks(path, lines)
        return cls(path, tuple(case for _, case in lines))

    def split(self, name: str) -> list[Case]:
        """The cases of the split "train", "val" or "test", in the order of the file.

        Raises:
            ManifestError: There is no such split.
        """
        if name not in SPLITS:
            raise ManifestError(
                f"unknown split '{name}'", file=self.path, remedy=f"use one of {', '.join(SPLITS)}"
            )
        return [case for case in self.cases if case.split == name]


def cases_of(listed: str) -> list[Case]:
    """Cases of MANIFEST:SPLIT, or all of MANIFEST.

    Raises:
        ManifestError: See `Manifest.read`; or there is no such split.
    """
    path, _, split = listed.partition(":")
    manifest = Manifest.read(path)
    return manifest.split(split) if split else list(manifest.cases)


def write_manifest(path: str | Path, cases: Sequence[Case], *, overwrite: bool = False) -> None:
    """Write cases as a CSV, their paths relative to its folder.

    Raises:
        OutputError: The file exists already or cannot be written.
        ManifestError: A path cannot stand in a manifest.
    """
    path = Path(path)

    def relative(case: Case, files: Sequence[Path]) -> str:
        return ";".join(
            (f"{case.stated_views[file]}=" if file in case.stated_views else "")
            + relative_path(file, path.parent)
            for file in files
        )

    rows = []
    for case in cases:
        row = {name: getattr(case, name) for name in COLUMNS}
        row |= {"rapid": relative(case, case.rapid), "standard": relative(case, case.standard)}
        row["truth"] = relative(case, [case.truth]) if case.truth else None
        row["labels"] = relative(case, case.labels)
        rows.append(row.values())
    write_csv(path, COLUMNS, rows, overwrite=overwrite)


def manifest_record(path: Path | None) -> dict[str, str | None]:
    """Name and SHA-256 of a manifest, by which results and weights say what they were made of.

    Its path is not recorded: it may name a user or a hospital.
    """
    if path is None:
        return {"manifest": None}
    return {"manifest": path.name, "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def relative_path(file: Path, folder: Path) -> str:
    """The path of a file as a manifest in `folder` names it.

    Raises:
        ManifestError: Reading it would give another path: it holds a semicolon, or what is no text.
    """
    relative = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    view = relative.partition("=")[0].strip() if "=" in relative else ""
    readable = relative.isprintable() and relative == relative.strip()
    if ";" in relative or view in list(View) or not readable:
        raise ManifestError("a manifest cannot hold its path", file=file, remedy="rename it, or its folder")
    return relative


def line_fault(path: Path, line: int, fault: str, remedy: str) -> ManifestError:
    """The error of a line of a manifest."""
    return ManifestError(f"line {line}: {fault}", file=path, remedy=remedy)


def read_rows(
    path: Path, required: Sequence[str] = REQUIRED, columns: Sequence[str] = COLUMNS
) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV with the required columns and others of `columns`, and the line of each.

    Raises:
        ManifestError: The file is missing, no CSV, or has other columns.
    """
    require_regular(path, ManifestError)
    if not path.exists():
        raise ManifestError(
            "the manifest does not exist",
            file=path,
            remedy="name another, or make phantoms: `make data/phantoms/manifest.csv` or"
            " `rbs simulate data/phantoms --patients 137 --seed 1`",
        )
    try:
        # Spreadsheets put a byte-order mark in front.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            _check_header(path, header, required, columns)
            reader.fieldnames = header
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise line_fault(
                        path, reader.line_num, f"it has not {len(header)} cells", "give one a column"
                    )
                rows.append((reader.line_num, {name: cell.strip() for name, cell in row.items()}))
            return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"it is not a CSV file ({error})", file=path, remedy="give a comma-separated text"
        ) from error
    except OSError as error:
        raise ManifestError(
            f"it cannot be read ({error.strerror})", file=path, remedy="check the path"
        ) from error


def _check_header(path: Path, header: list[str], required: Sequence[str], columns: Sequence[str]) -> None:
    if not header:
        raise ManifestError("it is empty", file=path, remedy=f"begin with the line {','.join(required)}")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise ManifestError(
            "its columns are not separated by commas", file=path, remedy="save it as a CSV with commas"
        )
    if missing := [name for name in required if name not in header]:
        raise ManifestError(
            f"line 1: no column {', '.join(missing)}", file=path, remedy="add it to the header"
        )
    if unknown := [name for name in header if name not in columns]:
        names = ", ".join(repr(name) for name in unknown)
        raise ManifestError(f"line 1: unknown column {names}", file=path, remedy=f"use {', '.join(columns)}")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise ManifestError(
            f"line 1: column {', '.join(repeated)} appears twice", file=path, remedy="remove one"
        )


def _case(path: Path, line: int, row: dict[str, str]) -> Case:
    for name in REQUIRED:
        if not patient_key(row[name]):  # invisible characters are nobody's name
            raise line_fault(path, line, f"{name} is empty", "fill it in")
    if row["split"] not in SPLITS:
        raise line_fault(path, line, f"unknown split '{row['split']}'", f"use one of {', '.join(SPLITS)}")
    sex = row.get("sex", "").upper() or None
    if sex is not None and sex not in SEXES:
        raise line_fault(
            path, line, f"unknown sex '{row['sex']}'", f"use one of {', '.join(SEXES)}, or leave it empty"
        )

    def number(name: str) -> float | None:
        cell = row.get(name, "")
        if not cell:
            return None
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise line_fault(path, line, f"{name} is '{cell}'", "give a positive number or leave it empty")
        if name.endswith("velocity") and value not in VELOCITY:
            raise line_fault(path, line, f"{name} is '{cell}'", f"give {VELOCITY}, or leave it empty")
        return value

    stated: dict[Path, View] = {}

    def files(name: str) -> tuple[Path, ...]:
        found = []
        for part in filter(None, (part.strip() for part in row.get(name, "").split(";"))):
            view, equals, file = part.partition("=")
            if equals and view.strip() in list(View):
                found.append(path.parent / file.strip())
                stated[found[-1]] = View(view.strip())
            else:
                found.append(path.parent / part)
        return tuple(found)

    truth = files("truth")
    if len(truth) > 1:
        raise line_fault(path, line, f"{len(truth)} truth files", "give one for both views")
    labels, standard = files("labels"), files("standard")
    if labels and (truth or len(labels) != len(standard)):
        fault = f"{len(labels)} label files for {len(standard)} standard files and {len(truth)} truth files"
        raise line_fault(path, line, fault, "give one for each standard file, and none beside a truth file")
    return Case(
        patient=row["patient"],
        split=row["split"],
        rapid=files("rapid"),
        standard=standard,
        truth=truth[0] if truth else None,
        labels=labels,
        age_y=number("age_y"),
        sex=sex,
        height_cm=number("height_cm"),
        weight_kg=number("weight_kg"),
        rapid_velocity=number("rapid_velocity"),
        standard_velocity=number("standard_velocity"),
        stated_views=stated,
    )


def _refuse_missing_files(path: Path, lines: Sequence[tuple[int, Case]]) -> None:
    """Refuse files that are missing, or listed twice, be it by another name (a link)."""
    line_of: dict[tuple[int, int], int] = {}
    for line, case in lines:
        for file in (*case.scans, *([case.truth] if case.truth else []), *case.labels):
            try:
                state = file.stat()
                require_regular(file)
            except RbsError as error:
                raise line_fault(path, line, f"{file}: {error.fault}", error.remedy or "") from None
            except (OSError, ValueError):
                remedy = "correct the path or remove the line"
                raise line_fault(path, line, f"the file {file} is missing", remedy) from None
            key = state.st_dev, state.st_ino
            if key in line_of:
                fault = f"the file {file} is listed before, on line {line_of[key]}"
                raise line_fault(path, line, fault, "list it once")
            line_of[key] = line


def _refuse_leaks(path: Path, lines: Sequence[tuple[int, Case]]) -> None:
    """Refuse files of two patients in one case, and what two splits have in common."""
    splits = len({case.split for _, case in lines}) > 1
    found: list[tuple[int, Case, Fingerprint]] = []
    split_of: dict[tuple[str, str], tuple[str, int]] = {}
    for line, case in lines:
        files = [fingerprint(file, counts=splits) for file in case.scans]
        found += [(line, case, file) for file in files]
        refuse_two_patients(case.scans, [file.patient_id for file in files])
        names = {("name", patient_key(case.patient)): f"patient {case.patient}"}
        for file in files:
            names |= {
                ("ID", patient_key(file.patient_id)): f"the Patient ID of {file.file}",
                ("study", file.study): f"the study of {file.file}",
                ("acquisition", file.instance): f"the acquisition of {file.file}",
            }
        for key, name in names.items():
            split, first = split_of.setdefault(key, (case.split, line)) if key[1] else (case.split, line)
            if split != case.split:
                fault = f"{name} is in split {case.split} but in {split} on line {first}"
                raise line_fault(path, line, fault, "keep all visits of a patient in one split")
    for one, two in same_counts([file.sketches for _, _, file in found]):
        (first, case, file), (line, other, copy) = found[one], found[two]
        if case.split != other.split:
            fault = (
                f"{copy.file} (in split {other.split}) and {file.file} (in {case.split}, line {first}) "
                "hold the same counts, or a part of them"
            )
            raise line_fault(path, line, fault, "they are of one patient: keep both in one split")
