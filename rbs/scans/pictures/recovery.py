"""Recovery of a folder of pictures: one Nuclear Medicine file of counts a picture, and a receipt.

OUT/receipt.csv               one line a picture: scale, confidence, dispersion, verdict, reason
OUT/recovery.json             the settings, so that a run is resumed with the same ones
OUT/<as in IN>.dcm            the counts of each picture that was not refused
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
import os
import re
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import regex

from rbs.errors import ManifestError, RbsError, ScanError
from rbs.scans.scan import View
from rbs.utils.files import claim_folder, naming, require_regular, write_csv
from rbs.utils.guard import attempt
from rbs.utils.patterns import search

RECEIPT, SETTINGS = "receipt.csv", "recovery.json"
COLUMNS = (
    *("file", "patient", "study", "view", "sha256", "scale", "standard_error", "confidence", "dispersion"),
    *("clipped", "cut_low_counts", "ambiguous", "counts", "verdict", "reason"),
)
VIEWS = {
    **dict.fromkeys(("anterior", "ant", "a"), View.ANTERIOR),
    **dict.fromkeys(("posterior", "post", "p"), View.POSTERIOR),
}
"""Names of the views in a table or a file name, in any case."""

FORMAT = 2
"""Raised whenever the same picture would give other counts."""

_ANY_NAME = "surrogateescape"
"""Bytes of a file name that are no text stay as they are, so that a later run knows the file."""

_NAME = re.compile(r"[^\\\x00-\x1f]{1,60}")
Row = dict[str, str]


@dataclass(frozen=True)
class Settings:
    """Facts that the pictures do not state.

    Attributes:
        spacing_mm: Side of a pixel, mm.
        velocity: Bed velocity, cm/min; None where it is unknown.
        inverted: True for pictures that are black on white.
    """

    spacing_mm: float
    velocity: float | None = None
    inverted: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture to be recovered.

    Attributes:
        file: Its path below the folder of the pictures.
        patient: Identifier of the patient.
        view: The view it shows.
        study: Identifier of the visit; empty with a single one.
    """

    file: Path
    patient: str
    view: View
    study: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Patient, study and view, which one picture may have."""
        return self.patient, self.study, self.view


def listed(table: Path) -> list[Picture]:
    """The pictures of a CSV with the columns picture, patient, view and, if need be, study.

    Raises:
        ManifestError: It cannot be read, lacks a column, or a line cannot be meant so.
    """
    require_regular(table, ManifestError)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            if missing := [name for name in ("picture", "patient", "view") if name not in header]:
                fault = f"line 1: no column {', '.join(missing)}"
                raise ManifestError(fault, file=table, remedy="begin with picture,patient,view")
            return [
                _picture(
                    Path((row["picture"] or "").strip()),
                    {name: (row.get(name) or "").strip() for name in ("patient", "view", "study")},
                    ManifestError,
                    table,
                    f"line {reader.line_num}: ",
                )
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        fault = f"it is not a CSV file ({error})"
        raise ManifestError(fault, file=table, remedy="give a comma-separated text") from error
    except OSError as error:
        fault = f"it cannot be read ({error.strerror})"
        raise ManifestError(fault, file=table, remedy="check the path") from error


def named(files: Iterable[Path], pattern: regex.Pattern[str]) -> list[Picture]:
    """The pictures whose path matches a pattern with the groups patient, view and perhaps study.

    Args:
        files: Paths below the folder of the pictures.
        pattern: Searched for in the path, written with forward slashes.

    Raises:
        ScanError: A view has another name than those of `VIEWS`.
        RbsError: The pattern takes too long on a path.
    """
    return [
        _picture(file, match.groupdict(default=""), ScanError, file)
        for file in files
        if (match := search(pattern, file.as_posix()))
    ]


def recover_pictures(
    folder: Path,
    pictures: list[Picture],
    out: Path,
    settings: Settings,
    *,
    workers: int = 2,
    progress: bool = True,
) -> list[Row]:
    """Recover pictures, or go on where an interrupted run stopped.

    A picture is done when its line stands in the receipt and its file in the folder.

    Args:
        folder: Folder that the paths of the pictures begin in.
        pictures: The pictures.
        out: Folder to write: new, empty, or of the same settings.
        settings: Facts that the pictures do not state.
        workers: Processes.
        progress: Show a progress bar.

    Returns:
        The lines of the receipt, in the order of the pictures.

    Raises:
        ManifestError: Two pictures are one view of one study, or would be one file.
        OutputError: `out` holds something else or cannot be written.
    """
    from tqdm import tqdm

    _refuse_twins(pictures)
    asked = {"format": FORMAT, **asdict(settings)}
    claim_folder(out, SETTINGS, asked, other="a recovery with other settings")
    receipt = out / RECEIPT
    done = {row["file"]: row for row in _read_receipt(receipt)}
    rows = {
        picture.file.as_posix(): done[picture.file.as_posix()]
        for picture in pictures
        if _stands(done.get(picture.file.as_posix()), picture, out)
    }
    _write_receipt(receipt, rows.values())  # without the half line of an interrupted run
    jobs = [(folder, picture, out, settings) for picture in pictures if picture.file.as_posix() not in rows]
    bar = tqdm(total=len(pictures), initial=len(rows), unit="picture", disable=not progress)
    with bar, receipt.open("a", newline="", encoding="utf-8", errors=_ANY_NAME, buffering=1) as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        for row in _results(jobs, workers):
            with naming(receipt):
                table.writerow(row)
            rows[row["file"]] = row
            bar.update()
    ordered = [rows[picture.file.as_posix()] for picture in pictures]
    _write_receipt(receipt, ordered)
    return ordered


def output_of(picture: Picture, out: Path) -> Path:
    """The file a picture's counts are written to."""
    return out / picture.file.with_suffix(".dcm")


