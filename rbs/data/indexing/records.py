"""Records of DICOM files, by which an index pairs, splits and checks scans without their pixels.

Every file is read once, by two processes, and what was found is kept beside the manifest, a line of
JSON a file, written as the file is read. An interrupted or repeated run goes on from there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import multiprocessing
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.valuerep import DA, TM
from tqdm import tqdm

from rbs.data.manifest import SEXES
from rbs.errors import RbsError
from rbs.scans import acceptance as fit
from rbs.scans import counts
from rbs.scans.acceptance import too_few_counts
from rbs.scans.dicom import files as find
from rbs.scans.dicom import pixels as dicom_pixels
from rbs.scans.dicom import reader as dicom
from rbs.scans.dicom import views as dicom_views
from rbs.scans.dicom.files import is_restored
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import Array, Provenance, Scan, View
from rbs.utils.files import naming, whole_file
from rbs.utils.version import VERSION

GRID = (48, 16)
"""Rows and columns of the pixels noted of a view."""

IN_FLIGHT = 4
"""Files a process is given ahead: it need not wait, and an interrupted run soon ends."""

_DERIVATION = ("DerivationCodeSequence", "DerivationDescription", "SourceImageSequence")
_WHOLE_BODY = ("ScanVelocity", "ScanLength", "WholeBodyTechnique")
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}

# The reader's remedies name options that an index has not.
_REMEDIES = {
    "--view": "name the view of a one-view file with --anterior PATTERN or --posterior PATTERN",
    "--energy-window": "export the window of the 140 keV peak alone",
    "give no view": "narrow --anterior and --posterior to files that do not say, or correct its header",
}

_LOG = logging.getLogger("rbs")


@dataclass(frozen=True)
class FileRecord:
    """A readable file of raw counts, as training would read it.

    Attributes:
        file: The file.
        patient_id: Patient ID; empty without one.
        person: What cannot differ between two files of one patient, if stated: sex, hash of birth
            date.
        study: Study Instance UID.
        instance: SOP Instance UID, empty without one.
        views: One view a frame.
        view_rule: The rule that named them.
        shape: Rows and columns.
        spacing_mm: Row and column spacing, mm.
        velocity: Bed velocity, cm/min; None where the file does not say.
        duration_s: Acquisition time, s; None where the file does not say.
        started: Start of the acquisition; None where the file does not say.
        age_y: Age, years; None where unknown, as all that follow.
        sex: "F", "M" or "O".
        height_cm: Height, cm.
        weight_kg: Weight, kg.
        digests: A hash of the counts of each view.
        cells: The counts of some pixels of each view and the sum of all others, (views, cells).
        derivation: What the header says of a simulated scan's making, as DICOM JSON.
    """

    file: Path
    patient_id: str
    person: tuple[str, str]
    study: str
    instance: str
    views: tuple[View, ...]
    view_rule: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    velocity: float | None
    duration_s: float | None
    started: datetime | None
    age_y: float | None
    sex: str | None
    height_cm: float | None
    weight_kg: float | None
    digests: tuple[str, ...]
    cells: Array = field(repr=False, compare=False)
    derivation: dict[str, Any] = field(repr=False, compare=False)

    @property
    def view_stated(self) -> bool:
        """True if the user named its view."""
        return self.view_rule == "option"

    def outline(self) -> Scan:
        """A scan of `cells` for pixels. Where it is no part of another, neither is the whole."""
        header = Dataset.from_json(self.derivation)
        provenance = Provenance(path=self.file, sop_instance_uid=self.instance or None, header=header)
        return Scan(self.cells[:, None, :], self.views, (1.0, 1.0), provenance=provenance)


@dataclass(frozen=True)
class Refusal:
    """A file that is not indexed.

    Attributes:
        file: The file.
        reason: Why not, as a clause.
        remedy: What to do about it, as a clause.
        lasting: Whether it holds as long as the file does not change.
    """

    file: Path
    reason: str
    remedy: str
    lasting: bool = True


Note = FileRecord | Refusal
_Job = tuple[Path, View | None]


def read_notes(
    files: Sequence[Path], views: Mapping[Path, View], cache: Path, *, workers: int, progress: bool
) -> tuple[list[Note], int]:
    """Records of files, read now or noted by an earlier run of the same rules.

    Args:
        files: The files.
        views: The views of those whose headers may not say.
        cache: Where notes are kept.
        workers: Processes; 1 reads in this one.
        progress: Whether to show a progress bar.

    Returns:
        A note a file, in their order, and how many files were read.

    Raises:
        OutputError: The notes cannot be written.
    """
    keys = {file: _key(file, views.get(file)) for file in files}
    known = _load(cache)
    notes = {file: known[key] for file, key in keys.items() if key in known}
    with whole_file(cache, overwrite=True) as path, path.open("w", encoding="utf-8") as out:
        out.write(json.dumps({"rules": rules()}) + "\n")
        out.writelines(_line(keys[file], note) for file, note in notes.items())
    jobs = [(file, views.get(file)) for file in files if file not in notes]
    with (
        cache.open("a", encoding="utf-8") as out,
        tqdm(total=len(jobs), desc="reading", unit="file", disable=None if progress else True) as bar,
    ):
        for note in _read_all(jobs, min(workers, len(jobs))):
            notes[note.file] = note
            if keys[note.file] is not None and not (isinstance(note, Refusal) and not note.lasting):
                with naming(cache):
                    out.write(_line(keys[note.file], note))
                    out.flush()
            bar.update()
    return [notes[file] for file in files], len(jobs)


def take_note(file: Path, view: View | None = None) -> Note:
    """Read a file as training does and note what it holds, or why it cannot be used.

    Args:
        file: The file.
        view: What it shows, if its header does not say.
    """
    try:
        if is_restored(file):
            return Refusal(file, "rbs wrote it as a restoration", "nothing: only acquired scans are wanted")
        with _quiet():  # what matters of it is told of all files at the end
            scan = read_nm(file, views=None if view is None else (view,))
        if fault := next(too_few_counts(scan, [f"the {view} view" for view in scan.views]), None):
            return Refusal(file, fault, "acquire or export it again")
        return _describe(file, scan)
    except RbsError as error:
        remedy = error.remedy or "leave it out"
        remedy = next((other for option, other in _REMEDIES.items() if option in remedy), remedy)
        lasting = not isinstance(error.__cause__, OSError | MemoryError)
        return Refusal(file, error.fault, remedy, lasting)
    except Exception as error:  # a damaged header surfaces in pydicom as nearly any exception there is
        return Refusal(file, f"its header is damaged ({dicom.first_line(error)})", "export it again")


def rules() -> str:
    """A hash of the code that reads and notes: notes of other code are worth nothing."""
    code = hashlib.sha256(f"{VERSION} {pydicom.__version__}".encode())
    for module in (counts, dicom, dicom_pixels, dicom_views, find, fit, sys.modules[__name__]):
        code.update(inspect.getsource(module).encode())
    return code.hexdigest()


def _describe(file: Path, scan: Scan) -> Note:
    header: Any = scan.provenance.header
    kind = str(header.get("ImageType") or "").upper().replace(" ", "")
    if "WHOLEBODY" not in kind and not any(header.get(keyword) for keyword in _WHOLE_BODY):
        return Refusal(
            file,
            "nothing says that it is a whole-body scan (ImageType, ScanVelocity, ScanLength)",
            "nothing, if it is a spot view; or else write its line into the manifest yourself",
        )
    sex = str(header.get("PatientSex") or "").strip().upper()
    born = str(header.get("PatientBirthDate") or "").strip()
    code = {keyword: header[keyword] for keyword in _DERIVATION if keyword in header}
    derivation = Dataset()
    derivation.update({element.tag: element for element in code.values()})
    return FileRecord(
        file=file,
        patient_id=scan.patient_id.strip(),
        person=(sex if sex in ("F", "M") else "", _short_hash(born)),
        study=str(header.get("StudyInstanceUID") or ""),
        instance=scan.provenance.sop_instance_uid or "",
        views=scan.views,
        view_rule=scan.provenance.view_rule or "",
        shape=scan.shape,
        spacing_mm=scan.spacing_mm,
        velocity=scan.velocity,
        duration_s=scan.duration_s,
        started=_started(header),
        age_y=_age(str(header.get("PatientAge") or "")),
        sex=sex if sex in SEXES else None,
        height_cm=_number(header.get("PatientSize"), 100),
        weight_kg=_number(header.get("PatientWeight"), 1),
        digests=tuple(_digest(frame) for frame in scan.counts),
        cells=_cells(scan.counts),
        derivation=derivation.to_json_dict(),
    )


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def _digest(frame: Array) -> str:
    pixels = np.ascontiguousarray(frame, dtype="<i4").tobytes()
    return hashlib.sha256(f"{frame.shape} ".encode() + pixels).hexdigest()


def _cells(frames: Array) -> Array:
    rows, columns = (
        ((np.arange(min(n, size)) + 0.5) * size / min(n, size)).astype(int)
        for n, size in zip(GRID, frames.shape[1:], strict=True)
    )
    noted = frames[:, rows[:, None], columns].reshape(len(frames), -1)
    others = frames.sum(axis=(1, 2), dtype=np.int64) - noted.sum(axis=1)
    return np.column_stack([noted, others])


def _started(header: Dataset) -> datetime | None:
    for kind in ("Acquisition", "Series"):
        date = header.get(f"{kind}Date") or header.get("StudyDate")
        try:
            day, time = DA(str(date or "")), TM(str(header.get(f"{kind}Time") or ""))
        except ValueError:
            continue
        if day is not None and time is not None:
            return datetime.combine(day, time).replace(microsecond=0)
    return None


def _age(text: str) -> float | None:
    """Years of an age string such as 006Y or 018M."""
    years = _number(text[:-1], _YEARS.get(text[-1:].upper(), 0))
    return None if years is None else round(years, 2)


def _number(value: Any, factor: float) -> float | None:
    """As `positive_number`, without the last digits of a multiplication."""
    number = dicom.positive_number(value, factor)
    return None if number is None else round(number, 4)


@contextmanager
def _quiet() -> Iterator[None]:
    level = _LOG.level
    _LOG.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _LOG.setLevel(level)


def _read_all(jobs: Sequence[_Job], workers: int) -> Iterator[Note]:
    """Notes as they come. A file that kills the process reading it is refused; the others go on."""
    if workers <= 1:
        yield from (take_note(*job) for job in jobs)
        return
    waiting = deque(jobs)
    while waiting:
        flying: dict[Future[Note], _Job] = {}
        try:
            with _processes(workers) as pool:
                while waiting or flying:
                    while waiting and len(flying) < IN_FLIGHT * workers:
                        flying[_submit(pool, waiting[0])] = waiting[0]
                        waiting.popleft()
                    for done in wait(flying, return_when=FIRST_COMPLETED).done:
                        note = done.result()
                        del flying[done]
                        yield note
        except BrokenProcessPool:
            yield from map(_read_alone, flying.values())


def _read_alone(job: _Job) -> Note:
    try:
        with _processes(1) as pool:
            return _submit(pool, job).result()
    except BrokenProcessPool:
        fault = "the process that read it died (out of memory, or a damaged file)"
        return Refusal(job[0], fault, "try again with --workers 1, or export it again", lasting=False)


def _processes(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))


def _submit(pool: ProcessPoolExecutor, job: _Job) -> Future[Note]:
    """Submit a file; processes start here and inherit that an interrupt is for the parent."""
    if threading.current_thread() is not threading.main_thread():
        return pool.submit(take_note, *job)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return pool.submit(take_note, *job)
    finally:
        signal.signal(signal.SIGINT, handler)


_Key = tuple[str, int, int, str]


def _key(file: Path, view: View | None) -> _Key | None:
    """Key of a note; None for a file without access."""
    try:
        state = file.stat()
    except OSError:
        return None
    return str(file.absolute()), state.st_size, state.st_mtime_ns, view or ""


def _load(cache: Path) -> dict[_Key | None, Note]:
    """Notes of earlier runs; those of other rules, and damaged ones, are left out."""
    try:
        lines = cache.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError):
        lines = []
    known: dict[_Key | None, Note] = {}
    damaged = 0
    try:
        if json.loads(lines[0])["rules"] != rules():
            return {}
    except (IndexError, ValueError, KeyError, TypeError):
        _LOG.warning("%s: it is damaged; all files are read again", cache)
        return {}
    for line in lines[1:]:
        try:
            key, note = _parse(line)
            known[key] = note
        except (ValueError, KeyError, TypeError, IndexError):
            damaged += 1
    if damaged:
        _LOG.warning("%s: damaged lines: %d; their files are read again", cache, damaged)
    return known


def _line(key: _Key | None, note: Note) -> str:
    values = {name: value for name, value in asdict(note).items() if name != "file"}
    if isinstance(note, FileRecord):
        values["cells"] = note.cells.tolist()
        values["started"] = note.started and note.started.isoformat()
    return json.dumps({"key": key, "note": values}) + "\n"


def _parse(line: str) -> tuple[_Key, Note]:
    entry = json.loads(line)
    file, size, mtime, view = entry["key"]
    values = entry["note"] | {"file": Path(file)}
    if "reason" in values:
        return (file, size, mtime, view), Refusal(**values)
    for name in ("person", "shape", "spacing_mm", "digests"):
        values[name] = tuple(values[name])
    values["views"] = tuple(View(name) for name in values["views"])
    values["started"] = values["started"] and datetime.fromisoformat(values["started"])
    values["cells"] = np.array(values["cells"])
    return (file, size, mtime, view), FileRecord(**values)