_Job = tuple[Path, Picture, Path, Settings]


def _results(jobs: list[_Job], workers: int) -> Iterator[Row]:
    """The lines of finished jobs; on an interruption those under way are finished first."""
    if workers == 1 or len(jobs) < 2:
        yield from map(_recover, jobs)
        return
    context = multiprocessing.get_context("spawn")
    waiting = iter(jobs)
    with ProcessPoolExecutor(workers, context, initializer=_leave_interrupts_to_parent) as pool:
        running: set[Future[Row]] = {pool.submit(_recover, job) for job in islice(waiting, 4 * workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
                running |= {pool.submit(_recover, job) for job in islice(waiting, 1)}


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _recover(job: _Job) -> Row:
    """Recover one picture and write its file; what cannot be is a line with the reason."""
    folder, picture, *_ = job
    row = attempt(folder / picture.file, _recovered, job)
    if isinstance(row, RbsError):
        return _begun(picture) | {"verdict": "refused", "reason": f"{row.fault}; {row.remedy}"}
    return row


def _begun(picture: Picture) -> Row:
    """The line of a picture, with nothing known yet of its content."""
    return dict.fromkeys(COLUMNS, "") | {
        "file": picture.file.as_posix(),
        "patient": picture.patient,
        "study": picture.study,
        "view": str(picture.view),
    }


def _recovered(job: _Job) -> Row:
    import numpy as np

    from rbs.scans.dicom.writer import PatientHeader, write_recovered_nm
    from rbs.scans.pictures.counts import read_picture, recover
    from rbs.scans.scan import Scan

    folder, picture, out, settings = job
    path = folder / picture.file
    require_regular(path, ScanError)
    grey = read_picture(path)
    content = path.read_bytes()
    found = recover(grey, inverted=settings.inverted)
    digest = hashlib.sha256(content).hexdigest()
    row = _begun(picture) | {
        "sha256": digest,
        "scale": _number(found.scale, ".5f"),
        "standard_error": _number(found.standard_error, ".1e"),
        "confidence": _number(found.confidence, ".1f"),
        "dispersion": _number(found.dispersion, ".3f"),
        "clipped": _number(found.clipped, ".2e"),
        "cut_low_counts": str(found.cut),
        "ambiguous": _number(found.ambiguous, ".3f"),
        "verdict": "refused" if found.counts is None else "recovered",
        "reason": found.fault,
    }
    if found.counts is None:
        return row
    pixels, spacing = found.counts[None].astype(np.uint16), (settings.spacing_mm, settings.spacing_mm)
    scan = Scan(
        pixels, (picture.view,), spacing, settings.velocity, patient_id=picture.patient, cut=found.cut
    )
    description = (
        f"Counts recovered from an 8-bit picture: grey = {row['scale']} x counts, standard error "
        f"{row['standard_error']}, confidence {row['confidence']}, dispersion {row['dispersion']}, "
        f"{row['clipped']} of the pixels clipped, counts up to {row['cut_low_counts']} cut, "
        f"{row['ambiguous']} of the pixels drawn; SHA-256 of the picture {digest}, of its name "
        f"{hashlib.sha256(os.fsencode(picture.file.name)).hexdigest()[:16]}"
    )
    write_recovered_nm(
        output_of(picture, out),
        scan,
        patient=PatientHeader(picture.patient),
        study_seed=f"picture {picture.patient} {picture.study}",
        uid_seed=f"picture {FORMAT} {digest} {picture.key} {asdict(settings)}",
        description=description,
        jpeg_ratio=grey.size / len(content) if content.startswith(b"\xff\xd8") else None,
        overwrite=True,
    )
    return row | {"counts": str(int(found.counts.sum()))}


def _number(value: float, form: str) -> str:
    """A number for the receipt, empty where there is none."""
    return "" if value != value else format(value, form)


def _picture(
    file: Path, names: dict[str, str], error: type[RbsError], blamed: Path, where: str = ""
) -> Picture:
    view = VIEWS.get(names["view"].lower())
    if view is None:
        fault = f"{where}unknown view '{names['view']}'"
        raise error(fault, file=blamed, remedy=f"use one of {', '.join(VIEWS)}")
    for name in ("patient", "study"):
        text = names.get(name, "")
        if not _NAME.fullmatch(text) and (text or name == "patient"):
            fault = f"{where}its {name} is empty, longer than 60 characters or holds a backslash"
            raise error(fault, file=blamed, remedy="name it otherwise")
    if file.is_absolute() or ".." in file.parts or file == Path():
        fault = f"{where}the picture '{file}' is not named by its path below IN"
        raise error(fault, file=blamed, remedy="write it relative to IN")
    return Picture(file, names["patient"], view, names.get("study", ""))


def _refuse_twins(pictures: list[Picture]) -> None:
    seen: dict[object, Picture] = {}
    for picture in pictures:
        for key, what in (
            (picture.key, "are the same view of one patient and study"),
            (picture.file.with_suffix(""), "would be one file"),
        ):
            other = seen.setdefault(key, picture)
            if other is not picture:
                remedy = "tell them apart by a study, or leave one out"
                raise ManifestError(f"it and {other.file} {what}", file=picture.file, remedy=remedy)


def _read_receipt(receipt: Path) -> list[Row]:
    """The whole lines of a receipt; an interrupted run may have left half of one."""
    if not receipt.exists():
        return []
    with receipt.open(newline="", encoding="utf-8", errors=_ANY_NAME) as file:
        return [row for row in csv.DictReader(file) if None not in row and None not in row.values()]


def _write_receipt(receipt: Path, rows: Iterable[Row]) -> None:
    lines = ([row[name] for name in COLUMNS] for row in rows)
    write_csv(receipt, COLUMNS, lines, errors=_ANY_NAME)


def _stands(row: Row | None, picture: Picture, out: Path) -> bool:
    if row is None or (row["patient"], row["study"], row["view"]) != picture.key:
        return False
    if row["verdict"] == "refused":
        return bool(row["sha256"])  # what could not be read is tried again
    return output_of(picture, out).is_file()
